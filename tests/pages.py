"""README.md and docs/ with its tutorials as text: their code blocks, the commands in them, their headings and links."""

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
PAGES = [README, *sorted((ROOT / "docs").glob("*.md")), *TUTORIALS]
EVERY_PAGE = [*PAGES]  # with those outside docs/, and of results
for folder, pattern in (
    (ROOT, "*.md"),
    (ROOT / "docs", "**/*.md"),
    (ROOT / "benchmarks", "*.md"),
    (ROOT / ".github", "**/*.md"),
):
    EVERY_PAGE += sorted({*folder.glob(pattern)} - {*EVERY_PAGE})
CODE_TUTORIALS = [page for page in TUTORIALS if page.stem in ("new_loss", "new_data_set")]  # add code to the project
MARKS = {  # of blocks that a test cannot run as they stand
    "test command",  # is what runs the tests
    "needs network",
    "needs data",
    "needs data and GPUs",
    "takes minutes",
    "needs a login",  # at a hub
    "needs a run",  # a finished one of an earlier command on the page
}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """One fenced block: its language, the comment on the line before it ('' = none) and its text."""

    language: str
    mark: str
    text: str

    @property
    def commands(self) -> list[str]:
        """The command lines of a bash block, each with its continued lines."""
        return [line for line in self.text.replace("\\\n", " ").splitlines() if line.strip()]


def ids(pages: list[Path]) -> list[str]:
    """Return the pages' paths as names of tests."""
    return [page.relative_to(ROOT).as_posix() for page in pages]


def text_of(page: Path) -> str:
    """Return the text of a page."""
    return page.read_text(encoding="utf-8")


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    text, blocks = text_of(page), []
    for match in FENCE.finditer(text):
        before = text[: match.start()].splitlines()
        mark = re.fullmatch(r"<!-- (.*) -->", before[-1] if before else "")
        blocks.append(Block(match[1], mark[1] if mark else "", match[2]))
    return blocks


def prose_of(page: Path) -> str:
    """Return the text of a page without its fenced blocks."""
    return FENCE.sub("", text_of(page))


def words_of(command: str, folder: Path = ROOT) -> list[str]:
    """Return the words of a command as bash expands them in `folder`: quotes, braces, names of files."""
    ran = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], cwd=folder, capture_output=True, check=True)
    return ran.stdout.decode().split("\0")[:-1]


def inline_commands(page: Path) -> list[str]:
    """Return what stands between single backticks and starts a Python command, `\\|` of tables taken back."""
    found = re.findall(r"(?<!`)`((?:python|torchrun) [^`]+)`(?!`)", prose_of(page))
    return [" ".join(command.replace("\\|", "|").split()) for command in found]


def headings_of(page: Path) -> list[tuple[int, str]]:
    """Return (level, text) of the headings of a page."""
    return [(len(marks), text) for marks, text in re.findall(r"^(#+) (.+)$", prose_of(page), re.MULTILINE)]


def anchor_of(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def links_of(page: Path) -> list[str]:
    """Return the targets of all links and pictures of a page, those to the network left out."""
    targets = re.findall(r"\]\(([^)\s]+)\)", prose_of(page))
    return [target for target in targets if not target.startswith(("http://", "https://"))]
