"""CHANGELOG, CONTRIBUTING, CITATION and the issue template: their form, and that what they name is there."""

import re
import tomllib
from datetime import date
from importlib.util import find_spec

import pytest
import yaml

from tests.pages import README, ROOT, anchor_of, blocks_of, headings_of, links_of, prose_of, text_of

CHANGELOG, CONTRIBUTING = ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"
TEMPLATE = ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.md"
KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]  # of Keep a Changelog, in its order
GUIDES = ("A loss", "A data set", "A trunk", "A system")
PERSON = {"family-names", "given-names"}


def test_the_readme_leads_to_every_page_for_people():
    assert {"SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "LICENSE"} <= set(links_of(README))
    for name in ("constraints.txt", "Dockerfile"):
        assert f"`{name}`" in text_of(README) and (ROOT / name).is_file()


@pytest.mark.parametrize("page", [CHANGELOG, CONTRIBUTING], ids=["CHANGELOG", "CONTRIBUTING"])
def test_every_link_leads_somewhere_and_lines_are_short(page):
    dead = []
    for target in links_of(page):
        name, _, anchor = target.partition("#")
        other = (page.parent / name).resolve() if name else page
        if not other.exists() or (anchor and anchor not in {anchor_of(text) for _, text in headings_of(other)}):
            dead.append(target)
    assert dead == []
    assert max(map(len, text_of(page).splitlines())) <= 120


def test_the_changelog_keeps_its_form():
    (title, *rest) = headings_of(CHANGELOG)
    assert title == (1, "Changelog") and rest[0] == (2, "[Unreleased]")
    for section in re.split(r"^## ", text_of(CHANGELOG), flags=re.MULTILINE)[1:]:
        kinds = re.findall(r"^### (.+)$", section, re.MULTILINE)
        assert kinds and kinds == [kind for kind in KINDS if kind in kinds]


def test_every_change_has_a_date_and_the_newest_stands_first():
    for part in re.split(r"^###? ", text_of(CHANGELOG), flags=re.MULTILINE)[2:]:
        changes = re.findall(r"^- (?:.+\n(?:  .+\n)*)", part, re.MULTILINE)
        days = [[date.fromisoformat(day) for day in re.findall(r"\d{4}-\d\d-\d\d", change)] for change in changes]
        assert all(days)
        newest = [max(one) for one in days]
        assert newest == sorted(newest, reverse=True)


@pytest.mark.parametrize("page", [CHANGELOG, CONTRIBUTING, TEMPLATE], ids=["CHANGELOG", "CONTRIBUTING", "bug"])
def test_commands_that_are_named_exist(page):
    text = text_of(page)
    modules = set(re.findall(r"\b(tools\.\w+)", text))
    assert [name for name in modules if find_spec(name) is None] == []
    scripts = set(re.findall(r"(?<![\w/<>])(\w+\.py)\b", text))
    assert [name for name in scripts if not (ROOT / name).is_file()] == []


def named_paths(text: str) -> set[str]:
    """Return the paths in backticks: those with a folder, and files in the root."""
    words = re.findall(r"`([^`\s]+)`", text)
    known = r"(?:\.?[\w<>-]+/)+[\w<>.-]*|[\w.-]+\.(?:py|txt|md|yaml|cff|toml)|Dockerfile"
    return {word for word in words if re.fullmatch(known, word) and word != "summary.json"}


def test_every_file_that_contributing_names_exists():
    guides = r"^## (?:A loss|A data set|A trunk|A system)$.*?(?=^## |\Z)"
    general = re.sub(guides, "", prose_of(CONTRIBUTING), flags=re.MULTILINE | re.DOTALL)
    paths = named_paths(general)
    assert len(paths) >= 5 and [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("title", GUIDES)
def test_the_example_of_a_guide_has_every_file_that_it_names(title):
    section = prose_of(CONTRIBUTING).partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    (example,) = re.findall(r"follow `(\w+)`", section)
    paths = {path.replace("<name>", example) for path in named_paths(section)}
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert sum(path.startswith("tests/") for path in paths) >= 2 and "Tests:" in section
    assert f"(docs/design.md#{anchor_of({'A loss': 'A loss term'}.get(title, title))})" in section


def test_dicts_and_functions_that_the_guides_name_stand_in_the_files_beside_them():
    for name, path in (
        ("FAMILIES", "model/make_model.py"),
        ("WEIGHTS", "configs/loss_weights.py"),
        ("LAYOUTS", "configs/rules/branches.py"),
        ("SYSTEMS", "processor/systems/__init__.py"),
        ("make_datasets", "datasets/read.py"),
    ):
        assert f"`{name}`" in text_of(CONTRIBUTING) and f"`{path}`" in text_of(CONTRIBUTING)
        assert re.search(rf"^(?:def )?{name}\b", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), name


def test_the_checks_of_contributing_are_those_of_the_readme_and_of_the_style():
    commands = [line for block in blocks_of(CONTRIBUTING) for line in block.commands]
    assert any("ruff check" in line and "ruff format --check" in line for line in commands)
    tests = next(block.text for block in blocks_of(README) if block.mark == "test command")
    assert any(line.split("/", 2)[-1] in tests for line in commands if "pytest" in line)


def test_style_takes_ten_lines():
    section = prose_of(CONTRIBUTING).partition("\n## Style in ten lines\n")[2].partition("\n## ")[0]
    assert re.findall(r"^(\d+)\. ", section, re.MULTILINE) == [str(number) for number in range(1, 11)]


def assert_authors(authors: list[dict]) -> None:
    assert authors and all(set(author) == {"name"} or set(author) == PERSON for author in authors)
    assert all(isinstance(word, str) and word for author in authors for word in author.values())


def test_the_citation_is_valid_cff_and_names_nobody_but_the_licence_holder():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert all(isinstance(citation[name], str) and citation[name] for name in ("message", "title", "abstract"))
    assert_authors(citation["authors"])
    holder = re.search(r"^Copyright \(c\) \d+ (.+)$", (ROOT / "LICENSE").read_text(), re.MULTILINE)
    assert citation["authors"] == [{"name": holder[1]}]
    assert (ROOT / "LICENSE").read_text().startswith(f"{citation['license']} License\n")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["version"] == project["version"]
    known = {"cff-version", "message", "title", "abstract", "type", "authors", "version", "license", "keywords"}
    assert set(citation) <= known | {"references"}


def test_works_that_the_citation_refers_to_are_those_of_the_readme():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    for work in citation["references"]:
        assert {"type", "title", "authors", "year"} <= set(work) and work["type"] == "conference-paper"
        assert_authors(work["authors"])
        names = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in work["authors"])
        assert work["title"] in text_of(README) and names in text_of(README)


def test_the_issue_template_has_a_head_and_asks_for_the_environment_and_for_no_secret():
    head, body = re.fullmatch(r"---\n(.*?)---\n(.*)", text_of(TEMPLATE), re.DOTALL).groups()
    assert {"name", "about"} <= set(yaml.safe_load(head))
    commands = [line for block in blocks_of(TEMPLATE) for line in block.commands if block.language == "bash"]
    assert any(line.startswith("python -m tools.env --run") for line in commands)
    assert "SECURITY.md" in body
