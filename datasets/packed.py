"""Lists of millions of images in a few arrays: no object for each, so that worker processes need no copy of them.

A forked worker shares the pages of its parent until one of them writes there, and Python writes to each object that it
looks at: its count of references. An array is one object, whose rows nobody writes to.
"""

import os
from collections.abc import Iterator, Sequence

import numpy as np

from datasets.bases import Sample


class PackedSamples(Sequence[Sample]):
    """A list of samples, made anew when they are asked for: about 32 bytes and the path of each."""

    def __init__(self, samples: Sequence[Sample], same_paths: "PackedSamples | None" = None) -> None:
        """`same_paths` has the same paths, in the same order, and shares them."""
        self.labels = np.array([sample[1:] for sample in samples], dtype=np.int64).reshape(-1, 3).T.copy()  # [3, N]
        if same_paths is None:
            words = [os.fsencode(sample.path) for sample in samples]
            self._edges = np.cumsum(
                [0, *map(len, words)], dtype=np.int64
            )  # [N + 1]: where each path begins in the text
            self._text = np.frombuffer(b"".join(words), dtype=np.uint8)
        else:
            self._edges, self._text = same_paths._edges, same_paths._text

    def __len__(self) -> int:
        return self.labels.shape[1]

    def __getitem__(self, row: int | slice) -> "Sample | list[Sample]":
        row = range(len(self))[row]  # also from the end; IndexError beyond
        if isinstance(row, range):
            return [self[one] for one in row]
        return Sample(self.path(row), *self.labels[:, row].tolist())

    def __iter__(self) -> Iterator[Sample]:
        for row in range(len(self)):
            yield self[row]

    def path(self, row: int) -> str:
        """Return the path of a row from 0."""
        return os.fsdecode(self._text[self._edges[row] : self._edges[row + 1]].tobytes())
