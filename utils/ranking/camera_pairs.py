"""Slices of a test by camera pair: the queries of one camera ranked against the gallery images of one camera alone."""

import numpy as np
import torch

from utils.ap_rules import STANDARD
from utils.ranking.blocks import Block, look_at
from utils.ranking.distance import Distances
from utils.ranking.on_gpu import device_positions
from utils.ranking.protocol import Grouped, Protocol, SameIdentity, group
from utils.ranking.rank import score_pairs
from utils.ranking.slices import Slice, most_of, slice_of


def camera_pair_slices(distances: Distances, protocol: Protocol, ap_rule: str = STANDARD) -> list[Slice]:
    """Return the slices of `CameraPairs` of distances [Q, G]; DataError for distances that are not finite."""
    labels = group(protocol, distances.shape)
    if not has_camera_pairs(labels):
        return []
    pairs = CameraPairs(labels, ap_rule)
    look_at(distances, labels, [pairs])
    return pairs.slices()


def has_camera_pairs(labels: Grouped) -> bool:
    """Return whether camera pairs say something of a test.

    A single pair says no more than the whole test, and cameras say nothing where a data set has another rule of junk.
    """
    return labels.mask is None and max(len(np.unique(labels.q_camids)), len(np.unique(labels.g_camids))) > 1


class CameraPairs:
    """Ranks the queries of each camera against the images of each camera, block by block; `ap_rule` of AP_RULES.

    A pair of a camera with itself is always empty, because the protocol removes its matches. Of more than MOST cameras
    on a side those of the most images have slices, and a last slice of kind left_out counts the others.
    """

    def __init__(self, labels: Grouped, ap_rule: str = STANDARD) -> None:
        self._labels, self._rule = labels, ap_rule
        self._q_cameras, without_query = most_of(labels.q_camids, "query cameras")
        self._g_cameras, without_gallery = most_of(labels.g_camids, "gallery cameras")
        self._others = without_query + without_gallery
        self._columns = [np.flatnonzero(labels.g_camids == camera) for camera in self._g_cameras]
        self._place = np.zeros(len(labels.g_pids), dtype=np.int64)  # of an image among those of its camera
        for columns in self._columns:
            self._place[columns] = np.arange(len(columns))
        shape = len(labels.q_pids), len(self._g_cameras)
        self._ap, self._first_hit = np.full(shape, np.nan), np.full(shape, -1)

    def add(self, block: Block) -> None:
        """Rank the queries of a block against each camera's images."""
        pairs, start = block.pairs, block.start
        shown = ~pairs.junk & np.isin(self._labels.q_camids[start + pairs.query], self._q_cameras)
        query, gallery = pairs.query[shown], pairs.gallery[shown]
        camera = self._labels.g_camids[gallery]
        for number, columns in enumerate(self._columns):
            own = camera == self._g_cameras[number]
            rows, query_of = np.unique(query[own], return_inverse=True)
            if not len(rows):
                continue
            part = block.rows[np.ix_(rows, columns)]
            place = self._place[gallery[own]]
            here = SameIdentity(query_of, place, np.zeros(len(place), dtype=bool), None)
            positions_of = device_positions if isinstance(part, torch.Tensor) else _sorted_positions
            scores = score_pairs(here, positions_of(part, here), part.shape, self._rule, None)
            self._ap[start + rows, number], self._first_hit[start + rows, number] = scores[0], scores[3]

    def slices(self) -> list[Slice]:
        """Return one slice for each query camera and gallery camera, by rising numbers."""
        q_camids, q_pids = self._labels.q_camids, self._labels.q_pids
        return [
            slice_of(
                ("camera_pair", str(a), str(b)), q_camids == a, self._ap[:, number], self._first_hit[:, number], q_pids
            )
            for a in self._q_cameras
            for number, b in enumerate(self._g_cameras)
        ] + self._others


def _sorted_positions(rows: np.ndarray, pairs: SameIdentity) -> np.ndarray:
    """Return the 0-based places of `pairs` in the stable ascending order of their rows [c, n], int64 [M].

    For short rows, which are sorted whole. All rows are searched at once, by bisection.
    """
    ordered, last = np.sort(rows, axis=1), rows.shape[1] - 1
    query, value = pairs.query, rows[pairs.query, pairs.gallery]
    place, end = np.zeros(len(value), dtype=np.int64), np.full(len(value), last)  # each value stands in its row
    for _ in range(last.bit_length()):
        middle = (place + end) // 2
        below = ordered[query, middle] < value
        place, end = np.where(below, middle + 1, place), np.where(below, end, middle)
    follower = ordered[query, np.minimum(place + 1, last)]
    for tie in np.flatnonzero((place < last) & (follower == value)):
        place[tie] += np.count_nonzero(rows[query[tie], : pairs.gallery[tie]] == value[tie])
    return place
