"""Galleries that count as large ones, of files that `FakeExtractor` embeds, and what must be in their indexes."""

import os
from pathlib import Path

import numpy as np

from tests.tools.search.test_index import embedding_of
from tools.search.shards import Shards

NUMBER, FOLDERS = 40, 4


def write_files(gallery: Path, first: int, last: int) -> list[str]:
    """Write files that `FakeExtractor` embeds, over some folders, and return their names."""
    names = [f"day {number % FOLDERS}/{number:05d}.png" for number in range(first, last)]
    for name in names:
        (gallery / name).parent.mkdir(parents=True, exist_ok=True)
        (gallery / name).write_bytes(name.encode())
    return sorted(names)


def settle(gallery: Path) -> None:
    """Set the times of all folders back, as if nothing had changed for a while."""
    for folder in [gallery, *(path for path in gallery.iterdir() if path.is_dir())]:
        os.utime(folder, ns=(1, folder.stat().st_mtime_ns - 10**10))


def names_in(index: Shards) -> list[str]:
    return index.names(np.setdiff1d(np.arange(len(index)), index.gone))


def assert_whole(index: Shards, gallery: Path) -> None:
    """Assert that the index holds all files of the gallery, and their embeddings rounded to float16."""
    alive = np.setdiff1d(np.arange(len(index)), index.gone)
    names = index.names(alive)
    assert sorted(names) == sorted(path.relative_to(gallery).as_posix() for path in gallery.rglob("*.png"))
    expected = np.stack([embedding_of(gallery / name) for name in names]).astype(np.float16)
    np.testing.assert_array_equal(index.take(alive), expected)
    blocks = np.concatenate([feat for _, feat in index.blocks("")])
    np.testing.assert_array_equal(blocks[alive], expected)
