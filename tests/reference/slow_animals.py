"""The protocols of ATRW and of animals in a CSV in the most obvious way: one query, one image at a time."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.reference.slow_vis_nir import Shown, scores

Distance = Callable[[str, str], float]


def atrw_scores(folder: Path, distance: Distance) -> dict[str, dict[str, float]]:
    """Return the figures of the single-camera and the cross-camera queries, and under "mean" the means of both."""
    entries = json.loads((folder / "gt_test_plain.json").read_text())
    about = {f"{folder}/atrw_reid_test/test/{entry['imgid']:06d}.jpg": entry for entry in entries}
    images: list[Shown] = [(path, entry["entityid"], 0) for path, entry in about.items()]

    def junk(query: Shown, image: Shown) -> bool:
        one, other = about[query[0]], about[image[0]]
        if one["entityid"] != other["entityid"] or one["frame"][:2] != other["frame"][:2]:
            return False
        return abs(one["frame"][2] - other["frame"][2]) <= 3

    found = {}
    for kind, name in (("sing", "single camera"), ("multi", "cross-camera")):
        asked = [image for image in images if about[image[0]]["query"] == kind]
        found[name] = scores(asked, images, distance, junk, distinct=False)
    both = [*found.values()]
    return found | {"mean": {metric: sum(one[metric] for one in both) / 2 for metric in both[0]}}


def rows_of(file: Path) -> list[Mapping[str, str]]:
    """Return the rows of a CSV whose animal is known."""
    with open(file, newline="", encoding="utf-8") as stream:
        return [row for row in csv.DictReader(stream) if row["identity"] not in ("unknown", "")]


def csv_scores(rows: Sequence[Mapping[str, str]], distance: Distance, trained: bool) -> dict[str, float]:
    """Return the figures of the test rows; `trained`: they search the training rows, else each other."""
    names = sorted({row["identity"] for row in rows})
    test, train = (
        [(row["path"], names.index(row["identity"]), 0) for row in rows if row["split"] == part]
        for part in ("test", "train")
    )
    return scores(test, train if trained else test, distance, lambda query, image: query[0] == image[0], False)
