"""Rows of a large index on their way to disk: gathered until they fill a part."""

import time
from collections.abc import Sequence

import numpy as np

from tools.search.shards import Shards, write_meta, write_part

PART_BYTES = 64 * 2**20  # of embeddings in one file
KEPT_AFTER_S = 600.0  # embeddings of so long are written though they fill no part


class Writer:
    """Gathers rows and writes them as parts of an index; with `named` each part stands in the manifest at once."""

    def __init__(self, index: Shards, named: bool = True) -> None:
        self._index, self._named = index, named
        self._most = max(1, PART_BYTES // (2 * index.width))
        self._names: list[str] = []
        self._arrays: list[tuple[np.ndarray, np.ndarray]] = []
        self._since = time.monotonic()

    def add(self, names: Sequence[str], stamps: np.ndarray, feat: np.ndarray) -> None:
        """Take rows: paths, stamps int64 [n, 2], embeddings [n, D]."""
        self._names += names
        self._arrays.append((stamps, feat.astype(np.float16)))
        if len(self._names) >= self._most or time.monotonic() > self._since + KEPT_AFTER_S:
            self.flush()

    def flush(self) -> Shards:
        """Write what was gathered, and return the index with all that was written."""
        if self._names:
            stamps, feat = map(np.concatenate, zip(*self._arrays, strict=True))
            part = write_part(self._index.folder, self._names, stamps, feat)
            meta = self._index.meta | {"whole": False, "parts": [*self._index.meta["parts"], part]}
            self._index = (write_meta if self._named else Shards)(self._index.folder, meta)
            self._names, self._arrays = [], []
        self._since = time.monotonic()
        return self._index
