"""The report of a test of several modalities: its files and what the page says of sets, gains and missing items."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs import get_cfg_defaults
from processor.evaluation import outcome
from tests.processor.evaluation.modal_tests import GROUPS, HOW, Fusing, make_items, make_modal_test
from tests.tools.report.report_files import Page, blank_chart
from tools.report import thumbnails, write_test_report
from tools.report.files import read_tested
from tools.report.modalities import modalities_part, verdicts
from tools.report.places import ANYWHERE
from utils.ranking.set_scores import Gain, SetScore
from utils.test_folder import TestFolder, read_per_query, read_result

FACTS = {"weight": "logs/run/multimodal_3.pth", "settings": {}, "config": {}}


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> TestFolder:
    """The folder of a whole test, its report without the drawings."""
    root = tmp_path_factory.mktemp("modal")
    for number, item in enumerate(make_items(str(root))):
        if item.modality != "text":
            Path(item.value).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 16), (5 * number, 90, 90)).save(item.value)
    cfg = get_cfg_defaults()
    cfg.MODEL.NAME, cfg.TEST.MISSING, cfg.TEST.AP_DEPTH = "multimodal", True, 2
    patch.setattr(outcome, "make_embedding", lambda *_: HOW)
    patch.setattr("tools.svg.to_svg", blank_chart)
    folder = TestFolder(root / "out")
    outcome.evaluate_one(cfg, Fusing(), make_modal_test(str(root)), folder, FACTS)
    write_test_report(folder, ANYWHERE)
    return folder


def test_the_files_hold_sets_groups_and_what_is_missing(folder):
    summary, per_query = read_result(folder), read_per_query(folder)
    assert set(summary["files"]) == {
        "per_query.npz",
        "slices.csv",
        "sets.csv",
        "gains.csv",
        "missing.csv",
        "analysis.json",
    }
    assert [*summary["groups"]] == [*GROUPS] and [*summary["missing"]] == ["0", "0.25", "0.5", "0.75"]
    assert summary["missing"]["0"] == summary["sets"]["NIR+SK+TEXT"]["mAP"]
    assert summary["mAP"] == pytest.approx(np.mean([one["mAP"] for one in summary["groups"].values()]))
    assert set(summary["sets"]["NIR"]) == {"mAP", "mAP@2", "mINP", "Rank-1", "Rank-5", "Rank-10", "num_query"}
    assert set(per_query["set"].tolist()) == set(summary["sets"])
    low, high = summary["interval"]["mAP"]
    assert low <= summary["mAP"] <= high
    tested = read_tested(folder)
    shown = {one.name: one for one in tested.sets}
    assert shown["MM-2"].mAP == pytest.approx(summary["groups"]["MM-2"]["mAP"], abs=1e-6) and not tested.absent


def test_the_page_names_sets_the_weakest_modality_and_the_curve(folder):
    page = Page(folder.report.read_text(encoding="utf-8"))
    page.check()
    assert "cannot be" not in page.text and "not found" not in page.text
    labels = [drawing["aria-label"] for drawing in page.find("svg")]
    assert labels[:3] == [
        "mAP of each set of queries",
        "Points of mAP that a modality adds to a set",
        "NIR+SK+TEXT with items missing at random",
    ]
    assert "Side that the drawing shows" in labels
    assert f"Distances of query-gallery pairs, {json.loads(folder.analysis.read_text())['pairs_of']}" in labels
    tested = read_tested(folder)
    alone = min((one for one in tested.sets if one.kind == "set" and one.size == 1), key=lambda one: one.mAP)
    assert f"Alone, {alone.name} is the weakest (mAP {100 * alone.mAP:.2f} %" in page.text
    for name, one in tested.summary["groups"].items():
        assert f"{name}{100 * one['mAP']:.2f}{100 * one['mINP']:.2f}" in page.text
    for one in tested.missing:
        assert f"{100 * one.removed:g} %{one.items:.2f}{100 * one.mAP:.2f}" in page.text


def test_the_worst_queries_show_all_their_items_and_captions_as_text(folder):
    page = Page(folder.report.read_text(encoding="utf-8"))
    analysis = json.loads(folder.analysis.read_text())
    worst, shown = analysis["worst"], [*analysis["worst"], *analysis["best"]]
    assert len(worst) == 12 and len({one["set"] for one in worst}) == len(GROUPS)
    for number, one in enumerate(worst, start=1):
        assert f"{number}. AP {one['ap']:.2%}" in page.text
    queries = [item for item in page.find("li") if item.get("class") == "query"]
    expected = [item["path"] for one in shown for item in one["items"] if item["modality"] != "text"]
    assert [item["title"] for item in queries] == expected
    captions = [item["path"] for one in shown for item in one["items"] if item["modality"] == "text"]
    assert captions and all(f"{caption}\n" in page.text for caption in captions)
    images = len(expected) + sum(len(one["ranks"]) for one in shown)
    assert len(page.find("img")) == images


def test_what_a_gallery_of_captions_holds_is_shown_as_text():
    entry = {"path": "a man in a <red> coat", "pid": 3, "modality": "text", "distance": 0.2, "status": "right"}
    query = {"path": "nir/a.jpg", "pid": 3, "set": "NIR", "ap": 0.5, "num_pos": 1, "first_hit": 0}
    items = [{"path": "absent/a.jpg", "modality": "nir", "pid": 3}]
    page = Page(thumbnails.query_rows([query | {"items": items, "ranks": [entry]}], ANYWHERE))
    assert "a man in a <red> coat" in page.text and "1 of 1 images cannot be read" in page.text


def test_a_damaged_table_is_one_line_and_the_others_stand(folder, tmp_path):
    other = TestFolder(tmp_path)
    for path in (folder.summary, *folder.tables):
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    other.gains.write_text("set,modality\n")
    other.missing.unlink()
    page = Page(modalities_part(read_tested(other)))
    assert "gains.csv is not what this test wrote" in page.text and "left no missing.csv" in page.text
    assert "All sets with their intervals" in page.text and "All gains" not in page.text


def gain(name: str, modality: str, difference: float, p: float) -> Gain:
    return Gain(name, modality, 9, 0.5, 0.5 - difference, difference, difference - 0.1, difference + 0.1, p)


def test_harm_is_named_where_it_is_significant_and_the_least_gain_is_the_weakest():
    sets = [
        SetScore("set", name, "MM-1", 1, 9, 5, value, 0.1, 0.9, 0.5) for name, value in (("CP", 0.76), ("SK", 0.61))
    ]
    gains = [gain("CP+SK", "sk", -0.014, 0.001), gain("CP+SK", "cp", 0.13, 0.001), gain("NIR+SK", "sk", 0.26, 0.2)]
    lines = verdicts(sets, gains)
    assert lines[0] == "Alone, SK is the weakest (mAP 61.00 %, 95 %: 10.00 to 90.00), CP the strongest (76.00 %)."
    assert re.search(r"in company is sk: .* sk \+12\.30, cp \+13\.00|cp \+13\.00, sk \+12\.30", lines[1])
    assert lines[2].endswith("significantly more: sk in CP+SK (-1.40).")
    assert verdicts([], [gain("CP+SK", "sk", -0.014, 0.2)])[-1].startswith("No modality makes")
    assert verdicts(sets[:1], []) == []
