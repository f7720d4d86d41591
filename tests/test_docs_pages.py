"""No command on any page slips past the tests that run commands: fences, indented lines, sentences, recipes."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from configs import get_cfg_defaults, load_cfg
from tests.pages import EVERY_PAGE, FENCE, ROOT, blocks_of, ids, inline_commands, prose_of, text_of
from tools.launch.arguments import parse_args
from utils.commands import config_parser

LANGUAGES = {"", "text", "bash", "sh", "python", "py", "diff", "bibtex"}  # py: by tests/tools/test_tracker_page.py
PROGRAMS = r"(?:\$ )?(?:\S*/)?(?:python3?|torchrun|pip|bash|sh|sbatch|srun|docker|mkdocs|ruff|pytest|git|hf|pre-commit)"
COMMAND = re.compile(rf"^\s*{PROGRAMS} (?=[\w./-])")
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
KEY = re.compile(r"[A-Z][A-Z0-9_]*(?:\.[A-Z0-9_]+)+")
REQUIREMENTS = "".join(path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("requirements*.txt")))


def lines_of(text: str, pattern: re.Pattern) -> list[str]:
    """Return the lines that match."""
    return [line for line in text.splitlines() if pattern.match(line)]


@pytest.mark.parametrize("page", EVERY_PAGE, ids=ids(EVERY_PAGE))
def test_every_fence_is_one_that_the_tests_read(page):
    fence = re.compile(r"^\s*(?:>\s*)*(?:```|~~~)")
    assert lines_of(FENCE.sub("", text_of(page)), fence) == []
    assert {block.language for block in blocks_of(page)} <= LANGUAGES


@pytest.mark.parametrize("page", EVERY_PAGE, ids=ids(EVERY_PAGE))
def test_commands_stand_in_blocks_that_are_run_or_in_backticks(page):
    if page.name != "troubleshooting.md":  # whose blocks are messages, held to the code by a test of their own
        printed = "".join(block.text for block in blocks_of(page) if block.language in ("", "text"))
        assert lines_of(printed, COMMAND) == []
    outside = re.sub(r"`[^`]*`", "``", prose_of(page))
    assert [line for line in lines_of(outside, COMMAND) if re.match(r"^(?: {4}|\t|\s*\$ )", line)] == []
    assert [block for block in blocks_of(page) if block.language == "sh" and page.name != "cluster.md"] == []


def inline_words(page: Path) -> Iterator[list[str]]:
    """Yield the words of what stands in backticks."""
    for text in INLINE.findall(prose_of(page)):
        yield text.replace("\\|", "|").split()


@pytest.mark.parametrize("page", EVERY_PAGE, ids=ids(EVERY_PAGE))
def test_packages_in_sentences_are_required_or_named_by_the_code_that_needs_them(page):
    installed = [words[2:] for words in inline_words(page) if words[:2] == ["pip", "install"]]
    packages = [word for words in installed for word in words if re.match(r"[a-z]", word) and "." not in word]
    code = [path for top in ("tools", "model", "utils", "configs") for path in (ROOT / top).rglob("*.py")]
    for package in packages:
        wanted = rf"\b{re.escape(package)}\b"
        assert re.search(wanted, REQUIREMENTS) or any(re.search(wanted, text_of(path)) for path in code), package


@pytest.mark.parametrize("page", EVERY_PAGE, ids=ids(EVERY_PAGE))
def test_keys_of_commands_in_sentences_exist(page):
    cfg = get_cfg_defaults()
    for command in inline_commands(page):
        for key in (word for word in command.split() if KEY.fullmatch(word)):
            node = cfg
            for part in key.split("."):
                assert part in node, f"{page.name}: {key}"
                node = node[part]


RECIPES = {
    path: command
    for path in sorted((ROOT / "configs").rglob("*.yml"))
    for command in re.findall(r"^# Run: (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)[:1]
}


def test_nearly_every_recipe_says_how_it_is_run():
    without = [path.name for path in (ROOT / "configs").rglob("*.yml") if path not in RECIPES and path.name[0] != "_"]
    assert without == []


def test_the_command_of_a_recipe_names_that_recipe_and_flags_that_exist(monkeypatch):
    monkeypatch.chdir(ROOT)
    for path, command in RECIPES.items():
        own, words = path.relative_to(ROOT).as_posix(), shlex.split(command)
        if words[0] == "torchrun":
            args = get_args_parser().parse_args(words[1:])
            own_args = config_parser(args.training_script, "").parse_args(args.training_script_args)
            assert own_args.config_file == own and load_cfg(own, own_args.opts).MODEL.DIST_TRAIN
        else:
            assert words[:2] == ["python", "run_phased_loss.py"], path
            args = parse_args(words[2:])
            assert args.config == [[own]], path
            load_cfg(own, args.opts)
