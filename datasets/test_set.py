"""The contract of a test set: rows of images or captions, whom they show, what is searched for where, what is junk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from configs.modalities import TEXT
from utils.errors import DataError
from utils.test_folder import ITEMS_JOINED_BY

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from datasets.bases import Sample


OWN_IMAGE = "own_image"  # of `Labels.more`: row of the image that a caption was written for, -1 = it is not there
MODALITY = "modality"  # of `Labels.more`: of which modality an item is, unicode
FOLDERS_TOLD, LETTERS_TOLD = 3, 48  # in the name of a query: of the path of an image, of a caption


class Labels(NamedTuple):
    """The labels of the N rows of a test set."""

    pids: np.ndarray  # int64 [N], as camids and viewids
    camids: np.ndarray  # from 0
    viewids: np.ndarray  # from 0, -1 = unknown
    names: list[str]  # [N]: path or caption
    more: dict[str, np.ndarray] = {}  # by name [N]: modality, occluded, frame, ...: what slices and junk rules read


JunkRule = Callable[[Labels, np.ndarray, np.ndarray], np.ndarray]  # see `TestSet.junk`


class Trial(NamedTuple):
    """One query set and one gallery. The draws of one set are averaged, sets never are: each has its own figures."""

    set: str  # e.g. a combination of modalities; "" where there is one
    draw: int  # from 0, within the set
    query: np.ndarray  # int64 [Q] rows, or [Q, n] where a query has up to n items, -1 = none
    gallery: np.ndarray  # int64 [G] rows, or [G, n] likewise; trials that share one hold the same array


class TestSet(NamedTuple):
    """What a model is tested on."""

    name: str  # as in DATASETS.TESTS
    title: str  # as in tables
    loaders: tuple[DataLoader, ...]  # embedded one after the other, their rows count on
    labels: Labels
    trials: tuple[Trial, ...]
    junk: JunkRule | None  # (labels, query rows [c], gallery rows [G]) -> bool [c, G], what leaves the ranking
    distinct: bool  # the CMC counts identities rather than images (SYSU-MM01, LLCM)
    notes: tuple[str, ...]  # what was left out, said with every result
    fingerprint: str  # of the query and gallery of the first trial
    groups: dict[str, tuple[str, ...]] = {}  # sets by group, see `set_weights`; {} = all sets count alike
    lengths: np.ndarray | None = None  # int64 [N]: of how many images, one after the other, a row is; None = of one

    def set_weights(self) -> dict[str, float]:
        """Return the weight of each set, in order of the trials, in the metrics of the whole test; they sum up to 1.

        The metrics are the mean over the groups, of each group that over its sets; a set in no group has figures of its
        own and weighs 0. So a score may be a mean over numbers of modalities, or one direction of a search alone.
        """
        sets = list(dict.fromkeys(trial.set for trial in self.trials))
        groups = self.groups or {"": tuple(sets)}
        return {
            name: sum(members.count(name) / len(members) for members in groups.values()) / len(groups) for name in sets
        }


def same_camera(labels: Labels, query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """The rule of Market-1501: what shows the query's identity under the query's camera is junk, bool [c, G]."""
    same_pid = labels.pids[query][:, None] == labels.pids[gallery]
    return same_pid & (labels.camids[query][:, None] == labels.camids[gallery])


def same_item(_: Labels, query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """The rule of a set that searches itself: a query's own row is junk, bool [c, G]."""
    return query[:, None] == gallery


def labels_of(samples: Sequence[Sample], more: Mapping[str, Mapping[str, int]] | None = None) -> Labels:
    """Return the labels of samples in their order; `more` as in `ReIDDataset`, of its names those that tell all."""
    numbers = np.array([sample[1:] for sample in samples], dtype=np.int64).reshape(-1, 3)  # [N, 3]
    paths = [sample.path for sample in samples]
    told = {name: values for name, values in (more or {}).items() if all(path in values for path in paths)}
    columns = {name: _column([values[path] for path in paths]) for name, values in told.items()}
    return Labels(*np.ascontiguousarray(numbers.T), paths, columns)


def _column(values: Sequence[int]) -> np.ndarray:
    """Return numbers as int8 [N] where each has room in it, else as int64 [N]."""
    column = np.array(values, dtype=np.int64)
    small = column.astype(np.int8)
    return small if (small == column).all() else column


def first_items(query: np.ndarray) -> np.ndarray:
    """Return the row of each query's first item, int64 [Q], of query rows [Q] or [Q, n]: the one that labels it.

    Likewise of gallery rows [G] or [G, n].

    Raises DataError naming the first query without any item.
    """
    if query.ndim == 1:
        return query
    empty = np.flatnonzero((query < 0).all(axis=1))
    if len(empty):
        raise DataError(f"query {empty[0]} (0-based) has no item; {len(empty)} of {len(query)} queries have none")
    return query[np.arange(len(query)), (query >= 0).argmax(axis=1)]


def images_of_rows(lengths: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return which images, int64 [M], are those of some rows of a test set whose rows have `lengths` [N] images."""
    ends = lengths.cumsum()
    return np.concatenate([np.arange(ends[row] - lengths[row], ends[row]) for row in rows.tolist()])


def query_names(labels: Labels, query: np.ndarray) -> np.ndarray:
    """Return the name of each query, unicode [Q], of query rows [Q] or [Q, n]; several items are joined by ` + `.

    Where items have a modality they are told shortly, the same under any root folder: an image by its last folders, a
    long caption by its beginning and a digest. Millions of letters would stand in the results otherwise.
    """
    items = query.reshape(len(query), -1)
    modality = labels.more.get(MODALITY) if query.ndim > 1 else None
    used = np.unique(items[items >= 0]).tolist()
    names = {row: labels.names[row] if modality is None else _short(labels.names[row], modality[row]) for row in used}
    return np.array([ITEMS_JOINED_BY.join(names[row] for row in rows if row >= 0) for rows in items.tolist()])


def _short(name: str, modality: str) -> str:
    if modality != TEXT:
        return "/".join(name.replace("\\", "/").split("/")[-FOLDERS_TOLD:])
    if len(name) <= LETTERS_TOLD:
        return name
    return f"{name[:LETTERS_TOLD]}... {hashlib.sha256(name.encode()).hexdigest()[:8]}"
