"""Rules and notices of the systems that train a CLIP of open_clip as a whole, with the weights that it comes with."""

from collections.abc import Iterator

from yacs.config import CfgNode

from configs.phases import Problem
from configs.values import is_set

PIXELS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))  # mean, sd of OpenAI's CLIP
IDLE = (  # keys of other systems that none of these reads
    *(f"MODEL.{key}" for key in ("TRANSFORMER_TYPE", "LAST_STRIDE", "RESNET_STEM", "NECK")),
    *(f"MODEL.{key}" for key in ("DROP_PATH", "DROP_OUT", "ATT_DROP_RATE", "RE_ARRANGE", "SHIFT_NUM")),
    *(f"MODEL.CLIP_{key}" for key in ("FUSION", "HF_ID", "INPUT_SIZE", "FINETUNE", "SEPARATE_LR", "LR_SCALE")),
    *(f"MODEL.CLIP_{key}" for key in ("USE_AFEM", "USE_SEM_REFINE", "CONCAT_WEIGHT")),
)


def find_whole_clip_problems(cfg: CfgNode, backbone: str) -> Iterator[Problem]:
    """Yield what is wrong with the CLIP `backbone`, a name of open_clip or a .json, of a system that trains it."""
    name = cfg.MODEL.NAME
    if cfg.MODEL.CLIP_IMPL != "open_clip":
        yield (
            ("MODEL.CLIP_IMPL", "MODEL.NAME"),
            f"MODEL.CLIP_IMPL {cfg.MODEL.CLIP_IMPL}: MODEL.NAME {name} is made of open_clip's modules; leave it "
            "open_clip, MODEL.CLIP_LOCAL_PATH takes weight files of Hugging Face too",
        )
    if not backbone:
        yield ("MODEL.CLIP_BACKBONE",), "MODEL.CLIP_BACKBONE is empty; name a model of open_clip or a .json file"
    if list(cfg.INPUT.SIZE_TRAIN) != list(cfg.INPUT.SIZE_TEST):
        yield (
            ("INPUT.SIZE_TRAIN", "INPUT.SIZE_TEST"),
            f"INPUT.SIZE_TEST {cfg.INPUT.SIZE_TEST} differs from INPUT.SIZE_TRAIN {cfg.INPUT.SIZE_TRAIN}; the position "
            "embedding has one size, so set both alike",
        )
    if cfg.MODEL.TRAINING_MODE == "self_supervised":
        yield (
            ("MODEL.TRAINING_MODE", "MODEL.NAME"),
            f"MODEL.TRAINING_MODE self_supervised knows no identities, which MODEL.NAME {name} learns from",
        )


def find_whole_clip_notices(cfg: CfgNode, more_idle: tuple[str, ...] = (), read: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield one line for what a user of such a system may miss.

    `more_idle` are further keys that it does not read, `read` those of IDLE that it does.
    """
    if not is_set(cfg, "DATASETS.NAMES") and not is_set(cfg, "DATASETS.ROOT_DIR"):
        yield f"data set: {', '.join(cfg.DATASETS.NAMES)} by default; set DATASETS.NAMES"
    idle = [key for key in (*IDLE, *more_idle) if is_set(cfg, key) and key not in read]
    if idle:
        yield f"{', '.join(idle)}: not used by MODEL.NAME {cfg.MODEL.NAME}"
    if cfg.MODEL.PRETRAIN_CHOICE == "imagenet" and cfg.MODEL.PRETRAIN_PATH:
        yield (
            "MODEL.PRETRAIN_PATH is not used with PRETRAIN_CHOICE imagenet: the CLIP's weights are those of "
            "MODEL.CLIP_LOCAL_PATH or, where that is '', published ones"
        )
    given = (tuple(cfg.INPUT.PIXEL_MEAN), tuple(cfg.INPUT.PIXEL_STD))
    if given != PIXELS:
        yield (
            f"images are normalised by mean {list(given[0])} and sd {list(given[1])} (INPUT.PIXEL_MEAN, PIXEL_STD), "
            f"OpenAI's CLIP was trained with {list(PIXELS[0])} and {list(PIXELS[1])}"
        )
