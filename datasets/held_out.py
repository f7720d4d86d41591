"""Training identities held out to pick an epoch by, so that nobody has to look at the test set for it."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from datasets.bases import Sample
from utils.errors import DataError

SEED = 776  # of its own: all seeds and recipes hold out the same identities
MIN_IDS = 2


class HeldOut(NamedTuple):
    """What is left to train on, and a query and gallery of identities that training never sees."""

    train: list[Sample]
    query: list[Sample]
    gallery: list[Sample]


def hold_out(train: Sequence[Sample], share: float, has_cameras: bool) -> HeldOut:
    """Hold out `share` of the training identities, drawn once and for all.

    Only identities whose images can be matched are drawn: seen by two cameras, or, where the data has none, with two
    images. The first image (by path) of each of them under each camera is a query, or the first of all without
    cameras; the others are the gallery. Where the gallery would hold no match under another camera, a camera's only
    image serves on both sides, as in Market-1501's protocol, where the query's own camera is junk anyway. What is left
    is not relabelled. Raises DataError when fewer than two identities can be held out or trained on.
    """
    by_pid: dict[int, list[Sample]] = defaultdict(list)
    for sample in sorted(train):
        by_pid[sample.pid].append(sample)
    fits = [
        pid
        for pid, samples in sorted(by_pid.items())
        if len({sample.camid for sample in samples} if has_cameras else samples) >= 2
    ]
    drawn = draw_identities(fits, len(by_pid), share, "images of two cameras" if has_cameras else "two images")
    query, gallery = [], []
    for pid in sorted(drawn):
        own_query, own_gallery = _split(by_pid[pid], has_cameras)
        query += own_query
        gallery += own_gallery
    return HeldOut([sample for sample in train if sample.pid not in drawn], query, gallery)


def draw_identities(fits: Sequence[int], total: int, share: float, need: str) -> set[int]:
    """Return `share` of `total` training identities, drawn among those that fit, which have what they `need`.

    Raises DataError when fewer than two identities can be drawn or are left.
    """
    count = max(MIN_IDS, round(share * total))
    if len(fits) < count or total - count < MIN_IDS:
        raise DataError(
            f"DATASETS.VAL_IDS {share} asks for {count} held-out identities, but {len(fits)} of the {total} training "
            f"identities have {need} and {MIN_IDS} must be left to train on; choose another share, or 0"
        )
    return set(np.random.default_rng(SEED).permutation(fits)[:count].tolist())


def _split(samples: list[Sample], has_cameras: bool) -> tuple[list[Sample], list[Sample]]:
    """Return query and gallery of one identity's images, which are sorted by path."""
    if not has_cameras:  # the labels of VehicleID: the query's camera is none of the gallery's
        first, *others = samples
        return [first._replace(camid=0)], [sample._replace(camid=1) for sample in others]
    by_camera: dict[int, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_camera[sample.camid].append(sample)
    query = [of_camera[0] for of_camera in by_camera.values()]
    return query, [sample for of_camera in by_camera.values() for sample in of_camera[1:] or of_camera]
