"""The protocols of MARS and iLIDS-VID in the most obvious way: tables read row by row, one query at a time."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from tests.reference.slow_vis_nir import Shown, scores

Feature = Callable[[str], np.ndarray]  # of a frame, by its path


def mars_tracklets(folder: Path) -> tuple[list[tuple[int, int, list[str]]], list[int]]:
    """Return person, camera and frames of every test tracklet, and which rows are queries."""
    names = (folder / "info" / "test_name.txt").read_text().split()
    tracklets = []
    for first, last, pid, camera in loadmat(folder / "info" / "tracks_test_info.mat")["track_test_info"]:
        own = [f"{folder}/bbox_test/{names[number - 1][:4]}/{names[number - 1]}" for number in range(first, last + 1)]
        tracklets.append((int(pid), int(camera), own))
    return tracklets, [int(row) - 1 for row in loadmat(folder / "info" / "query_IDX.mat")["query_IDX"].ravel()]


def pooled(frames: Sequence[str], feature: Feature, pool: str) -> np.ndarray:
    """Return the L2-normalised mean, or maximum, of the features of some frames."""
    rows = [feature(frame) for frame in frames]
    joined = sum(rows) / len(rows) if pool == "mean" else np.array([max(column) for column in zip(*rows, strict=True)])
    return joined / np.sqrt((joined**2).sum())


def mars_scores(folder: Path, feature: Feature, pool: str) -> dict[str, float]:
    """Return the figures of the official protocol: all tracklets are the gallery, those of person -1 are junk."""
    tracklets, queries = mars_tracklets(folder)
    known = {str(row): pooled(frames, feature, pool) for row, (_, _, frames) in enumerate(tracklets)}
    shown: list[Shown] = [(str(row), pid, camera) for row, (pid, camera, _) in enumerate(tracklets)]

    def junk(query: Shown, image: Shown) -> bool:
        return image[1] == -1 or (image[1] == query[1] and image[2] == query[2])

    def distance(one: str, other: str) -> float:
        return float(((known[one] - known[other]) ** 2).sum())

    return scores([shown[row] for row in queries], shown, distance, junk, distinct=False)


def ilids_scores(folder: Path, order: np.ndarray, trial: int, feature: Feature, pool: str) -> dict[str, float]:
    """Return the figures of one trial: the first 150 places of its row are tested."""
    sequences = folder / "i-LIDS-VID" / "sequences"
    persons = sorted(os.listdir(sequences / "cam1"))
    tested = [persons[place - 1] for place in order[trial - 1][:150]]
    known, sides = {}, []
    for camera in ("cam1", "cam2"):
        for person in tested:
            place = sequences / camera / person
            frames = [f"{place}/{name}" for name in sorted(os.listdir(place))]
            known[f"{camera}/{person}"] = pooled(frames, feature, pool)
        sides.append([(f"{camera}/{person}", int(person[len("person") :]), 0) for person in tested])

    def distance(one: str, other: str) -> float:
        return float(((known[one] - known[other]) ** 2).sum())

    return scores(*sides, distance, lambda query, image: False, distinct=False)
