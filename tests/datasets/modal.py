"""Small data sets of several modalities in ORBench's layouts, with gaps between persons, and their configurations."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from yacs.config import CfgNode

from tests.cfgs import cfg_with
from tests.datasets.trees import write_text

TRAINED, TESTED = (3, 7, 40, 12), (21, 5, 90)  # persons, as they stand in the files
VIEWS = ("front", "back", "side")
LENGTH = 12
SIZE = (16, 8)
TEST_FILE = "test_gallery_and_queries.json"
SETS = ("NIR", "CP", "SK", "TEXT", "NIR+TEXT", "TEXT+NIR", "CP+SK", "NIR+CP+SK", "NIR+CP+SK+TEXT")


def paths_of(person: int, lacks: str = "") -> dict[str, list[str]]:
    """Return the paths of a person's images below the data set, by modality: 3 vis, 2 nir, 3 sk or none, 2 cp."""
    folder = f"{person:04d}"
    return {
        "vis": [f"vis/{folder}/{folder}_cam{camera}_vis.jpg" for camera in (1, 4, 5)],
        "nir": [f"nir/{folder}/{folder}_cam{camera}_nir.jpg" for camera in (3, 6)],
        "sk": [] if lacks == "sk" else [f"sk/{folder}/{folder}_{view}_0_sk.jpg" for view in VIEWS],
        "cp": [f"cp/{folder}/{folder}_{view}_0_cp.jpg" for view in VIEWS[:2]],
    }


def caption_of(person: int, camera: int) -> str:
    return f"person {person} with a bag in front of camera {camera}"


def write_pictures(folder: Path, paths: Sequence[str]) -> None:
    """Write a noise PNG of 8 x 6 pixels at each path, in colour."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng([*path.encode()]).integers(0, 256, (8, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / path, format="PNG")


def annotations(persons: Sequence[int] = TRAINED, number: Mapping[int, int] | None = None) -> list[dict[str, Any]]:
    """Return the entries of the annotation; `number` has other ids than the folders'."""
    return [
        {
            "id": (number or {}).get(person, person),
            "file_path": path,
            "caption": caption_of(person, turn),
            "split": "train",
        }
        for person in persons
        for turn, path in enumerate(paths_of(person)["vis"])
    ]


def queries_of(persons: Sequence[int] = TESTED, sets: Sequence[str] = SETS) -> dict[str, list[list]]:
    """Return the content of a test file: the gallery, and in each set a query for each item of its first modality."""
    content: dict[str, list[list]] = {
        "RGB_GALLERY": [[person, path] for person in persons for path in paths_of(person)["vis"]]
    }
    for name in sets:
        items = [{**paths_of(person), "text": [caption_of(person, turn) for turn in range(3)]} for person in persons]
        main, *others = name.lower().split("+")
        content[name] = [
            [person, value, *(own[other][place % len(own[other])] for other in others)]
            for person, own in zip(persons, items, strict=True)
            for place, value in enumerate(own[main])
        ]
    return content


def write_orbench(root: Path, lacks: Mapping[int, str] | None = None, name: str = "ORBench") -> Path:
    """Write the official layout below `root` and return the data set's folder; `lacks`: of persons without sketches."""
    folder = root / name
    for person in (*TRAINED, *TESTED):
        for paths in paths_of(person, (lacks or {}).get(person, "")).values():
            write_pictures(folder, paths)
    write_json(folder / "train_annos.json", annotations())
    write_json(folder / TEST_FILE, queries_of())
    return folder


def write_competition(root: Path) -> Path:
    """Write the competition's layout below `root`, whose ids number the annotations, and return `root`."""
    for person in TRAINED:
        for paths in paths_of(person).values():
            write_pictures(root / "train", paths)
    entries = [{**entry, "id": row} for row, entry in enumerate(annotations())]
    write_json(root / "train" / "text_annos.json", entries)
    return root


def write_json(path: Path, content: object) -> Path:
    return write_text(path, json.dumps(content))


def modal_cfg(root: Path, *opts: object) -> CfgNode:
    """Return the configuration of a system that reads the data set below `root`, batches of 4 x 1."""
    settings = {
        "MODEL.NAME": "multimodal",
        "MODEL.DEVICE": "cpu",
        "DATASETS.NAMES": ("orbench",),
        "DATASETS.ROOT_DIR": str(root),
        "DATALOADER.NUM_WORKERS": 0,
        "DATALOADER.SAMPLER": "softmax_triplet",
        "DATALOADER.NUM_INSTANCE": 2,
        "INPUT.SIZE_TRAIN": [*SIZE],
        "INPUT.SIZE_TEST": [*SIZE],
        "INPUT.DECODER": "pillow",
        "INPUT.TEXT.LENGTH": LENGTH,
        "SOLVER.IMS_PER_BATCH": 4,
        "SOLVER.SEED": 5,
        "TEST.IMS_PER_BATCH": 5,
        "TEST.AMP": "off",
    }
    return cfg_with(*[part for pair in settings.items() for part in pair], *opts)
