"""What a model's first weights were, and under which licence they are published."""

from typing import NamedTuple

from yacs.config import CfgNode

from configs.clip_reid import clip_of
from configs.keys.clip_reid import NAMES as CLIP_REID
from configs.keys.irra import NAME as IRRA
from configs.keys.multimodal import NAME as MULTIMODAL
from configs.keys.pcb import NAME as PCB
from configs.publishing import KNOWN_WEIGHTS, file_name
from model.backbones.resnet import HUB_NAMES
from model.backbones.vit_types import published_weights
from model.families.transformer import size_overrides

UNKNOWN = "not known here; look at their source before you use them"
CLIP_LICENCES = {"openai": "MIT", "laion": "MIT", "datacomp": "MIT"}  # by the start of open_clip's tag
HF_LICENCES = {"wkcn/TinyCLIP": "MIT"}  # by the start of the hub's name


class FirstWeights(NamedTuple):
    """Weights that a training began with."""

    what: str
    licence: str  # '' = none is needed
    hub: str = ""  # repository of the hub that has them, '' = none is known


def first_weights_of(cfg: CfgNode) -> list[FirstWeights]:
    """Return what the trunk of a configuration began with and, where it has one beside it, a CLIP tower."""
    name, choice, path = cfg.MODEL.NAME, cfg.MODEL.PRETRAIN_CHOICE, file_name(cfg.MODEL.PRETRAIN_PATH)
    if name in (*CLIP_REID, IRRA, MULTIMODAL) and choice == "imagenet":
        return [
            _clip(cfg, *(clip_of(cfg) if name in CLIP_REID else (cfg.MODEL.CLIP_BACKBONE, cfg.MODEL.CLIP_PRETRAIN)))
        ]
    return [_trunk(cfg, choice, path), *([_tower(cfg)] if cfg.MODEL.USE_CLIP else [])]


def _trunk(cfg: CfgNode, choice: str, path: str) -> FirstWeights:
    if choice == "none":
        return FirstWeights("random, trained from scratch", "")
    if choice == "resume":
        return FirstWeights("those that the run, which was continued, began with", UNKNOWN)
    if path in KNOWN_WEIGHTS:
        what, _, licence = KNOWN_WEIGHTS[path].rpartition(", ")
        return FirstWeights(f"{what}, trained on ImageNet ({path})", licence)
    if path:
        return FirstWeights(f"those of a file (MODEL.PRETRAIN_CHOICE {choice})", UNKNOWN)
    return _timm(_hub_name(cfg))


def _hub_name(cfg: CfgNode) -> str:
    """Return timm's name of the published weights that a configuration without a file takes."""
    if cfg.MODEL.NAME == "transformer":
        return published_weights(cfg.MODEL.TRANSFORMER_TYPE, size_overrides(cfg))
    return HUB_NAMES[cfg.MODEL.PCB.TRUNK if cfg.MODEL.NAME == PCB else "resnet50"]


def _timm(name: str) -> FirstWeights:
    import timm

    published = timm.get_pretrained_cfg(name)
    hub, licence = (None, None) if published is None else (published.hf_hub_id, published.license)
    return FirstWeights(f"timm's {name}", licence or UNKNOWN, hub if hub and "/" in hub else "")


def _clip(cfg: CfgNode, name: str, tag: str) -> FirstWeights:
    if cfg.MODEL.CLIP_LOCAL_PATH:
        return FirstWeights(f"a CLIP ({_shown(name)}) from a file", UNKNOWN)
    if not tag:
        return FirstWeights(f"a CLIP ({_shown(name)}) of random weights, trained from scratch", "")
    licence = next((words for start, words in CLIP_LICENCES.items() if tag.startswith(start)), UNKNOWN)
    return FirstWeights(f"open_clip's {name} with the weights {tag}", licence)


def _tower(cfg: CfgNode) -> FirstWeights:
    """Return the CLIP tower of CLIP fusion."""
    if cfg.MODEL.CLIP_IMPL == "open_clip":
        return _clip(cfg, cfg.MODEL.CLIP_BACKBONE, cfg.MODEL.CLIP_PRETRAIN)
    if cfg.MODEL.CLIP_LOCAL_PATH:
        return FirstWeights("a CLIP from a folder", UNKNOWN)
    name = cfg.MODEL.CLIP_HF_ID
    licence = next((words for start, words in HF_LICENCES.items() if name.startswith(start)), UNKNOWN)
    return FirstWeights(f"the CLIP {name} of the Hugging Face hub", licence, name)


def _shown(name: str) -> str:
    return "of a description of its own" if name.endswith(".json") else name
