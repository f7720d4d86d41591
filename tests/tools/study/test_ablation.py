"""What the table of a launch says about plans and figures, against values written by hand."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs import load_cfg
from processor import PhasePlan
from tests.fake_runner import PHASED, ROUTED, queries, score, summary_of, write_config
from tools.study.ablation import (
    compare_to_first,
    describe_plan,
    describe_stages,
    format_ablation,
    recipe_names,
    table_note,
    table_rows,
)
from tools.study.summary import SeedResults, build_summary
from utils.statistics.bootstrap import PerQuery
from utils.statistics.paired import compare_tables
from utils.test_folder import METRICS

PXK = "DATALOADER: {SAMPLER: softmax_triplet, NUM_INSTANCE: 4}\n"
RETIRED = PHASED.replace("BOUNDARIES: [2, 3]", "BOUNDARIES: [2]\n    TRIPLETX_END: 3")
FADING = PHASED.replace("'const:0.3', 'const:0.3'", "'const:0.3', 'linear:0.3->0.0'")
SELF_SUPERVISED = """  IMS_PER_BATCH: 24
DATALOADER: {SAMPLER: random}
LOSS: {SUPCON: {ENABLE: True}}
"""


def describe(tmp_path: Path, more: str, *opts: str) -> tuple[str, str, int | None]:
    cfg = load_cfg(write_config(tmp_path, "x", more), opts)
    facts = describe_plan(PhasePlan(cfg), cfg.LOSS.TRIPLETX.K)
    return facts["losses"], facts["pxk"], facts["tripletx_k"]


@pytest.mark.parametrize(
    ("more", "opts", "expected"),
    [
        (PXK, (), ("CE+Triplet", "16x4", None)),
        (PXK, ("MODEL.TRIPLET_LOSS_WEIGHT", 0), ("CE", "16x4", None)),
        (PXK, ("MODEL.ID_LOSS_WEIGHT", 0, "LOSS.TRIPLETX.ENABLE", True), ("TripletX", "16x4", 5)),
        (PXK, ("LOSS.SUPCON.ENABLE", True), ("CE+Triplet+SupCon", "16x4", None)),
        (ROUTED, ("LOSS.TRIPLETX.K", 3), ("CE+Triplet|TripletX+SupCon", "8x8", 3)),
        (ROUTED, ("LOSS.TRIPLETX.ENABLE", False), ("CE+Triplet+SupCon", "8x8", None)),
        (PHASED, (), ("A: CE+Triplet, B: CE+TripletX+SupCon, C: CE+Triplet+SupCon", "16x4 / 8x8", 5)),
        (PHASED, ("SOLVER.MAX_EPOCHS", 1), ("A: CE+Triplet", "16x4", None)),  # later phases never begin
        (RETIRED, (), ("A: CE+Triplet, B: CE+TripletX->Triplet+SupCon", "16x4 / 8x8", 5)),
        # SupCon's weight is 0 in the very last epoch, so K falls back to 4
        (
            FADING,
            ("SOLVER.MAX_EPOCHS", 5),
            ("A: CE+Triplet, B: CE+TripletX+SupCon, C: CE+Triplet+SupCon", "16x4 / 8x8", 5),
        ),  # fmt: skip
    ],
)
def test_a_plan_is_described_by_its_losses_its_batches_and_the_width_of_tripletx(tmp_path, more, opts, expected):
    assert describe(tmp_path, more, *opts) == expected


def test_the_losses_of_all_stages_stand_in_the_table_and_the_batches_of_the_last():
    cfg = load_cfg("configs/Synthetic/clip_reid.yml")
    plans = {name: PhasePlan(cfg, name) for name in ("stage1", "stage2")}
    facts = describe_stages(plans, 5)
    assert facts == {"losses": "stage1: I2T+T2I; stage2: CE+Triplet+I2T", "pxk": "16x4", "tripletx_k": None}
    assert describe_stages({"stage2": plans["stage2"]}, 5) == describe_plan(plans["stage2"], 5)


def test_self_supervised_training_is_supcon_alone(tmp_path):
    losses, batches, k = describe(tmp_path, SELF_SUPERVISED, "MODEL.TRAINING_MODE", "self_supervised")
    assert losses == "SupCon" and "24" in batches and k is None


def facts_of(recipe: str, name: str | None = None, k: int | None = None, last_epoch: int = 3) -> dict[str, Any]:
    facts = {"dataset": "VeRi-776", "recipe": recipe, "name": name or f"p_{recipe}"}
    return facts | {"losses": "CE|x", "pxk": "16x4", "tripletx_k": k, "epochs": last_epoch}


EpochsOfSeeds = dict[int, dict[int, float]]  # {seed: {epoch: mAP}}


def seed_results(
    epochs_of_seeds: EpochsOfSeeds, tables: dict[int, PerQuery] | None = None, fingerprint: str = "d"
) -> list[SeedResults]:
    """Results of {seed: {epoch: base}}, where base is the mAP and each later metric 0.1 more; tables by seed."""
    results = []
    for seed, epochs in epochs_of_seeds.items():
        metrics = {epoch: {name: base + 0.1 * i for i, name in enumerate(METRICS)} for epoch, base in epochs.items()}
        results.append(SeedResults(seed, metrics, {}, {fingerprint}, per_query={3: tables[seed]} if tables else {}))
    return results


def summarise(
    recipe: str, epochs_of_seeds: EpochsOfSeeds, last_epoch: int, name: str | None = None, k: int | None = None
) -> dict[str, Any]:
    return build_summary(seed_results(epochs_of_seeds), last_epoch, facts_of(recipe, name, k, last_epoch), [])


def test_a_row_holds_the_last_epoch_in_percent():
    rows = table_rows([summarise("a", {0: {3: 0.25}}, 3, k=5), summarise("b", {0: {7: 0.125}}, 7)])
    assert rows == [
        ["ID", "recipe", "data", "losses", "PxK", "k", "epochs", "mAP", "95 %", "R1", "R5", "R10"],
        ["1", "a", "VeRi-776", "CE|x", "16x4", "5", "3", "25.00", "-", "45.00", "55.00", "65.00"],
        ["2", "b", "VeRi-776", "CE|x", "16x4", "-", "7", "12.50", "-", "32.50", "42.50", "52.50"],
    ]


def test_several_seeds_give_mean_and_sd_of_the_sample():
    row = table_rows([summarise("a", {0: {3: 0.1}, 1: {3: 0.2}, 2: {3: 0.3}}, 3)])[1]
    assert row[7:] == ["20.00 +- 10.00", "-", "40.00 +- 10.00", "50.00 +- 10.00", "60.00 +- 10.00"]


def test_another_best_epoch_of_any_seed_adds_a_marked_row_for_that_experiment_only():
    seeds = {0: {2: 0.4, 3: 0.2}, 1: {2: 0.1, 3: 0.2}}
    rows = table_rows([summarise("a", {0: {3: 0.1}}, 3), summarise("b", seeds, 3), summarise("c", {0: {3: 0.1}}, 3)])
    assert [row[:2] for row in rows[1:]] == [["1", "a"], ["2", "b"], ["2", "b, best on test"], ["3", "c"]]
    assert [row[6] for row in rows[2:4]] == ["3", "2, 3"]
    assert rows[2][7] == "20.00 +- 0.00" and rows[3][7] == "30.00 +- 14.14"


def test_without_a_result_of_the_last_epoch_the_row_is_empty_and_older_epochs_are_marked():
    rows = table_rows([summarise("a", {0: {}}, 3), summarise("b", {0: {1: 0.2}}, 3)])
    assert [row[7:] for row in rows[1:3]] == [["-"] * 5] * 2
    assert rows[3][1] == "b, best on test" and rows[3][7:10] == ["20.00", "-", "40.00"]


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ([1], "one seed"),
        ([3, 3], "mean +- sd over 3 seeds;"),
        ([3, 1], "(ID 1: 3, ID 2: 1)"),
        ([0], "no result yet"),
        ([1, 0], "one seed"),
    ],
)
def test_the_note_says_how_many_seeds_and_how_best_was_chosen(counts, said):
    summaries = [summarise(str(i), {seed: {3: 0.1} for seed in range(n)} or {0: {}}, 3) for i, n in enumerate(counts)]
    note = table_note(summaries)
    assert said in note and "'best on test' is the epoch with the highest (mAP, Rank-1) on the test set itself" in note
    assert format_ablation(summaries).endswith(note)


def test_the_note_says_of_which_experiments_it_is_where_they_choose_the_best_by_other_metrics():
    irra = [result._replace(picked_by=("Rank-1", "mAP")) for result in seed_results({0: {3: 0.1}})]
    held_out = [result._replace(held_out={3: {name: 0.1 for name in METRICS}}) for result in irra]
    words = summarise("b", {0: {3: 0.1}}, 3)
    summaries = [words, *(build_summary(own, 3, facts_of("a"), []) for own in (irra, held_out)), words]
    *_, of_images, of_captions = table_note(summaries).splitlines()
    assert of_images.startswith("ID 1, 4: 'best on test' is the epoch with the highest (mAP, Rank-1) on")
    assert of_captions.startswith("ID 2, 3: 'best on test' is the epoch with the highest (Rank-1, mAP) on")
    assert "held-out ids" in of_captions and table_note(summaries[1:3]).splitlines()[-1].startswith("'best on test'")


def test_two_experiments_of_one_recipe_are_told_apart_by_their_names():
    one, two = summarise("a", {0: {}}, 3, name="veri_a"), summarise("a", {0: {}}, 3, name="market_a")
    assert recipe_names([one, two]) == ["veri_a", "market_a"]
    assert recipe_names([one, summarise("b", {0: {}}, 3)]) == ["a", "b"]


@pytest.mark.parametrize(("words", "start"), [((), ""), (("--tag", "t"), "t_")])
def test_a_launch_of_several_configs_leaves_its_table_in_three_files(launch, logs, tmp_path, capsys, words, start):
    configs = [write_config(tmp_path, "one"), write_config(tmp_path, "two", ROUTED)]
    assert launch(*words, seeds=("0", "1"), configs=configs) == 0
    out = capsys.readouterr().out
    with open(logs / f"{start}ablation.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == [
        "recipe",
        "seed",
        "epoch",
        "mAP",
        "mINP",
        "R1",
        "R5",
        "R10",
        "best",
        "best_held_out",
        "data",
    ]
    assert [(row["recipe"], row["seed"], row["epoch"], row["best"]) for row in rows] == [
        (recipe, seed, epoch, "1" if epoch == "2" else "0") for recipe in ("one", "two") for seed in "01"
        for epoch in "123"
    ]  # fmt: skip
    assert float(rows[-1]["R10"]) == score(1, 3)["Rank-10"]
    summaries = json.loads((logs / f"{start}ablation.json").read_text())
    names = [f"veri776_{start}one", f"veri776_{start}two"]
    assert "difference" not in summaries[0] and summaries[1].pop("difference")["value"] == 0.0
    assert summaries == [json.loads((logs / f"{name}_summary.json").read_text()) for name in names]
    text = (logs / f"{start}ablation.md").read_text()
    # mAP of the last epoch: 40, 50
    assert "| 2 | two | VeRi-776 | CE+Triplet\\|TripletX+SupCon | 8x8 | 5 | 3 | 45.00 +- 7.07 | 4" in text
    assert "| 2 | two, best on test | VeRi-776 |" in text and "mean +- sd over 2 seeds" in text
    assert " 2  two                " in out and f"files  {logs / f'{start}ablation'}{{.json, .csv, .md}}" in out


def test_one_config_has_its_table_on_the_terminal_and_in_its_own_summary(launch, logs, tmp_path, capsys):
    assert launch("--supcon", "--verbose", configs=[write_config(tmp_path, "x", PXK)]) == 0
    out = capsys.readouterr().out
    assert " 1  x_sup                " in out and "CE+Triplet+SupCon" in out and not list(logs.glob("ablation*"))
    text = (logs / "veri776_x_sup_summary.md").read_text()
    assert "| 1 | x_sup | VeRi-776 | CE+Triplet+SupCon | 16x4 | - | 3 | 40.00 | 37." in text
    assert "| seed 0, best on test | VeRi-776 | 2 | 50.00 |" in text and text.startswith("# veri776_x_sup\n")


def compared(
    *experiments: Sequence[float], fingerprints: Sequence[str] = "dddd"
) -> tuple[list[dict[str, Any]], list[list[SeedResults]]]:
    """The compared summaries of experiments given as the mAP of each seed; the queries' APs spread around it."""
    rng = np.random.default_rng(0)
    results = []
    for seeds, fingerprint in zip(experiments, fingerprints, strict=False):
        tables = [queries(value) for value in seeds]
        for table in tables:
            table["ap"] = table["ap"] + rng.normal(0, 0.03, 40)
        results.append(seed_results({seed: {3: value} for seed, value in enumerate(seeds)}, tables, fingerprint))
    summaries = [build_summary(own, 3, facts_of(str(i)), []) for i, own in enumerate(results)]
    return compare_to_first(summaries, results), results


def map_cells(summaries: list[dict[str, Any]]) -> list[str]:
    return [row[7] for row in table_rows(summaries)[1:]]


STEADY, NOISY = (0.400, 0.402, 0.401), (0.35, 0.45, 0.55)


def test_a_difference_beyond_identities_and_seeds_is_marked():
    summaries, results = compared(STEADY, (0.500, 0.502, 0.501))
    assert map_cells(summaries) == ["40.10 +- 0.10", "50.10 +- 0.10 *"]
    found = summaries[1]["difference"]
    expected = compare_tables(*([one.per_query[3] for one in own] for own in results), "mAP")
    assert found == {
        "metric": "mAP",
        "value": expected.difference,
        "interval": list(expected.interval),
        "p_identities": expected.p_units,
        "p_seeds": expected.p_seeds,
        "p_holm": max(expected.p_units, expected.p_seeds),
        "significant": True,
    }
    note = table_note(summaries)
    assert "*: mAP differs from ID 1" in note and "corrected for 1 comparison." in note and "(*)" not in note


@pytest.mark.parametrize("other", [NOISY, (0.401, 0.403, 0.402)], ids=["only over identities", "over neither"])
def test_a_difference_that_seeds_or_identities_explain_is_not_marked(other):
    summaries, _ = compared(STEADY, other)
    assert not summaries[1]["difference"]["significant"] and "*" not in "".join(map_cells(summaries))


def test_a_difference_of_one_seed_each_has_a_mark_of_its_own():
    summaries, _ = compared((0.4,), (0.5,), (0.4,))
    assert map_cells(summaries) == ["40.00", "50.00 (*)", "40.00"]
    assert summaries[1]["difference"]["p_seeds"] is None
    assert "(*): over test identities alone" in table_note(summaries)


def test_p_values_are_corrected_for_the_number_of_comparisons():
    other = (0.42, 0.43, 0.425)
    alone, _ = compared(STEADY, other)
    p = alone[1]["difference"]["p_holm"]
    assert 0.05 / 3 < p < 0.05 and alone[1]["difference"]["significant"]
    among, _ = compared(STEADY, other, STEADY, STEADY, fingerprints="ddddd")
    assert among[1]["difference"]["p_holm"] > 0.05 and not among[1]["difference"]["significant"]


def test_other_test_images_and_missing_results_are_not_compared():
    summaries, _ = compared(STEADY, (0.5, 0.5, 0.5), fingerprints="de")
    assert "difference" not in summaries[1] and "ID 1, p" not in table_note(summaries)
    results = [seed_results({0: {3: 0.4}}), seed_results({0: {}})]
    summaries = [build_summary(own, 3, facts_of(str(i)), []) for i, own in enumerate(results)]
    assert compare_to_first(summaries, results) == summaries


def test_two_releases_whose_files_share_their_names_are_not_compared():
    summaries, results = compared(STEADY, (0.5, 0.5, 0.5))
    releases = [summary | {"dataset": f"MSMT17 V{i}"} for i, summary in enumerate(summaries, start=1)]
    for summary in releases:
        summary.pop("difference", None)
    assert not any("difference" in summary for summary in compare_to_first(releases, results))


def test_the_interval_of_a_row_stands_beside_its_map():
    summaries, _ = compared(STEADY)
    low, high = summaries[0]["interval"]["last"]["mAP"]
    assert table_rows(summaries)[1][8] == f"{100 * low:.2f} - {100 * high:.2f}" and low < 0.401 < high


def test_a_launch_marks_in_its_table_what_differs(launch, runner, logs, tmp_path, capsys):
    configs = [write_config(tmp_path, name) for name in ("one", "two")]
    runner.gains["veri776_two"] = 0.1
    launch("--save-every", "0", configs=configs)
    out = capsys.readouterr().out
    assert "50.00 (*)" in out and max(map(len, out[out.index("ID  recipe") :].splitlines()[:8])) <= 150
    assert json.loads((logs / "ablation.json").read_text())[1]["difference"]["value"] == pytest.approx(0.1)


def test_further_test_sets_have_rows_and_marks_of_their_own(launch, runner, logs, tmp_path, capsys):
    configs = [write_config(tmp_path, name) for name in ("one", "two")]
    runner.gains["veri776_two"] = 0.1
    launch("--save-every", "0", "--opts", "DATASETS.TESTS", "('veri', 'msmt17_v2')", configs=configs)
    text = (logs / "ablation.md").read_text()
    assert "| 1 | one | VeRi-776 |" in text and "| 1 | one | MSMT17 V2 |" in text
    assert text.count("50.00 (*)") == 2 and "for 2 comparisons" in text
    test = summary_of(logs, "veri776_one")["tests"]["msmt17_v2"]
    assert test["dataset"] == "MSMT17 V2" and test["num_seeds"] == 1 and test["mean"]["mAP"] == 0.4
    assert test["interval"]["mAP"][0] < 0.4 < test["interval"]["mAP"][1]
    with open(logs / "ablation.csv", newline="") as stream:
        assert [row["data"] for row in csv.DictReader(stream)] == ["VeRi-776", "MSMT17 V2"] * 2
