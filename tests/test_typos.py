"""A typo in any flag, key, recipe, run or command of the pages' commands is one error that ends with code 2."""

import re
from functools import cache
from pathlib import Path

import pytest

from tests.pages import PAGES, ROOT, blocks_of, words_of
from tests.test_docs_commands import main_of, target_of
from utils.errors import USER_ERROR_CODE, run_command

NOT_OURS = ("needs network", "test command")
MISSED = ("--text", "DISTILL.TEACHER_RUN")  # a sentence; a run that the launch itself may train
PYTHON = re.compile(r"(\S*/)?(python3?|torchrun) ")
MISSPELT = re.compile(
    r"--[a-z][\w-]{3,}|[A-Z]+(?:\.[A-Z0-9_]+)+|configs/\S+\.yml|logs/\S+_run|ranks|attention|parts|words"
)


def misspelt(word: str) -> str:
    """Return a word with two letters of its middle exchanged, or where they are equal with one of them."""
    end = len(word) - len(Path(word).suffix)
    middle = max(end - 3, 2)
    swapped = word[:middle] + word[middle + 1] + word[middle] + word[middle + 2 :]
    return swapped if swapped != word else word[:middle] + word[middle + 1 :]


@cache
def mistakes() -> list[tuple[str, tuple[str, ...]]]:
    """Return commands, each a script or module and its arguments with one typo; each word of a script once."""
    seen, found = set(), []
    blocks = [block for page in PAGES for block in blocks_of(page) if block.mark not in NOT_OURS]
    lines = [line for block in blocks if block.language == "bash" for line in block.commands]
    for command in (part for line in lines for part in line.split(" && ") if PYTHON.match(part)):
        target, words = target_of(words_of(command)[1:])
        for place, word in enumerate(words):
            known = target == "pytest" or (target, words[0], word) in seen or words[max(place - 1, 0)] in MISSED
            if MISSPELT.fullmatch(word) and not known:
                seen.add((target, words[0], word))
                found.append((target, (*words[:place], misspelt(word), *words[place + 1 :])))
    return found


@pytest.mark.parametrize("target", sorted({target for target, _ in mistakes()}))
def test_a_typo_is_one_error_and_nothing_is_written(target, tmp_path, monkeypatch, capsys):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    for words in [words for own, words in mistakes() if own == target]:
        try:
            code = run_command(main_of(target), list(words))
        except SystemExit as ended:  # argparse's way
            code = ended.code
        said = capsys.readouterr().err.splitlines()
        assert code == USER_ERROR_CODE and said[0].startswith("error: "), (words, said)
        assert all(line.startswith("  ") for line in said[1:]), (words, said)  # several mistakes, one a line
        assert [path.name for path in tmp_path.iterdir()] == ["configs"], words
