"""Weights of CLIP's image towers: files of open_clip and transformers, positions for another grid, fingerprints."""

import logging
from pathlib import Path

import torch
from torch import nn

from model.backbones.clip import SIZE_KEY, HfTower, OpenClipTower, Tower
from model.weights.convert import guess_grid, resize_pos_embed
from model.weights.load import Weights, load_weights
from utils.checkpoint import read_weights
from utils.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")  # of a transformers folder, the first one wins
HF_PARTS = ("embeddings.", "pre_layrnorm.", "encoder.", "post_layernorm.")
OTHER_SIZE = f"the CLIP tower was trained at another {SIZE_KEY}, so its features differ"
NORM_RTOL, NORM_ATOL = 1e-3, 1e-6  # fingerprints of the same tower may come from other devices


def load_open_clip(tower: OpenClipTower, path: Path, source: str) -> None:
    """Load the image tower in a file by open_clip's names, the text tower's left aside; DataError if it does not fit.

    `source` opens every message.
    """
    weights = read_weights(path, source)
    visual = {name: value for name, value in weights.items() if name.startswith("visual.")}
    if tower.grid and tower.positions in visual:
        visual[tower.positions] = resize_positions(visual[tower.positions], tower)
    _load(tower, visual or weights, source, "MODEL.CLIP_BACKBONE decides it")


def load_hf(tower: HfTower, folder: Path, source: str) -> None:
    """As `load_open_clip` for the weight file in a transformers folder; ConfigError when there is none."""
    path = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if path is None:
        raise ConfigError(f"{source}: '{folder}' has no {' or '.join(WEIGHT_FILES)}")
    weights = {name.removeprefix("vision_model."): value for name, value in read_weights(path, source).items()}
    vision = {name: value for name, value in weights.items() if name.startswith(HF_PARTS)}
    vision.pop("embeddings.position_ids", None)  # a constant that older versions saved
    if tower.positions in vision:
        vision[tower.positions] = resize_positions(vision[tower.positions], tower)
    _load(tower, vision or weights, source, "the config.json beside it decides it")


def _load(tower: nn.Module, weights: Weights, source: str, decided: str) -> None:
    report = load_weights(tower, weights, source, lambda name: decided)
    if report.surplus:
        raise DataError(f"{source}: {report.surplus[0]} is in the file, but not in the tower; {decided}")
    logger.info("CLIP tower: %s", report)


def resize_positions(table: torch.Tensor, tower: Tower) -> torch.Tensor:
    """Return a position table [1 + N, D] interpolated to the tower's grid; the class row and the dtype are kept.

    Bicubic, as open_clip (with antialiasing) and transformers (without) do it; open_clip's own function leaves a table
    as it is when only the shape of the grid changes. The source grid is taken to be square where it can be.
    """
    if guess_grid(len(table) - 1, tower.grid) == tower.grid:
        return table
    return resize_pos_embed(table[None], tower.grid, mode="bicubic", antialias=tower.antialias)[0]


def fit_positions(table: torch.Tensor, tower: Tower) -> torch.Tensor:
    """Return a trained position table, resized where its number of rows is not the tower's; that is logged."""
    ours = tower.get_parameter(tower.positions) if tower.grid else table
    if table.dim() != 2 or table.shape[1] != ours.shape[1] or len(table) in (0, 1, len(ours)):
        return table  # it fits, or its width does not, which loading says
    logger.warning("%s: resized from %d to %d rows; %s", tower.positions, len(table), len(ours), OTHER_SIZE)
    return resize_positions(table, tower)


def fingerprint(tower: Tower) -> torch.Tensor:
    """Return the L2 norm of each weight of a tower in the order of its state dict: [T] float32."""
    return torch.stack([value.detach().float().norm() for value in tower.state_dict().values()])


def check_fingerprint(theirs: torch.Tensor, ours: torch.Tensor, tower: Tower) -> None:
    """Raise DataError when `theirs` is not the fingerprint `ours` of the tower; its positions may be of another size.

    Nothing is known of a tower on the meta device.
    """
    if ours.is_meta:
        return
    differing = list(tower.state_dict())
    if theirs.shape == ours.shape:
        same = torch.isclose(theirs.to(ours), ours, rtol=NORM_RTOL, atol=NORM_ATOL).tolist()
        differing = [name for name, equal in zip(differing, same, strict=True) if not equal]
    if differing == [tower.positions] and tower.grid:
        logger.warning("%s has another norm; %s", tower.positions, OTHER_SIZE)
    elif differing:
        raise DataError(
            f"the weights were trained with another CLIP tower than {tower.info.source}; name the one of its training "
            "(MODEL.CLIP_BACKBONE / CLIP_PRETRAIN / CLIP_HF_ID / CLIP_LOCAL_PATH)"
        )
