"""What a run draws and downloads before it trains, and about how much: told before it happens."""

import os
from collections.abc import Iterator
from pathlib import Path

from yacs.config import CfgNode

from configs.clip_reid import clip_of
from configs.keys.clip_reid import NAMES as CLIP_REID
from configs.keys.irra import NAME as IRRA
from configs.keys.multimodal import NAME as MULTIMODAL
from configs.keys.pcb import NAME as PCB
from configs.titles import names_of_tests
from utils.paths import user_path

REPOSITORY = Path(__file__).resolve().parents[2]  # where relative paths of a configuration start
# name in DATASETS.NAMES -> folder below DATASETS.ROOT_DIR, images, megabytes; the folders as in datasets.synthetic
DRAWN = {
    "synthetic": ("synthetic_veri", 3027, 11),
    "synthetic_text": ("synthetic_text", 2817, 11),
    "synthetic_persons": ("synthetic_persons", 2238, 9),
    "synthetic_orbench": ("synthetic_orbench", 4817, 20),
}
FINISHED = "drawing_version.txt"  # in a folder that is drawn
TRUNK_MB = {  # word in the name of a trunk -> megabytes of its published float32 weights
    "resnet101": 180,
    "resnet50": 100,
    "tiny": 23,
    "small": 90,
    "base": 350,
    "large": 1220,
}
CLIP_MB = {"ViT-B-16": 600, "ViT-B-32": 605, "ViT-L-14": 1710, "RN50": 410}  # the same of open_clip's models
HUB = "from the Hugging Face hub, unless its cache has them"


def find_needs(cfg: CfgNode, first_weights: bool = True) -> list[str]:
    """Return a line for each data set that will be drawn, and for each file of weights that may be downloaded.

    `first_weights` False: all that a run trains comes from its own saved state.
    """
    return [*_drawn(cfg), *(_downloaded(cfg) if first_weights else ())]


def _drawn(cfg: CfgNode) -> Iterator[str]:
    root = REPOSITORY / user_path(cfg.DATASETS.ROOT_DIR, "DATASETS.ROOT_DIR")
    for name in dict.fromkeys((*cfg.DATASETS.NAMES, *names_of_tests(cfg))):
        if name in DRAWN:
            folder, images, size = DRAWN[name]
            if not os.path.isfile(root / folder / FINISHED):
                yield f"draws {images:,} images, {size} MB, into '{root / folder}': once, a minute or more"


def _downloaded(cfg: CfgNode) -> Iterator[str]:
    model, published = cfg.MODEL, cfg.MODEL.PRETRAIN_CHOICE == "imagenet"
    if model.NAME in (*CLIP_REID, IRRA, MULTIMODAL):
        name, tag = clip_of(cfg)
        if published and tag and not model.CLIP_LOCAL_PATH:
            yield f"downloads the CLIP {name} ({tag}), {_size(name, CLIP_MB)}, {HUB}"
        return
    if published and not model.PRETRAIN_PATH:
        trunk = {"transformer": model.TRANSFORMER_TYPE, PCB: model.PCB.TRUNK}.get(model.NAME, model.NAME)
        yield f"downloads published weights of {trunk}, {_size(trunk, TRUNK_MB)}, {HUB}"
    if model.NAME == "transformer" and model.USE_CLIP and not model.CLIP_LOCAL_PATH:
        of_open_clip = model.CLIP_IMPL == "open_clip"
        name = model.CLIP_BACKBONE if of_open_clip else model.CLIP_HF_ID
        if not of_open_clip or model.CLIP_PRETRAIN:
            yield f"downloads the CLIP {name}, {_size(name, CLIP_MB)}, {HUB}"


def _size(name: str, sizes: dict[str, int]) -> str:
    return next((f"about {size:,} MB" for word, size in sizes.items() if word in name), "of a size that is not known")
