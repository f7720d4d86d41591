"""Synthetic vehicles in five modalities: drawn once, deterministically, in ORBench's exact layout, then read like it.

The vehicles, shots and split are those of synthetic VeRi: two thirds of the shots are RGB with a caption, the others
infrared; sketches and coloured pencil drawings show the same vehicles. It proves mechanics and lets an ablation show a
difference on any computer; it says nothing about people, or about what people draw and write.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datasets.multimodal import MultiModalDataset
from datasets.orbench import load_orbench_folder
from datasets.synthetic import MODAL_FOLDER
from datasets.synthetic.modal.plan import (
    NUM_TEST_IDS,
    NUM_TRAIN_IDS,
    plan_numbered,
    plan_photos,
    take_drawings,
    take_infrared,
)
from datasets.synthetic.modal.queries import query_sets
from datasets.synthetic.once import ensure_drawn
from datasets.synthetic.plan import Identity, look_of
from datasets.synthetic.sentences import words_of
from datasets.synthetic_text import take_captioned
from utils.errors import DataError
from utils.paths import user_path
from utils.progress import over

NAME = "synthetic_orbench"
VERSION = "2"  # of the drawing: a folder of another version is drawn again
TRAIN_FILE, TEST_FILE = "train_annos.json", "test_gallery_and_queries.json"
GALLERY = "RGB_GALLERY"
JPEG_QUALITY = 92


def load_synthetic_orbench(root_dir: str | Path) -> MultiModalDataset:
    """Load `<root_dir>/synthetic_orbench`, drawing it first if it is not there or was not finished.

    Several processes may call this at once. Raises DataError when the folder cannot be written, RunError when the disk
    is full.
    """
    folder = user_path(root_dir, "DATASETS.ROOT_DIR", DataError) / MODAL_FOLDER
    ensure_drawn(folder, "the synthetic vehicles in five modalities", draw_synthetic_orbench, VERSION)
    return load_orbench_folder(folder)._replace(name=NAME)


def draw_synthetic_orbench(
    folder: str | Path, seed: int = 0, num_train_ids: int = NUM_TRAIN_IDS, num_test_ids: int = NUM_TEST_IDS
) -> None:
    """Draw the set into a new folder in ORBench's layout, its four folders and two JSON files alone.

    The same arguments give the same files. Identities are numbered from 1, those to train on first. Each picture and
    each caption has a random generator of its own, so neither the order nor the number of pictures changes any of them;
    but captions of test use no word that those of train lack. Raises ValueError for more than 776 identities.
    """
    folder = Path(folder)
    annotations: list[dict[str, Any]] = []
    known: set[str] = set()
    tested: dict[int, dict[str, list[str]]] = {}
    plan = plan_numbered(seed, num_train_ids, num_test_ids)
    for number, identity in over(plan, "draw synthetic vehicles in five modalities", "vehicle"):
        in_train = identity.split == "train"
        captions = _draw_identity(folder, seed, number, identity, None if in_train else frozenset(known))
        if in_train:
            annotations += [
                {"id": number, "file_path": path, "caption": caption, "split": "train"}
                for path, caption in captions.items()
            ]
            known.update(word for caption in captions.values() for word in words_of(caption))
        else:
            tested[number] = {"vis": [*captions], "text": [*captions.values()]}
            for modality in ("nir", "sk", "cp"):
                paths = sorted((folder / modality / f"{number:04d}").iterdir())
                tested[number][modality] = [path.relative_to(folder).as_posix() for path in paths]
    gallery = [[pid, path] for pid, items in tested.items() for path in items["vis"]]
    _write_json(folder / TRAIN_FILE, annotations)
    _write_json(folder / TEST_FILE, {GALLERY: gallery, **query_sets(tested, seed)})


def _draw_identity(
    folder: Path, seed: int, number: int, identity: Identity, known: frozenset[str] | None
) -> dict[str, str]:
    """Draw all pictures of an identity; return the caption of each RGB image by its path below the folder."""
    look = look_of(seed, identity)
    visible, infrared = plan_photos(seed, identity)
    pictures: dict[str, np.ndarray] = {}
    captions: dict[str, str] = {}
    place = f"{{}}/{number:04d}/{number:04d}_{{}}_{{}}.jpg"
    for shot, photo, (caption, *_) in take_captioned(identity, visible, seed, known):
        path = place.format("vis", f"cam{shot.camera + 1}_{shot.index:04d}", "vis")
        pictures[path], captions[path] = photo.pixels, caption
    for shot, pixels in take_infrared(look, infrared, seed):
        pictures[place.format("nir", f"cam{shot.camera + 1}_{shot.index:04d}", "nir")] = pixels
    for modality in ("sk", "cp"):
        for count, (view, pixels) in enumerate(take_drawings(look, identity.pid, modality, seed)):
            pictures[place.format(modality, f"{view}_{count}", modality)] = pixels
    for path, pixels in pictures.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / path, quality=JPEG_QUALITY)
    return captions


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8", newline="\n")
