"""What the keys of CLIP-ReID stand for: its CLIP, its stages with text, and the sentence of its prompts."""

from yacs.config import CfgNode

from configs.keys.clip_reid import PUBLISHED, PUBLISHED_TAG, STAGE1, STAGE2
from configs.stages import stages_of

PLACE = "{}"  # in a sentence, where the learnt tokens stand
VEHICLES = ("veri", "VehicleID", "veri_wild_3000", "veri_wild_5000", "veri_wild_10000", "synthetic")
ANIMALS = ("atrw", "wildlife")


def clip_of(cfg: CfgNode) -> tuple[str, str]:
    """Return (open_clip's name of the CLIP or a .json, tag of its weights, '' = random) of a CLIP-ReID model."""
    name = cfg.MODEL.NAME
    return (PUBLISHED[name], PUBLISHED_TAG) if name in PUBLISHED else (cfg.MODEL.CLIP_BACKBONE, cfg.MODEL.CLIP_PRETRAIN)


def needs_text(cfg: CfgNode) -> bool:
    """Return whether a stage needs prompts and the text tower."""
    return bool({STAGE1, STAGE2} & set(stages_of(cfg)))


def prompt_of(cfg: CfgNode) -> str:
    """Return MODEL.PROMPT, or where that is '' the original's sentence for the data sets that are trained on."""
    kinds = {"vehicle": VEHICLES, "animal": ANIMALS}
    kind = next((kind for kind, names in kinds.items() if {*cfg.DATASETS.NAMES} <= {*names}), "person")
    return cfg.MODEL.PROMPT or f"A photo of a {PLACE} {kind}."
