"""Trained models for the tests of exported files."""

from pathlib import Path

import torch
from yacs.config import CfgNode

from model import make_model
from model.layers.lora import merge_lora
from processor.trained import Trained
from tests.model import clips
from tests.model.builds import TINY_VIT, make_cfg
from utils.checkpoint import save_weights

CAMERAS, VIEWS = 3, 2
BOTH = ("MODEL.SIE_CAMERA", True, "MODEL.SIE_VIEW", True, "MODEL.SIE_COE", 1.0)
SMALL = (*TINY_VIT, "MODEL.VIT.DEPTH", 1, "MODEL.DROP_PATH", 0.0)
PROVENANCE = {"epoch": 7, "datasets": ["veri"], "train_fingerprint": "0123abcd"}


def make_trained(cfg: CfgNode, folder: Path) -> Trained:
    """Return a model with weights of no special value as `load_trained` does, and write its checkpoint."""
    torch.manual_seed(3)
    model = clips.redraw(make_model(cfg, 5, CAMERAS, VIEWS, pretrained=False)).eval()
    for layer in model.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.5, 2)
    weight = folder / "transformer_7.pth"
    save_weights(model.state_dict(), weight, PROVENANCE)
    merge_lora(model)
    return Trained(cfg, model, torch.device("cpu"), weight, PROVENANCE)


def small(tmp_path: Path, *opts: object) -> Trained:
    return make_trained(make_cfg(*SMALL, *opts), tmp_path)
