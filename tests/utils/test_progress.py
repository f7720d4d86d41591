"""Bars where there is a terminal, lines for a launcher that asks for them, else nothing; no bar beside an error."""

import io
import logging
import sys
from collections.abc import Callable

import pytest

from utils import progress as progress_module
from utils.errors import ConfigError, RunError, run_command
from utils.logger import setup_logger
from utils.progress import MARK, QUIET, SHOWS, VERBOSE, Told, over, progress, told_by


class Terminal(io.StringIO):
    """A stream that is a terminal; `shown` is what stands on its lines in the end."""

    def isatty(self) -> bool:
        return True

    @property
    def shown(self) -> list[str]:
        lines = []
        for line in self.getvalue().split("\n"):
            cells: list[str] = []
            for state in line.split("\r"):
                cells[: len(state)] = state
            lines.append("".join(cells).rstrip())
        return lines


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (SHOWS, "RANK"):
        monkeypatch.delenv(name, raising=False)


def make_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Make stderr and stdout one terminal, in the test itself: pytest sets them anew after its fixtures."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "stdout", stream)
    return stream


def work(fails: Exception | None = None) -> list[int]:
    done = []
    for item in over(range(3), "count", "item"):
        done.append(item)
        if fails is not None and item == 1:
            raise fails
    return done


def test_without_a_terminal_nothing_is_shown_and_all_items_come(capfd):
    assert work() == [0, 1, 2]
    assert capfd.readouterr() == ("", "")


def test_a_terminal_shows_a_bar_that_is_gone_in_the_end(monkeypatch):
    terminal = make_terminal(monkeypatch)
    assert work() == [0, 1, 2]
    assert "count:" in terminal.getvalue() and terminal.shown == [""]


def test_other_processes_than_the_first_show_nothing(monkeypatch):
    terminal = make_terminal(monkeypatch)
    monkeypatch.setenv("RANK", "1")
    assert work() == [0, 1, 2] and terminal.getvalue() == ""


@pytest.mark.parametrize("shows", [QUIET, VERBOSE])
def test_a_launcher_is_told_the_start_and_the_end_in_lines(capsys, monkeypatch, shows):
    monkeypatch.setenv(SHOWS, shows)
    with progress("epoch 2/3", 30, start=10) as bar:
        bar.set_postfix_str("loss 1.5")
        for _ in range(10):
            bar.update()
    lines = capsys.readouterr().err.splitlines()
    assert [told_by(line) for line in lines] == [Told("epoch 2/3", 10, 30), Told("epoch 2/3", 20, 30, "loss 1.5")]


def test_between_them_it_is_told_at_times_alone(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setenv(SHOWS, QUIET)
    monkeypatch.setattr(progress_module, "monotonic", lambda: now[0])
    with progress("embed", 100) as bar:
        for _ in range(100):
            now[0] += progress_module.PERIOD_S / 10
            bar.update()
    told = [told_by(line).done for line in capsys.readouterr().err.splitlines()]
    assert told[0] == 0 and told[-1] == 100 and 9 <= len(told) <= 12


def test_a_launcher_that_is_gone_stops_nothing(monkeypatch):
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setenv(SHOWS, QUIET)
    monkeypatch.setattr(sys, "stderr", Gone())
    assert work() == [0, 1, 2]


@pytest.mark.parametrize("line", ["", "text", f"{MARK}", f"{MARK}[1", f"{MARK}3", f"{MARK}[1, 2, 3, 4, 5]"])
def test_any_other_line_tells_of_no_progress(line):
    assert told_by(line) is None


def test_a_line_of_the_log_does_not_end_in_a_bar(monkeypatch):
    terminal = make_terminal(monkeypatch)
    setup_logger(None)
    try:
        for _ in over(range(2), "count"):
            logging.getLogger("x").info("a line")
    finally:
        logging.getLogger().handlers[-1].close()
        logging.getLogger().removeHandler(logging.getLogger().handlers[-1])
    assert [line[-7:] for line in terminal.shown] == [" a line", " a line", ""]


@pytest.mark.parametrize(("error", "code"), [(ConfigError("wrong"), 2), (RunError("ended"), 1), (OSError("full"), 1)])
def test_an_error_is_the_last_thing_on_a_terminal_that_showed_a_bar(monkeypatch, error, code):
    terminal = make_terminal(monkeypatch)
    assert run_command(lambda argv: len(work(error))) == code
    assert "count:" in terminal.getvalue() and terminal.shown[-2].startswith("error: ") and terminal.shown[-1] == ""
    assert len(terminal.shown) == 2


def test_of_a_mistake_of_ours_no_bar_stands_before_the_traceback(monkeypatch):
    terminal = make_terminal(monkeypatch)

    def main(argv: list[str] | None) -> int:
        return len(work(ValueError("a bug")))

    with pytest.raises(ValueError, match="a bug"):
        run_command(main)
    assert terminal.shown == [""]


def quiet_log(capsys: pytest.CaptureFixture[str], log: Callable[[logging.Logger], None]) -> str:
    """Return what a log shows on stdout whose lines `log` writes."""
    setup_logger(None)
    try:
        log(logging.getLogger("x"))
    finally:
        logging.getLogger().removeHandler(logging.getLogger().handlers[-1])
    return capsys.readouterr().out


@pytest.mark.parametrize(("shows", "lines"), [(QUIET, ["WARNING: two"]), (VERBOSE, ["one", "two"])])
def test_a_child_of_a_quiet_launch_shows_warnings_alone(capsys, monkeypatch, shows, lines):
    monkeypatch.setenv(SHOWS, shows)

    def log(logger: logging.Logger) -> None:
        logger.info("one")
        logger.warning("two")

    shown = quiet_log(capsys, log).splitlines()
    assert len(shown) == len(lines) and all(a.endswith(b) for a, b in zip(shown, lines, strict=True))
