"""RegDB has other persons for each trial: experiments compare within trials, and over all of them together."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_rel

from configs import get_cfg_defaults
from tests import commands
from tests.reference.slow_statistics import table_of
from tools import compare
from tools.study.trials import trial_words
from utils.statistics.paired import compare_tables, paired_t_test
from utils.test_folder import METRICS

run = partial(commands.run, compare.main)
PIDS = {1: np.arange(0, 20), 2: np.arange(10, 30), 10: np.arange(5, 25)}  # persons of a test list, by trial


def table(mean_ap: float, trial: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Return the queries of a trial, two of each person."""
    pids = np.repeat(PIDS[trial], 2)
    noise = np.random.default_rng((seed, trial)).uniform(-0.1, 0.1, 40)
    columns = table_of(mean_ap + noise, pids)
    columns["path"] = np.array([f"Visible/{pid}/{number}.bmp" for number, pid in enumerate(pids)])
    return columns


def write_test(folder: Path, arrays: dict[str, np.ndarray], trial: int) -> None:
    folder.mkdir(parents=True)
    np.savez(folder / "per_query.npz", **arrays)
    content = dict.fromkeys(METRICS, 0.5) | {"data_fingerprint": f"t{trial}", "dataset": "RegDB"}
    (folder / "summary.json").write_text(json.dumps(content | {"settings": {"DATASETS.TRIAL": trial}}))


def write_trials(root: Path, name: str, values: dict[int, float], seeds: int = 1) -> None:
    for trial, value in values.items():
        for seed in range(seeds):
            folder = root / f"{name}_trial{trial}_seed{seed}_test" / "epoch_3"
            write_test(folder, table(value, trial, seed), trial)


def refusal(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


A, B = {1: 0.40, 2: 0.50, 10: 0.45}, {1: 0.43, 2: 0.54, 10: 0.50}


@pytest.mark.parametrize("seeds", [1, 2])
def test_experiments_are_compared_over_all_their_trials_each_person_being_one(tmp_path, capsys, seeds):
    write_trials(tmp_path, "a", A, seeds)
    write_trials(tmp_path, "b", B, seeds)
    assert run(tmp_path / "a", tmp_path / "b", "--json", tmp_path / "out.json") == 0
    found, out = json.loads((tmp_path / "out.json").read_text()), capsys.readouterr().out
    sides = []
    for values in (A, B):
        of_seeds = [[table(value, trial, seed) for trial, value in values.items()] for seed in range(seeds)]
        sides.append([{key: np.concatenate([t[key] for t in own]) for key in own[0]} for own in of_seeds])
    expected = compare_tables(*sides, "mAP")
    assert found["difference"] == pytest.approx(expected.difference) == pytest.approx(0.04)
    assert found["interval"] == pytest.approx(expected.interval) and found["num_units"] == 30
    means = [[np.mean([table(v, t, s)["ap"].mean() for s in range(seeds)]) for t, v in side.items()] for side in (A, B)]
    assert found["trials"] == {str(trial): pytest.approx(pair) for trial, *pair in zip(A, *means, strict=True)}
    assert found["p_trials"] == pytest.approx(ttest_rel(*means).pvalue) and "p_seeds" not in found
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    assert rows["2"] == [f"{100 * means[0][1]:.2f}", f"{100 * means[1][1]:.2f}", "+4.00"]
    assert rows["sd"] == [f"{100 * np.std(column, ddof=1):.2f}" for column in (*means, np.subtract(*means))]
    assert list(rows).index("2") < list(rows).index("10") < list(rows).index("mean")
    assert "significant over test identities and over trials" in out.splitlines()[-1]


def test_one_trial_compares_as_any_test_does(tmp_path, capsys):
    write_trials(tmp_path, "a", A, 2)
    write_trials(tmp_path, "b", B, 2)
    assert run(tmp_path / "a_trial2", tmp_path / "b_trial2", "--json", tmp_path / "out.json") == 0
    found, out = json.loads((tmp_path / "out.json").read_text()), capsys.readouterr().out
    sides = [[table(values[2], 2, seed) for seed in (0, 1)] for values in (A, B)]
    expected = compare_tables(*sides, "mAP")
    assert (found["p_seeds"], found["p_units"]) == pytest.approx((expected.p_seeds, expected.p_units))
    assert "trials" not in found and "p over seeds" in out


def test_other_trials_do_not_compare_nor_pass_for_seeds(tmp_path, capsys):
    write_trials(tmp_path, "a", A)
    write_trials(tmp_path, "b", {1: 0.5, 2: 0.5})
    error = refusal(capsys, tmp_path / "a", tmp_path / "b")
    assert "a' was tested on trial 1, 2, 10, '" in error and "b' on trial 1, 2 (DATASETS.TRIAL): other persons" in error
    assert "trial 1, '" in refusal(capsys, tmp_path / "a_trial1", tmp_path / "b_trial2")
    for seed, trial in enumerate(B):  # trials that were named as seeds are trials
        write_test(tmp_path / f"c_seed{seed}_test" / "epoch_3", table(B[trial], trial), trial)
    assert run(tmp_path / "a", tmp_path / "c") == 0
    assert "p over trials" in capsys.readouterr().out


def test_trials_of_unequal_numbers_of_seeds_are_refused(tmp_path, capsys):
    write_trials(tmp_path, "a", A, 2)
    write_trials(tmp_path, "b", B)
    write_test(tmp_path / "b_trial2_seed1_test" / "epoch_3", table(0.5, 2, 1), 2)
    error = refusal(capsys, tmp_path / "a", tmp_path / "b")
    assert "b' has other numbers of seeds in its trials (trial 1: 1, trial 2: 2, trial 10: 1)" in error


def test_two_lists_that_both_call_themselves_a_trial_are_refused(tmp_path, capsys):
    write_test(tmp_path / "a", table(0.4, 1), 1)
    write_test(tmp_path / "b", table(0.4, 1), 1)
    content = json.loads((tmp_path / "b" / "summary.json").read_text()) | {"data_fingerprint": "other"}
    (tmp_path / "b" / "summary.json").write_text(json.dumps(content))
    assert "(data fingerprints t1 and other)" in refusal(capsys, tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize(
    ("names", "tests", "words"),
    [(["regdb"], [], ("trial3",)), (["veri"], ["veri", "regdb"], ("trial3",)), (["veri"], [], ())],
)
def test_the_folders_of_an_experiment_name_its_trial_where_its_data_has_some(names, tests, words):
    cfg = get_cfg_defaults()
    cfg.DATASETS.NAMES, cfg.DATASETS.TESTS, cfg.DATASETS.TRIAL = names, tests, 3
    assert trial_words(cfg) == words


@pytest.mark.parametrize(("first", "second"), [([0.1, 0.2, 0.4], [0.2, 0.2, 0.6]), ([0.5, 0.7], [0.4, 0.9])])
def test_the_paired_t_test_is_scipys(first, second):
    assert paired_t_test(first, second) == pytest.approx(ttest_rel(first, second).pvalue)


@pytest.mark.parametrize(("second", "p"), [([0.1, 0.2], 1.0), ([0.2, 0.3], 0.0)])
def test_differences_without_any_spread_are_none_or_certain(second, p):
    assert paired_t_test([0.1, 0.2], second) == p
