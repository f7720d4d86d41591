"""Work beside the training: in order, one at a time, and its errors reach the caller."""

import threading
import time

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


def test_an_error_shows_as_soon_as_the_act_has_ended():
    background, release = Background(), threading.Event()

    def refuse() -> None:
        release.wait(10)
        raise RunError("no room")

    background.start(refuse)
    background.check()  # it runs still
    release.set()
    with pytest.raises(RunError, match="no room"):
        for _ in range(10_000):
            background.check()
            time.sleep(0.001)
    background.close()


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_the_error_of_a_block_goes_before_that_of_an_act(error, caplog):
    release = threading.Event()

    def refuse() -> None:
        release.wait(10)
        raise RunError("no room")

    with pytest.raises(error), Background() as background:
        background.start(refuse)
        release.set()
        raise error
    assert "no room" in caplog.text
