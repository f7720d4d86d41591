"""A data set in ORBench's layout, the run of a tiny model of modalities on it, and what the formulas make of it.

The model has random weights.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from yacs.config import CfgNode

from datasets.tokens import tokenize
from processor.provenance import PROVENANCE_SCHEMA
from tests.datasets.modal import write_orbench
from tests.model.clip_reids import VIT, in_float64, write_clip
from tests.model.multimodals import CLASSES, FUSION_HEADS, make_multimodal, multimodal_cfg, slow_z
from tests.reference import slow_multimodal as slow
from utils.checkpoint import save_weights

LENGTH, NAME = 20, "multimodal_3.pth"
GREY = ("nir", "sk")  # read as grey


def write_modal_run(folder: Path, *opts: object) -> Path:
    """Write folder/data and the checkpoint of epoch 3 in folder/run, which knows where the data lies; return that."""
    run = folder / "run"
    run.mkdir(parents=True)
    write_orbench(folder / "data")
    opts = ("INPUT.TEXT.LENGTH", LENGTH, "DATASETS.ROOT_DIR", str(folder / "data"), "DATALOADER.NUM_WORKERS", 0, *opts)
    cfg = multimodal_cfg(write_clip(run, VIT), *opts)
    told = {"num_classes": CLASSES, "camera_num": 1, "view_num": 1, "datasets": ["orbench"], "tested_on": "orbench"}
    told |= {"schema": PROVENANCE_SCHEMA, "config": cfg.dump(), "train_fingerprint": "01", "test_fingerprint": "23"}
    save_weights(make_multimodal(run, *opts).state_dict(), run / NAME, told | {"epoch": 3})
    return run


def unfused(model: nn.Module, cfg: CfgNode, items: Mapping[str, str], flip: bool = False) -> dict[str, torch.Tensor]:
    """Return the feature float64 [1, D] of each item, a path or sentence by modality, by the formulas."""
    inputs = {
        name: tokenize(value, cfg.INPUT.TEXT.LENGTH)[None] if name == "text" else naive_pixels(value, name, cfg)
        for name, value in items.items()
    }
    views = [inputs, {name: x if name == "text" else x.flip(3) for name, x in inputs.items()}] if flip else [inputs]
    features = [slow_z(model, view) for view in views]
    return {name: sum(one[name] for one in features) / len(features) for name in items}


def embeddings_of(
    model: nn.Module, cfg: CfgNode, queries: Sequence[Mapping[str, str]], flip: bool = False
) -> torch.Tensor:
    """Return the unit embeddings float64 [Q, D] of queries by the formulas, one by one."""
    state, rows = in_float64(model), []
    for items in queries:
        features = torch.cat(list(unfused(model, cfg, items, flip).values()))  # [n, D]
        rows.append(slow.neck(slow.fuse(features, state, FUSION_HEADS)[None], state)[0])
    return torch.stack([row / row.norm() for row in rows])


def naive_pixels(path: str, modality: str, cfg: CfgNode) -> torch.Tensor:
    """Return an image file float32 [1, 3, H, W], step by step: grey where the modality is, resized, normalised."""
    with Image.open(path) as image:
        colours = image.convert("RGB")
    if modality in GREY:
        pixels = torch.from_numpy(np.array(colours.convert("L")))[None, None].expand(1, 3, -1, -1)
    else:
        pixels = torch.from_numpy(np.array(colours)).permute(2, 0, 1)[None]
    pixels = F.interpolate(pixels, tuple(cfg.INPUT.SIZE_TEST), mode="bilinear", antialias=True).double() / 255
    mean, std = (torch.tensor(row).double().view(1, 3, 1, 1) for row in (cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD))
    return ((pixels - mean) / std).float()
