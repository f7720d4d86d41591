"""What a launch shows of its children: warnings once, progress as a bar or few lines, errors only in the end."""

import io
import json
import sys

import pytest

from tools.launch import screen as screen_module
from tools.launch.screen import LEAST_GAP_S, LINES_A_WORK, Listener, Screen
from tools.launch.seed import error_in
from utils.progress import MARK, QUIET, VERBOSE, Told


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def line_of(*told: object) -> str:
    return MARK + json.dumps(Told(*told))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(screen_module, "monotonic", lambda: now[0])
    return now


def listen(verbose: bool = False, name: str = "seed 0") -> Listener:
    return Screen(verbose).listen(name)


def test_a_warning_that_several_children_print_is_shown_once_and_all_lines_where_all_is_shown(capsys):
    for verbose, count in ((False, 1), (True, 2)):
        screen = Screen(verbose)
        for _ in range(2):
            screen.listen("x").hear("WARNING: dark")
        assert capsys.readouterr().out == "WARNING: dark\n" * count


def test_the_child_is_told_what_its_terminal_shows():
    assert (listen().shows, listen(verbose=True).shows) == (QUIET, VERBOSE)


def test_what_a_child_says_on_stderr_is_kept_without_its_progress(capsys):
    listener = listen()
    for line in ("UserWarning: x", line_of("embed", 1, 2), "error: wrong"):
        listener.hear_error(line)
    assert listener.said == "UserWarning: x\nerror: wrong" and capsys.readouterr() == ("", "")


def test_a_long_work_without_a_terminal_has_at_most_ten_lines_with_the_time_left(capsys, clock):
    listener = listen()
    for done in range(1001):
        listener.hear_error(line_of(f"epoch {done // 10}/100", done, 1000, "loss 1.5"))
        clock[0] += 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == LINES_A_WORK - 1  # its end is said by the launch
    assert lines[0] == "seed 0, epoch 10/100: 10 %, loss 1.5, about 0:15:00 left"
    assert lines[-1] == "seed 0, epoch 90/100: 90 %, loss 1.5, about 0:01:40 left"


def test_a_short_work_has_none_and_lines_have_a_gap(capsys, clock):
    listener = listen()
    for _ in range(50):
        for done in range(11):
            listener.hear_error(line_of("embed", done, 10))
            clock[0] += LEAST_GAP_S / 20
    assert capsys.readouterr() == ("", "")


def test_a_continued_work_begins_to_count_where_it_is(capsys, clock):
    listener = listen()
    for done in (50, 51, 60):
        listener.hear_error(line_of("epoch", done, 100))
        clock[0] += 40
    assert capsys.readouterr().out == "seed 0, epoch: 60 %, about 0:05:20 left\n"


def test_a_terminal_shows_one_bar_that_goes_with_the_child(monkeypatch, capsys):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    listener = listen()
    for told in (("embed", 5, 10), ("epoch 3/30", 50, 600), ("epoch 3/30", 60, 600, "loss 1.5, 99 images/s")):
        listener.hear_error(line_of(*told))
    states = [state for state in stream.getvalue().split("\r") if state.strip()]
    assert states[0].startswith("seed 0, embed:  50%|") and states[-1].startswith("seed 0, epoch 3/30:  10%|")
    assert states[-1].rstrip().endswith("loss 1.5, 99 images/s") and "\n" not in stream.getvalue()
    listener.close()
    assert not stream.getvalue().split("\r")[-2].strip() and capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("UserWarning: x\nerror: wrong\n  2 of 3\n  more\nW0101 torchrun\nTraceback", "error: wrong\n  2 of 3\n  more"),
        ("error: a\nerror: a\nerror: b", "error: a\nerror: b"),
        ("Traceback (most recent call last):\n  File x\nValueError: bug", None),
        ("", ""),
    ],
)
def test_the_error_is_ours_without_what_others_print_around_it_or_the_whole_traceback(said, error):
    assert error_in(said) == (said if error is None else error)
