"""The folder of one test: every file name in it, and its results, written and read back whole or not at all."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from utils.atomic import replacing, write_text_atomic

if TYPE_CHECKING:  # numpy is imported where arrays are read and written: --help does without
    import numpy as np

SUMMARY_SCHEMA = 1  # of summary.json
METRICS = ("mAP", "mINP", "Rank-1", "Rank-5", "Rank-10")
WITH_INTERVAL = ("mAP", "mINP", "Rank-1")  # the metrics that come with an interval
ANALYSIS_SCHEMA = 1  # of analysis.json
EPOCH_PREFIX = "epoch_"


class TestFolder(NamedTuple):
    """The files of one test; a further test set has a folder of its name in it."""

    path: Path

    @property
    def summary(self) -> Path:
        """The figures, written last: without it there is no result."""
        return self.path / "summary.json"

    @property
    def per_query(self) -> Path:
        return self.path / "per_query.npz"

    @property
    def slices(self) -> Path:
        return self.path / "slices.csv"

    @property
    def analysis(self) -> Path:
        return self.path / "analysis.json"

    @property
    def picture(self) -> Path:
        return self.path / "slices.png"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def log(self) -> Path:
        return self.path / "test_log.txt"

    @property
    def files(self) -> tuple[Path, ...]:
        """What a test leaves; the summary first: removed in this order, it is no result from the start."""
        return self.summary, self.per_query, self.slices, self.picture, self.analysis, self.report

    def further(self, name: str) -> TestFolder:
        """Return the folder of a further test set of the same test."""
        return TestFolder(self.path / name)


def epoch_folder(root: Path, epoch: int) -> TestFolder:
    """Return the folder of an epoch's test below the tests of a run."""
    return TestFolder(root / f"{EPOCH_PREFIX}{epoch}")


def epoch_folders(root: Path) -> dict[int, TestFolder]:
    """Return the tests below `root` by epoch, ascending."""
    numbers = {path.name.removeprefix(EPOCH_PREFIX): path for path in root.glob(f"{EPOCH_PREFIX}*")}
    return {int(number): TestFolder(numbers[number]) for number in sorted(filter(str.isdigit, numbers), key=int)}


def epoch_of_folder(folder: TestFolder) -> int | None:
    """Return the epoch that the folder's name tells, None where it tells none."""
    number = folder.path.name.removeprefix(EPOCH_PREFIX)
    return int(number) if folder.path.name.startswith(EPOCH_PREFIX) and number.isdigit() else None


@dataclass(frozen=True)
class TestResult:
    """The figures of one test: the only schema of summary.json and per_query.npz. All are fractions in 0..1.

    Where a test set has several sets of queries, each with figures of its own in `sets`, the metrics, the CMC and the
    standard deviations are those of their mean, weighted as the test set says (all alike, or by groups); the counts are
    sums over the sets that weigh anything.

    `per_query` has, per query of every trial: ap, inp (float), first_hit (0-based rank, -1 = no match, query excluded),
    num_pos, pid, camid, viewid, brightness (of the clean image, 0..1, NaN where there is none), path (unicode; or the
    caption, or what the query is made of), trial (the draw), and, where there are several, `set` (unicode) and the
    `weight` of that set.
    """

    metrics: dict[str, float]  # METRICS: means over the draws of a set where it has several
    cmc: np.ndarray  # float64 [max_rank]
    per_query: dict[str, np.ndarray]
    num_query: int  # of the first draw
    num_valid_query: int  # of these, the ones with a match
    data_fingerprint: str
    precision: str  # in which the model ran
    notes: tuple[str, ...] = ()  # of the data set: what was left out
    trial_sd: dict[str, float] = field(default_factory=dict)  # of the metrics over several draws, sample sd
    interval: dict[str, tuple[float, float]] = field(default_factory=dict)  # of WITH_INTERVAL: 95 %
    pairs: dict[str, Any] = field(default_factory=dict)  # tpr_at_fpr and threshold, by false positive rate
    sets: dict[str, dict[str, float]] = field(default_factory=dict)  # METRICS and num_query of each; {} = one set
    groups: dict[str, dict[str, float]] = field(default_factory=dict)  # METRICS, means over some of the sets
    missing: dict[str, float] = field(default_factory=dict)  # mAP by what the queries lack
    ranking: dict[str, Any] = field(default_factory=dict)  # how ranks were made, where a system says so

    @property
    def num_trials(self) -> int:
        """Draws of each set."""
        return 1 + int(self.per_query["trial"].max())

    def flat(self) -> dict[str, Any]:
        """Return one dict of all figures, metrics under their own names; what is empty is left out, but the notes."""
        content = dict(self.metrics)
        if self.trial_sd:
            content["trial_sd"] = self.trial_sd
        content |= {
            "cmc": self.cmc,
            "num_query": self.num_query,
            "num_valid_query": self.num_valid_query,
            "num_trials": self.num_trials,
            "data_fingerprint": self.data_fingerprint,
            "notes": list(self.notes),
            "per_query": self.per_query,
            "precision": self.precision,
        }
        if self.interval:
            content["interval"] = self.interval
        more = {name: getattr(self, name) for name in ("sets", "groups", "missing", "ranking")}
        return content | self.pairs | {name: value for name, value in more.items() if value}


def write_result(folder: TestFolder, result: TestResult, facts: Mapping[str, Any]) -> None:
    """Write per_query.npz and then, as the mark of a finished test, summary.json; both replace older ones whole.

    summary.json holds schema, what `TestResult.flat` returns but the arrays of the queries, and `facts` as they are:
    the data set, and whatever else tells where the result comes from.
    """
    import numpy as np

    with replacing(folder.per_query) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(stream, **result.per_query)
    own = {key: value for key, value in result.flat().items() if key not in ("per_query", "cmc")}
    summary = {"schema": SUMMARY_SCHEMA, **own, "cmc": [float(value) for value in result.cmc], **facts}
    write_text_atomic(folder.summary, json.dumps(summary, indent=2) + "\n")


def read_result(folder: TestFolder) -> dict[str, Any] | None:
    """Return the content of a test's summary.json; None when it is absent, cut short, or lacks a metric in 0..1."""
    try:
        content = json.loads(folder.summary.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError, json.JSONDecodeError):
        return None
    if not isinstance(content, dict) or not all(_is_fraction(content.get(name)) for name in METRICS):
        return None
    return content


def read_per_query(folder: TestFolder) -> dict[str, np.ndarray] | None:
    """Return the arrays of a test's per_query.npz, see `TestResult`; None when it is not whole."""
    import numpy as np

    try:
        with np.load(folder.per_query, allow_pickle=False) as table:
            return {name: table[name] for name in table.files}
    except (FileNotFoundError, NotADirectoryError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def _is_fraction(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
