"""Data sets with other persons to train on, and to test with, in each trial (RegDB): the tests of all trials as one.

A trial is no seed: its images are others, so tests compare within it alone. A score over trials is the mean over models
that were each trained and tested on one of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from yacs.config import CfgNode

from configs.titles import OF_TRIALS, TITLES, names_of_tests
from utils.errors import DataError
from utils.statistics.bootstrap import PerQuery
from utils.statistics.paired import Comparison, compare_tables, mean_value, paired_t_test
from utils.tables import align, percent

KEY, WORD = "DATASETS.TRIAL", "trial"  # the word stands before the number in names of folders

TrialMeans = dict[int | None, tuple[float, float]]  # a metric of two sides by trial; None where the data set has none


def trial_words(cfg: CfgNode) -> tuple[str, ...]:
    """Return what the name of an experiment says of its trial: nothing, or e.g. trial3 where its data has trials."""
    names = {*cfg.DATASETS.NAMES, *names_of_tests(cfg)}
    return (f"{WORD}{cfg.DATASETS.TRIAL}",) if names.intersection(OF_TRIALS) else ()


def trial_of(result: Mapping[str, Any], dataset: str | None) -> int | None:
    """Return the trial that a test was run on, None where its data set, by its name in tables, has none."""
    titles = [TITLES[name] for name in OF_TRIALS]
    return result.get("settings", {}).get(KEY) if dataset in titles else None


def shared_trials(names: Sequence[str], trials: Sequence[Sequence[int | None]]) -> list[int | None]:
    """Return the trials of two sides, ascending, of those of their tests; DataError, naming both, where they differ.

    Each trial has as many tests on a side as the others: one a seed.
    """
    found = [sorted({*own}, key=lambda trial: trial or 0) for own in trials]
    if found[0] != found[1]:
        first, second = (", ".join(map(str, own)) for own in found)
        raise DataError(
            f"'{names[0]}' was tested on trial {first}, '{names[1]}' on trial {second} ({KEY}): other persons, so the "
            "figures do not compare; train and test both on the same ones"
        )
    for name, own in zip(names, trials, strict=True):
        counts = {trial: own.count(trial) for trial in found[0]}
        if len({*counts.values()}) > 1:
            each = ", ".join(f"trial {trial}: {count}" for trial, count in counts.items())
            raise DataError(f"'{name}' has other numbers of seeds in its trials ({each}); train the missing ones")
    return found[0]


def join_trials(tables: Mapping[int | None, Sequence[PerQuery]]) -> list[PerQuery]:
    """Return a table for each seed, of the queries of all trials, of such tables by trial.

    The identities keep their numbers, so a person who is tested in several trials stays one.
    """
    return [
        {name: np.concatenate([table[name] for table in of_seed]) for name in of_seed[0]}
        for of_seed in zip(*tables.values(), strict=True)
    ]


def trial_means(sides: Sequence[Mapping[int | None, Sequence[PerQuery]]], metric: str) -> TrialMeans:
    """Return {trial: (first, second)}: means over the seeds of a metric, of the tables of both sides by trial."""
    first, second = sides
    return {trial: (mean_value(first[trial], metric), mean_value(second[trial], metric)) for trial in first}


def compare_sides(
    sides: Sequence[Mapping[int | None, Sequence[PerQuery]]], metric: str, unit: str = "identity"
) -> tuple[Comparison, TrialMeans]:
    """Return how the second of two sides, tables by trial, differs from the first, and the means of both by trial.

    Each of several trials is a training of its own, on both sides: a paired t-test over them stands in for seeds.
    """
    comparison, means = compare_tables(*map(join_trials, sides), metric, unit), trial_means(sides, metric)
    if len(means) > 1:
        comparison = comparison._replace(p_seeds=paired_t_test(*zip(*means.values(), strict=True)))
    return comparison, means


def trial_table(means: TrialMeans, metric: str) -> str:
    """Return the table of a metric on each trial, of both sides, with mean and standard deviation over the trials."""
    values = np.array([*means.values()])  # [T, 2]
    columns = np.column_stack([values, values[:, 1] - values[:, 0]])  # [T, 3]
    rows = [["trial", "A", "B", f"B - A, {metric}"]]
    for name, (first, second, change) in zip([*map(str, means), "mean"], [*columns, columns.mean(axis=0)], strict=True):
        rows.append([name, percent(first), percent(second), f"{100 * change:+.2f}"])
    rows.append(["sd", *map(percent, columns.std(axis=0, ddof=1))])
    return align(rows, (0,))
