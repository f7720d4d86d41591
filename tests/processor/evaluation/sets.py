"""Small test sets made of labels alone, for tests of what comes after embedding."""

from typing import Any

import numpy as np

from datasets.test_set import JunkRule, Labels, TestSet, Trial, same_camera


def make_labels(pids: np.ndarray, camids: np.ndarray | None = None, viewids: np.ndarray | None = None) -> Labels:
    """Return labels of images 0.jpg, 1.jpg, ...; cameras and viewpoints are 0 unless given."""
    zeros = np.zeros_like(pids)
    sides = (zeros if values is None else values for values in (camids, viewids))
    return Labels(pids, *sides, [f"{row}.jpg" for row in range(len(pids))])


def make_test_set(
    labels: Labels,
    trials: tuple[Trial, ...],
    junk: JunkRule | None = same_camera,
    distinct: bool = False,
    **changes: Any,
) -> TestSet:
    """Return a test set without loaders."""
    return TestSet("toy", "Toy", (), labels, trials, junk, distinct, (), "0123456789abcdef")._replace(**changes)


def random_galleries(pids: np.ndarray, draws: int, seed: int = 0) -> tuple[Trial, ...]:
    """Return trials of one random gallery image per identity, all others are queries."""
    rng = np.random.default_rng(seed)
    trials = []
    for draw in range(draws):
        gallery = np.array([rng.choice(np.flatnonzero(pids == pid)) for pid in np.unique(pids)])
        trials.append(Trial("", draw, np.setdiff1d(np.arange(len(pids)), gallery), gallery))
    return tuple(trials)
