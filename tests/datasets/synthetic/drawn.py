"""Reads the lists of a drawn folder in the most obvious way."""

from pathlib import Path

import numpy as np

NUM_TRAIN_IDS, NUM_TEST_IDS = 8, 14


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="ascii").splitlines()


def labels(name: str) -> tuple[int, int]:
    pid, camera = name.split("_")[:2]
    return int(pid), int(camera[1:])


def keypoints(drawn: Path) -> dict[str, tuple[np.ndarray, int]]:
    """Return {image path without "VeRi/": (20 x y pairs, viewpoint)} of both files."""
    rows = [line.split() for name in ("train", "test") for line in lines(drawn / f"keypoint_{name}.txt")]
    assert {len(row) for row in rows} == {42}
    return {row[0].removeprefix("VeRi/"): (np.array(row[1:41], dtype=int).reshape(20, 2), int(row[41])) for row in rows}
