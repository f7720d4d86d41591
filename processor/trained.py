"""A trained model from its checkpoint alone, without a data set: for tools that embed, draw or export."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from yacs.config import CfgNode

from configs import load_cfg, restore_cfg
from datasets.make_dataloader import ReIDData, test_names
from model import make_model
from model.layers.lora import merge_lora
from utils.checkpoint import read_provenance, read_weights
from utils.device import resolve_device
from utils.errors import ConfigError

logger = logging.getLogger(__name__)

PROVENANCE_SCHEMA = 1
NUMBERED = re.compile(r".+_(\d+)\.pth")
SIDE_TABLE = "base.sie_embed"  # [cameras x views, 1, D]


class Trained(NamedTuple):
    """A model in eval mode on its device, adapters merged, and what is known about its training."""

    cfg: CfgNode
    model: nn.Module
    device: torch.device
    weight: Path
    provenance: dict[str, Any] | None  # see `describe_run`; None for a checkpoint of other code


def describe_run(
    cfg: CfgNode, epoch: int, data: ReIDData, train_fingerprint: str, test_fingerprint: str
) -> dict[str, Any]:
    """Return what a checkpoint tells about its training on `data`: plain values alone."""
    return {
        "schema": PROVENANCE_SCHEMA,
        "config": cfg.dump(),
        "epoch": epoch,
        "num_classes": data.num_classes,
        "camera_num": data.camera_num,
        "view_num": data.view_num,
        "datasets": list(cfg.DATASETS.NAMES),
        "tested_on": test_names(cfg)[0],
        "train_fingerprint": train_fingerprint,
        "test_fingerprint": test_fingerprint,
    }


def data_differences(
    provenance: dict[str, Any], cfg: CfgNode, train_fingerprint: str, test_fingerprint: str
) -> list[str]:
    """Return a line for each data set of this configuration that has other images or labels than at training.

    Another test set than then is no difference, a set of the same name with another fingerprint is.
    """
    differences = []
    names, before = list(cfg.DATASETS.NAMES), provenance["datasets"]
    if (names, train_fingerprint) != (before, provenance["train_fingerprint"]):
        differences.append(
            f"the checkpoint was trained on {', '.join(before)} (fingerprint {provenance['train_fingerprint']}), the "
            f"training set here is {', '.join(names)} (fingerprint {train_fingerprint})"
        )
    same_test = test_names(cfg)[0] == provenance["tested_on"]
    if same_test and test_fingerprint != provenance["test_fingerprint"]:
        differences.append(
            f"{provenance['tested_on']}: its test images had the fingerprint {provenance['test_fingerprint']} at "
            f"training, here they have {test_fingerprint}; the scores do not compare"
        )
    return differences


def find_weight(output_dir: str | Path, epoch: int | None = None) -> Path:
    """Return the checkpoint of `epoch` in a run folder, None = the last one. ConfigError when there is none."""
    folder = Path(output_dir)
    if not folder.is_dir():
        raise ConfigError(f"--run '{output_dir}': no such folder; give the OUTPUT_DIR of a training")
    found = {int(match[1]): path for path in folder.glob("*.pth") if (match := NUMBERED.fullmatch(path.name))}
    if not found:
        raise ConfigError(
            f"--run '{output_dir}' holds no checkpoint <name>_<epoch>.pth; is it the OUTPUT_DIR of a training?"
        )
    if epoch is not None and epoch not in found:
        raise ConfigError(f"--epoch {epoch}: '{output_dir}' holds epochs {', '.join(map(str, sorted(found)))}")
    return found[max(found) if epoch is None else epoch]


def load_trained(weight: str | Path, config_file: str | Path | None = None, opts: Sequence[str] = ()) -> Trained:
    """Return the model of a checkpoint.

    Its configuration is `config_file`, else the one in the checkpoint, else config.yaml beside it, with the KEY VALUE
    pairs `opts` on top. Raises ConfigError when there is none, and what `load_cfg` and `load_param` raise.
    """
    weight = Path(weight)
    weights = read_weights(weight, "--weights")
    provenance = read_provenance(weight)
    cfg = _configuration(weight, config_file, opts, provenance)
    device = resolve_device(cfg.MODEL.DEVICE, cfg.MODEL.DEVICE_ID)
    model = make_model(cfg, *_counts(cfg, weights, provenance), pretrained=False).to(device)
    model.load_param(weight, "--weights")
    merge_lora(model)
    return Trained(cfg, model.eval(), device, weight, provenance)


def _configuration(
    weight: Path, config_file: str | Path | None, opts: Sequence[str], provenance: dict[str, Any] | None
) -> CfgNode:
    if config_file is not None:
        return load_cfg(config_file, opts)
    if provenance is not None:
        return restore_cfg(provenance["config"], f"the configuration in '{weight}'", opts)
    beside = weight.parent / "config.yaml"
    if not beside.is_file():
        raise ConfigError(
            f"'{weight}' holds no configuration and no config.yaml lies beside it; name its YAML with --config_file"
        )
    return restore_cfg(beside.read_text(encoding="utf-8"), str(beside), opts)


def _counts(cfg: CfgNode, weights: dict[str, torch.Tensor], provenance: dict[str, Any] | None) -> tuple[int, int, int]:
    """Return identities, cameras and viewpoints; of a checkpoint of other code as far as its weights tell them.

    Where it embeds cameras and viewpoints, only their product is known: they count as that many cameras, and since an
    unknown label gets the mean of all rows, images without labels have the right embedding.
    """
    if provenance is not None:
        return provenance["num_classes"], provenance["camera_num"], provenance["view_num"]
    classifier = weights.get("classifier.weight")
    rows = len(weights[SIDE_TABLE]) if SIDE_TABLE in weights else 1
    num_classes = 1 if classifier is None else len(classifier)
    return (num_classes, rows, 1) if cfg.MODEL.SIE_CAMERA else (num_classes, 1, rows)
