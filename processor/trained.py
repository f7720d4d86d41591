"""A trained model from its checkpoint alone, without a data set: for tools that embed, draw or export."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from yacs.config import CfgNode

from configs import load_cfg, restore_cfg
from datasets.labels import check_side_rows
from datasets.read import Counts, Told
from model import make_model
from model.layers.lora import merge_lora
from processor.provenance import read_run, warn_of_other_settings
from processor.published import check_published, is_published, with_own_clip
from utils.checkpoint import read_weights
from utils.device import resolve_device
from utils.errors import ConfigError, DataError
from utils.paths import user_path
from utils.run_folder import open_run

logger = logging.getLogger(__name__)

SIDE_TABLES = ("base.sie_embed", "cv_embed")  # [cameras x views, ...] of TransReID and of CLIP-ReID
CLASSIFIER = "classifier.weight"  # [identities, D]


class Trained(NamedTuple):
    """A model in eval mode on its device, adapters merged, and what is known about its training."""

    cfg: CfgNode
    model: nn.Module
    device: torch.device
    weight: Path
    provenance: dict[str, Any] | None  # see `describe_run`; None for a checkpoint of other code


def find_weight(output_dir: str | Path, epoch: int | None = None) -> Path:
    """Return the checkpoint of `epoch` in a run folder, None = the last one. ConfigError when there is none."""
    folder = user_path(output_dir, "run folder")
    if folder.is_file():
        raise ConfigError(
            f"run folder '{output_dir}' is a file; name the OUTPUT_DIR of a training (--weights takes files)"
        )
    if not str(output_dir) or not folder.is_dir():  # Path("") is the working directory
        raise ConfigError(f"run folder '{output_dir}': no such folder; give the OUTPUT_DIR of a training")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise ConfigError(f"run folder '{output_dir}' cannot be read; check its permissions")
    run = open_run(folder)
    found = run.checkpoints()
    if not found:
        raise ConfigError(
            f"run folder '{output_dir}' holds no checkpoint {run.prefix or '<name>'}_<epoch>.pth; is it the OUTPUT_DIR "
            "of a training?"
        )
    if epoch is not None and epoch not in found:
        raise ConfigError(
            f"run folder '{output_dir}' has no epoch {epoch}; it holds epochs {', '.join(map(str, sorted(found)))}"
        )
    return found[max(found) if epoch is None else epoch]


def load_trained(
    weight: str | Path,
    config_file: str | Path | None = None,
    opts: Sequence[str] = (),
    config_key: str = "config_file",
) -> Trained:
    """Return the model of a checkpoint.

    Its configuration is `config_file`, which a user names by `config_key`, else the one in the checkpoint, else
    config.yaml beside it, with the KEY VALUE pairs `opts` on top. Raises ConfigError when there is none, DataError as
    `read_run`, and what `check_published`, `load_cfg` and `load_param` raise.
    """
    weight = user_path(weight, "checkpoint")
    if weight.is_dir():
        raise ConfigError(f"checkpoint '{weight}' is a folder; name a file in it, or give it as a run folder")
    weights = read_weights(weight, "checkpoint")
    provenance = read_run(weight)
    if is_published(weight):
        check_published(weight, provenance)
    cfg = _configuration(weight, config_file, opts, provenance, config_key)
    if provenance is not None:
        warn_of_other_settings(provenance, cfg, weight)
    device = resolve_device(cfg.MODEL.DEVICE, cfg.MODEL.DEVICE_ID)
    model_cfg = with_own_clip(cfg, weight) if provenance is not None else _with_known_sides(cfg, weights, weight)
    undivided = model_cfg.MODEL.SIE_CAMERA and model_cfg.MODEL.SIE_VIEW != cfg.MODEL.SIE_VIEW
    model = make_model(model_cfg, *_counts(cfg, weights, provenance, weight), pretrained=False).to(device)
    model.load_param(weight, "checkpoint")
    if undivided and model.side_rows:
        _keep_neutral_side(model, weight)
    merge_lora(model)
    return Trained(cfg, model.eval(), device, weight, provenance)


def _configuration(
    weight: Path,
    config_file: str | Path | None,
    opts: Sequence[str],
    provenance: dict[str, Any] | None,
    config_key: str,
) -> CfgNode:
    if config_file is not None:
        return load_cfg(config_file, opts)
    if provenance is not None:
        return restore_cfg(provenance["config"], f"the configuration in '{weight}'", opts)
    beside = open_run(weight.parent).config
    if not beside.is_file():
        raise ConfigError(
            f"'{weight}' holds no configuration and no config.yaml lies beside it; name its YAML as {config_key}"
        )
    try:
        text = beside.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"'{beside}' is no text ({error}); copy it again, or name the YAML as {config_key}"
        ) from error
    return restore_cfg(text, str(beside), opts)


def _with_known_sides(cfg: CfgNode, weights: dict[str, torch.Tensor], weight: Path) -> CfgNode:
    """Return `cfg` with the side information that a checkpoint of other code has: of cameras and views as of cameras.

    What it lacks although `cfg` asks for it is off, with a warning.
    """
    known = cfg.clone()
    known.defrost()
    if any(name in weights for name in SIDE_TABLES):
        known.MODEL.SIE_VIEW = cfg.MODEL.SIE_VIEW and not cfg.MODEL.SIE_CAMERA
    elif cfg.MODEL.SIE_CAMERA or cfg.MODEL.SIE_VIEW:
        logger.warning("'%s' holds no side information: MODEL.SIE_CAMERA and MODEL.SIE_VIEW are off here", weight)
        known.MODEL.SIE_CAMERA = known.MODEL.SIE_VIEW = False
    return known


def _keep_neutral_side(model: nn.Module, weight: Path) -> None:
    """Replace a table whose rows cannot be told apart by their mean, which is right for images without labels."""
    logger.warning(
        "'%s' does not tell how the %d rows of its side information divide into cameras and views: every image gets "
        "the neutral side information, their mean",
        *(weight, model.side_rows),
    )
    model.keep_neutral_side()


def told_by(cfg: CfgNode, weight: Path) -> Told | None:
    """Return what a checkpoint tells of its training set, so that a test can do without the training images.

    None where it does not: its side information does not divide into cameras and viewpoints. Raises as `load_trained`.
    """
    provenance = read_run(weight)
    if provenance is None and cfg.MODEL.SIE_CAMERA and cfg.MODEL.SIE_VIEW:
        return None
    counts = _counts(cfg, read_weights(weight, "TEST.WEIGHT"), provenance, weight)
    return Told(counts, tuple(cfg.DATASETS.NAMES if provenance is None else provenance["datasets"]))


def _counts(cfg: CfgNode, weights: dict[str, torch.Tensor], provenance: dict[str, Any] | None, weight: Path) -> Counts:
    """Return identities, cameras and viewpoints; of a checkpoint of other code as far as its weights tell them.

    Where it embeds cameras and viewpoints, only their product is known: they count as that many cameras. Raises
    DataError where a checkpoint tells other numbers than its weights have.
    """
    side_table = next((name for name in SIDE_TABLES if name in weights), "")
    classifier, table = weights.get(CLASSIFIER), weights.get(side_table)
    num_classes, rows = (1 if part is None or not part.ndim else len(part) for part in (classifier, table))
    if provenance is None:
        return Counts(num_classes, rows, 1) if cfg.MODEL.SIE_CAMERA else Counts(num_classes, 1, rows)
    told = Counts(provenance["num_classes"], provenance["camera_num"], provenance["view_num"])
    wrong = [CLASSIFIER] if classifier is not None and num_classes != told.num_class else []
    if table is not None and rows not in (told.camera_num, told.view_num, told.camera_num * told.view_num):
        wrong.append(side_table)
    if wrong:
        raise DataError(
            f"'{weight}' tells of {told.num_class:,} identities, {told.camera_num:,} cameras and "
            f"{told.view_num:,} viewpoints, which its {' and '.join(wrong)} contradict; copy it again"
        )
    check_side_rows(told.camera_num * cfg.MODEL.SIE_CAMERA, told.view_num * cfg.MODEL.SIE_VIEW)
    return told
