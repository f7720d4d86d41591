"""README.md and docs/: links, names of files, figures and limits hold, and no name of a former place is left."""

import re
from pathlib import Path

import pytest

from tests.pages import (
    EVERY_PAGE,
    MARKS,
    PAGES,
    README,
    ROOT,
    TUTORIALS,
    anchor_of,
    blocks_of,
    headings_of,
    ids,
    links_of,
    prose_of,
    text_of,
)

LINKED = [*PAGES, ROOT / "benchmarks" / "README.md"]
README_LINES = 250
PACKAGES = ("configs", "datasets", "losses", "model", "processor", "solver", "tools", "utils")
FOLDERS = (*PACKAGES, "benchmarks", "tests", "docs")
FORMER = (  # what moved: packages that hold no command, modules under names that they no longer have
    *(rf"python3? -m {package}\b" for package in ("utils", "datasets")),
    *(rf"\bdatasets[./]{name}\b" for name in ("check", "drawing")),
    r"\butils/launch_|\butils\.launch_",
    *(rf"\butils[./]{name}\b" for name in ("ablation", "compare", "experiment", "export", "extract", "index")),
    *(rf"\butils[./]{name}\b" for name in ("feature_extractor", "report", "search", "summary", "visualize")),
)


def section(page: Path, title: str) -> str:
    """Return the prose under a heading of the second level."""
    return prose_of(page).partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def figures(text: str) -> list[str]:
    """Return the numbers in a text, links and names in backticks left out."""
    return re.findall(r"\d[\d,.]*\d|\d", re.sub(r"\]\([^)]*\)|`[^`]*`", "", text))


def test_the_readme_is_short():
    assert len(text_of(README).splitlines()) <= README_LINES


@pytest.mark.parametrize("page", LINKED, ids=ids(LINKED))
def test_every_link_leads_somewhere(page):
    dead = []
    for target in links_of(page):
        name, _, anchor = target.partition("#")
        other = (page.parent / name).resolve() if name else page
        if not other.exists() or (anchor and anchor not in {anchor_of(text) for _, text in headings_of(other)}):
            dead.append(target)
    assert dead == []


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_no_two_headings_share_an_anchor(page):
    anchors = [anchor_of(text) for _, text in headings_of(page)]
    assert sorted(set(anchors)) == sorted(anchors)


WITH_CONTENTS = [page for page in PAGES if page.name != "config.md"]


@pytest.mark.parametrize("page", WITH_CONTENTS, ids=ids(WITH_CONTENTS))
def test_the_table_of_contents_lists_every_section(page):
    sections = [text for level, text in headings_of(page) if level == 2 and text != "Contents"]
    listed = re.findall(r"^- \[(.+)\]\(#(.+)\)$", prose_of(page), re.MULTILINE)
    assert listed == [(text, anchor_of(text)) for text in sections]


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_files_that_a_page_names_exist(page):
    text = text_of(page)
    paths = set(re.findall(rf"\b(?:{'|'.join(FOLDERS)})/[\w./-]*\.(?:py|yml|png|jpg|md|json)\b", text))
    made = {block.mark.removeprefix("file: ") for block in blocks_of(page)}
    missing = [path for path in paths - made if not (ROOT / path).exists()]
    scripts = {name for name in re.findall(r"(?<![\w/>])\w+\.py\b", text) if not list(ROOT.rglob(name))}
    recipes = [name for name in re.findall(r"`(\w+\.yml)`", text) if not list((ROOT / "configs").rglob(name))]
    assert (missing, scripts, recipes) == ([], set(), [])


def test_every_page_is_named_in_the_readme_and_every_tutorial_on_the_first_page():
    for start, pages in ((README, set(PAGES) - {README, *TUTORIALS}), (ROOT / "docs" / "index.md", set(TUTORIALS))):
        assert pages <= {(start.parent / target.partition("#")[0]).resolve() for target in links_of(start)}


@pytest.mark.parametrize("page", TUTORIALS, ids=ids(TUTORIALS))
def test_a_tutorial_is_short_but_for_its_files(page):
    text = re.sub(r"<!-- file: .*?^```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    assert len(text.splitlines()) <= 100


def test_main_results_are_those_of_the_pages_that_they_name():
    rows = [line for line in section(README, "Main results").splitlines() if line.startswith("| ") and "](" in line]
    assert len(rows) >= 5
    for row in rows:
        page = ROOT / re.findall(r"\]\(([^)#]+)", row)[-1]
        told = figures(section(page, "Ablations") + prose_of(page))
        assert [figure for figure in figures(row) if figure not in told] == [], row


def test_ratios_of_the_readme_are_those_of_the_page_of_speed():
    rows = [line for line in section(README, "Speed").splitlines() if "x |" in line]
    told = figures(section(ROOT / "docs" / "speed.md", "Measured"))
    assert len(rows) == 5
    assert [figure for row in rows for figure in figures(row) if figure not in told] == []


@pytest.mark.parametrize("page", EVERY_PAGE, ids=ids(EVERY_PAGE))
def test_marks_are_known_and_stand_before_commands(page):
    marks = {block.mark for block in blocks_of(page) if block.language == "bash"} - {""}
    assert marks <= MARKS
    assert re.findall(r"<!-- (?:needs|takes|test) .*-->\n(?!```bash)", text_of(page)) == []


def test_no_figure_of_a_page_is_left_blank():
    assert [page.name for page in PAGES if "@@" in text_of(page)] == []


def test_no_name_of_a_former_place_is_left():
    found, former = [], re.compile("|".join(FORMER))
    for suffix in ("*.py", "*.md", "*.yml", "*.json", "*.toml", "*.txt"):
        for top in (*FOLDERS, "."):
            paths = (ROOT / top).rglob(suffix) if top != "." else ROOT.glob(suffix)
            for path in paths:
                text = path.read_text(encoding="utf-8") if path != Path(__file__) else ""
                found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in former.finditer(text)]
    assert found == []
