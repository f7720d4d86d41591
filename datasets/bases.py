"""What every data set loader returns, and the figures that are printed and checked before a run."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from utils.errors import DataError

SPLITS = ("train", "query", "gallery")
FINGERPRINT_LENGTH = 16  # hex digits
NUM_EXAMPLES = 3  # identities that an error quotes


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


@dataclass(frozen=True)
class ReIDDataset:
    """A data set as it lies on disk; pids are the archive's own, relabelling happens in `datasets.read`.

    `trials` holds (query rows, gallery rows) into the list query + gallery when the protocol averages over several
    random galleries (VehicleID); empty means the one split query / gallery. Trial 0 is that split. Within a trial the
    role of a row is its camera: the samples' camids belong to trial 0.

    `has_cameras` False: the archive names no cameras, and the camids (query 0, gallery 1) only keep the evaluation
    from removing matches of the "same" camera.
    """

    name: str
    train: list[Sample]
    query: list[Sample]
    gallery: list[Sample]
    published: dict[str, Published] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    trials: tuple[tuple[np.ndarray, np.ndarray], ...] = ()
    has_cameras: bool = True
    num_cameras: int = 0  # of the whole data set, as published; 0 = not known
    no_train: str = ""  # why `train` is empty; '' = it is not. Such a data set serves tests alone
    more: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # what else is known: by name {path: -128..127}


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
    for split, published in dataset.published.items():
        if split == "train" and dataset.no_train:
            continue
        samples = getattr(dataset, split)
        found = {"images": len(samples), "ids": len({sample.pid for sample in samples})}
        for figure, allowed in published._asdict().items():
            if allowed and found[figure] not in allowed:
                expected = " or ".join(f"{count:,}" for count in allowed)
                findings.append(
                    f"{dataset.name} {split}: expected {expected} {figure} (published), found {found[figure]:,}; "
                    "unpack the archive again, or do not compare the scores with published ones"
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


def match_findings(dataset: ReIDDataset) -> list[str]:
    """Return a line when some queries have no valid match (same identity, other camera) in the gallery.

    Raises DataError when no query has one, saying whether the query or the gallery is empty, the identities are
    disjoint, or all matches come from the query's own camera.
    """
    for split in ("query", "gallery"):
        if not getattr(dataset, split):
            raise DataError(f"{dataset.name}: the {split} holds no image, nothing can be evaluated; check its folder")
    valid = valid_queries(dataset.query, dataset.gallery)
    if valid.any():
        num_invalid = int((~valid).sum())
        if not num_invalid:
            return []
        example = dataset.query[int(np.argmin(valid))].path
        return [
            f"{dataset.name}: {num_invalid:,} of {len(valid):,} queries have no match of another camera in the gallery "
            f"and are left out of the scores, e.g. '{example}'; add gallery images or ignore this"
        ]
    query_ids = {sample.pid for sample in dataset.query}
    gallery_ids = {sample.pid for sample in dataset.gallery}
    if query_ids.isdisjoint(gallery_ids):
        raise DataError(
            f"{dataset.name}: no query identity appears in the gallery (query ids e.g. {_examples(query_ids)}; gallery "
            f"ids e.g. {_examples(gallery_ids)}); both must show the same identities: check the split"
        )
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


def _examples(ids: set[int]) -> str:
    return ", ".join(str(pid) for pid in sorted(ids)[:NUM_EXAMPLES])
