"""A published model, which a stranger may have made: it is whole, and its configuration names no place of this machine.

Its weights and their configuration are read by `processor.trained.load_trained`, as those of any checkpoint.
"""

from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from configs import restore_cfg
from configs.publishing import BACKBONE_KEY, CLIP_FILE, places_in
from configs.values import set_value, value_of
from utils.checkpoint import read_provenance
from utils.errors import DataError
from utils.file_kinds import is_safetensors
from utils.published_folder import COPY_AGAIN, PublishedFolder, check_whole


def is_published(weight: Path) -> bool:
    """Return whether a weight file is one of a published model: by its name and what lies beside, or by its content."""
    folder = PublishedFolder(weight.parent)
    if weight.name == folder.weights.name and folder.list.exists():
        return True
    return is_safetensors(weight) and read_provenance(weight) is not None


def check_published(weight: Path, provenance: dict[str, Any] | None) -> None:
    """Raise DataError for a published model that is not whole, or whose configuration names a place or a device.

    `provenance` is that of `read_run`. Raises ConfigError for a configuration with problems, as `load_cfg`.
    """
    folder = PublishedFolder(weight.parent)
    files = check_whole(folder)
    if provenance is None or not is_safetensors(weight):
        raise DataError(f"'{weight}' is no weight file of a published model: it tells nothing of its training")
    cfg = restore_cfg(provenance["config"], f"the configuration in '{weight}'")
    if value_of(cfg, BACKBONE_KEY) == CLIP_FILE and folder.clip.name not in files:
        raise DataError(f"'{folder.path}' is no whole published model: it has no {folder.clip.name}; {COPY_AGAIN}")
    named = places_in(cfg)
    if named:
        told = ", ".join(f"{key} {value!r}" for key, value in named.items())
        raise DataError(f"'{weight}': its configuration names a place or a device, which no published one does: {told}")


def with_own_clip(cfg: CfgNode, weight: Path) -> CfgNode:
    """Return the configuration to build a model by: of a published one its CLIP is described in its own folder."""
    if value_of(cfg, BACKBONE_KEY) != CLIP_FILE or not is_published(weight):
        return cfg
    own = cfg.clone()
    own.defrost()
    set_value(own, BACKBONE_KEY, str(PublishedFolder(weight.parent).clip))
    own.freeze()
    return own
