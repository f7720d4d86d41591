"""README.zh-CN.md has what README.md has: headings, code, tables, links and figures, in the same order."""

import re
from pathlib import Path

import pytest

from tests.pages import README, ROOT, anchor_of, blocks_of, headings_of, links_of, prose_of, text_of

CHINESE = ROOT / "README.zh-CN.md"
MIRRORS = ("HF_ENDPOINT=https://hf-mirror.com", "https://pypi.tuna.tsinghua.edu.cn/simple")
FIGURE = re.compile(r"\d[\d,.]*\d|\d")


def targets(page: Path) -> list[str]:
    """Return the targets of the links of a page to files and to the network, without those to the other language."""
    found = re.findall(r"\]\(([^)\s]+)\)", prose_of(page))
    return sorted(target for target in found if not target.startswith(("#", "README")))


def tables(page: Path) -> list[list[list[str]]]:
    """Return the cells of each row of each table."""
    found = re.findall(r"(?:^\|.*\|\n)+", prose_of(page), re.MULTILINE)
    return [[re.split(r"(?<!\\)\|", row)[1:-1] for row in table.splitlines()] for table in found]


def test_both_lead_to_each_other_in_their_first_lines():
    for page, other in ((README, CHINESE), (CHINESE, README)):
        assert f"]({other.name})" in "".join(text_of(page).splitlines()[:3])


def test_headings_have_the_same_levels_and_the_contents_lists_them():
    assert [level for level, _ in headings_of(CHINESE)] == [level for level, _ in headings_of(README)]
    sections = [text for level, text in headings_of(CHINESE) if level == 2][1:]
    assert [target for target in links_of(CHINESE) if target.startswith("#")] == [f"#{anchor_of(s)}" for s in sections]


def test_code_blocks_are_the_same():
    assert blocks_of(CHINESE) == blocks_of(README)


def test_links_lead_to_the_same_places():
    assert targets(CHINESE) == targets(README)
    assert [
        name for name in links_of(CHINESE) if not name.startswith("#") and not (ROOT / name.split("#")[0]).exists()
    ] == []


def test_tables_have_the_same_rows_commands_and_figures():
    english, chinese = tables(README), tables(CHINESE)
    assert [[len(row) for row in table] for table in chinese] == [[len(row) for row in table] for table in english]
    code = re.compile(r"`[^`]+`")
    for ours, theirs in zip(chinese, english, strict=True):
        for row, other in zip(ours, theirs, strict=True):
            for cell, text in zip(row, other, strict=True):
                assert sorted(code.findall(cell)) == sorted(code.findall(text))
    results = [
        [FIGURE.findall(re.sub(r"`[^`]*`|\(.*?\)", "", row[1])) for row in part[4]] for part in (chinese, english)
    ]
    assert [sorted(row) for row in results[0]] == [sorted(row) for row in results[1]]


def test_mirrors_are_named_and_nearly_all_prose_is_chinese():
    assert [word for word in MIRRORS if word not in text_of(CHINESE)] == []
    words = re.findall(r"[a-z]{4,}(?: [a-z]{2,}){5,}", re.sub(r"`[^`]*`", "", prose_of(CHINESE)))
    assert words == []


@pytest.mark.parametrize("word", ["行人重识别", "车辆重识别", "查询集", "图库", "种子"])
def test_terms_are_those_of_the_field(word):
    assert word in text_of(CHINESE)
