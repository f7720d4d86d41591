"""The folder of one test: every file name in it, and its results, written and read back whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from utils.ap_rules import AP_RULES, STANDARD
from utils.atomic import replacing, write_text_atomic
from utils.checksum import sealed, unsealed
from utils.digest import sha256_of

if TYPE_CHECKING:  # numpy is imported where arrays are read and written: --help does without
    import numpy as np

SUMMARY_SCHEMA = 1  # of summary.json
METRICS = ("mAP", "mINP", "Rank-1", "Rank-5", "Rank-10")
OCCLUDED = "occluded"  # column of per_query.npz where that is known: 1 = something hides who is shown, 0 = nothing
VIEW = "view"  # column of per_query.npz where that is known: which of SIDES a drawing of the query shows, -1 = unknown
ITEMS_JOINED_BY = " + "  # the names of the items in that of a query
SIDES = ("front", "back", "side")
I2T = "i2t"  # the set of trials that search captions with images
ANALYSIS_SCHEMA = 1  # of analysis.json
EPOCH_PREFIX = "epoch_"
EPOCH = r"(0|[1-9][0-9]*)"  # in names of files and folders: no other spelling of a number
TEXTS = ("data_fingerprint", "weight_sha256", "run", "stage")  # entries of summary.json by type
SET_NAME = re.compile(r"\w[\w.-]*")  # of a further test set: the name of its folder
NUMERIC = ("ap", "inp", "first_hit", "num_pos", "pid", "trial")  # columns that every per_query.npz holds, beside path
ROUNDING = 1e-9  # by which a weighted mean of ones may pass 1


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
    def branches(self) -> Path:
        return self.path / "branches.csv"

    @property
    def sets(self) -> Path:
        return self.path / "sets.csv"

    @property
    def gains(self) -> Path:
        return self.path / "gains.csv"

    @property
    def missing(self) -> Path:
        return self.path / "missing.csv"

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
    def lock(self) -> Path:
        return self.path / "test.lock"

    @property
    def tables(self) -> tuple[Path, ...]:
        """What the figures come from and what the report shows: summary.json holds their checksums."""
        return self.per_query, self.slices, self.branches, self.sets, self.gains, self.missing, self.analysis

    @property
    def files(self) -> tuple[Path, ...]:
        """What a test leaves; the summary first: removed in this order, it is no result from the start."""
        return self.summary, *self.tables, self.picture, self.report

    def further(self, name: str) -> TestFolder:
        """Return the folder of a further test set of the same test."""
        return TestFolder(self.path / name)


def epoch_folder(root: Path, epoch: int) -> TestFolder:
    """Return the folder of an epoch's test below the tests of a run."""
    return TestFolder(root / f"{EPOCH_PREFIX}{epoch}")


def epoch_folders(root: Path) -> dict[int, TestFolder]:
    """Return the tests below `root` by epoch, ascending."""
    found = {epoch_of_folder(TestFolder(path)): path for path in root.glob(f"{EPOCH_PREFIX}*")}
    return {epoch: TestFolder(found[epoch]) for epoch in sorted(found.keys() - {None})}


def epoch_of_folder(folder: TestFolder) -> int | None:
    """Return the epoch that the folder's name tells, None where it tells none."""
    match = re.fullmatch(EPOCH_PREFIX + EPOCH, folder.path.name)
    return int(match[1]) if match else None


@dataclass(frozen=True)
class TestResult:
    """The figures of one test: the only schema of summary.json and per_query.npz. All are fractions in 0..1.

    Where a test set has several sets of queries, each with figures of its own in `sets`, the metrics, the CMC and the
    standard deviations are those of their mean, weighted as the test set says (all alike, or by groups); the counts are
    sums over the sets that weigh anything.

    `per_query` has, per query of every trial: ap, inp (float), first_hit (0-based rank, -1 = no match, query excluded),
    num_pos, pid, camid, viewid, brightness (of the clean image, 0..1, NaN where there is none), path (unicode; or the
    caption, or what the query is made of), trial (the draw), where there are several, `set` (unicode) and the `weight`
    of that set, and what else the test set knows of its rows (`words` and `own_image` of a caption).
    """

    metrics: dict[str, float]  # METRICS: means over the draws of a set where it has several
    cmc: np.ndarray  # float64 [max_rank]
    per_query: dict[str, np.ndarray]
    num_query: int  # of the first draw
    num_valid_query: int  # of these, the ones with a match
    data_fingerprint: str
    precision: str  # in which the model ran
    notes: tuple[str, ...] = ()  # of the data set: what was left out
    cautions: tuple[str, ...] = ()  # why the figures may mean little: damaged images, embeddings that are all alike
    damaged_images: int = 0  # of the test set
    trial_sd: dict[str, float] = field(default_factory=dict)  # of the metrics over several draws, sample sd
    interval: dict[str, tuple[float, float]] = field(default_factory=dict)  # of METRICS: 95 %
    pairs: dict[str, Any] = field(default_factory=dict)  # tpr_at_fpr and threshold, by false positive rate
    sets: dict[str, dict[str, float]] = field(default_factory=dict)  # METRICS, mAP@k, num_query; {} = one set
    groups: dict[str, dict[str, float]] = field(default_factory=dict)  # the same metrics, means over some of the sets
    missing: dict[str, float] = field(default_factory=dict)  # mAP by the share of items taken out of the queries
    ranking: dict[str, Any] = field(default_factory=dict)  # rule of AP, re-ranking, ...; {} = plain

    @property
    def ap_rule(self) -> str:
        """One of AP_RULES."""
        return self.ranking.get("ap", STANDARD)

    @property
    def num_trials(self) -> int:
        """Draws of each set."""
        return 1 + int(self.per_query["trial"].max())

    def flat(self) -> dict[str, Any]:
        """Return one dict of all figures, metrics under their own names; what is empty is left out, but the notes.

        `i2t` is the set of that name in `sets`, the same dict, where captions were searched with images, too.
        """
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
        names = ("sets", "groups", "missing", "ranking", "damaged_images")
        more = {name: getattr(self, name) for name in names} | {"cautions": list(self.cautions)}
        more |= {I2T: self.sets.get(I2T)}
        return content | self.pairs | {name: value for name, value in more.items() if value}


def write_result(folder: TestFolder, result: TestResult, facts: Mapping[str, Any]) -> None:
    """Write per_query.npz and then, as the mark of a finished test, summary.json; both replace older ones whole.

    summary.json holds schema, what `TestResult.flat` returns but the arrays of the queries and `i2t`, which stands in
    `sets`; the SHA-256 of the files beside it, `facts` as they are: the data set, and whatever else tells where the
    result comes from; and its own checksum.
    """
    write_table(folder.per_query, result.per_query)
    own = {key: value for key, value in result.flat().items() if key not in ("per_query", "cmc", I2T)}
    own["files"] = {path.name: sha256_of(path) for path in folder.tables if path.is_file()}
    summary = {"schema": SUMMARY_SCHEMA, **own, "cmc": [float(value) for value in result.cmc], **facts}
    write_text_atomic(folder.summary, sealed(summary, indent=2) + "\n")


def write_table(path: Path, per_query: Mapping[str, np.ndarray]) -> None:
    """Replace a file of queries, the `per_query` of a `TestResult`; the errors of `replacing`."""
    import numpy as np

    with replacing(path) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(stream, **per_query)


def read_result(folder: TestFolder) -> dict[str, Any] | None:
    """Return the content of a test's summary.json; None when it is absent or not whole.

    Whole is what has every metric in 0..1, and of the other entries that code relies on none of another kind.
    """
    try:
        content = unsealed(folder.summary.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if _is_whole(content) else None


def read_per_query(folder: TestFolder, summary: Mapping[str, Any] | None = None) -> dict[str, np.ndarray] | None:
    """Return the arrays of a test's per_query.npz, see `TestResult`; None when it is not whole.

    `summary`, see `read_result`, tells the file's checksum.
    """
    try:
        if summary is not None and not is_as_written(folder.per_query, summary):
            return None
    except OSError:
        return None
    return read_table(folder.per_query)


def read_table(path: Path) -> dict[str, np.ndarray] | None:
    """Return the arrays of a file of queries, see `TestResult`; None when it is not whole."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as table:
            columns = {name: table[name] for name in table.files}
    except Exception:  # a damaged archive raises nearly anything
        return None
    lengths = {column.shape for column in columns.values()}
    is_table = columns.keys() >= {*NUMERIC, "path"} and len(lengths) == 1 and len(lengths.pop()) == 1
    return columns if is_table and all(columns[name].dtype.kind in "iuf" for name in NUMERIC) else None


def ap_rule_of(summary: Mapping[str, Any]) -> str:
    """Return by which of AP_RULES the figures in a summary.json were made; one of an older version does not say it."""
    return summary.get("ranking", {}).get("ap", STANDARD)


def is_as_written(path: Path, summary: Mapping[str, Any]) -> bool:
    """Return whether a file of a test is what that test wrote; OSError where it cannot be read.

    `summary`, see `read_result`, tells its checksum; one of an older version tells none and is believed.
    """
    written = summary.get("files", {}).get(path.name)
    return written is None or written == sha256_of(path)


def _is_whole(content: dict[str, Any]) -> bool:
    tests, cmc = content.get("tests", {}), content.get("cmc", [])
    return (
        has_metrics(content)
        and all(content.get(name) is None or isinstance(content[name], str) for name in TEXTS)
        and all(isinstance(content.get(name, {}), dict) for name in ("settings", "tests", "files", "ranking"))
        and ap_rule_of(content) in AP_RULES
        and all(SET_NAME.fullmatch(name) and has_metrics(metrics) for name, metrics in tests.items())
        and isinstance(cmc, list)
        and all(map(is_fraction, cmc))
    )


def has_metrics(content: Any) -> bool:
    """Return whether a dict holds every one of METRICS as a fraction."""
    return isinstance(content, dict) and all(is_fraction(content.get(name)) for name in METRICS)


def is_fraction(value: Any) -> bool:
    """Return whether a value read from a file is a number in 0..1."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1 + ROUNDING
