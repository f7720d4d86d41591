"""What every data set loader returns, and the figures that are printed and checked before a run."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from datasets.test_set import JunkRule, Trial, labels_of, same_camera
from utils.errors import DataError

SPLITS = ("train", "query", "gallery")
FINGERPRINT_LENGTH = 16  # hex digits
ALL = "all"  # of `ReIDDataset.published`, beside SPLITS: all of them together
NUM_EXAMPLES = 3  # identities that an error quotes
QUERIES_AT_ONCE = 256  # whose pairs with a gallery a rule is asked of


class Sample(NamedTuple):
    """One image: its path and its labels. camid and viewid count from 0; viewid -1 = unknown."""

    path: str
    pid: int
    camid: int
    viewid: int


class Published(NamedTuple):
    """Figures that the data set's authors or the reference code print; several where sources differ, () = none."""

    images: tuple[int, ...]
    ids: tuple[int, ...]
    per_id: int = 0  # images of each identity; 0 = they differ


@dataclass(frozen=True)
class ReIDDataset:
    """A data set as it lies on disk; pids are the archive's own, relabelling happens in `datasets.read`.

    Where `frames` has its path, a sample of query or gallery is a tracklet: that is the path of its first frame.

    `trials` count rows of `tested` where the protocol averages over several random galleries (VehicleID), or has
    several sets of queries, which `groups` may weigh as in `TestSet`; empty means the one split query / gallery.

    `has_cameras` False: training images have no cameras, and camids (query 0, gallery 1) only tell the two sides.
    """

    name: str
    train: list[Sample]
    query: list[Sample]
    gallery: list[Sample]
    published: dict[str, Published] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()  # what its loader found to be other than published
    trials: tuple[Trial, ...] = ()
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    junk: JunkRule | None = same_camera  # what leaves a query's ranking; None = nothing does
    searches_itself: bool = False  # queries stand in the gallery, too, and are embedded once; `junk` takes them out
    trains_on_gallery: bool = False  # by its protocol: new images of known identities are searched for
    has_cameras: bool = True
    tests_new_ids: bool = False  # by its protocol no identity of the query is trained on; train and test number alike
    num_cameras: int = 0  # of the whole data set, as published; 0 = not known
    no_train: str = ""  # why `train` is empty; '' = it is not. Such a data set serves tests alone
    more: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # what else is known: by name {path: number}
    frames: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of tracklets, by the first one's path

    @property
    def tested(self) -> list[Sample]:
        """The rows of a test: query, then gallery; each once where the set searches itself."""
        rows = self.query + self.gallery
        return list(dict.fromkeys(rows)) if self.searches_itself else rows

    def images_of(self, samples: Iterable[Sample]) -> list[Sample]:
        """Return the images of query or gallery samples, in their order: of a tracklet all its frames."""
        return [
            sample._replace(path=path) for sample in samples for path in self.frames.get(sample.path, [sample.path])
        ]

    def split_rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of `tested` that are the query, int64 [Q], and those that are the gallery, int64 [G]."""
        if not self.searches_itself:
            query, gallery = np.split(np.arange(len(self.query) + len(self.gallery)), [len(self.query)])
            return query, gallery
        place = {sample: row for row, sample in enumerate(self.tested)}
        query, gallery = (
            np.array([place[sample] for sample in side], dtype=np.int64) for side in (self.query, self.gallery)
        )
        return query, gallery


def fingerprint(splits: Mapping[str, Iterable[Sample]]) -> str:
    """Return 16 hex digits of the SHA-256 over the sorted lines "split, parent folder/file name, pid, camid, viewid".

    Independent of the root folder and of the order of the samples; the pixels are not read.
    """
    lines = sorted(
        f"{split}\t{short_name(path)}\t{pid}\t{camid}\t{viewid}"
        for split, samples in splits.items()
        for path, pid, camid, viewid in samples
    )
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:FINGERPRINT_LENGTH]


def statistics_table(datasets: Sequence[ReIDDataset]) -> str:
    """Return a plain text table: identities, images, cameras and known viewpoints of every split."""
    rows = [("data set", "split", "ids", "images", "cameras", "views")]
    for dataset in datasets:
        for split in SPLITS:
            samples = getattr(dataset, split)
            ids = len({sample.pid for sample in samples})
            cameras = len({sample.camid for sample in samples}) if dataset.has_cameras else "-"
            views = len({sample.viewid for sample in samples if sample.viewid >= 0})
            rows.append((dataset.name, split, f"{ids:,}", f"{len(samples):,}", str(cameras), str(views)))
    name_width, split_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    lines = [
        f"{name:<{name_width}}  {split:<{split_width}}" + "".join(f"{figure:>10}" for figure in figures)
        for name, split, *figures in rows
    ]
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:]])


def published_findings(dataset: ReIDDataset) -> list[str]:
    """Return one line for each count of images or identities that is none of the published ones, and for cameras."""
    findings = []
    highest = max((sample.camid for split in SPLITS for sample in getattr(dataset, split)), default=-1)
    if dataset.num_cameras and highest >= dataset.num_cameras:
        findings.append(
            f"{dataset.name}: an image claims camera {highest + 1}, but the data set has {dataset.num_cameras} "
            "cameras; check the file names"
        )
    way_out = "unpack the archive again, or do not compare the scores with published ones"
    for split, published in dataset.published.items():
        if split in ("train", ALL) and dataset.no_train:
            continue
        samples = [sample for part in (SPLITS if split == ALL else (split,)) for sample in getattr(dataset, part)]
        each = Counter(sample.pid for sample in samples)
        found = {"images": len(samples), "ids": len(each)}
        for figure, number in found.items():
            allowed = getattr(published, figure)
            if allowed and number not in allowed:
                expected = " or ".join(f"{count:,}" for count in allowed)
                what = "tracklets" if figure == "images" and dataset.frames and split != "train" else figure
                findings.append(
                    f"{dataset.name} {split}: expected {expected} {what} (published), found {number:,}; {way_out}"
                )
        other = [pid for pid, count in each.items() if published.per_id and count != published.per_id]
        if other:
            findings.append(
                f"{dataset.name} {split}: expected {published.per_id} images of each identity (published), "
                f"{len(other):,} identities have another number, e.g. {_examples(other)}; {way_out}"
            )
    return [*findings, *dataset.findings]


def split_findings(dataset: ReIDDataset) -> list[str]:
    """Return a line for each split in which images stand twice, and one where identities are trained and tested on."""
    findings = []
    for split in SPLITS:
        twice = [sample.path for sample, count in Counter(getattr(dataset, split)).items() if count > 1]
        if twice:
            findings.append(
                f"{dataset.name} {split}: {len(twice):,} images stand there twice, e.g. '{twice[0]}'; correct its list"
            )
    tested = {sample.pid for sample in dataset.query}
    shared = {sample.pid for sample in dataset.train} & tested if dataset.tests_new_ids else set()
    if shared:
        findings.append(
            f"{dataset.name}: {len(shared):,} of the {len(tested):,} identities of the query are trained on, e.g. "
            f"{_examples(shared)}, so the scores say little about new ones; correct the split"
        )
    return findings


def valid_queries(query: Sequence[Sample], gallery: Sequence[Sample]) -> np.ndarray:
    """Return bool [Q]: whether the gallery holds the query's identity under another camera."""
    query_labels, gallery_labels = _labels(query), _labels(gallery)  # [Q, 2], [G, 2]
    num_cameras = 1 + np.concatenate([query_labels, gallery_labels])[:, 1].max(initial=0)
    factor = np.array([num_cameras, 1])
    same_pid = _occurrences(query_labels[:, 0], gallery_labels[:, 0])  # [Q]
    same_pid_and_camera = _occurrences(query_labels @ factor, gallery_labels @ factor)  # [Q]
    return same_pid > same_pid_and_camera


def answerable(dataset: ReIDDataset) -> np.ndarray:
    """Return bool [Q]: whether the gallery holds the query's identity in an image that is not junk for it."""
    if dataset.junk is same_camera:
        return valid_queries(dataset.query, dataset.gallery)
    if dataset.junk is None:
        return np.isin(_labels(dataset.query)[:, 0], _labels(dataset.gallery)[:, 0])
    labels, (query, gallery) = labels_of(dataset.tested, dataset.more), dataset.split_rows()
    found = [np.zeros(0, dtype=bool)]
    for start in range(0, len(query), QUERIES_AT_ONCE):
        rows = query[start : start + QUERIES_AT_ONCE]
        same = labels.pids[rows][:, None] == labels.pids[gallery]  # [c, G]
        found.append((same & ~dataset.junk(labels, rows, gallery)).any(axis=1))
    return np.concatenate(found)


def match_findings(dataset: ReIDDataset) -> list[str]:
    """Return a line when some queries have no match in the gallery, of another camera where that is the rule of junk.

    Raises DataError when no query has one, saying whether the query or the gallery is empty, the identities are
    disjoint, or all matches are junk.
    """
    for split in ("query", "gallery"):
        if not getattr(dataset, split):
            raise DataError(f"{dataset.name}: the {split} holds no image, nothing can be evaluated; check its folder")
    valid, by_camera = answerable(dataset), dataset.junk is same_camera
    if valid.any():
        num_invalid = int((~valid).sum())
        if not num_invalid:
            return []
        example = dataset.query[int(np.argmin(valid))].path
        return [
            f"{dataset.name}: {num_invalid:,} of {len(valid):,} queries have no match"
            f"{' of another camera' * by_camera} in the gallery and are left out of the scores, e.g. '{example}'; add "
            "gallery images or ignore this"
        ]
    query_ids = {sample.pid for sample in dataset.query}
    gallery_ids = {sample.pid for sample in dataset.gallery}
    if query_ids.isdisjoint(gallery_ids):
        raise DataError(
            f"{dataset.name}: no query identity appears in the gallery (query ids e.g. {_examples(query_ids)}; gallery "
            f"ids e.g. {_examples(gallery_ids)}); both must show the same identities: check the split"
        )
    if not by_camera:
        raise DataError(f"{dataset.name}: every query's matches are junk by the rule of the data set; check its labels")
    raise DataError(
        f"{dataset.name}: every query's matches come from the query's own camera, and the protocol removes those; "
        "check the camera ids (a table without a camid column switches this filter off)"
    )


def short_name(path: str) -> str:
    """Return parent folder/file name of a path."""
    folder, name = os.path.split(path)
    return f"{os.path.basename(folder)}/{name}"


def _labels(samples: Sequence[Sample]) -> np.ndarray:
    """Return int64 [N, 2]: pid, camid."""
    return np.array([(sample.pid, sample.camid) for sample in samples], dtype=np.int64).reshape(-1, 2)


def _occurrences(needles: np.ndarray, haystack: np.ndarray) -> np.ndarray:
    """Return for each needle how often it stands in `haystack`."""
    values, counts = np.unique(haystack, return_counts=True)
    left = np.searchsorted(values, needles)
    padded_values, padded_counts = np.append(values, 0), np.append(counts, 0)
    return np.where(padded_values[left] == needles, padded_counts[left], 0)


def _examples(ids: Iterable[int]) -> str:
    return ", ".join(str(pid) for pid in sorted(ids)[:NUM_EXAMPLES])
