"""ATRW: Amur tigers in zoos, left and right flank each an identity of its own; the "plain" protocol, on given boxes.

Every test image searches all others. Frames of the query's tiger by the same camera within three frames are junk, the
query itself among them; farther frames are matches. Queries of tigers seen by one camera (sing) and by several (multi)
have figures of their own, whose mean is the score: the challenge's mmAP.
Reference: Li et al., ATRW: A Benchmark for Amur Tiger Re-identification in the Wild, ACM Multimedia 2020; the rule is
that of the scripts of the challenge CVWC 2019.
"""

import csv
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets.archives.annotation import read_json
from datasets.archives.common import check_listed
from datasets.archives.find import find_folder
from datasets.bases import Published, ReIDDataset, Sample
from datasets.labels import MAX_PID, whole_number
from datasets.test_set import Labels, Trial
from utils.errors import DataError
from utils.text_files import numbered_lines

FOLDERS = ("atrw", "ATRW")
TRAIN, TRAIN_LIST = "atrw_reid_train/train", "atrw_anno_reid_train/reid_list_train.csv"
TEST, TEST_LIST = "atrw_reid_test/test", "gt_test_plain.json"
KINDS = {"sing": "single camera", "multi": "cross-camera"}  # of queries: as the list calls them, as a test does
FRAME = "frame"  # of `Labels.more`: number of the frame within its camera's clip
NEAR = 3  # frames
PUBLISHED_KINDS = {"sing": (701, 47), "multi": (1_063, 28)}  # images, tigers


class Shown(NamedTuple):
    """One test image as the list has it."""

    number: int  # of its file
    pid: int
    kind: str  # of KINDS
    place: tuple[int, int]  # which camera: the first two numbers of `frame`
    frame: int


def load_atrw(root_dir: str | Path) -> ReIDDataset:
    """Load `<root_dir>/atrw`: the list of training images, and gt_test_plain.json of the challenge's scripts.

    Raises DataError where they, or images that they name, are absent, and for entries that do not fit.
    """
    needed = (TRAIN, TRAIN_LIST, TEST, TEST_LIST)
    folder = find_folder(root_dir, FOLDERS, needed, spare=(TRAIN, TRAIN_LIST))
    absent = [entry for entry in needed[:2] if not (folder / entry).exists()]
    shown = read_plain_list(folder / TEST_LIST)
    cameras = {place: camid for camid, place in enumerate(sorted({one.place for one in shown}))}
    test = [Sample(f"{folder / TEST}/{one.number:06d}.jpg", one.pid, cameras[one.place], 0) for one in shown]
    check_listed(test, folder / TEST_LIST)
    rows = np.arange(len(test))
    asked = {kind: np.array([one.kind == kind for one in shown]) for kind in KINDS}
    return ReIDDataset(
        name="atrw",
        train=[] if absent else _read_train(folder),
        query=test,
        gallery=test,
        published={
            "train": Published(images=(1_887,), ids=(107,)),
            "query": Published(images=(1_764,), ids=(75,)),
        },
        findings=_findings(shown),
        trials=tuple(Trial(name, 0, rows[asked[kind]], rows) for kind, name in KINDS.items() if asked[kind].any()),
        junk=near_frames,
        searches_itself=True,
        has_cameras=False,  # of training images
        tests_new_ids=True,
        num_cameras=82,
        no_train=f"'{folder}' has no {', '.join(absent)}" if absent else "",
        more={FRAME: {sample.path: one.frame for sample, one in zip(test, shown, strict=True)}},
    )


def near_frames(labels: Labels, query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """The rule of ATRW: the query's tiger by the query's camera, at most three frames away, is junk, bool [c, G]."""
    frames = labels.more[FRAME]
    junk = labels.pids[query][:, None] == labels.pids[gallery]
    junk &= labels.camids[query][:, None] == labels.camids[gallery]
    return junk & (np.abs(frames[query].astype(np.int64)[:, None] - frames[gallery]) <= NEAR)


def read_plain_list(file: Path) -> list[Shown]:
    """Return the entries of a list of {"imgid", "entityid", "query": "sing" | "multi", "frame": [c, d, f]} in order.

    Raises DataError, with the place of the entry (from 0), for one that does not fit, or an image that stands twice.
    """
    content = read_json(file)
    if not isinstance(content, list) or not content:
        raise DataError(f"'{file}' is no list of test images; get it from the challenge's scripts again")
    shown = [_entry(item, f"'{file}': entry {row}") for row, item in enumerate(content)]
    twice = [number for number, count in Counter(one.number for one in shown).items() if count > 1]
    if twice:
        raise DataError(f"'{file}': image {twice[0]} stands there twice; get the list again")
    return shown


def _entry(item: Any, where: str) -> Shown:
    if isinstance(item, dict):
        numbers = [item.get("imgid"), item.get("entityid")]
        frame = item.get("frame")
        if isinstance(frame, list) and len(frame) == 3:
            numbers += frame
            kind = next((kind for kind in KINDS if kind == item.get("query")), "")
            if kind and all(type(one) is int and 0 <= one <= MAX_PID for one in numbers):
                number, pid, *place, at = numbers
                return Shown(number, pid, kind, (place[0], place[1]), at)
    raise DataError(
        f"{where}: expected imgid and entityid, whole numbers, query sing or multi, and frame of three whole numbers; "
        "get the list again"
    )


def _read_train(folder: Path) -> list[Sample]:
    """Return the training images of lines "<tiger>,<file>"; other images of the folder have no label."""
    samples = []
    for where, line in numbered_lines(folder / TRAIN_LIST):
        fields = next(csv.reader([line]))
        if len(fields) != 2 or os.path.basename(fields[1].strip()) != fields[1].strip():
            raise DataError(f"{where}: expected '<tiger>,<file>.jpg', got '{line.strip()[:60]}'; get the list again")
        pid = whole_number(fields[0].strip(), MAX_PID, f"{where}: tiger")
        samples.append(Sample(f"{folder / TRAIN}/{fields[1].strip()}", pid, 0, 0))
    check_listed(samples, folder / TRAIN_LIST)
    return samples


def _findings(shown: Sequence[Shown]) -> tuple[str, ...]:
    """Return a line for each kind of query whose numbers are not the published ones."""
    lines = []
    for kind, (images, tigers) in PUBLISHED_KINDS.items():
        own = [one.pid for one in shown if one.kind == kind]
        if (len(own), len({*own})) != (images, tigers):
            lines.append(
                f"atrw: expected {images:,} {KINDS[kind]} queries of {tigers} tigers (published), found {len(own):,} "
                f"of {len({*own})}; get {TEST_LIST} again, or do not compare the scores with published ones"
            )
    return tuple(lines)
