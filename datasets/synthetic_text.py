"""Synthetic vehicles with captions: drawn once, deterministically, in RSTPReid's exact layout, then read like it.

The vehicles, families and photographs are drawn as those of synthetic VeRi; the captions say what a photograph shows,
by random numbers of their own. It proves mechanics and lets an ablation show a difference on any computer; it says
nothing about people, or about what people write.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from datasets.archives.annotation import IMAGES, SPLITS
from datasets.captions import RSTP_REID, CaptionDataset, Published, load_caption_folder
from datasets.synthetic import TEXT_FOLDER, Stream
from datasets.synthetic.once import ensure_drawn
from datasets.synthetic.photos import Photo
from datasets.synthetic.plan import Identity, Shot, look_of, plan_identities, plan_shots, take_shots
from datasets.synthetic.seen import labels_of, seen_parts
from datasets.synthetic.sentences import captions_of, words_of
from datasets.synthetic.vehicles import make_vehicle
from datasets.synthetic.words import sayable
from utils.errors import DataError
from utils.paths import user_path
from utils.progress import over

NAME = "synthetic_text"
VERSION = "1"  # of the drawing: a folder of another version is drawn again
NUM_TRAIN_IDS, NUM_VAL_IDS, NUM_TEST_IDS = 160, 20, 70
JPEG_QUALITY = 92

Entry = dict[str, int | str | list[str]]  # of the annotation: id, img_path, captions, split


class Captioned(NamedTuple):
    """A photograph with its captions."""

    shot: Shot
    photo: Photo
    captions: list[str]


def load_synthetic_text(root_dir: str | Path) -> CaptionDataset:
    """Load `<root_dir>/synthetic_text`, drawing it first if it is not there or was not finished.

    Several processes may call this at once. Raises DataError when the folder cannot be written, RunError when the disk
    is full.
    """
    folder = user_path(root_dir, "DATASETS.ROOT_DIR", DataError) / TEXT_FOLDER
    ensure_drawn(folder, "the synthetic vehicles with captions", draw_synthetic_text, VERSION)
    return load_caption_folder(folder, RSTP_REID._replace(name=NAME, published=Published()))


def draw_synthetic_text(
    folder: str | Path,
    seed: int = 0,
    num_train_ids: int = NUM_TRAIN_IDS,
    num_val_ids: int = NUM_VAL_IDS,
    num_test_ids: int = NUM_TEST_IDS,
) -> None:
    """Draw the set into a new folder in RSTPReid's layout, imgs/ and data_captions.json alone.

    The same arguments give the same files. Identities are numbered from 0, by split. Each photograph, and the captions
    of each, have a random generator of their own, so neither the order nor the number of images changes any of them;
    but captions outside of train use no word that those of train lack. Raises ValueError for more than 776 identities.
    """
    folder = Path(folder)
    identities = plan_identities(seed, num_train_ids, num_test_ids, num_val_ids)
    identities.sort(key=lambda identity: SPLITS.index(identity.split))  # train first: the others use its words
    (folder / IMAGES).mkdir(parents=True)
    entries: list[Entry] = []
    known: set[str] = set()
    for number, identity in enumerate(over(identities, "draw synthetic vehicles", "vehicle")):
        in_train = identity.split == "train"
        shots = plan_shots(seed, identity)
        for shot, photo, captions in take_captioned(identity, shots, seed, None if in_train else frozenset(known)):
            name = f"{number:04d}_c{shot.camera + 1}_{shot.index:04d}.jpg"
            Image.fromarray(photo.pixels).save(folder / IMAGES / name, quality=JPEG_QUALITY)
            entries.append({"id": number, "img_path": name, "captions": captions, "split": identity.split})
            if in_train:
                known.update(word for caption in captions for word in words_of(caption))
    (folder / RSTP_REID.annotations[0]).write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8", newline="\n")


def take_captioned(
    identity: Identity, shots: list[Shot], seed: int, known: frozenset[str] | None = None
) -> list[Captioned]:
    """Return the shots of an identity with photographs and captions, of the words `known` alone (None: any words)."""
    look = look_of(seed, identity)
    mesh, labels = make_vehicle(look).mesh, labels_of(look)
    captioned = []
    for shot, photo in take_shots(look, shots, seed):
        rng = np.random.default_rng((seed, Stream.CAPTION, shot.pid, shot.index))
        said = sayable(look, photo, shot.camera, seen_parts(photo, mesh, labels))
        captioned.append(Captioned(shot, photo, captions_of(said, rng, known)))
    return captioned
