"""Work beside the training: in order, one at a time, and its errors reach the caller."""

import threading

import pytest

from utils.background import Background
from utils.errors import RunError


def test_the_caller_goes_on_while_an_act_runs():
    background, release = Background(), threading.Event()
    done = []
    background.start(lambda: (release.wait(10), done.append(1)))
    assert not done  # else start would have waited for an event that nobody sets
    release.set()
    background.close()
    assert done == [1]


def test_an_act_begins_when_the_one_before_has_ended():
    background, running, most = Background(), [], []

    def act(number: int) -> None:
        running.append(number)
        most.append(len(running))
        running.remove(number)

    for number in range(20):
        background.start(lambda number=number: act(number))
    background.close()
    assert most == [1] * 20


@pytest.mark.parametrize("method", ["wait", "close", "start"])
def test_an_error_is_raised_to_the_caller_once(method):
    background = Background()

    def refuse() -> None:
        raise RunError("no room")

    background.start(refuse)
    with pytest.raises(RunError, match="no room"):
        getattr(background, method)(*[lambda: None] * (method == "start"))
    background.close()
