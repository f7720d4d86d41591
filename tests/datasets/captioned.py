"""Small captioned archives in RSTPReid's layout, with gaps between identities, and configurations that read them."""

import json
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from datasets.tokens import tokenize
from tests.cfgs import cfg_with
from tests.datasets.trees import write_image

COLOURS = ("red", "blue", "white", "black", "green", "brown", "grey", "pink", "yellow", "purple")
CLOTHES = ("coat", "shirt", "skirt", "jacket", "hat")
IDS = {"train": (9, 2, 30, 4), "val": (5, 41), "test": (7, 3, 60)}  # as they stand in the file
LENGTH = 12


def entry(pid: int, copy: int, split: str, captions: int) -> dict[str, Any]:
    """Return an entry of the annotation; its captions differ in words and in length."""
    colour, cloth = COLOURS[pid % len(COLOURS)], CLOTHES[copy % len(CLOTHES)]
    words = [f"person {pid} in a {colour} {cloth}" + " with a bag" * turn for turn in range(captions)]
    return {"id": pid, "img_path": f"{pid:04d}_c{copy}.jpg", "captions": words, "split": split}


def entries_of(
    ids: dict[str, tuple[int, ...]] = IDS, images: tuple[int, ...] = (2, 1, 3), captions: tuple[int, ...] = (2, 1, 2)
) -> list[dict[str, Any]]:
    """Return entries whose identities have these numbers of images in turn, whose images these of captions."""
    entries = []
    for split, pids in ids.items():
        for place, pid in enumerate(pids):
            for copy in range(images[place % len(images)]):
                entries.append(entry(pid, copy, split, captions[len(entries) % len(captions)]))
    return entries


def write_captioned(root: Path, entries: list[dict[str, Any]], name: str = "RSTPReid") -> Path:
    """Write an archive below `root` and return `root`."""
    annotation, key = {"RSTPReid": ("data_captions.json", "img_path"), "ICFG-PEDES": ("ICFG-PEDES.json", "file_path")}[
        name
    ]
    folder = root / name
    for one in entries:
        write_image(folder / "imgs" / one["img_path"])
    renamed = [{**{k: v for k, v in one.items() if k != "img_path"}, key: one["img_path"]} for one in entries]
    (folder / annotation).write_text(json.dumps(renamed), encoding="utf-8")
    return root


def caption_cfg(root: Path, *opts: object) -> CfgNode:
    """Return the configuration of a system that reads the archive below `root`, batches of 4."""
    settings = {
        "MODEL.NAME": "irra",
        "MODEL.DEVICE": "cpu",
        "DATASETS.NAMES": ("RSTPReid",),
        "DATASETS.ROOT_DIR": str(root),
        "DATALOADER.NUM_WORKERS": 0,
        "INPUT.SIZE_TRAIN": [16, 8],
        "INPUT.SIZE_TEST": [16, 8],
        "INPUT.TEXT.LENGTH": LENGTH,
        "SOLVER.IMS_PER_BATCH": 4,
        "SOLVER.SEED": 5,
        "TEST.IMS_PER_BATCH": 5,
        "TEST.AMP": "off",
    }
    return cfg_with(*[part for pair in settings.items() for part in pair], *opts)


def pairs_by_hand(entries: list[dict[str, Any]]) -> list[tuple[str, int, int, list[int]]]:
    """Return (file name, pid from 0, image_id, tokens) of all training pairs, by a loop."""
    trained = [one for one in entries if one["split"] == "train"]
    pids = sorted({one["id"] for one in trained})
    return [
        (one["img_path"], pids.index(one["id"]), image_id, tokenize(caption, LENGTH).tolist())
        for image_id, one in enumerate(trained)
        for caption in one["captions"]
    ]
