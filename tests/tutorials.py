"""What a tutorial does to the code: new files and edits of a page, and its commands in one process.

A block after `<!-- file: PATH -->` is a file. One after `<!-- edit: PATH -->` is a diff: its lines, but for the new
ones, stand once in that file, and are replaced by its lines with the new ones.
"""

import runpy
import sys
from importlib import import_module
from pathlib import Path

import pytest

from tests.pages import blocks_of, words_of
from utils.errors import run_command


def apply_code(page: Path, folder: Path) -> None:
    """Write the files and make the edits of a page in a copy of the project; AssertionError where one does not fit."""
    for block in blocks_of(page):
        kind, _, name = block.mark.partition(": ")
        if kind == "file":
            assert not (folder / name).exists(), f"{page.name}: {name} is there already"
            (folder / name).write_text(block.text, encoding="utf-8")
        elif kind == "edit":
            lines = block.text.splitlines()
            old, new = ("".join(f"{line[1:]}\n" for line in lines if line[:1] != sign) for sign in "+-")
            text = (folder / name).read_text(encoding="utf-8")
            assert text.count(old) == 1, f"{page.name}: {name} has {text.count(old)} times:\n{old}"
            (folder / name).write_text(text.replace(old, new), encoding="utf-8")


def run_page(page: Path) -> None:
    """Run here what a page has beyond its edits: its code and commands; AssertionError where one fails."""
    for block in blocks_of(page):
        if block.language == "python" and not block.mark:
            Path("block.py").write_text(block.text, encoding="utf-8")
            runpy.run_path("block.py", run_name="__main__")
        for command in block.commands if block.language == "bash" else ():
            _, *words = words_of(command, Path.cwd())
            print(f"$ {command}", flush=True)
            if words[:2] == ["-m", "pytest"]:
                code = pytest.main([*words[2:], "-p", "no:cacheprovider"])
            else:
                name, *arguments = words[1:] if words[0] == "-m" else words
                code = run_command(import_module(name.removesuffix(".py")).main, arguments)
            assert code == 0, command


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        run_page(Path(argument))
