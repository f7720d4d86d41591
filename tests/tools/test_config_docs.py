"""The page of all keys: the file in docs/ is what the command makes, each key on it once."""

import re
from pathlib import Path

import pytest

from configs.keys import KEYS
from configs.keys.key import Key
from tools.config_docs import allowed_values, escaped, main, page
from utils.errors import ConfigError

FILE = Path(__file__).parents[2] / "docs" / "config.md"
ROW = re.compile(r"^\| `([A-Z0-9_.]+)` \|", re.MULTILINE)


def test_the_page_in_docs_is_made_from_the_keys():
    assert FILE.read_text(encoding="utf-8") == page(), "python -m tools.config_docs --out docs/config.md"


def test_every_key_stands_on_the_page_once():
    assert sorted(ROW.findall(page())) == sorted(KEYS)


def test_legacy_keys_stand_last_with_what_replaces_them():
    legacy = page().split("## Legacy keys")[1]
    assert ROW.findall(legacy) == [name for name, key in KEYS.items() if key.instead]
    for key in KEYS.values():
        assert not key.instead or escaped(key.instead) in legacy


def test_all_rows_of_a_table_have_as_many_cells_as_its_head():
    for lines in re.findall(r"(?:^\|.*\n)+", page(), re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines.splitlines()}) == 1


def test_links_at_the_top_lead_to_the_headings():
    anchors = {
        re.sub(r"[^a-z0-9_ -]", "", head.lower()).replace(" ", "-") for head in re.findall(r"^#+ (.*)$", page(), re.M)
    }
    assert set(re.findall(r"\]\(#([^)]*)\)", page())) <= anchors


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (Key(True, "x"), "`True`, `False`"),
        (Key("a", "x", choices=("a", "b")), "`a`, `b`"),
        (Key(("a",), "x", choices=("a", "b")), "any number of: `a`, `b`"),
        (Key("", "x"), "text"),
        (Key(3, "x", low=1, high=10**9), "whole number, 1 to 1000000000"),
        (Key(0.5, "x", low=0, high=0.99), "number, 0 to 0.99"),
        (Key([0.1, 0.2], "x", low=0, high=1, length=2), "2 times: number, 0 to 1"),
        (Key((), "x"), "any number of: text"),
        (Key((), "x", low=0, high=2), "any number of: number, 0 to 2"),
    ],
)
def test_what_is_allowed_is_said_by_type_choices_and_bounds(key, words):
    assert allowed_values(key) == words


def test_the_command_prints_the_page_or_writes_it(tmp_path, capsys):
    assert main([]) == 0 and capsys.readouterr().out == page()
    assert main(["--out", str(tmp_path / "keys.md")]) == 0
    assert (tmp_path / "keys.md").read_text(encoding="utf-8") == page() and not capsys.readouterr().out


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="--out '.*file' is a file, not a folder"):
        main(["--out", str(tmp_path / "file" / "keys.md")])
