"""Which modalities a trained model reads, and one clear error for what it does not."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from yacs.config import CfgNode

from configs.keys.multimodal import NAME as MULTIMODAL
from configs.modalities import MODALITIES, TEXT, VIS
from datasets.read_captions import READ_CAPTIONS
from utils.errors import ConfigError, DataError

logger = logging.getLogger(__name__)


def read_by(cfg: CfgNode, model: nn.Module) -> tuple[str, ...]:
    """Return the modalities of MODALITIES that a model reads; for those of images alone these are vis."""
    if cfg.MODEL.NAME == MULTIMODAL:
        return tuple(model.modalities)
    return (VIS, TEXT) if cfg.MODEL.NAME in READ_CAPTIONS else (VIS,)


def check_reads(modality: str, reads: Sequence[str], name: str, weight: Path) -> None:
    """Raise ConfigError where a model of MODEL.NAME `name`, which reads `reads`, does not read a modality."""
    if modality in reads:
        return
    if modality not in MODALITIES:
        raise ConfigError(f"'{modality}' is no modality; '{weight}' reads {', '.join(reads)}")
    if name == MULTIMODAL:
        raise ConfigError(
            f"'{weight}' was trained on {', '.join(reads)} (MODEL.MULTIMODAL.MODALITIES), not on {modality}; leave "
            f"{modality} out, or use a model that was trained on it"
        )
    if modality == TEXT:
        raise ConfigError(
            f"'{weight}' is of MODEL.NAME {name}, which reads no sentences; use a model that was trained on captions "
            f"(MODEL.NAME {', '.join(READ_CAPTIONS)}), or on several modalities, text among them ({MULTIMODAL})"
        )
    raise ConfigError(
        f"'{weight}' is of MODEL.NAME {name}, which takes all images for RGB ones, not for {modality}; leave the "
        f"modality out, or use a model of MODEL.NAME {MULTIMODAL}"
    )


def check_queries(queries: Sequence[Mapping[str, Any]], reads: Sequence[str], name: str, weight: Path) -> None:
    """Raise what is wrong with queries, items by modality, for a model of MODEL.NAME `name`, which reads `reads`.

    ConfigError for a modality that it does not read and for several where it takes one a query, DataError for a query
    that is no mapping, or holds none.
    """
    for row, query in enumerate(queries):
        if not isinstance(query, Mapping):
            raise DataError(
                f"query {row} (from 0) is of type {type(query).__name__}; give a list of dicts, images and sentences "
                "by modality"
            )
    for modality in dict.fromkeys(modality for query in queries for modality in query):
        check_reads(modality, reads, name, weight)
    counts = [len(query) for query in queries]
    if 0 in counts:
        raise DataError(f"query {counts.index(0)} (from 0) has no item; give it an image or a sentence")
    if name != MULTIMODAL and any(count > 1 for count in counts):
        raise ConfigError(
            f"'{weight}' is of MODEL.NAME {name}, which takes one image or one sentence as a query; search for each by "
            f"itself, or use a model of MODEL.NAME {MULTIMODAL}"
        )
    if any(VIS in query and len(query) > 1 for query in queries):
        logger.warning(
            "a query of %s and more: the model has never seen %s with other modalities in training", VIS, VIS
        )


def gallery_modality(cfg: CfgNode) -> str:
    """Return the modality of a gallery of loose images, by TEST.GALLERY_SET; ConfigError where they cannot have it."""
    names = cfg.TEST.GALLERY_SET
    if cfg.MODEL.NAME != MULTIMODAL:
        return VIS
    if len(names) != 1 or names[0] == TEXT:
        raise ConfigError(
            f"TEST.GALLERY_SET {list(names)}: the images of a folder are of one modality; give TEST.GALLERY_SET "
            f"\"['{VIS}']\" beside --run"
        )
    return names[0]
