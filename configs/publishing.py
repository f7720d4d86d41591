"""The configuration of a published model: nothing in it names a file, or a device, of one machine."""

import copy
from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from yacs.config import CfgNode

from configs.compare import Change, find_changes, flatten
from configs.keys import affects, get_cfg_defaults
from configs.values import set_value, value_of

CLIP_FILE = "clip.json"  # in the folder of the model, the description of the CLIP that it is made of
BACKBONE_KEY, TAG_KEY = "MODEL.CLIP_BACKBONE", "MODEL.CLIP_PRETRAIN"
PRETRAIN_KEY = "MODEL.PRETRAIN_PATH"
KNOWN_WEIGHTS = {  # published files that papers and their code name -> what they are
    "jx_vit_base_p16_224-80ecf9dd.pth": "timm's vit_base_patch16_224, Apache-2.0",
    "jx_vit_base_p32_224.pth": "timm's vit_base_patch32_224, Apache-2.0",
    "deit_base_distilled_patch16_224-df68dfff.pth": "DeiT-B distilled of facebookresearch/deit, Apache-2.0",
    "deit_small_distilled_patch16_224-649709d9.pth": "DeiT-S distilled of facebookresearch/deit, Apache-2.0",
    "deit_tiny_distilled_patch16_224-b40b3cf7.pth": "DeiT-Ti distilled of facebookresearch/deit, Apache-2.0",
    "resnet50-19c8e357.pth": "torchvision's resnet50, BSD-3-Clause",
    "resnet50-0676ba61.pth": "torchvision's resnet50, BSD-3-Clause",
}
OTHER_WEIGHTS = "weights.pth"
AS_DEFAULT = (  # places and devices
    *("OUTPUT_DIR", "TEST.WEIGHT", "DATASETS.ROOT_DIR", "DATASETS.VIEW_FILES", "DATALOADER.CACHE"),
    *("MODEL.DEVICE", "MODEL.DEVICE_ID", "MODEL.CLIP_LOCAL_PATH"),
)
NAMED = {  # files that a rule asks for -> what stands for each that is set
    "DATASETS.TABLE": "table.csv",
    "DATASETS.WILDLIFE": "wildlife.csv",
    "DISTILL.TEACHER_RUN": "teacher",
    "DISTILL.TEACHER_CONFIG": "teacher.yml",
    "DISTILL.TEACHER_WEIGHT": "teacher.pth",
}
PATH_KEYS = (*AS_DEFAULT, *NAMED, PRETRAIN_KEY, BACKBONE_KEY)


def without_places(cfg: CfgNode) -> CfgNode:
    """Return a frozen copy of a configuration that tells nothing of the machine it comes from.

    Paths and devices have their defaults; where a rule asks for a file, a name stands for it. The description of a CLIP
    is CLIP_FILE, and the file of first weights has its name where the whole field knows it.
    """
    public, defaults = copy.deepcopy(cfg), get_cfg_defaults()
    public.defrost()
    for key in AS_DEFAULT:
        set_value(public, key, value_of(defaults, key))
    for key, name in NAMED.items():
        if value_of(public, key):
            set_value(public, key, name)
    name = file_name(cfg.MODEL.PRETRAIN_PATH)
    if name:
        set_value(public, PRETRAIN_KEY, name if name in KNOWN_WEIGHTS else OTHER_WEIGHTS)
    if cfg.MODEL.CLIP_BACKBONE.endswith(".json"):
        set_value(public, BACKBONE_KEY, CLIP_FILE)
        set_value(public, TAG_KEY, "")  # no published weights are of a CLIP that open_clip does not know
    public.freeze()
    return public


def places_in(cfg: CfgNode) -> dict[str, Any]:
    """Return the values, by key, that name a place or device in a configuration: none in a published one."""
    public = without_places(cfg)
    return {key: value_of(cfg, key) for key in PATH_KEYS if _plain(cfg, key) != _plain(public, key)}


def embedding_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Return the keys of two configurations on which an embedding depends and that differ, but those of places.

    What a configuration of another version lacks is left out; so is the tag of first weights, which a checkpoint has.
    """
    before, after = flatten(old), flatten(new)
    kept = [key for key in before.keys() & after.keys() if affects(key, "embedding")]
    kept = [key for key in kept if key not in (*PATH_KEYS, TAG_KEY)]
    return find_changes({key: before[key] for key in kept}, {key: after[key] for key in kept})


def file_name(path: str) -> str:
    """Return the last part of a path of any system."""
    return PureWindowsPath(PurePosixPath(path).name).name


def _plain(cfg: CfgNode, key: str) -> Any:
    value = value_of(cfg, key)
    return list(value) if isinstance(value, tuple) else value
