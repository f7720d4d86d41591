"""The seeds of a launch are its own until it ends: a second launch would train and test the same folders."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from tools.study.experiment import Experiment
from utils.file_lock import locked

try:
    import resource
except ImportError:  # Windows
    resource = None

LOCKS = ".locks"  # folder below the output root
OTHER_FILES = 256  # that a launch has open besides its locks, at most


class Claim(NamedTuple):
    """What one launch at a time has: its name, a file in a folder of `root`, and what it is in words."""

    root: Path
    name: str
    what: str


def seed_claims(experiments: Sequence[Experiment], seeds: Sequence[int]) -> list[Claim]:
    """Return the claim to every seed of every experiment."""
    return [
        Claim(one.root, f"{one.name}_seed{seed}", f"seed {seed} of '{one.root / one.name}'")
        for one in experiments
        for seed in seeds
    ]


@contextmanager
def claimed(claims: Sequence[Claim]) -> Iterator[None]:
    """Hold all that is claimed; ConfigError naming the process where another launch has one of it."""
    _allow_files(len(claims) + OTHER_FILES)
    with ExitStack() as stack:
        for claim in claims:
            folder = claim.root / LOCKS
            folder.mkdir(exist_ok=True)
            stack.enter_context(locked(folder / f"{claim.name}.lock", claim.what))
        yield


def _allow_files(count: int) -> None:
    """Let this process have so many files open, as far as its system allows: each lock is one."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
