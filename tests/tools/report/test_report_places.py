"""Whose images a report shows: those below the data folders, whatever paths a stranger's files name."""

from pathlib import Path

import pytest

from tests.tools.report.report_files import Page, make_analysis, make_images, make_summary, write_folder
from tools.report.files import read_tested
from tools.report.places import ANYWHERE, data_folders, is_below
from tools.report.settings import base_changes
from tools.report.thumbnails import query_rows
from utils.test_folder import TestFolder


def summary_of(**keys: str) -> dict[str, dict]:
    return {"config": {"DATASETS": keys}}


def test_data_folders_are_the_root_and_those_of_lists_and_never_hold_a_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "me"))
    data, table, animals = (tmp_path / name for name in ("data", "lists/a.csv", "animals/b.csv"))
    found = data_folders(summary_of(ROOT_DIR=str(data), TABLE=str(table), WILDLIFE=str(animals)))
    assert found == (data, table.parent, animals.parent)
    for wide in ("/", "~", "~/..", str(tmp_path)):
        assert data_folders(summary_of(ROOT_DIR=wide)) == ()
    assert data_folders(summary_of(ROOT_DIR="~/data")) == (tmp_path / "home" / "me" / "data",)
    assert data_folders({}) == data_folders(summary_of(ROOT_DIR="")) == ()


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("data/a.jpg", True),
        ("data/./b/../a.jpg", True),
        ("data/../private/a.jpg", False),
        ("private/a.jpg", False),
        ("database/a.jpg", False),
        ("data/link/a.jpg", False),
        ("data/a\0.jpg", False),
    ],
)
def test_a_path_counts_where_its_links_lead(tmp_path, monkeypatch, path, inside):
    monkeypatch.chdir(tmp_path)
    for name in ("data", "private"):
        (tmp_path / name).mkdir()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "private")
    assert is_below(path, [Path("data")]) is inside
    assert is_below(str(tmp_path / path), [tmp_path / "data"]) is inside


def test_images_outside_of_the_data_folders_are_counted_and_not_embedded(tmp_path):
    own, private = make_images(tmp_path / "data", 20), make_images(tmp_path / "private", 20)
    queries = make_analysis([*own[:10], *private[:10]], queries=1)["worst"]
    named = {queries[0]["path"], *(entry["path"] for entry in queries[0]["ranks"])}
    outside = sum("private" in path for path in named)
    assert 0 < outside < len(named)
    page = Page(query_rows(queries, [tmp_path / "data"]))
    assert f"{outside} images lie outside of the data folders and are not shown" in page.text
    assert "cannot be read" not in page.text
    assert len(page.find("img")) == len(Page(query_rows(queries, ANYWHERE)).find("img")) - outside


def test_a_test_s_own_configuration_names_its_data_folders_unless_somebody_else_does(tmp_path):
    summary = make_summary({"DATASETS": {"ROOT_DIR": str(tmp_path / "data")}}, "a.yml")
    write_folder(tmp_path / "test", summary, None, with_slices=False)
    assert read_tested(TestFolder(tmp_path / "test")).pictures == (tmp_path / "data",)
    assert read_tested(TestFolder(tmp_path / "test"), [tmp_path]).pictures == (tmp_path,)


def test_a_file_that_is_no_recipe_is_not_quoted(tmp_path):
    secret = tmp_path / "credentials"
    secret.write_text("key: [AKIA-SECRET")
    assert "AKIA" not in base_changes(str(secret), {}) and "is no recipe now" in base_changes(str(secret), {})
