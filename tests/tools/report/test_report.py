"""The report of one test: a sound page, its numbers, and what it does without some of the files."""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from configs import load_cfg
from tests.reference.slow_statistics import simulated_queries
from tests.tools.report.report_files import (
    METRICS,
    Page,
    make_analysis,
    make_images,
    make_slices,
    make_summary,
    write_folder,
)
from tools.report import write_test_report
from tools.report.__main__ import main
from tools.report.figures import camera_pair_note
from tools.report.files import read_tested
from tools.report.page import POLICY, ROOT, short_path, text
from tools.report.places import ANYWHERE
from tools.report.tested import branches_part
from tools.report.thumbnails import query_rows, thumbnail
from utils.errors import DataError, run_command
from utils.ranking.branches import BranchScore, write_branches
from utils.run_folder import RunFolder
from utils.run_record import RunRecord, write_record
from utils.statistics.bootstrap import intervals
from utils.test_folder import TestFolder

RECIPE = "configs/Synthetic/phased.yml"
HOSTILE = "<script>alert('1')</script>\"&amp;</td> é 車 \udc80 \x00 \u202e"
HARMLESS = "<script>alert('1')</script>\"&amp;</td> é 車 \\udc80 \\x00 \\u202e"


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return make_images(tmp_path_factory.mktemp("images"), 40)


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return json.loads(json.dumps(load_cfg(RECIPE, ["SOLVER.MAX_EPOCHS", "15"])))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, paths: list[str], config: dict[str, Any]) -> Path:
    """The folder of a test with all its files and its report."""
    folder = tmp_path_factory.mktemp("whole")
    write_folder(folder, make_summary(config, RECIPE), make_analysis(paths))
    write_test_report(TestFolder(folder), ANYWHERE)
    return folder


def read(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def report(folder: Path) -> Page:
    page = Page(read(write_test_report(TestFolder(folder), ANYWHERE).parent))
    page.check()
    return page


def test_the_page_is_well_formed_and_holds_every_section(whole):
    page = Page(read(whole))
    page.check()
    assert page.find("html")[0]["lang"] == "en" and "Test of synthetic VeRi, epoch 30" in page.text
    anchors = [section["id"] for section in page.find("section")]
    assert anchors == ["result", "tests", "settings", "slices", "cmc", "pairs", "queries", "data", "reproduce"]
    assert [link["href"] for link in page.find("a")] == [f"#{anchor}" for anchor in anchors]
    assert len(page.find("svg")) == 8  # camera pairs, three kinds of bars, CMC narrow and wide, distances, ROC
    assert len(page.find("figcaption")) == 7
    assert "cannot be" not in page.text


def test_the_page_reaches_for_nothing_outside(whole):
    content = read(whole)
    assert f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">' in content
    assert not re.search(r"https?:|@import|javascript:|url\((?!#)", content)


def test_metrics_and_intervals_are_those_of_the_file_in_percent(whole):
    words = Page(read(whole)).text
    shown = {name: float(re.search(rf"{re.escape(name)}(\d+\.\d\d)", words)[1]) for name in METRICS}
    assert shown == {name: pytest.approx(100 * value, abs=0.005) for name, value in METRICS.items()}
    assert "95 %: 33.01 to 39.08" in words and "95 %: 42.01 to 54.02" in words
    assert "207of 210; the others have no match" in words
    assert "MSMT17 V218.027.7324.0541.4347.62" in words


def test_rates_slices_and_pairs_are_those_of_the_files(whole, paths):
    words = Page(read(whole)).text
    analysis = make_analysis(paths)
    for rate, value in analysis["tpr_at_fpr"].items():
        assert f"{rate}{100 * value:.2f}" in words
    for part in make_slices():
        figures = f"{100 * part.mAP:.2f}{100 * part.R1:.2f}" if part.num_query else "--"
        assert f"{part.query}{part.gallery}{part.num_query}{part.num_id}{figures}" in words
    assert f"{sum(analysis['distance']['positive']):,} pairs" in words


def test_worst_queries_show_query_and_ranks_with_words_beside_the_colours(whole, paths):
    page, analysis = Page(read(whole)), make_analysis(paths)
    shown = [*analysis["worst"], *analysis["best"]]
    assert len(page.find("img")) == 18 * 11 == len([one for one in page.find("details") if one.get("class") == "zoom"])
    kinds = [item["class"] for item in page.find("li") if "title" in item]
    assert kinds == [kind for query in shown for kind in ("query", *(entry["status"] for entry in query["ranks"]))]
    for query in shown:
        assert f"AP {100 * query['ap']:.2f}%, 6 matches, the first at rank {query['first_hit'] + 1}" in page.text
        for entry in query["ranks"]:
            assert f"{entry['status']}pid {entry['pid']}cam {entry['camid']}d {entry['distance']:.3f}" in page.text


def test_settings_show_the_keys_that_differ_from_the_base_recipe(whole):
    words = Page(read(whole)).text
    assert "configs/Synthetic/conditional_pk.yml" in words
    assert "LOSS.PHASED.ENABLEFalseTrue" in words and "SOLVER.MAX_EPOCHS3015" in words
    assert "SOLVER.BASE_LR" not in words


def test_the_command_is_quoted_for_a_shell(tmp_path, config, undrawn):
    summary = make_summary(config, RECIPE, command=["test.py", "--config_file", "my recipe.yml"])
    write_folder(tmp_path, summary, None)
    assert "python test.py --config_file 'my recipe.yml'" in report(tmp_path).text


def test_equal_files_give_equal_bytes(whole):
    before = (whole / "report.html").read_bytes()
    write_test_report(TestFolder(whole), ANYWHERE)
    assert (whole / "report.html").read_bytes() == before


def test_text_from_outside_stays_text(tmp_path, paths, config, undrawn):
    analysis = make_analysis(paths, queries=2)
    for entry in (analysis["worst"][0], *analysis["worst"][0]["ranks"]):
        entry["path"] = HOSTILE
    settings = {"DATASETS.VEHICLEID_TEST_SIZE": 800}
    hostile = {name: HOSTILE for name in ("dataset", "weight", "weight_sha256", "data_fingerprint", "epoch")}
    hostile |= {"notes": [HOSTILE], "command": [HOSTILE], "environment": {"device": HOSTILE}, "settings": settings}
    config = config | {"OUTPUT_DIR": HOSTILE, HOSTILE: HOSTILE}
    write_folder(tmp_path, make_summary(config, RECIPE, **hostile), analysis, with_slices=False)
    row = f'camera_pair,"{HOSTILE[:40].replace(chr(34), chr(34) * 2)}",1,1,1,0.5,0.5\n'
    (tmp_path / "slices.csv").write_text(f"kind,query,gallery,num_query,num_id,mAP,R1\n{row}")
    page = report(tmp_path)
    assert page.text.count(HARMLESS) > 8
    assert "<script" not in read(tmp_path)


@pytest.mark.parametrize(
    "raw, shown", [("a<b>&\"'", "a&lt;b&gt;&amp;&quot;&#x27;"), ("\ud800", "\\ud800"), ("é車", "é車")]
)
def test_markup_and_what_utf8_cannot_hold_are_escaped(raw, shown):
    assert text(raw) == shown
    text(raw).encode("utf-8")


@pytest.mark.parametrize(
    "name, content, line",
    [
        ("analysis.json", None, "This test left no analysis.json"),
        ("analysis.json", '{"schema": 1, "wor', "analysis.json cannot be read"),
        ("analysis.json", "[]", "analysis.json cannot be read (not of schema 1)"),
        ("analysis.json", '{"schema": 1}', "Queries: cannot be shown (KeyError: 'worst')"),
        ("analysis.json", '{"schema": 1, "worst": []}', "The best queries are not shown: an older version"),
        ("analysis.json", '{"schema": 1, "worst": []}', "No query has a match"),
        ("analysis.json", '{"schema": 1, "worst": []}', "All images of the test set are of one identity"),
        ("slices.csv", None, "This test left no slices.csv"),
        ("slices.csv", "a,b\n", "slices.csv cannot be read"),
        ("slices.csv", "kind,query,gallery,num_query,num_id,mAP,R1\nviewpoint,0\n", "slices.csv cannot be read"),
        ("slices.csv", "kind,query,gallery,num_query,num_id,mAP,R1\n", "The test set cannot be divided"),
    ],
)
def test_an_absent_or_damaged_file_is_a_line_on_the_page(tmp_path, paths, config, undrawn, name, content, line):
    write_folder(tmp_path, make_summary(config, RECIPE), make_analysis(paths, queries=1))
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_text(content)
    page = report(tmp_path)
    assert line in page.text and "36.04" in page.text


def test_every_field_beside_the_metrics_may_be_absent(tmp_path, config, undrawn):
    summary = make_summary(config, RECIPE)
    for name in summary.keys() - METRICS.keys():
        left_out = {name, "config"}  # reading the base recipe takes most of the time
        write_folder(tmp_path, {key: summary[key] for key in summary.keys() - left_out}, None, with_slices=False)
        assert "36.04" in report(tmp_path).text
    write_folder(tmp_path, METRICS, None, with_slices=False)
    assert "does not record the command" in report(tmp_path).text


def test_images_that_were_moved_or_damaged_are_counted(tmp_path, config, undrawn):
    images = make_images(tmp_path / "images", 4)
    analysis = make_analysis(images, queries=1)
    (tmp_path / "images" / "0000_c000.jpg").unlink()
    (tmp_path / "images" / "0001_c001.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    write_folder(tmp_path, make_summary(config, RECIPE), analysis)
    page = report(tmp_path)
    assert "2 of 4 images cannot be read where the test found them." in page.text and "not found" in page.text


def test_a_recipe_that_is_gone_is_said(tmp_path, config, undrawn):
    write_folder(tmp_path, make_summary(config, str(tmp_path / "gone.yml")), None)
    assert "gone.yml' is gone, and with it the name of its base recipe" in report(tmp_path).text


@pytest.mark.parametrize("mode, kind", [("P", "png"), ("RGBA", "png"), ("L", "png"), ("CMYK", "jpeg"), ("1", "png")])
def test_a_thumbnail_is_a_small_jpeg_whatever_the_image_is(tmp_path, mode, kind):
    path = tmp_path / f"a.{kind}"
    Image.new(mode, (400, 200)).save(path)
    data = thumbnail(str(path)).removeprefix("data:image/jpeg;base64,")
    small = Image.open(io.BytesIO(base64.b64decode(data)))
    assert (small.format, small.mode, small.size) == ("JPEG", "RGB", (160, 80))


def test_twelve_queries_of_noise_stay_below_three_megabytes(tmp_path, config, undrawn):
    rng = np.random.default_rng(0)
    paths = [str(tmp_path / f"{number}.png") for number in range(132)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (100, 100, 3), dtype=np.uint8)).save(path)
    write_folder(tmp_path, make_summary(config, RECIPE), make_analysis(paths))
    assert write_test_report(TestFolder(tmp_path), ANYWHERE).stat().st_size < 3e6


def test_the_command_makes_the_page_again(tmp_path, config, undrawn, capsys):
    write_folder(tmp_path, make_summary(config, RECIPE), None)
    assert run_command(main, [str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"written: {tmp_path / 'report.html'}\n"
    assert (tmp_path / "report.html").is_file()


@pytest.mark.parametrize("state", ["absent", "empty", "cut short"])
def test_a_folder_without_a_result_is_one_clear_error(tmp_path, capsys, state):
    folder = tmp_path / "epoch_3"
    if state != "absent":
        folder.mkdir()
    if state == "cut short":
        (folder / "summary.json").write_text('{"mAP": 0.3')
    what = "is not a folder" if state == "absent" else "holds no whole summary.json"
    with pytest.raises(DataError, match=f"epoch_3' {what}; name the folder of a finished test"):
        write_test_report(TestFolder(folder), ANYWHERE)
    assert run_command(main, [str(folder)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_test_by_trapezoids_marks_every_map_and_says_how_ranks_were_made(tmp_path, paths, config, undrawn):
    ranking = {"ap": "trapezoid", "spectral": {"k": 50, "t": 0.1}}
    sets = {name: dict(METRICS, num_query=3) for name in ("a", "b")}
    summary = make_summary(config, RECIPE, ranking=ranking, sets=sets)
    write_folder(tmp_path, summary, make_analysis(paths))
    page = report(tmp_path)
    for line in ("Each AP on this page is the trapezoid one", "With spectral re-ranking: K 50, T 0.1."):
        assert line in page.text
    assert page.text.count("mAP (trapezoid AP)") == 4  # the verdict, the card, and the heads of two tables
    titles = [chart["aria-label"] for chart in page.find("svg")]
    assert "mAP per camera pair (trapezoid AP)" in titles and "Viewpoint of the query (trapezoid AP)" in titles


def test_branches_are_a_table_where_the_test_scored_them(tmp_path, config):
    wanted = {**config, "TEST": {**config["TEST"], "BRANCHES": True}}
    write_folder(tmp_path, make_summary(wanted, RECIPE), None)
    assert "This test left no branches.csv" in branches_part(read_tested(TestFolder(tmp_path)))
    scores = [BranchScore("global", 48, 0.25, 0.5, float("nan"), float("nan"))]
    write_branches(tmp_path / "branches.csv", scores)
    words = Page(branches_part(read_tested(TestFolder(tmp_path)))).text
    assert "all branches4836.0448.10--" in words and "global4825.0050.00--" in words
    write_folder(tmp_path, make_summary(config, RECIPE), None)
    assert branches_part(read_tested(TestFolder(tmp_path))) == ""


def test_a_test_has_its_verdict_and_what_it_has_to_beat_where_the_run_lies_beside_it(tmp_path, config, undrawn):
    weight = tmp_path / "run" / "transformer_15.pth"
    run = RunFolder(weight.parent, "transformer")
    run.path.mkdir()
    write_record(run, RunRecord("0f", {}, load_cfg(RECIPE, ["SOLVER.MAX_EPOCHS", "15"]).dump()))
    references = {"raw_pixels": 0.06, "untrained": 0.03}
    lines = [{"kind": "reference", "epoch": 0, "name": name, "mAP": value} for name, value in references.items()]
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = make_summary(config, RECIPE, weight=str(weight), run="0f", epoch=15)
    for epoch, value in ((10, 0.3), (15, 0.36041)):
        write_folder(tmp_path / "test" / f"epoch_{epoch}", summary | {"epoch": epoch, "mAP": value}, None)
    page = report(tmp_path / "test" / "epoch_15")
    assert "36.0 mAP (95 %: 33.0 to 39.1), 6.0 times raw pixels (6.0); best epoch is the last." in page.text
    assert "raw pixels6.0" in page.text and "before training3.0" in page.text
    assert "epoch 10 of 15." in report(tmp_path / "test" / "epoch_10").text, "there are more tests to come"
    for changes in ({"run": "another"}, {"dataset": "VeRi-776"}, {"ranking": {"ap": "trapezoid"}}):
        write_folder(tmp_path / "test" / "epoch_15", summary | changes, None)
        page = report(tmp_path / "test" / "epoch_15")
        assert "raw pixels6.0" not in page.text and "Raw pixels and the untrained model are not shown: " in page.text


def test_intervals_that_the_file_lacks_are_those_of_its_queries(tmp_path, config, undrawn):
    table = simulated_queries(np.random.default_rng(3), 12, 4)
    summary = make_summary(config, RECIPE, tests={})
    write_folder(tmp_path, summary, None)
    np.savez(tmp_path / "per_query.npz", **table)
    page = report(tmp_path)
    found = intervals(table, METRICS)
    for name in ("Rank-5", "Rank-10"):
        low, high = (100 * bound for bound in found[name])
        assert f"{name}{100 * summary[name]:.2f}95 %: {low:.2f} to {high:.2f}" in page.text
    assert "mAP36.0495 %: 33.01 to 39.08" in page.text, "what the file has stays"


def test_no_heading_and_no_caption_holds_an_absolute_path(tmp_path, paths, config, undrawn):
    recipe = tmp_path / "own" / "recipe.yml"
    recipe.parent.mkdir()
    recipe.write_text(f"_BASE_: {Path(RECIPE).resolve()}\nSOLVER:\n  MAX_EPOCHS: 7\n")
    weight = str(tmp_path / "logs" / "x_run" / "transformer_30.pth")
    write_folder(tmp_path / "t", make_summary(config, str(recipe), weight=weight), make_analysis(paths))
    content = read(write_test_report(TestFolder(tmp_path / "t"), ANYWHERE).parent)
    shown = re.findall(r"<(h[1-4]|caption|figcaption|header|summary)\b[^>]*>(.*?)</\1>", content, re.DOTALL)
    words = " ".join(re.sub(r"<[^>]*>", "", inside) for _, inside in shown)
    assert "x_run/transformer_30.pth" in words and "own/recipe.yml" in words and "Synthetic/phased.yml" in words
    assert str(tmp_path) not in words and not re.search(r"(^|\s)/", words)


@pytest.mark.parametrize(
    ("path", "shown"),
    [("logs/a.pth", "logs/a.pth"), ("/x/y/z/a.pth", "z/a.pth"), ("/a.pth", "a.pth"), (str(ROOT / "a/b"), "a/b")],
)
def test_a_path_is_shown_without_the_machine_it_lies_on(path, shown):
    assert short_path(path) == shown


def test_the_query_s_own_copy_in_the_gallery_is_marked(paths):
    queries = make_analysis(paths, queries=1)["worst"]
    own, ranks = queries[0], queries[0]["ranks"]
    assert "same picture" not in Page(query_rows(queries, ANYWHERE)).text
    ranks[1] |= {"path": f"image_test/{Path(own['path']).name}", "status": "junk"}
    ranks[2] |= {"path": f"other/{Path(own['path']).name}", "status": "right"}  # of another camera: only its name
    page = Page(query_rows(queries, ANYWHERE))
    assert page.text.count("same picture") == 2, "the legend, and one image"
    assert f"junkpid {ranks[1]['pid']}cam {ranks[1]['camid']}d {ranks[1]['distance']:.3f}same picture" in page.text


def test_camera_pairs_say_how_many_queries_they_are_of_and_why_they_can_be_above_the_whole(whole):
    words = Page(read(whole)).text
    assert "A cell is the mAP of n = 17 queries." in words and "one camera alone" in words
    assert camera_pair_note([]) == ""
    pair = next(part for part in make_slices() if part.num_query)
    assert "n = 3 to 1,700 queries" in camera_pair_note([pair._replace(num_query=n) for n in (1700, 3)])
