"""Text files that a user hands in: UTF-8 with or without a byte order mark, and one clear error for anything else."""

from collections.abc import Iterator
from pathlib import Path

from utils.errors import DataError
from utils.paths import existing_file

MAX_LINE = 65536  # characters: longer, it is no line of text


def read_text(path: str | Path, what: str = "", error: type[ValueError] = DataError) -> str:
    """Return the text of a file without its byte order mark; `what` opens the errors about its absence.

    Raises `error`, with the line, where the file is not UTF-8, holds a NUL character or a line over MAX_LINE.
    """
    path = existing_file(path, what, error)
    try:
        content = path.read_bytes()
    except OSError as refused:
        raise error(f"{path}: cannot be read ({refused.strerror}); check its permissions") from refused
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as refused:
        line = content.count(b"\n", 0, refused.start) + 1
        raise error(f"{path}:{line}: not UTF-8 text ({refused.reason}); save the file as UTF-8") from refused
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise error(f"{path}:{line}: holds a NUL character, so it is no text (UTF-16?); save the file as UTF-8")
    for number, line in enumerate(text.split("\n"), start=1):
        if len(line) > MAX_LINE:
            raise error(f"{path}:{number}: a line of {len(line):,} characters; no line may exceed {MAX_LINE:,}")
    return text


def numbered_lines(path: str | Path, what: str = "") -> Iterator[tuple[str, str]]:
    """Yield ("file:line", text without its end) of every line that is not blank; errors as `read_text`."""
    for number, line in enumerate(lines_of(path, what), start=1):
        if line.strip():
            yield f"{path}:{number}", line


def lines_of(path: str | Path, what: str = "") -> list[str]:
    """Return all lines of a text file without their ends; errors as `read_text`."""
    return read_text(path, what).replace("\r\n", "\n").replace("\r", "\n").split("\n")  # a name may hold U+2028
