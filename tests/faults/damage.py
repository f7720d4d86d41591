"""Damaged copies of a file: cut short, a bit flipped, a block lost, something else in its place."""

import random
from collections.abc import Callable, Iterator

from utils.errors import ConfigError, DataError


def damaged(content: bytes, flips: int, seed: int = 0) -> Iterator[bytes]:
    """Yield `flips` copies with one bit changed, and a few cut short, with zeros, longer, empty, or no such file."""
    draw = random.Random(seed)
    for _ in range(flips):
        place = draw.randrange(len(content))
        yield content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]
    for _ in range(max(2, flips // 10)):
        place = draw.randrange(len(content))
        yield content[:place]
        yield content[:place] + bytes(len(content) - place)  # what a disk leaves of a file that it lost
        yield content[:place] + content[place + 1 :]
    yield from (
        b"",
        b"\n",
        b"\0" * 64,
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe\x00",
        b"[" * 5000,
        b"1" * 5000,
        b'{"a": 1e999}',
    )


def outcome(read: Callable[[], object]) -> tuple[str, object]:
    """Return ("read", value), or ("refused", message) for a user's error; any other exception is a bug and rises."""
    try:
        return "read", read()
    except (ConfigError, DataError) as error:
        return "refused", str(error)
