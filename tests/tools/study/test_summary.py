"""Best and last epoch, mean and sd, against values computed by hand."""

import csv
import json
import statistics

import numpy as np
import pytest

from configs.picking import picked_by
from tests.fake_runner import queries, score, summary_of
from tools.study.summary import (
    KINDS,
    SeedResults,
    best_epoch,
    best_held_out,
    build_summary,
    format_table,
    mean_and_sd,
    pick_references,
)
from utils.statistics.bootstrap import interval
from utils.test_folder import METRICS

FACTS = {"dataset": "VeRi-776"}


def metrics(mean_ap: float, rank1: float = 0.5) -> dict[str, float]:
    return {"mAP": mean_ap, "mINP": 0.1, "Rank-1": rank1, "Rank-5": 0.8, "Rank-10": 0.9}


def test_the_best_epoch_has_the_highest_map():
    assert best_epoch({1: metrics(0.3, 0.9), 2: metrics(0.4, 0.1)}) == 2


def test_equal_map_is_decided_by_rank_1():
    assert best_epoch({1: metrics(0.4, 0.5), 2: metrics(0.4, 0.6), 3: metrics(0.4, 0.4)}) == 2


def test_the_best_epoch_of_a_search_by_words_has_the_highest_rank_1_and_of_equals_the_highest_map():
    by = picked_by("irra")
    assert best_epoch({1: metrics(0.3, 0.9), 2: metrics(0.4, 0.1)}, by) == 1
    assert best_epoch({1: metrics(0.3, 0.5), 2: metrics(0.4, 0.5), 3: metrics(0.2, 0.5)}, by) == 2
    assert best_held_out([1, 2], {1: metrics(0.3, 0.9), 2: metrics(0.4, 0.1), 3: metrics(1.0, 1.0)}, by) == 1


def test_equal_results_keep_the_earlier_epoch_in_any_order():
    assert best_epoch({9: metrics(0.4), 10: metrics(0.4), 2: metrics(0.4)}) == 2


def test_the_sd_is_that_of_a_sample():
    mean, sd = mean_and_sd([metrics(0.1), metrics(0.3)])
    assert mean["mAP"] == pytest.approx(0.2) and sd["mAP"] == pytest.approx(0.02**0.5)
    assert sd["Rank-1"] == 0.0


def test_one_row_has_sd_zero_and_no_row_has_nothing():
    assert mean_and_sd([metrics(0.3)])[1]["mAP"] == 0.0
    assert mean_and_sd([]) == ({}, {})


def test_only_known_reference_lines_are_picked():
    records = [
        {"kind": "train", "loss": 1.0},
        {"kind": "reference", "name": "untrained", "mAP": 0.02, "Rank-1": 0.03, "epoch": 0},
        {"kind": "reference", "name": "other", "mAP": 0.5},
    ]
    assert pick_references(records) == {"untrained": {"mAP": 0.02, "Rank-1": 0.03}}


def test_references_are_averaged_over_the_seeds_that_have_them():
    results = [
        SeedResults(0, {1: metrics(0.5)}, {"untrained": {"mAP": 0.02}}, set()),
        SeedResults(1, {1: metrics(0.5)}, {"untrained": {"mAP": 0.04}}, set()),
        SeedResults(2, {1: metrics(0.5)}, {}, set()),
    ]
    assert build_summary(results, 1, {}, [])["reference"] == {"untrained": {"mAP": pytest.approx(0.03)}}


def test_columns_of_the_table_are_aligned():
    results = [SeedResults(seed, {1: metrics(0.05 * (seed + 1))}, {}, set()) for seed in (0, 10)]
    lines = format_table(build_summary(results, 1, FACTS, [])).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1].split()[-5:] == ["5.00", "10.00", "50.00", "80.00", "90.00"]


def test_best_last_mean_and_sd_are_the_hand_computed_ones(launch, logs):
    launch(seeds=("0", "1", "3"))
    summary = summary_of(logs)
    assert summary["seeds"]["1"]["best"] == {"epoch": 2, **score(1, 2)}
    assert summary["seeds"]["1"]["last"] == {"epoch": 3, **score(1, 3)}
    # mAP of epoch 2: 0.5, 0.6, 0.8; deviations -4/30, -1/30, 5/30; sd = sqrt(42 / 900 / 2)
    assert summary["mean"]["best"]["mAP"] == pytest.approx(1.9 / 3)
    assert summary["std"]["best"]["mAP"] == pytest.approx((42 / 1800) ** 0.5)
    for name in METRICS:
        last = [score(seed, 3)[name] for seed in (0, 1, 3)]
        assert summary["mean"]["last"][name] == pytest.approx(sum(last) / 3)
        assert summary["std"]["last"][name] == pytest.approx(statistics.stdev(last))


def test_the_summary_covers_the_seeds_of_this_launch(launch, logs):
    launch(seeds=("0", "1"))
    launch(seeds=("1",))
    summary = summary_of(logs)
    assert list(summary["seeds"]) == ["1"] and summary["std"]["last"]["mAP"] == 0.0


def test_the_summary_says_what_ran_and_lies_under_both_names(launch, logs, tmp_path):
    launch("--opts", "DATASETS.ROOT_DIR", "/d", "--save-every", "1")
    summary = summary_of(logs)
    assert summary == json.loads((logs / "phased_loss_best_summary.json").read_text())
    assert (summary["epochs"], summary["save_every"], summary["data_root"]) == (3, 1, "/d")
    assert summary["config"] == str(tmp_path / "deit_transreid_stride_mine.yml")
    assert summary["data_fingerprints"] == ["d"] and not list(logs.glob("*.tmp"))


def test_tables_of_trapezoids_say_so_and_stand_beside_no_standard_ones(launch, logs, capsys):
    launch("--opts", "TEST.AP", "trapezoid")
    title = "VeRi-776 (trapezoid AP)"
    assert summary_of(logs)["dataset"] == title and title in capsys.readouterr().out
    assert all(title in (logs / f"veri776_mine_summary{end}").read_text() for end in (".csv", ".md"))


def test_the_csv_has_a_row_per_seed_and_epoch_with_the_best_marked(launch, logs):
    launch(seeds=("0", "1"))
    with open(logs / "veri776_mine_summary.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["seed", "epoch", "mAP", "mINP", "R1", "R5", "R10", "best", "best_held_out", "data"]
    assert [(row["seed"], row["epoch"], row["best"]) for row in rows] == [
        (seed, epoch, "1" if epoch == "2" else "0") for seed in "01" for epoch in "123"
    ]
    assert float(rows[4]["R5"]) == score(1, 2)["Rank-5"]


def test_the_table_shows_percent_and_the_reference_rows(launch, runner, logs, capsys):
    runner.write_metrics = True
    launch(seeds=("0", "1"))
    out = capsys.readouterr().out
    lines = {line.split("  ")[0]: line.split() for line in out.splitlines()}
    assert lines["seed 0, last"][3:7] == ["VeRi-776", "3", "40.00", "41.00"]
    assert lines["seed 1, best on test"][5:8] == ["VeRi-776", "2", "60.00"]
    assert "45.00 +- 7.07" in out  # mAP of the last epoch: 40, 50
    assert lines["raw pixels"][2:6] == ["VeRi-776", "5.00", "-", "12.50"]
    assert f"files  {logs / 'veri776_mine_summary'}{{.json, .csv, .md}}" in out
    assert summary_of(logs)["reference"] == {"raw_pixels": {"mAP": 0.05, "Rank-1": 0.125}}


def test_the_interval_is_that_of_the_queries_averaged_over_the_seeds():
    tables = [queries(0.3), queries(0.5)]
    results = [SeedResults(seed, {1: metrics(0.3)}, {}, set(), per_query={1: tables[seed]}) for seed in (0, 1)]
    found = build_summary(results, 1, FACTS, [])["interval"]
    middle = tables[0] | {"ap": queries(0.4)["ap"], "inp": queries(0.4)["inp"]}
    assert list(found) == ["last"] and set(found["last"]) == set(METRICS)
    for name in ("mAP", "mINP"):
        assert found["last"][name] == pytest.approx(interval(middle, name))


def test_images_that_search_captions_are_not_in_the_interval():
    own, images = queries(0.3), queries(0.9)
    counts = [len(own["pid"]), len(images["pid"])]
    both = {key: np.concatenate([own[key], images[key]]) for key in own}
    both |= {"set": np.repeat(["t2i", "i2t"], counts), "weight": np.repeat([1.0, 0.0], counts)}
    found = [
        build_summary([SeedResults(0, {1: metrics(0.3)}, {}, set(), per_query={1: one})], 1, FACTS, [])["interval"]
        for one in (own, both)
    ]
    assert found[0] == found[1] and found[0]["last"]["mAP"][0] < 0.3 < found[0]["last"]["mAP"][1]


def test_sets_weigh_in_the_interval_what_they_weigh_in_the_metrics():
    few, many = queries(0.2), {key: np.concatenate([column] * 5) for key, column in queries(0.6).items()}
    counts = [len(few["pid"]), len(many["pid"])]
    both = {key: np.concatenate([few[key], many[key]]) for key in few}
    both |= {"set": np.repeat(["R", "N"], counts), "weight": np.repeat([0.5, 0.5], counts)}
    results = [SeedResults(0, {1: metrics(0.4)}, {}, set(), per_query={1: both})]
    assert build_summary(results, 1, FACTS, [])["interval"]["last"]["mAP"] == pytest.approx(interval(both, "mAP"))


def test_seeds_that_saw_other_queries_or_left_none_have_no_interval():
    for other in (None, queries(0.4) | {"pid": np.arange(40)}):
        per_query = {1: other} if other else {}
        results = [
            SeedResults(0, {1: metrics(0.3)}, {}, {"d"}, per_query={1: queries(0.3)}),
            SeedResults(1, {1: metrics(0.3)}, {}, {"e"}, per_query=per_query),
        ]
        summary = build_summary(results, 1, FACTS, [])
        assert summary["interval"] == {"last": {}} and "95 % interval" not in format_table(summary)


def test_the_best_epoch_on_held_out_identities_is_chosen_among_the_tested_ones():
    assert best_held_out([1, 2, 4], {1: metrics(0.3), 2: metrics(0.4), 3: metrics(0.9), 4: metrics(0.4)}) == 2
    assert best_held_out([1, 2], {3: metrics(0.9)}) is None and best_held_out([1], {}) is None


def test_three_choices_of_the_epoch_are_named_as_what_they_are(launch, runner, logs, capsys):
    runner.held_out = {1: 0.9, 2: 0.1, 3: 0.2}  # on the test set: 30, 50 and 40
    launch("--verbose")
    summary = summary_of(logs)
    assert {kind: summary["seeds"]["0"][kind]["epoch"] for kind in KINDS} == {"last": 3, "best_held_out": 1, "best": 2}
    assert set(summary["interval"]) == {"last", "best_held_out"} and summary["mean"]["best_held_out"]["mAP"] == 0.3
    assert summary["interval"]["best_held_out"]["mAP"][1] < summary["interval"]["last"]["mAP"][1]
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines() if line.startswith("seed 0, best on held-out ids")]
    assert lines[0][6:9] == ["VeRi-776", "1", "30.00"]
    assert " 1  mine, best on held-out ids  VeRi-776" in out and "(DATASETS.VAL_IDS, or a val split" in out
    with open(logs / "veri776_mine_summary.csv", newline="") as stream:
        assert [row["best_held_out"] for row in csv.DictReader(stream)] == ["1", "0", "0"]


def test_a_launch_of_irra_picks_by_rank_1_and_says_so(launch, runner, logs, monkeypatch, capsys):
    monkeypatch.setattr("tests.fake_runner.score", lambda seed, epoch: metrics(0.1 * epoch, 0.9 - 0.1 * epoch))
    launch("--epochs", "3", "--save-every", "1", configs=("configs/Synthetic/irra.yml",))
    (path,) = logs.glob("synthetic*_summary.csv")
    with open(path, newline="") as stream:
        assert [row["best"] for row in csv.DictReader(stream)] == ["1", "0", "0"]
    assert "the epoch with the highest (Rank-1, mAP) on the test set itself" in capsys.readouterr().out


def test_without_held_out_identities_nothing_is_said_about_them(launch, logs, capsys):
    launch("--save-every", "0")
    assert "held-out" not in capsys.readouterr().out and "best_held_out" not in summary_of(logs)["seeds"]["0"]


@pytest.mark.parametrize("content", [None, b"", b"PK half a file"])
def test_a_result_whose_queries_are_gone_or_damaged_is_tested_again(launch, runner, logs, content):
    launch("--save-every", "0")
    path = logs / "veri776_mine_seed0_test" / "epoch_3" / "per_query.npz"
    assert summary_of(logs)["interval"]["last"]["mAP"]
    path.unlink() if content is None else path.write_bytes(content)
    runner.take()
    launch("--save-every", "0")
    assert runner.take() == ["test 0 3"] and summary_of(logs)["interval"]["last"]["mAP"]


def test_groups_of_query_sets_are_averaged_over_seeds_and_a_single_group_is_the_result_itself():
    groups = [{"MM-1": metrics(0.2 + seed / 10), "MM-2": metrics(0.4, 0.6)} for seed in (0, 2)]
    results = [SeedResults(seed, {1: metrics(0.3)}, {}, set(), groups=own) for seed, own in enumerate(groups)]
    summary = build_summary(results, 1, FACTS, [])
    assert summary["groups"]["MM-1"]["mean"]["mAP"] == pytest.approx(0.3)
    assert summary["groups"]["MM-1"]["std"]["mAP"] == pytest.approx(0.02**0.5)
    rows = [line for line in format_table(summary).splitlines() if "MM-" in line]
    assert rows[0].startswith("mean +- sd of 2, last, MM-1") and "30.00 +- 14.14" in rows[0] and len(rows) == 2
    one = build_summary(results[:1], 1, FACTS, [])
    assert any(line.startswith("last, MM-2") and "40.00" in line for line in format_table(one).splitlines())
    single = [one._replace(groups={"t2i": metrics(0.3)}) for one in results]
    assert "groups" not in build_summary(single, 1, FACTS, [])
    assert "groups" not in build_summary([one._replace(groups={}) for one in results], 1, FACTS, [])
