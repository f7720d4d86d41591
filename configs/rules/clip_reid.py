"""Rules between the keys of CLIP-ReID, and which keys have no effect there."""

from collections.abc import Iterator

from yacs.config import CfgNode

from configs.clip_reid import PLACE, clip_of
from configs.keys.clip_reid import BASELINE, NAMES, PUBLISHED, STAGE1, STAGE2
from configs.phases import Problem
from configs.rules.whole_clip import find_whole_clip_notices, find_whole_clip_problems
from configs.stages import stages_of
from configs.values import is_set, value_of

RESNET_STRIDE = 16  # of a CLIP ResNet whose last stage does not stride
TEXT_KEYS = ("MODEL.PROMPT", "MODEL.PROMPT_TOKENS", "MODEL.I2T_LOSS_WEIGHT", "LOSS.I2T.NORMALISE")


def find_clip_reid_problems(cfg: CfgNode) -> Iterator[Problem]:
    """Yield every rule that `cfg` breaks, as (keys concerned, one line that says what to do)."""
    if cfg.MODEL.NAME not in NAMES:
        return
    prompt = cfg.MODEL.PROMPT
    if prompt and (prompt.count(PLACE) != 1 or prompt.count("{") != 1 or prompt.count("}") != 1):
        yield (
            ("MODEL.PROMPT",),
            f"MODEL.PROMPT got '{prompt}', expected a sentence with {PLACE} once, where the learnt tokens stand, e.g. "
            f"'A photo of a {PLACE} person.'",
        )
    yield from find_whole_clip_problems(cfg, clip_of(cfg)[0])
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
    yield from find_whole_clip_notices(cfg)
    if cfg.MODEL.NAME in PUBLISHED:
        fixed = [key for key in ("MODEL.CLIP_BACKBONE", "MODEL.CLIP_PRETRAIN") if is_set(cfg, key)]
        if fixed:
            name, tag = clip_of(cfg)
            yield (
                f"{', '.join(fixed)}: not used, MODEL.NAME {cfg.MODEL.NAME} is open_clip's {name} with the tag {tag}; "
                "MODEL.NAME clip_reid takes any CLIP"
            )
    yield from _stage_notices(cfg)


def _stage_notices(cfg: CfgNode) -> Iterator[str]:
    stages = list(stages_of(cfg))
    if stages == [STAGE2] and cfg.MODEL.PRETRAIN_CHOICE != "finetune":
        yield (
            "SOLVER.STAGES ['stage2'] without MODEL.PRETRAIN_CHOICE finetune and a PRETRAIN_PATH of stage 1: the "
            "prompts are random"
        )
    if stages == [BASELINE]:
        idle = [key for key in TEXT_KEYS if is_set(cfg, key)]
        if idle:
            yield f"{', '.join(idle)}: not used, SOLVER.STAGES ['{BASELINE}'] trains without text"
    if STAGE1 not in stages and STAGE2 not in stages:
        return
    for key in ("EVAL_PERIOD", "MAX_EPOCHS", "BASE_LR", "IMS_PER_BATCH", "STEPS"):
        if is_set(cfg, f"SOLVER.{key}"):
            yield f"SOLVER.{key} {cfg.SOLVER[key]} is not used: SOLVER.STAGE1.{key} and SOLVER.STAGE2.{key} decide"
