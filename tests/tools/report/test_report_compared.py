"""The report of several systems on one test set: figures, paired differences, and queries where they differ."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs import load_cfg
from tests import commands
from tests.reference.slow_statistics import holm, table_of
from tests.tools.report.report_files import Page, make_analysis, make_images, make_slices, make_summary
from tools.report.__main__ import main
from tools.report.differing import largest, mean_ap
from utils.ranking.slices import write_slices
from utils.statistics.paired import compare_tables

CONFIGS = {"transreid": "configs/Synthetic/baseline.yml", "clip": "configs/Synthetic/clip_reid.yml"}
PID = np.repeat(np.arange(20), 2)
SHIFTS = {"transreid": 0.0, "clip": 0.2, "pcb": -0.1}


def table(name: str, seed: int, paths: list[str]) -> dict[str, np.ndarray]:
    values = 0.4 + SHIFTS[name] + np.random.default_rng(seed).uniform(-0.1, 0.1, 40)
    if name == "clip":
        values[3] = 0.05  # what it alone gets wrong
    return table_of(values, PID) | {"path": np.array(paths)}


def write_one(folder: Path, name: str, seed: int, paths: list[str]) -> None:
    """Write the folder of a test whose worst query is the fourth and whose best is the first."""
    folder.mkdir(parents=True)
    arrays = table(name, seed, paths)
    np.savez(folder / "per_query.npz", **arrays)
    config_file = CONFIGS.get(name, "configs/Synthetic/pcb.yml")
    config: dict[str, Any] = json.loads(json.dumps(load_cfg(config_file)))
    mean = {"mAP": float(arrays["ap"].mean()), "epoch": None, "tests": {}, "weight": f"/abs/{name}/run/w_30.pth"}
    (folder / "summary.json").write_text(json.dumps(make_summary(config, config_file, **mean)))
    analysis = make_analysis(paths, queries=2, best=1)
    for entry, row in zip((*analysis["worst"], *analysis["best"]), (3, 5, 0), strict=True):
        entry["path"] = paths[row]
    (folder / "analysis.json").write_text(json.dumps(analysis))
    write_slices(folder / "slices.csv", make_slices(3))


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("logs")
    paths = make_images(root / "images", 40)
    for name in SHIFTS:
        for seed in (0, 1) if name != "pcb" else (0,):
            write_one(root / f"{name}_seed{seed}_test" / "epoch_30", name, seed, paths)
    return root


@pytest.fixture(scope="module")
def page(logs: Path) -> Page:
    words = [str(logs / name) for name in SHIFTS]
    assert commands.run(main, *words, "--out", str(logs / "all.html")) == 0
    page = Page((logs / "all.html").read_text(encoding="utf-8"))
    page.check()
    assert "cannot be shown" not in page.text
    return page


def test_the_highest_system_is_told_first_with_those_it_is_above(page):
    assert page.text.count("by 2 clip, the highest of 3 (95 %: ") == 1
    assert "significantly above 1 transreid and 3 pcb (over test identities: with one seed" in page.text
    assert [section["id"] for section in page.find("section")] == [
        *("result", "differences", "queries", "cmc", "slices", "settings", "data", "reproduce")
    ]


def test_every_pair_is_compared_query_by_query_and_corrected_for_their_number(page, logs):
    paths = [str(path) for path in sorted((logs / "images").iterdir())]
    tables = {name: [table(name, seed, paths) for seed in ((0, 1) if name != "pcb" else (0,))] for name in SHIFTS}
    names = [("transreid", "clip"), ("transreid", "pcb"), ("clip", "pcb")]
    found = [compare_tables(tables[a], tables[b], "mAP") for a, b in names]
    for (a, b), one, p_holm in zip(names, found, holm([one.p for one in found]), strict=True):
        number = {name: place for place, name in enumerate(SHIFTS, start=1)}
        low, high = (100 * bound for bound in one.interval)
        again = "-" if one.p_seeds is None else f"{one.p_seeds:.4f}"
        row = f"{number[b]} {b} - {number[a]} {a}{100 * one.difference:+.2f}{low:+.2f} to {high:+.2f}"
        assert f"{row}{one.p_units:.4f}{again}{p_holm:.4f}" in page.text


def test_examples_are_the_queries_of_the_largest_differences_with_the_lists_that_a_test_kept(page):
    assert "2 clip finds less than 1 transreid" in page.text and "3 pcb finds more than 1 transreid" in page.text
    below = page.text.split("2 clip finds less than 1 transreid")[1].split("3 pcb finds more")[0]
    assert "1. 0003_c003.jpg" in below and "2. " not in below, "it gets one query alone more wrong"
    assert "2 clip: AP 5.0 %, the first match at rank 8" in below
    assert below.count("What 1 transreid found:") == below.count("What 2 clip found:") == 1


def test_gains_are_sorted_by_size_and_small_ones_and_queries_without_a_match_are_left_out():
    assert largest(np.array([0.1, 0.005, 0.3, np.nan, -0.4])) == [2, 0]
    first, second = table_of([0.2, np.nan], [0, 1]), table_of([0.4, np.nan], [0, 1])
    np.testing.assert_allclose(mean_ap([first, second]), [0.3, np.nan])


def test_the_page_holds_no_path_of_this_machine_but_in_its_command(page, logs):
    shown = page.text.split("Reproduce")[-2]
    assert str(logs) not in shown and "/abs/" not in shown and "run/w_30.pth" in shown


def test_slices_stand_side_by_side_with_their_queries(page):
    part = next(one for one in make_slices(3) if one.kind == "viewpoint")
    assert f"viewpoint{part.query}{part.num_query}{3 * f'{100 * part.mAP:.2f}'}" in page.text


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["transreid", "pcb"], "several runs need --out FILE"),
        (["transreid", "--out", "x.html"], "--out is for several runs, got one"),
    ],
)
def test_one_page_is_of_one_test_and_a_named_one_of_several_runs(capsys, words, error):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2 and error in capsys.readouterr().err


def test_runs_that_are_not_there_or_of_another_test_set_are_refused(logs, tmp_path, capsys):
    assert commands.run(main, logs / "transreid", logs / "gone", "--out", tmp_path / "x.html") == 2
    assert "no test found there" in capsys.readouterr().err
    paths = [f"{number}.jpg" for number in range(40)]
    write_one(tmp_path / "pcb", "pcb", 0, paths)
    assert commands.run(main, logs / "transreid", tmp_path / "pcb", "--out", tmp_path / "x.html") == 2
    assert "were tested on other queries" in capsys.readouterr().err and not (tmp_path / "x.html").exists()
