"""The run folder of a tiny IRRA of random weights, and what images and sentences become in it by the formulas."""

from collections.abc import Sequence
from pathlib import Path

import open_clip
import torch

from processor.provenance import PROVENANCE_SCHEMA
from tests.model.clip_reids import VIT, write_clip
from tests.model.irras import CLASSES, HEADS, irra_cfg, make_irra
from tests.reference import slow_irra as slow
from tests.tools.test_feature_extractor import naive_pixels
from utils.checkpoint import read_weights, save_weights

NAME, STRIDE = "irra_3.pth", (16, 16)
OPTS = ("DATASETS.NAMES", ("RSTPReid",))


def write_irra_run(folder: Path, *opts: object) -> Path:
    """Write the checkpoint of epoch 3, and the description of its CLIP, into a new folder and return that."""
    folder.mkdir()
    cfg = irra_cfg(write_clip(folder, VIT), *OPTS, *opts)
    told = {"num_classes": CLASSES, "camera_num": 1, "view_num": 1, "datasets": ["RSTPReid"], "tested_on": "RSTPReid"}
    told |= {"schema": PROVENANCE_SCHEMA, "config": cfg.dump(), "train_fingerprint": "01", "test_fingerprint": "23"}
    save_weights(make_irra(folder, *OPTS, *opts).state_dict(), folder / NAME, told | {"epoch": 3})
    return folder


def image_features(run: Path, photos: Sequence[str], flip: bool = False) -> torch.Tensor:
    """Return the unit embeddings float64 [N, D] of photographs by the formulas."""
    state = _state(run)
    pixels = torch.cat([naive_pixels(photo, irra_cfg("")) for photo in photos]).double()
    views = [pixels, pixels.flip(3)] if flip else [pixels]
    return _unit(sum(slow.image_tokens(state, images, STRIDE, HEADS["image"])[:, 0] for images in views))


def text_features(run: Path, texts: Sequence[str], length: int = 77) -> torch.Tensor:
    """Return the unit embeddings float64 [N, D] of sentences by the formulas, with open_clip's own tokens."""
    tokens = open_clip.get_tokenizer("ViT-B-16", context_length=length)(list(texts))
    return _unit(slow.text_features(_state(run), tokens.tolist(), HEADS["text"]))


def _state(run: Path) -> dict[str, torch.Tensor]:
    return {name: value.double() for name, value in read_weights(run / NAME, "checkpoint").items()}


def _unit(feat: torch.Tensor) -> torch.Tensor:
    return feat / feat.norm(dim=1, keepdim=True)
