"""Verification: is a pair of images one identity? Rates at a threshold on the distance, over all valid pairs.

A pair is a query and a gallery image; it is positive when the identities agree, else negative; junk is left out, as in
ranking. A threshold t accepts the pairs with distance <= t.
    FPR(t) = accepted negatives / negatives,   TPR(t) = accepted positives / positives
One pass over the distances; what is kept are the few pairs of one identity, the smallest negatives, and a histogram.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from utils.errors import ConfigError, DataError
from utils.ranking.blocks import Block, look_at
from utils.ranking.distance import Distances
from utils.ranking.protocol import Grouped, Protocol, SameIdentity, group, no_match

FINE_BINS = 4096  # the most bins of the histogram from which ROC points and shown bins are made
TPR_STEP = 1 / 200  # a point of the ROC curve is kept when it leaves the cell of the last one: TPR in these steps,
FPR_STEPS = 50  # FPR in this many steps per power of ten


class Verification(NamedTuple):
    """Rates are fractions in 0..1."""

    tpr_at_fpr: dict[float, float]  # {false positive rate asked for: true positive rate}, exact
    threshold: dict[float, float]  # {false positive rate asked for: threshold}; infinity where all may be accepted
    fpr: np.ndarray  # float64 [n], rising: exact points of the ROC curve from (0, 0) to (1, 1), for a picture
    tpr: np.ndarray  # float64 [n], rising
    edges: np.ndarray  # float64 [bins + 1]: equal steps of distance, from just below the smallest of all valid pairs
    positive: np.ndarray  # int64 [bins]: positive pairs with edges[i] <= distance < edges[i + 1]
    negative: np.ndarray  # int64 [bins]


def verify(distances: Distances, protocol: Protocol, fprs: Sequence[float], bins: int = 100) -> Verification:
    """Return the `Verification` of distances, smaller = more alike, made in blocks of about 64 MiB; see `Verifier`.

    Raises DataError when shapes disagree, a distance is not finite, or there is no positive or no negative pair;
    ConfigError as `Verifier`.
    """
    labels = group(protocol, distances.shape)
    verifier = Verifier(labels, fprs, bins)
    look_at(distances, labels, [verifier])
    return verifier.verification()


class Verifier:
    """Verifies the distances of a trial block by block.

    TPR at false positive rate f is TPR(t) of the largest threshold t with FPR(t) <= f. Where negatives tie, all or none
    of them are accepted; each f is in (0, 1]. This holds the distances of one identity and a few times max(fprs) x
    negatives others. Raises ConfigError for rates outside (0, 1] or bins below 1.
    """

    def __init__(self, labels: Grouped, fprs: Sequence[float], bins: int = 100) -> None:
        if bins < 1 or not all(0 < fpr <= 1 for fpr in fprs):
            raise ConfigError(
                f"bins {bins} must be at least 1, false positive rates {list(fprs)} in (0, 1] (TEST.ROC_FPR)"
            )
        self._labels, self._fprs, self._bins = labels, fprs, bins
        self._num_negative = len(labels.q_pids) * len(labels.g_pids) - int((labels.end - labels.begin).sum())
        numbers = (_allowed(fpr, self._num_negative) for fpr in fprs if self._num_negative)  # junk lessens them
        self._smallest = _Smallest(1 + max((number for number in numbers if number < self._num_negative), default=0))
        self._histogram = _Histogram()
        self._same: list[np.ndarray] = []
        self._junk: list[np.ndarray] = []

    def add(self, block: Block) -> None:
        """Take the pairs of a block."""
        rows, pairs = block.values, block.pairs
        self._histogram.add(rows, block.low, block.high, pairs.left_out)
        self._smallest.add(rows, pairs)
        self._same.append(rows[pairs.query, pairs.gallery])
        self._junk.append(pairs.junk)
        if pairs.left_out is not None:  # junk by camera is of one identity
            others = self._labels.q_pids[block.queries, None] != self._labels.g_pids
            self._num_negative -= int(np.count_nonzero(pairs.left_out & others))

    def verification(self) -> Verification:
        """Return the `Verification` of all pairs; DataError where there is no positive or no negative one."""
        if self._num_negative == 0:
            raise DataError("no negative pair: all query and gallery images are of one identity; add images of others")
        same, junk = np.concatenate(self._same), np.concatenate(self._junk)
        positive = np.sort(same[~junk])
        if len(positive) == 0:
            raise no_match(self._labels)
        refused = (
            self._smallest.sorted()
        )  # refused[n]: the smallest distance that a threshold may not reach to accept n
        tpr, threshold = {}, {}
        for fpr in self._fprs:
            number = _allowed(fpr, self._num_negative)
            bounded = number < self._num_negative
            limit = refused[number] if bounded else np.inf
            tpr[fpr] = int(positive.searchsorted(limit)) / len(positive)
            threshold[fpr] = float(np.nextafter(limit, -np.inf)) if bounded else np.inf
        return Verification(tpr, threshold, *_curves(self._histogram, same, positive, self._bins))


def _allowed(fpr: float, num_negative: int) -> int:
    """Return the largest number n of negatives with n / num_negative <= fpr in float64."""
    guess = round(fpr * num_negative)
    return guess if guess / num_negative <= fpr else guess - 1


class _Smallest:
    """The `count` smallest distances of negative pairs, block by block."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.bound = np.inf  # distances from here on are not among them
        self.parts: list[np.ndarray] = []

    def add(self, rows: np.ndarray, pairs: SameIdentity) -> None:
        """Take the negatives from distances [c, G], whose pairs of one identity are `pairs`."""
        wanted = rows < self.bound
        wanted[pairs.query, pairs.gallery] = False
        if pairs.left_out is not None:
            wanted &= ~pairs.left_out
        self.parts.append(rows[wanted])
        if sum(map(len, self.parts)) > 2 * self.count:
            values = np.concatenate(self.parts)
            values.partition(self.count - 1)
            self.parts = [values[: self.count].copy()]
            self.bound = values[self.count - 1]

    def sorted(self) -> np.ndarray:
        """Return them by rising distance, [at least `count`]."""
        return np.sort(np.concatenate(self.parts))


class _Histogram:
    """Counts of values in steps of a power of two, which widen as the range grows: one pass, whatever the values."""

    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf
        self.width = 0.0
        self.first = 0  # the first bin holds first * width <= value < (first + 1) * width
        self.count = np.zeros(0, dtype=np.int64)

    def add(self, rows: np.ndarray, low: np.ndarray, high: np.ndarray, left_out: np.ndarray | None) -> None:
        """Count the values of `rows` [c, G], each of which lies within its row's low..high [c], but those left out."""
        middles, count = self.middles(), self.count
        self.low, self.high = min(self.low, float(low.min())), max(self.high, float(high.max()))
        finest = max(abs(self.low), abs(self.high)) * 2.0**-40  # bins are counted in int64
        step = max(self.high / (FINE_BINS - 1) - self.low / (FINE_BINS - 1), finest, np.finfo(np.float32).tiny)
        self.width = math.ldexp(1, math.frexp(step)[1])  # the next power of two; widths only grow
        self.first = math.floor(self.low / self.width)
        self.count = np.zeros(math.floor(self.high / self.width) - self.first + 1, dtype=np.int64)
        np.add.at(self.count, self.bins(middles), count)
        for number, row in enumerate(rows):
            counted = row if left_out is None else row[~left_out[number]]
            self.count += np.bincount(self.bins(counted), minlength=len(self.count))

    def bins(self, values: np.ndarray) -> np.ndarray:
        """Return the bin of each value, int64; exact, as a division by a power of two does not round."""
        return np.floor(values / self.width).astype(np.int64) - self.first

    def middles(self) -> np.ndarray:
        """Return the middle of each bin, float64."""
        return (self.first + np.arange(len(self.count)) + 0.5) * self.width


def _curves(
    histogram: _Histogram, same: np.ndarray, positive: np.ndarray, bins: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return (fpr, tpr, edges, positive, negative) of `Verification` from all distances and those of one identity."""
    size = len(histogram.count)
    positives = np.bincount(histogram.bins(positive), minlength=size)
    negatives = histogram.count - np.bincount(histogram.bins(same), minlength=size)
    used = np.flatnonzero(positives + negatives)
    first, stop = used[0], used[-1] + 1
    positives, negatives = positives[first:stop], negatives[first:stop]
    tpr, fpr = (np.append(0, counts.cumsum()) / counts.sum() for counts in (positives, negatives))
    cells = np.floor(tpr / TPR_STEP), np.floor(FPR_STEPS * np.log10(np.maximum(fpr, 1 / negatives.sum())))
    kept = np.append(True, np.any(np.diff(cells) != 0, axis=0))
    kept[-1] = True
    group = math.ceil((stop - first) / bins)
    padding = (0, group * bins - (stop - first))
    shown = [np.pad(counts, padding).reshape(bins, group).sum(axis=1) for counts in (positives, negatives)]
    edges = (histogram.first + first + group * np.arange(bins + 1)) * histogram.width
    return fpr[kept], tpr[kept], edges, *shown
