"""Rules between the keys of MODEL.CLIP_*, and which of them have no effect."""

import re
from collections.abc import Iterator

from yacs.config import CfgNode

from configs.keys import get_cfg_defaults
from configs.keys.clip_reid import NAMES as CLIP_REID
from configs.keys.irra import NAME as IRRA
from configs.keys.multimodal import NAME as MULTIMODAL
from configs.phases import Problem

# the patch side in pixels in ViT-B-16, ViT-L-14-336, clip-vit-base-patch16, TinyCLIP-ViT-61M-32-Text-29M
PATCH_IN_NAME = re.compile(r"(?:patch|ViT-[^-/]+-)(\d{1,2})(?!\d)")


def find_clip_problems(cfg: CfgNode) -> Iterator[Problem]:
    """Yield every rule that `cfg` breaks, as (keys concerned, one line that says what to do)."""
    model = cfg.MODEL
    if not model.USE_CLIP:
        return
    if model.NAME != "transformer":
        yield (
            ("MODEL.USE_CLIP", "MODEL.NAME"),
            f"MODEL.USE_CLIP True needs MODEL.NAME transformer, got {model.NAME}",
        )
    if model.CLIP_IMPL == "hf" and model.CLIP_FUSION == "quickwin":
        yield (
            ("MODEL.CLIP_FUSION", "MODEL.CLIP_IMPL"),
            "MODEL.CLIP_FUSION quickwin exists for MODEL.CLIP_IMPL open_clip only; set one of them differently",
        )
    if model.CLIP_IMPL == "open_clip" and not model.CLIP_BACKBONE:
        yield (
            ("MODEL.CLIP_BACKBONE",),
            "MODEL.CLIP_BACKBONE is empty; name a model of open_clip or a .json file in its format",
        )
    if model.CLIP_IMPL == "hf" and not model.CLIP_HF_ID and not model.CLIP_LOCAL_PATH:
        yield (
            ("MODEL.CLIP_HF_ID", "MODEL.CLIP_LOCAL_PATH"),
            "MODEL.CLIP_IMPL hf needs a model: set MODEL.CLIP_HF_ID, or MODEL.CLIP_LOCAL_PATH to its folder",
        )
    yield from _patch_problems(model)


def find_clip_notices(cfg: CfgNode) -> Iterator[str]:
    """Yield one line for every key that is set and that another one leaves without effect."""
    model, defaults = cfg.MODEL, get_cfg_defaults().MODEL
    if model.NAME in (*CLIP_REID, IRRA, MULTIMODAL):  # see configs.rules.whole_clip
        return
    if not model.USE_CLIP:
        idle = [f"MODEL.{key}" for key in model if key.startswith("CLIP_") and model[key] != defaults[key]]
        if idle:
            yield f"{', '.join(idle)}: not used, MODEL.USE_CLIP is False"
        return
    impl, fusion = model.CLIP_IMPL, model.CLIP_FUSION
    own_branches = ("CLIP_USE_AFEM", "CLIP_USE_SEM_REFINE")
    rates = ("CLIP_SEPARATE_LR", "CLIP_LR_SCALE")
    frozen = fusion != "concat" and not model.CLIP_FINETUNE
    by_path = impl == "hf" and bool(model.CLIP_LOCAL_PATH)
    reasons = {}  # the first reason of a key is the one said
    for keys, idle, why in (
        (("CLIP_BACKBONE", "CLIP_PRETRAIN"), impl == "hf", "MODEL.CLIP_IMPL hf takes CLIP_HF_ID or CLIP_LOCAL_PATH"),
        (("CLIP_HF_ID",), impl == "open_clip", "MODEL.CLIP_IMPL open_clip takes CLIP_BACKBONE and CLIP_PRETRAIN"),
        (("CLIP_HF_ID",), by_path, "MODEL.CLIP_LOCAL_PATH wins"),
        (own_branches, fusion == "concat", "MODEL.CLIP_FUSION concat has no layers"),
        (own_branches, impl == "open_clip", "MODEL.CLIP_IMPL open_clip has no such branch"),
        (("CLIP_CONCAT_WEIGHT",), fusion != "concat", f"MODEL.CLIP_FUSION is {fusion}"),
        (rates, fusion == "concat", "MODEL.CLIP_FUSION concat does not train the tower"),
        (rates, frozen, "MODEL.CLIP_FINETUNE False freezes the tower"),
        (("CLIP_LR_SCALE",), not model.CLIP_SEPARATE_LR, "MODEL.CLIP_SEPARATE_LR is False"),
    ):
        reasons |= {key: why for key in keys if idle and model[key] != defaults[key] and key not in reasons}
    for key, why in reasons.items():
        shown = "''" if model[key] == "" else model[key]
        yield f"MODEL.{key} {shown} is not used: {why}"
    if fusion == "concat" and model.CLIP_FINETUNE:
        yield "MODEL.CLIP_FINETUNE True is not used: MODEL.CLIP_FUSION concat trains without the tower"


def _patch_problems(model: CfgNode) -> Iterator[Problem]:
    """Yield a problem where the name of the tower tells its patches and they do not fill the images."""
    own = model.CLIP_IMPL == "open_clip"
    key = "CLIP_BACKBONE" if own else "CLIP_HF_ID"
    described = model.CLIP_BACKBONE.endswith(".json") if own else bool(model.CLIP_LOCAL_PATH)  # then no name counts
    found = None if described else PATCH_IN_NAME.search(model[key])
    if found is None:
        return
    patch, size = int(found[1]), list(model.CLIP_INPUT_SIZE)
    if not patch or not any(side % patch for side in size):
        return
    below = [max(int(side // patch), 1) * patch for side in size]
    above = [int(-(-side // patch)) * patch for side in size]
    near = f"{below} or {above}" if below != above else f"{below}"
    yield (
        ("MODEL.CLIP_INPUT_SIZE", f"MODEL.{key}"),
        f"MODEL.CLIP_INPUT_SIZE {size} is no multiple of the patches of {model[key]}, {patch} x {patch} pixels; "
        f"set {near}",
    )
