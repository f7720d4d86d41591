"""Checkpoints that teach: tiny models of random weights which tell on which images they were trained."""

from pathlib import Path

from torch import nn
from yacs.config import CfgNode

from processor.provenance import PROVENANCE_SCHEMA
from tests.model.builds import TINY_VIT, make_cfg, make_tiny
from utils.checkpoint import save_weights

FINGERPRINT = "0123456789abcdef"
CLASSES = 5


def write_teacher(folder: Path, *opts: object, classes: int = CLASSES, seed: int = 9, **told: object) -> Path:
    """Write the checkpoint of epoch 7 of a tiny ViT into a folder and return its path."""
    cfg = make_cfg(*TINY_VIT, "MODEL.DEVICE", "cpu", *opts)
    model = make_tiny(*opts, classes=classes, cameras=3, views=2, seed=seed)
    return write_weights(folder, cfg, model, classes, **told)


def write_weights(folder: Path, cfg: CfgNode, model: nn.Module, classes: int = CLASSES, **told: object) -> Path:
    """Write a model's checkpoint of epoch 7, and what it tells of its training, into a folder and return its path."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{cfg.MODEL.NAME}_7.pth"
    provenance = {"schema": PROVENANCE_SCHEMA, "config": cfg.dump(), "epoch": 7, "num_classes": classes}
    provenance |= {"camera_num": 3, "view_num": 2, "datasets": ["veri"], "tested_on": "veri"}
    provenance |= {"train_fingerprint": FINGERPRINT, "test_fingerprint": "fedcba9876543210"}
    save_weights(model.state_dict(), path, provenance | told)
    return path
