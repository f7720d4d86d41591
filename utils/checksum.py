"""Checksums of text that is read back: damage that leaves a file readable shows."""

import json
import zlib
from typing import Any

KEY = "crc32"  # the last entry of a sealed object


def checksum(text: str | bytes) -> str:
    """Return the CRC-32 of text (UTF-8) or bytes as 8 hexadecimal digits."""
    return f"{zlib.crc32(text.encode() if isinstance(text, str) else text):08x}"


def sealed(content: dict[str, Any], indent: int | None = None) -> str:
    """Return `content` as JSON, in one line without `indent`, whose last entry is the checksum of the line before it.

    Keys that are no text become text, as in all JSON.
    """
    text = json.dumps(content)
    return json.dumps({**json.loads(text), KEY: checksum(text)}, indent=indent)


def unsealed(text: str) -> dict[str, Any]:
    """Return what `sealed` was given; of older files, which have no checksum, what is there.

    Raises ValueError for what is damaged, or no object.
    """
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if not isinstance(content, dict):
        raise ValueError("no object")
    *others, last = content or [""]
    rest = {name: content[name] for name in others}
    matches = bool(content) and content[last] == checksum(json.dumps(rest))
    if (KEY in content) != matches or (matches and last != KEY):  # the damage may be in the checksum's own name
        raise ValueError("damaged: its checksum is another")
    return rest if matches else content
