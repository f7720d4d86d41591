"""The seeds of a launch are its own until it ends: a second launch would train and test the same folders."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from tools.study.experiment import Experiment
from utils.file_lock import locked

LOCKS = ".locks"  # folder below the output root


@contextmanager
def claimed(experiments: Sequence[Experiment], seeds: Sequence[int]) -> Iterator[None]:
    """Hold every seed of every experiment; ConfigError naming the process where another launch has one of them."""
    with ExitStack() as stack:
        for experiment in experiments:
            folder = experiment.root / LOCKS
            folder.mkdir(exist_ok=True)
            for seed in seeds:
                what = f"seed {seed} of '{experiment.root / experiment.name}'"
                stack.enter_context(locked(folder / f"{experiment.name}_seed{seed}.lock", what))
        yield
