"""What the table of a launch says about plans and figures, against values written by hand."""

import csv
import json

import pytest

from configs import load_cfg
from processor import PhasePlan
from tests.fake_runner import PHASED, ROUTED, score, write_config
from utils.ablation import describe_plan, format_ablation, recipe_names, table_note, table_rows
from utils.results import METRICS
from utils.summary import SeedResults, build_summary

PXK = "DATALOADER: {SAMPLER: softmax_triplet, NUM_INSTANCE: 4}\n"
RETIRED = PHASED.replace("BOUNDARIES: [2, 3]", "BOUNDARIES: [2]\n    TRIPLETX_END: 3")
FADING = PHASED.replace("'const:0.3', 'const:0.3'", "'const:0.3', 'linear:0.3->0.0'")
SELF_SUPERVISED = """  IMS_PER_BATCH: 24
DATALOADER: {SAMPLER: random}
LOSS: {SUPCON: {ENABLE: True}}
"""


def describe(tmp_path, more, *opts):
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


def test_self_supervised_training_is_supcon_alone(tmp_path):
    losses, batches, k = describe(tmp_path, SELF_SUPERVISED, "MODEL.TRAINING_MODE", "self_supervised")
    assert losses == "SupCon" and "24" in batches and k is None


def summarise(recipe, epochs_of_seeds, last_epoch, name=None, k=None):
    """A summary of {seed: {epoch: base}}, where base is the mAP and each later metric 0.1 more."""
    results = []
    for seed, epochs in epochs_of_seeds.items():
        metrics = {epoch: {name: base + 0.1 * i for i, name in enumerate(METRICS)} for epoch, base in epochs.items()}
        results.append(SeedResults(seed, metrics, {}, set()))
    facts = {"recipe": recipe, "name": name or f"p_{recipe}", "losses": "CE|x", "pxk": "16x4", "tripletx_k": k}
    return build_summary(results, last_epoch, facts | {"epochs": last_epoch}, [])


def test_a_row_holds_the_last_epoch_in_percent():
    rows = table_rows([summarise("a", {0: {3: 0.25}}, 3, k=5), summarise("b", {0: {7: 0.125}}, 7)])
    assert rows == [
        ["ID", "recipe", "losses", "PxK", "k", "epochs", "mAP / R1", "R5", "R10"],
        ["1", "a", "CE|x", "16x4", "5", "3", "25.00 / 45.00", "55.00", "65.00"],
        ["2", "b", "CE|x", "16x4", "-", "7", "12.50 / 32.50", "42.50", "52.50"],
    ]


def test_several_seeds_give_mean_and_sd_of_the_sample():
    row = table_rows([summarise("a", {0: {3: 0.1}, 1: {3: 0.2}, 2: {3: 0.3}}, 3)])[1]
    assert row[6:] == ["20.00 +- 10.00 / 40.00 +- 10.00", "50.00 +- 10.00", "60.00 +- 10.00"]


def test_another_best_epoch_of_any_seed_adds_a_marked_row_for_that_experiment_only():
    seeds = {0: {2: 0.4, 3: 0.2}, 1: {2: 0.1, 3: 0.2}}
    rows = table_rows([summarise("a", {0: {3: 0.1}}, 3), summarise("b", seeds, 3), summarise("c", {0: {3: 0.1}}, 3)])
    assert [row[:2] for row in rows[1:]] == [["1", "a"], ["2", "b"], ["2", "b, best on test"], ["3", "c"]]
    assert [row[5] for row in rows[2:4]] == ["3", "2, 3"]
    assert rows[2][6].startswith("20.00 +- 0.00") and rows[3][6].startswith("30.00 +- 14.14")


def test_without_a_result_of_the_last_epoch_the_row_is_empty_and_older_epochs_are_marked():
    rows = table_rows([summarise("a", {0: {}}, 3), summarise("b", {0: {1: 0.2}}, 3)])
    assert [row[6:] for row in rows[1:3]] == [["- / -", "-", "-"]] * 2
    assert rows[3][1] == "b, best on test" and rows[3][6] == "20.00 / 40.00"


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ([1], "one seed"),
        ([3, 3], "mean +- sd over 3 seeds."),
        ([3, 1], "(ID 1: 3, ID 2: 1)"),
        ([0], "no result yet"),
        ([1, 0], "one seed"),
    ],
)
def test_the_note_says_how_many_seeds_and_how_best_was_chosen(counts, said):
    summaries = [summarise(str(i), {seed: {3: 0.1} for seed in range(n)} or {0: {}}, 3) for i, n in enumerate(counts)]
    note = table_note(summaries)
    assert said in note and "'best' is the epoch with the highest (mAP, Rank-1) on the test set itself" in note
    assert format_ablation(summaries).endswith(note)


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
    assert list(rows[0]) == ["recipe", "seed", "epoch", "mAP", "mINP", "R1", "R5", "R10", "best"]
    assert [(row["recipe"], row["seed"], row["epoch"], row["best"]) for row in rows] == [
        (recipe, seed, epoch, "1" if epoch == "2" else "0") for recipe in ("one", "two") for seed in "01"
        for epoch in "123"
    ]  # fmt: skip
    assert float(rows[-1]["R10"]) == score(1, 3)["Rank-10"]
    summaries = json.loads((logs / f"{start}ablation.json").read_text())
    names = [f"veri776_{start}one", f"veri776_{start}two"]
    assert summaries == [json.loads((logs / f"{name}_summary.json").read_text()) for name in names]
    text = (logs / f"{start}ablation.md").read_text()
    # mAP of the last epoch: 40, 50
    assert "| 2 | two | CE+Triplet\\|TripletX+SupCon | 8x8 | 5 | 3 | 45.00 +- 7.07 / 47.00 +- 7.07 |" in text
    assert "| 2 | two, best on test |" in text and "mean +- sd over 2 seeds" in text
    assert " 2  two                " in out and f"written: {logs / f'{start}ablation.md'}" in out


def test_one_config_has_its_table_on_the_terminal_and_in_its_own_summary(launch, logs, tmp_path, capsys):
    assert launch("--supcon", configs=[write_config(tmp_path, "x", PXK)]) == 0
    out = capsys.readouterr().out
    assert " 1  x_sup                " in out and "CE+Triplet+SupCon" in out and not list(logs.glob("ablation*"))
    text = (logs / "veri776_x_sup_summary.md").read_text()
    assert "| 1 | x_sup | CE+Triplet+SupCon | 16x4 | - | 3 | 40.00 / 42.00 | 43.00 | 44.00 |" in text
    assert "| seed 0, best on test | 2 | 50.00 |" in text and text.startswith("# veri776_x_sup\n")
