"""The report of a test that searches images with captions."""

import json
from pathlib import Path

import numpy as np
import pytest

import test as test_script
from processor.trained import load_trained
from tests import commands
from tests.tools.captioned_runs import NAME, captions_of, write_captioned_run
from tests.tools.report.report_files import Page, make_analysis, make_images
from tools.report import thumbnails
from tools.report.places import ANYWHERE
from tools.report.result import query_sets
from tools.report.thumbnails import query_rows


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a test of a run on captions, in both directions."""
    folder = tmp_path_factory.mktemp("captioned")
    run = write_captioned_run(folder)
    (folder / "run.yml").write_text(config_of(run))
    opts = ("TEST.WEIGHT", run / NAME, "OUTPUT_DIR", folder / "out", "TEST.I2T", True)
    assert commands.run(test_script.main, *commands.args_for(folder / "run.yml", *opts)) == 0
    return folder / "out"


def config_of(run: Path) -> str:
    return load_trained(run / NAME).cfg.dump()


def test_the_page_speaks_of_captions_and_of_no_camera(tested):
    page = Page((tested / "report.html").read_text(encoding="utf-8"))
    page.check()
    assert "cannot be" not in page.text and "not found" not in page.text
    below = page.text[page.text.index("Result") :]
    for word in ("camera", "cam ", "viewpoint", "junk"):
        assert word not in below.lower().split("settings", 1)[0] + below.lower().split("slices", 1)[1]
    # a chart that fills its row is there for a phone as well
    labels = dict.fromkeys(drawing["aria-label"] for drawing in page.find("svg"))
    assert [*labels] == [
        "Words of the caption",
        "Gallery images that match the query",
        "CMC curve",
        "Distances of query-gallery pairs",
        "ROC of query-gallery pairs",
    ]


def test_the_worst_captions_stand_over_their_own_image_and_what_they_find(tested):
    page = Page((tested / "report.html").read_text(encoding="utf-8"))
    analysis = json.loads((tested / "analysis.json").read_text())
    worst, shown = analysis["worst"], [*analysis["worst"], *analysis["best"]]
    known = {caption: path for caption, _, path in captions_of(tested.parent / "run")}
    with np.load(tested / "per_query.npz") as table:
        assert {"t2i", "i2t"} == set(table["set"].tolist())  # the worst of which are captions alone
    assert len(worst) == 12 and {one["path"]: one["own"] for one in worst} == {
        one["path"]: known[one["path"]] for one in worst
    }
    titles = [item["title"] for item in page.find("li") if "title" in item]
    assert titles == [path for one in shown for path in (one["own"], *(entry["path"] for entry in one["ranks"]))]
    for number, one in enumerate(worst, start=1):
        assert f"{number}. AP {one['ap']:.2%}, {one['num_pos']} matches, the first at rank" in page.text
        assert f": {one['path']}\n" in page.text
        assert {"camid"}.isdisjoint(one) and all("camid" not in entry for entry in one["ranks"])
    listed = sum(entry["path"] == one["own"] for one in shown for entry in one["ranks"])
    assert page.text.count("own image") == len(shown) + listed


def test_both_directions_are_a_table(tested):
    page = Page((tested / "report.html").read_text(encoding="utf-8"))
    summary = json.loads((tested / "summary.json").read_text())
    for title, name in (("captions that search images (t2i)", "t2i"), ("images that search captions (i2t)", "i2t")):
        figures = summary["sets"][name]
        shown = "".join(f"{100 * figures[metric]:.2f}" for metric in ("mAP", "mINP", "Rank-1", "Rank-5", "Rank-10"))
        assert f"{title}{shown}{figures['num_query']}" in page.text
    assert "above and in all charts, are those of captions that search images (t2i)." in page.text


def test_sets_of_any_name_have_a_table_and_a_single_one_has_none():
    metrics = dict.fromkeys(("mAP", "mINP", "Rank-1", "Rank-5", "Rank-10"), 0.5) | {"num_query": 3}
    assert query_sets({"sets": {}}) == query_sets({}) == ""
    page = Page(query_sets({"sets": {"R": metrics, "R+N": metrics}}))
    assert "R+N50.0050.0050.0050.0050.003" in page.text and "are means over R, R+N." in page.text


def test_a_caption_without_an_image_of_its_own_says_so(tmp_path):
    worst = make_analysis(make_images(tmp_path, 20), queries=1)["worst"]
    caption = "a man / with <b>bags</b>"
    worst[0] |= {"path": caption, "own": ""}
    page = Page(query_rows(worst, ANYWHERE))
    assert f": {caption}" in page.text and page.text.count(thumbnails.NOT_THERE) == 1
    assert "cannot be read" not in page.text and len(page.find("img")) == 10


def test_slices_by_words_count_every_caption_once(tested):
    with np.load(tested / "per_query.npz") as table:
        counted = table["weight"] > 0
        own = table["own_image"]
    rows = [line.split(",") for line in (tested / "slices.csv").read_text().splitlines()]
    assert sum(int(row[3]) for row in rows if row[0] == "words") == counted.sum()
    assert (own[counted] >= 0).all() and (own[~counted] == -1).all()
