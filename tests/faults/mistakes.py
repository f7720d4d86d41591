"""How a command must meet wrong input: one clear line on stderr, exit code 2, no traceback, bounded in length."""

from collections.abc import Callable

import pytest

from tests.commands import run

LONGEST = 2100  # characters of one line


def refusal(main: Callable, *argv: object, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command with wrong input in this process; return its error line, checked to be what a user can read."""
    capsys.readouterr()
    try:
        code = run(main, *argv)
    except SystemExit as ended:  # of argparse
        code = ended.code
    captured = capsys.readouterr()
    assert code == 2, f"exit code {code}: {captured.err[-2000:]}"
    assert "Traceback" not in captured.err + captured.out
    lines = captured.err.strip().splitlines()
    start = max(number for number, line in enumerate(lines) if line.startswith("error: "))
    assert all(len(line) <= LONGEST and line.isprintable() for line in lines[start:])
    return "\n".join(lines[start:])
