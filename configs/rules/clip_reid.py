"""Rules between the keys of CLIP-ReID, and which keys have no effect there."""

from collections.abc import Iterator

from yacs.config import CfgNode

from configs.clip_reid import PLACE, clip_of
from configs.keys import KEYS
from configs.keys.clip_reid import BASELINE, NAMES, PUBLISHED, STAGE1, STAGE2
from configs.phases import Problem
from configs.stages import stages_of
from configs.values import value_of

RESNET_STRIDE = 16  # of a CLIP ResNet whose last stage does not stride
IDLE = (  # keys of other systems that this one does not read
    *(f"MODEL.{key}" for key in ("TRANSFORMER_TYPE", "LAST_STRIDE", "RESNET_STEM", "NECK")),
    *(f"MODEL.{key}" for key in ("DROP_PATH", "DROP_OUT", "ATT_DROP_RATE", "RE_ARRANGE", "SHIFT_NUM")),
    *(f"MODEL.CLIP_{key}" for key in ("FUSION", "HF_ID", "INPUT_SIZE", "FINETUNE", "SEPARATE_LR", "LR_SCALE")),
    *(f"MODEL.CLIP_{key}" for key in ("USE_AFEM", "USE_SEM_REFINE", "CONCAT_WEIGHT")),
)
PIXELS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))  # mean, sd of OpenAI's CLIP
TEXT_KEYS = ("MODEL.PROMPT", "MODEL.PROMPT_TOKENS", "MODEL.I2T_LOSS_WEIGHT", "LOSS.I2T.NORMALISE")


def find_clip_reid_problems(cfg: CfgNode) -> Iterator[Problem]:
    """Yield every rule that `cfg` breaks, as (keys concerned, one line that says what to do)."""
    if cfg.MODEL.NAME not in NAMES:
        return
    prompt, name = cfg.MODEL.PROMPT, cfg.MODEL.NAME
    if prompt and (prompt.count(PLACE) != 1 or prompt.count("{") != 1 or prompt.count("}") != 1):
        yield (
            ("MODEL.PROMPT",),
            f"MODEL.PROMPT got '{prompt}', expected a sentence with {PLACE} once, where the learnt tokens stand, e.g. "
            f"'A photo of a {PLACE} person.'",
        )
    if cfg.MODEL.CLIP_IMPL != "open_clip":
        yield (
            ("MODEL.CLIP_IMPL", "MODEL.NAME"),
            f"MODEL.CLIP_IMPL {cfg.MODEL.CLIP_IMPL}: MODEL.NAME {name} is made of open_clip's modules; leave it "
            "open_clip, MODEL.CLIP_LOCAL_PATH takes weight files of Hugging Face too",
        )
    if not clip_of(cfg)[0]:
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
    for key, what in (("MODEL.SIE_CAMERA", "no camera ids"), ("MODEL.SIE_VIEW", "one view alone")):
        if value_of(cfg, key) and "VehicleID" in cfg.DATASETS.NAMES:
            yield (key, "DATASETS.NAMES"), f"{key} True: VehicleID has {what}; set it False"
    if clip_of(cfg)[0].startswith("RN"):
        yield from resnet_problems(cfg)


def resnet_problems(cfg: CfgNode) -> Iterator[Problem]:
    """Yield what a CLIP ResNet cannot do, of a configuration whose tower is one."""
    stride, name = list(cfg.MODEL.STRIDE_SIZE), clip_of(cfg)[0]
    if stride != [RESNET_STRIDE, RESNET_STRIDE]:
        yield (
            ("MODEL.STRIDE_SIZE", "MODEL.NAME", "MODEL.CLIP_BACKBONE"),
            f"MODEL.STRIDE_SIZE {stride}: {name} is a ResNet, whose stride is {RESNET_STRIDE}; set [16, 16], or take a "
            "ViT",
        )
    for key in ("MODEL.SIE_CAMERA", "MODEL.SIE_VIEW"):
        if value_of(cfg, key):
            yield (
                (key, "MODEL.NAME", "MODEL.CLIP_BACKBONE"),
                f"{key} True: {name} is a ResNet, which has no class token to carry side information; set it False, or "
                "take a ViT",
            )
    if cfg.SOLVER.LAYER_DECAY != 1:
        yield (
            ("SOLVER.LAYER_DECAY", "MODEL.NAME", "MODEL.CLIP_BACKBONE"),
            f"SOLVER.LAYER_DECAY {cfg.SOLVER.LAYER_DECAY} needs the blocks of a ViT, {name} is a ResNet; set it to 1.0",
        )
    sides = [side for side in cfg.INPUT.SIZE_TRAIN if side % RESNET_STRIDE]
    if sides:
        yield (
            ("INPUT.SIZE_TRAIN", "MODEL.NAME"),
            f"INPUT.SIZE_TRAIN {list(cfg.INPUT.SIZE_TRAIN)}: the sides of an image for {name} are multiples of "
            f"{RESNET_STRIDE}",
        )


def find_clip_reid_notices(cfg: CfgNode) -> Iterator[str]:
    """Yield one line for what a user of CLIP-ReID may miss, and for every key that is set and not read here."""
    if cfg.MODEL.NAME not in NAMES:
        return
    if not _is_set(cfg, "DATASETS.NAMES") and not _is_set(cfg, "DATASETS.ROOT_DIR"):
        yield f"data set: {', '.join(cfg.DATASETS.NAMES)} by default; set DATASETS.NAMES"
    idle = [key for key in IDLE if _is_set(cfg, key)]
    if idle:
        yield f"{', '.join(idle)}: not used by MODEL.NAME {cfg.MODEL.NAME}"
    if cfg.MODEL.NAME in PUBLISHED:
        fixed = [key for key in ("MODEL.CLIP_BACKBONE", "MODEL.CLIP_PRETRAIN") if _is_set(cfg, key)]
        if fixed:
            name, tag = clip_of(cfg)
            yield (
                f"{', '.join(fixed)}: not used, MODEL.NAME {cfg.MODEL.NAME} is open_clip's {name} with the tag {tag}; "
                "MODEL.NAME clip_reid takes any CLIP"
            )
    if cfg.MODEL.PRETRAIN_CHOICE == "imagenet" and cfg.MODEL.PRETRAIN_PATH:
        yield (
            "MODEL.PRETRAIN_PATH is not used with PRETRAIN_CHOICE imagenet: the CLIP's weights are those of "
            "MODEL.CLIP_LOCAL_PATH or, where that is '', published ones"
        )
    yield from _stage_notices(cfg)
    given = (tuple(cfg.INPUT.PIXEL_MEAN), tuple(cfg.INPUT.PIXEL_STD))
    if given != PIXELS:
        yield (
            f"images are normalised by mean {list(given[0])} and sd {list(given[1])} (INPUT.PIXEL_MEAN, PIXEL_STD), "
            f"OpenAI's CLIP was trained with {list(PIXELS[0])} and {list(PIXELS[1])}"
        )


def _stage_notices(cfg: CfgNode) -> Iterator[str]:
    stages = list(stages_of(cfg))
    if stages == [STAGE2] and cfg.MODEL.PRETRAIN_CHOICE != "finetune":
        yield (
            "SOLVER.STAGES ['stage2'] without MODEL.PRETRAIN_CHOICE finetune and a PRETRAIN_PATH of stage 1: the "
            "prompts are random"
        )
    if stages == [BASELINE]:
        idle = [key for key in TEXT_KEYS if _is_set(cfg, key)]
        if idle:
            yield f"{', '.join(idle)}: not used, SOLVER.STAGES ['{BASELINE}'] trains without text"
    if STAGE1 not in stages and STAGE2 not in stages:
        return
    for key in ("EVAL_PERIOD", "MAX_EPOCHS", "BASE_LR", "IMS_PER_BATCH", "STEPS"):
        if _is_set(cfg, f"SOLVER.{key}"):
            yield f"SOLVER.{key} {cfg.SOLVER[key]} is not used: SOLVER.STAGE1.{key} and SOLVER.STAGE2.{key} decide"


def _is_set(cfg: CfgNode, key: str) -> bool:
    return value_of(cfg, key) != KEYS[key].default
