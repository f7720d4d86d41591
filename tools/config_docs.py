"""All configuration keys as one page: python -m tools.config_docs [--out docs/config.md]"""

from utils.interrupts import take_over

if __name__ == "__main__":
    take_over()  # Ctrl-C, before the imports that take time

import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from configs.keys import KEYS, SECTIONS
from configs.keys.key import Key
from utils.atomic import write_text_atomic
from utils.commands import OneLineParser, path_flag
from utils.errors import run_command

HEAD = """# All configuration keys

Made by `python -m tools.config_docs --out docs/config.md` from `configs/keys`; change it there.

A key stands in a YAML (`SOLVER:` and below it `MAX_EPOCHS: 60`) or at the end of a command (`SOLVER.MAX_EPOCHS 60`). A
value outside *allowed* ends in one line that says so. *Affects* says what is another one under another value:

- training: a run does not go on with it, and a launch does not take its folder for its own;
- embedding: the same weights embed an image otherwise: a search index is made anew, and a test by other settings than
  those of the training warns;
- ranking: the test of a checkpoint is run again;
- place: where files of one machine lie, no part of a recipe;
- `-`: none of these.
"""
LEGACY_HEAD = "## Legacy keys\n\nA YAML may have them, and nothing reads them.\n"
TYPES = {bool: "`True`, `False`", int: "whole number", float: "number", str: "text"}  # of a default -> what it may be
MARKUP = re.compile(r"([|*<])")  # would end a cell, or mean something in Markdown


def main(argv: list[str] | None = None) -> int:
    """Print the page, or write it where --out says. Returns the exit code 0."""
    parser = OneLineParser(prog="python -m tools.config_docs", description="Print all configuration keys as Markdown.")
    parser.add_argument("--out", type=path_flag, metavar="FILE", help="write the page here instead")
    args = parser.parse_args(argv)
    if args.out is None:
        print(page(), end="")
        return 0
    from utils.run_folder import make_place

    write_text_atomic(make_place(args.out, "--out"), page())
    return 0


def page() -> str:
    """Return the page: one table a section, each key once, the legacy keys at the end."""
    legacy = [name for name in KEYS if KEYS[name].instead]
    parts = [HEAD, ", ".join(f"[{title(section)}](#{anchor(section)})" for section in SECTIONS) + "\n"]
    for section, words in SECTIONS.items():
        names = [name for name in KEYS if name.rpartition(".")[0] == section and name not in legacy]
        rows = [key_row(name, KEYS[name]) for name in names]
        level = "###" if "." in section else "##"
        heads = ("key", "default", "allowed", "affects", "meaning")
        parts.append(f"{level} {title(section)}\n\n{escaped(words)}\n\n{table(heads, rows)}")
    rows = [(f"`{name}`", value(KEYS[name].default), escaped(KEYS[name].instead)) for name in legacy]
    parts.append(f"{LEGACY_HEAD}\n{table(('key', 'default', 'instead'), rows)}")
    return "\n".join(parts)


def key_row(name: str, key: Key) -> tuple[str, ...]:
    """Return the cells of one key."""
    allowed = allowed_values(key) + (f" ({escaped(key.why)})" if key.why else "")
    return f"`{name}`", value(key.default), allowed, ", ".join(key.affects) or "-", escaped(key.words)


def allowed_values(key: Key) -> str:
    """Return what a value may be: choices or bounds, those of the items where it is a list."""
    is_list = isinstance(key.default, (list, tuple))
    if key.choices:
        allowed = ", ".join(value(choice) for choice in key.choices)
    elif key.low is not None:
        allowed = f"{TYPES[type(key.item)]}, {key.low:g} to {key.high:.12g}"
    else:
        allowed = TYPES[type(key.item)]
    if not is_list:
        return allowed
    return f"{key.length} times: {allowed}" if key.length else f"any number of: {allowed}"


def value(default: Any) -> str:
    """Return a value as a YAML has it, in code."""
    if isinstance(default, (list, tuple)):
        return f"`[{', '.join(map(str, default))}]`"
    return f"`{default}`" if default != "" else "`''`"


def title(section: str) -> str:
    """Return the heading of a section."""
    return section or "Outside sections"


def anchor(section: str) -> str:
    """Return the link target that GitHub gives the heading of a section."""
    return title(section).lower().replace(".", "").replace(" ", "-")


def escaped(words: str) -> str:
    """Return plain words as Markdown."""
    return MARKUP.sub(r"\\\1", words)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    sys.exit(run_command(main))
