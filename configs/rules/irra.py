"""Rules between the keys of IRRA, which systems read captions, and which keys have no effect there."""

from collections.abc import Iterator

from yacs.config import CfgNode

from configs.keys.irra import LOSSES, MASKED_WORDS, NAME
from configs.keys.multimodal import NAME as MULTIMODAL
from configs.loss_weights import wants_center
from configs.phases import Problem
from configs.rules.captions import MASKS, find_caption_problems
from configs.rules.key_names import keys_of
from configs.rules.whole_clip import find_whole_clip_notices, find_whole_clip_problems
from configs.titles import CAPTIONED
from configs.values import is_set, value_of

TABLE = "table"  # a data set that may have captions
PUBLISHED_BATCH, PUBLISHED_RATE = 64, 1e-5
ALIEN = {  # keys that mean nothing here -> what to do
    ("MODEL.SIE_COE", "MODEL.RE_ARRANGE", "MODEL.SHIFT_NUM", "MODEL.SHUFFLE_GROUP", "MODEL.DEVIDE_LENGTH"): (
        "there are no side information and no jigsaw patches; leave them out"
    ),
    ("LOSS.TRIPLETX.", "LOSS.TRIPLET.", "MODEL.TRIPLET_LOSS_WEIGHT", "LOSS.SUPCON.", "LOSS.BRIGHTNESS."): (
        "its losses are those of LOSS.TEXT.NAMES"
    ),
    ("LOSS.PHASED.METRIC_SEQ", "LOSS.PHASED.W_METRIC_SEQ", "LOSS.PHASED.W_SUP_SPEC", "LOSS.PHASED.TRIPLETX_END"): (
        "LOSS.PHASED.W_TERMS gives its losses their weights, e.g. 'mlm=const:1.0|linear:1.0->0.0'"
    ),
    ("DATALOADER.PHASED.",): "DATALOADER.NUM_INSTANCE is its K throughout",
    ("MODEL.ID_LOSS_WEIGHT",): "LOSS.TEXT.ID_W is the weight of its identity loss",
    ("MODEL.ID_LOSS_TYPE",): "its identity loss is softmax",
}
IDLE = (  # keys of other systems, or their beginnings, that this one does not read
    *("MODEL.IF_LABELSMOOTH", "MODEL.NO_MARGIN", "SOLVER.MARGIN", "LOSS.LABEL_SMOOTH_EPS", "TEST.NECK_FEAT"),
    *("MODEL.PROMPT", "MODEL.I2T_LOSS_WEIGHT", "LOSS.I2T.", "SOLVER.STAGE1.", "SOLVER.STAGE2.", "MODEL.VIT."),
)
CAPTIONS = "INPUT.TEXT."  # the beginning of keys that MODEL.NAME multimodal reads too
OWN = ("MODEL.CMT_", CAPTIONS, "LOSS.TEXT.", "DATASETS.EVAL_SPLIT", "TEST.I2T")  # beginnings of keys of its own
NEEDS = {  # keys -> the losses of which one must act for them to be read
    ("MODEL.CMT_DEPTH", "MODEL.CMT_MASK_PADDING", "LOSS.TEXT.MLM_W"): (MASKED_WORDS,),
    (*MASKS, "INPUT.TEXT.MASK_CAPTION"): (MASKED_WORDS,),
    ("LOSS.TEXT.TEMPERATURE",): ("sdm", "itc"),
    ("LOSS.TEXT.SOFT_LABEL",): ("sdm",),
    ("LOSS.TEXT.CMPM_TARGET",): ("cmpm",),
    ("LOSS.TEXT.ID_W",): ("id",),
}


def find_irra_problems(cfg: CfgNode) -> Iterator[Problem]:
    """Yield every rule that `cfg` breaks, as (keys concerned, one line that says what to do)."""
    if cfg.MODEL.NAME != NAME:
        yield from _data_problems(cfg)
        return
    yield from find_whole_clip_problems(cfg, cfg.MODEL.CLIP_BACKBONE)
    if cfg.MODEL.CLIP_BACKBONE.startswith("RN"):
        yield (
            ("MODEL.CLIP_BACKBONE", "MODEL.NAME"),
            f"MODEL.CLIP_BACKBONE {cfg.MODEL.CLIP_BACKBONE} is a ResNet, MODEL.NAME {NAME} needs a ViT: its cross "
            "encoder looks at the patches of one; take e.g. ViT-B-16-quickgelu",
        )
    for keys, instead in ALIEN.items():
        given = [key for key in keys_of(keys) if is_set(cfg, key)]
        if given:
            shown = ", ".join(f"{key} {value_of(cfg, key)}" for key in given)
            yield ((*given, "MODEL.NAME"), f"{shown}: not of MODEL.NAME {NAME}; {instead}")
    if wants_center(cfg):
        yield (
            ("MODEL.IF_WITH_CENTER", "MODEL.METRIC_LOSS_TYPE", "MODEL.NAME"),
            f"the centre loss (MODEL.IF_WITH_CENTER {cfg.MODEL.IF_WITH_CENTER}, MODEL.METRIC_LOSS_TYPE "
            f"{cfg.MODEL.METRIC_LOSS_TYPE}) is not of MODEL.NAME {NAME}; its losses are those of LOSS.TEXT.NAMES",
        )
    if cfg.MODEL.COMPILE:
        yield (
            ("MODEL.COMPILE", "MODEL.NAME"),
            f"MODEL.COMPILE True: MODEL.NAME {NAME} has other captions in each step, of other lengths and numbers of "
            "masked words, and torch would compile for each of them; set it False",
        )
    yield from _data_problems(cfg)
    yield from _text_problems(cfg)


def _text_problems(cfg: CfgNode) -> Iterator[Problem]:
    names = list(cfg.LOSS.TEXT.NAMES)
    if len(set(names)) != len(names):
        yield (
            ("LOSS.TEXT.NAMES",),
            f"LOSS.TEXT.NAMES got {names}, expected different ones of {', '.join(LOSSES)}",
        )
    yield from find_caption_problems(cfg)


def _data_problems(cfg: CfgNode) -> Iterator[Problem]:
    """Yield the data sets without captions for a system that reads them, and those with captions for any other."""
    reads = cfg.MODEL.NAME == NAME
    if reads:
        why = (
            f"has no captions, from which MODEL.NAME {NAME} learns; name {', '.join(CAPTIONED)}, or {TABLE} with a "
            "column caption"
        )
    else:
        why = (
            f"has captions in place of cameras and queries, which MODEL.NAME {NAME} reads, not {cfg.MODEL.NAME}; set "
            "another data set or model"
        )
    for key in ("DATASETS.NAMES", "DATASETS.TESTS"):
        wrong = [name for name in value_of(cfg, key) if name != TABLE and (name in CAPTIONED) != reads]
        if wrong:
            yield (key, "MODEL.NAME"), f"{key}: {', '.join(wrong)} {why}"


def find_irra_notices(cfg: CfgNode) -> Iterator[str]:
    """Yield one line for what a user of IRRA may miss, and for every key that is set and not read."""
    if cfg.MODEL.NAME != NAME:
        shared = CAPTIONS if cfg.MODEL.NAME == MULTIMODAL else ()
        own = [key for key in keys_of(OWN) if is_set(cfg, key) and not key.startswith(shared)]
        if own:
            yield f"{', '.join(own)}: not used by MODEL.NAME {cfg.MODEL.NAME}"
        return
    yield from find_whole_clip_notices(cfg, tuple(keys_of(IDLE)))
    acting = tuple(cfg.LOSS.TEXT.NAMES)
    for keys, losses in NEEDS.items():
        idle = [key for key in keys if is_set(cfg, key) and not set(acting) & set(losses)]
        if idle:
            yield f"{', '.join(idle)}: not used, LOSS.TEXT.NAMES {'+'.join(acting)} has no {' or '.join(losses)}"
    if cfg.DATASETS.VAL_IDS and is_set(cfg, "DATASETS.EVAL_SPLIT"):
        yield (
            f"DATASETS.EVAL_SPLIT {cfg.DATASETS.EVAL_SPLIT} is not used: training looks at the identities that "
            f"DATASETS.VAL_IDS {cfg.DATASETS.VAL_IDS:g} holds out"
        )
    batch, rate = cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.BASE_LR
    if batch != PUBLISHED_BATCH and rate == PUBLISHED_RATE:
        yield (
            f"SOLVER.IMS_PER_BATCH {batch} at SOLVER.BASE_LR {rate:g}: the published figures have batches of "
            f"{PUBLISHED_BATCH} at that rate, larger ones came out lower; its losses compare all pairs of a batch"
        )
