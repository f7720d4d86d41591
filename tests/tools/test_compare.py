"""The command that compares two experiments: what it reads, prints, writes and refuses."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests import commands
from tests.reference.slow_statistics import holm, table_of
from tools import compare
from tools.study.tested_runs import dataset_of
from utils.statistics.paired import compare_tables
from utils.test_folder import METRICS

PID = np.repeat(np.arange(20), 2)


def table(mean_ap: float, root: str = "data", seed: int = 0) -> dict[str, np.ndarray]:
    return table_of(mean_ap + np.random.default_rng(seed).uniform(-0.1, 0.1, 40), PID, root)


def write_test(folder: Path, arrays: dict[str, np.ndarray], fingerprint: str = "d", dataset: str = "VeRi-776") -> None:
    folder.mkdir(parents=True)
    np.savez(folder / "per_query.npz", **arrays)
    content = dict.fromkeys(METRICS, 0.5) | ({"data_fingerprint": fingerprint} if fingerprint else {})
    content |= {"dataset": dataset} if dataset else {}
    (folder / "summary.json").write_text(json.dumps(content))


def write_experiment(root: Path, name: str, values: Sequence[float], epochs: Sequence[int] = (5, 10)) -> None:
    """Write <root>/<name>_seed<s>_test/epoch_<e>; earlier epochs are 0.2 worse."""
    for seed, value in enumerate(values):
        for epoch in epochs:
            arrays = table(value - 0.2 * (epoch != epochs[-1]), seed=seed)
            write_test(root / f"{name}_seed{seed}_test" / f"epoch_{epoch}", arrays)


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    write_experiment(tmp_path, "a", (0.400, 0.402, 0.404))
    write_experiment(tmp_path, "b", (0.500, 0.502, 0.504))
    return tmp_path


run = partial(commands.run, compare.main)


def test_two_experiments_are_compared_over_all_their_seeds(logs, capsys):
    assert run(logs / "a", logs / "b", "--json", logs / "out.json") == 0
    out = capsys.readouterr().out
    found = json.loads((logs / "out.json").read_text())
    tables = [[table(value + shift, seed=seed) for seed, value in enumerate((0.4, 0.402, 0.404))] for shift in (0, 0.1)]
    expected = compare_tables(*tables, "mAP")
    assert found["difference"] == pytest.approx(0.1) and found["interval"] == pytest.approx(expected.interval)
    assert (found["p_units"], found["p_seeds"]) == pytest.approx((expected.p_units, expected.p_seeds))
    assert found["a"]["seeds"] == pytest.approx(expected.seeds[0]) and len(found["b"]["folders"]) == 3
    assert "epoch_10" in found["a"]["folders"][0] and found["num_units"] == 20
    lines = {line.split("  ")[0]: line for line in out.splitlines()}
    sd = f"{100 * np.std(expected.seeds[0], ddof=1):.2f}"
    assert lines["A"].split()[2:] == ["VeRi-776", f"{100 * expected.first:.2f}", sd, "3", "10"]
    assert "+10.00 (95 % interval over identities" in lines["B - A"] and "20 identities" in lines["p over identities"]
    assert out.splitlines()[-1] == (
        "B is better by 10.00 points of mAP, significant over test identities and over seeds (both p < 0.05)."
    )


def test_one_test_folder_of_the_launcher_and_one_of_test_py_are_compared_without_seeds(logs, capsys):
    write_test(logs / "mine", table(0.5, root="/elsewhere"), fingerprint=None)
    assert run(logs / "mine", logs / "a_seed0_test", "--metric", "mINP") == 0
    out = capsys.readouterr().out
    assert "B is worse by 5.00 points of mINP for these trained models" in out and "needs two seeds" in out
    assert "training again could turn it round" in out


def test_another_epoch_can_be_asked_for(logs, capsys):
    assert run(logs / "a", logs / "b_seed0_test", "--epoch", 5) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:3]]
    assert [row[-1] for row in rows] == ["5", "5"]


def test_over_query_images_there_are_more_units(logs, capsys):
    assert run(logs / "a", logs / "b", "--unit", "query") == 0
    assert "40 queries" in capsys.readouterr().out


@pytest.mark.parametrize("unit", ["identity", "query"])
def test_images_that_search_captions_count_on_no_side(tmp_path, capsys, unit):
    numbers = []
    for name, sides in (("plain", (False, False)), ("one", (True, False)), ("both", (True, True))):
        for side, mean_ap, both in zip("ab", (0.4, 0.5), sides, strict=True):
            captions, images = table(mean_ap), table_of(np.linspace(0, 1, 60), np.arange(100, 160), "gallery")
            if both:
                captions = {key: np.concatenate([captions[key], images[key]]) for key in captions}
                captions |= {"set": np.repeat(["t2i", "i2t"], [40, 60]), "weight": np.repeat([1.0, 0.0], [40, 60])}
            write_test(tmp_path / name / side, captions)
        folders = tmp_path / name / "a", tmp_path / name / "b"
        assert run(*folders, "--unit", unit, "--json", tmp_path / "out.json") == 0
        found = json.loads((tmp_path / "out.json").read_text())
        numbers.append({key: found[key] for key in ("difference", "interval", "p_units", "num_units")})
    assert numbers[0] == numbers[1] == numbers[2] and numbers[0]["num_units"] == {"identity": 20, "query": 40}[unit]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((0.401, 0.402, 0.403), "No significant difference: other test identities could turn it round"),
        ((0.30, 0.50, 0.70), "but other seeds could turn it round."),
    ],
)
def test_the_verdict_on_chance_names_its_source(logs, capsys, values, said):
    write_experiment(logs, "c", values)
    assert run(logs / "a", logs / "c") == 0
    assert said in capsys.readouterr().out.splitlines()[-1]


def test_an_experiment_compared_with_itself_differs_in_nothing(logs, capsys):
    assert run(logs / "a", logs / "a") == 0
    out = capsys.readouterr().out
    assert "+0.00 to +0.00" in out and "1.0000" in out and "Both have the same results." in out


def refusal(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


def test_a_name_without_tests_says_what_was_looked_for(logs, capsys):
    error = refusal(capsys, logs / "a", logs / "nothing")
    assert f"'{logs / 'nothing'}': no test found there" in error and "nothing_seed<s>_test" in error
    assert "no test of epoch 7 found" in refusal(capsys, logs / "a", logs / "b", "--epoch", 7)


def test_seeds_at_different_epochs_are_refused(logs, capsys):
    write_test(logs / "a_seed0_test" / "epoch_15", table(0.4))
    error = refusal(capsys, logs / "a", logs / "b")
    assert "a_seed0_test: epoch_15, a_seed1_test: epoch_10" in error and "--epoch N" in error


def test_other_test_images_are_refused_naming_both(logs, capsys):
    write_test(logs / "other", table(0.4), fingerprint="e")
    error = refusal(capsys, logs / "a", logs / "other")
    assert "a_seed0_test/epoch_10'" in error and "other'" in error and "(data fingerprints d and e)" in error


def test_two_releases_whose_files_share_their_names_are_refused(logs, capsys):
    write_test(logs / "v1", table(0.4), dataset="MSMT17 V1")
    write_test(logs / "v2", table(0.5), dataset="MSMT17 V2")
    assert "(data sets MSMT17 V1 and MSMT17 V2)" in refusal(capsys, logs / "v1", logs / "v2")
    write_test(logs / "old", table(0.4), dataset=None)
    assert run(logs / "old", logs / "v2") == 0
    assert all("MSMT17 V2" in line for line in capsys.readouterr().out.splitlines()[1:3])


def test_an_older_result_names_its_data_set_in_its_settings():
    settings = {"DATASETS.NAMES": ["msmt17", "veri"], "DATASETS.VEHICLEID_TEST_SIZE": 800}
    assert dataset_of({"settings": settings}) == "MSMT17 V1"
    assert dataset_of({"dataset": "VeRi-776", "settings": settings}) == "VeRi-776"
    assert dataset_of({}) is None


def test_missing_queries_are_refused_naming_both(logs, capsys):
    short = {key: column[3:] for key, column in table(0.4).items()}
    write_test(logs / "short", short, fingerprint=None)
    error = refusal(capsys, logs / "a", logs / "short")
    assert "a_seed0_test/epoch_10'" in error and "short'" in error and "3 have no counterpart" in error


def test_a_damaged_file_is_named(logs, capsys):
    (logs / "a_seed1_test" / "epoch_10" / "per_query.npz").write_bytes(b"PK")
    assert "a_seed1_test/epoch_10/per_query.npz' is absent or damaged" in refusal(capsys, logs / "a", logs / "b")


def test_a_test_that_was_killed_before_its_summary_is_refused(logs, capsys):
    (logs / "b_seed2_test" / "epoch_10" / "summary.json").unlink()
    assert "b_seed2_test/epoch_10/summary.json' is absent or damaged" in refusal(capsys, logs / "a", logs / "b")


def test_a_json_file_that_cannot_be_written_is_named(logs, capsys):
    (logs / "file").write_text("in the way of a folder")
    for path in (logs / "file" / "out.json", logs):
        assert "--json" in refusal(capsys, logs / "a", logs / "b", "--json", path)


def test_tests_of_other_settings_are_compared_and_said(logs, capsys):
    for folder in logs.glob("b_seed*_test/epoch_*"):
        result = json.loads((folder / "summary.json").read_text())
        result["settings"] = result.get("settings", {}) | {"TEST.FLIP": True, "TEST.REPORT": False}
        (folder / "summary.json").write_text(json.dumps(result))
    assert run(logs / "a", logs / "b") == 0
    assert "(A / B): TEST.FLIP False / True." in capsys.readouterr().out
    assert run(logs / "a", logs / "a") == 0
    assert "other settings" not in capsys.readouterr().out


def test_an_epoch_that_was_not_tested_is_answered_with_those_that_were(logs, capsys):
    assert "no test of epoch 77 found there, but epoch_" in refusal(capsys, logs / "a", logs / "b", "--epoch", "77")


def test_an_unknown_metric_is_refused_in_one_line(logs, capsys):
    with pytest.raises(SystemExit) as ended:
        run(logs / "a", logs / "b", "--metric", "AUC")
    error = capsys.readouterr().err
    assert ended.value.code == 2 and "AUC" in error and error.count("\n") == 1


def use_trapezoids(root: Path, name: str) -> None:
    for path in root.glob(f"{name}_seed*_test/epoch_*/summary.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"ranking": {"ap": "trapezoid"}}))


def test_results_by_another_rule_of_ap_are_refused_naming_both(logs, capsys):
    use_trapezoids(logs, "b")
    error = refusal(capsys, logs / "a", logs / "b")
    assert "a_seed0_test/epoch_10' was tested with TEST.AP standard" in error
    assert "b_seed0_test/epoch_10' with trapezoid" in error


def test_results_by_trapezoids_say_so(logs, capsys):
    use_trapezoids(logs, "a")
    use_trapezoids(logs, "b")
    assert run(logs / "a", logs / "b", "--json", logs / "out.json") == 0
    assert capsys.readouterr().out.count("mAP (trapezoid AP)") == 2  # the head of the table, and the verdict
    assert json.loads((logs / "out.json").read_text())["ap"] == "trapezoid"


def write_sets(folder: Path, values: dict[str, float], seed: int = 0) -> None:
    """Write a test of several sets of equal weight, of these mAPs."""
    parts = [table(value, seed=seed + place) for place, value in enumerate(values.values())]
    joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    names = np.repeat([*values], len(PID))
    write_test(folder, joined | {"set": names, "weight": np.full(len(names), 1 / len(values))})


def test_sets_of_queries_are_compared_one_by_one(tmp_path, capsys):
    write_sets(tmp_path / "a", {"NIR": 0.4, "SK": 0.4, "NIR+SK": 0.6})
    write_sets(tmp_path / "b", {"NIR": 0.4, "SK": 0.5, "NIR+SK": 0.65})
    assert run(tmp_path / "a", tmp_path / "b", "--json", tmp_path / "out.json") == 0
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line}
    assert rows["SK"][3] == "+10.00" and float(rows["SK"][2]) - float(rows["SK"][1]) == pytest.approx(10, abs=0.011)
    assert rows["NIR"][3:] == ["+0.00", "+0.00", "to", "+0.00", "1.0000"] and rows["NIR+SK"][3] == "+5.00"
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["difference"] == pytest.approx(0.05) and found["sets"]["SK"]["difference"] == pytest.approx(0.1)
    alone = [[table(value, seed=1)] for value in (0.4, 0.5)]
    expected = compare_tables(*alone, "mAP")
    assert found["sets"]["SK"]["interval"] == pytest.approx(expected.interval)
    raw = [one["p_units"] for one in found["sets"].values()]
    assert [one["p_holm"] for one in found["sets"].values()] == pytest.approx(holm(raw))
