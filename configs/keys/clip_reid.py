"""Keys of CLIP-ReID: prompts, image-text losses, and what its two stages lay over SOLVER."""

from typing import Any

from configs.keys.key import MOST_WEIGHT, OUTWEIGHS, Key
from configs.keys.solver import KEYS as SOLVER

NAMES = ("clip_reid", "ViT-B-16", "RN50")  # MODEL.NAME of the system; the last two are those of the original code
PUBLISHED = {  # of which the CLIP is given -> its name in open_clip, with the activation of its training
    "ViT-B-16": "ViT-B-16-quickgelu",
    "RN50": "RN50-quickgelu",
}
PUBLISHED_TAG = "openai"
STAGE1, STAGE2, BASELINE = "stage1", "stage2", "main"

_STAGE1 = {
    **{"IMS_PER_BATCH": 64, "OPTIMIZER_NAME": "Adam", "MAX_EPOCHS": 100, "BASE_LR": 3e-4, "MOMENTUM": 0.9},
    **{"WEIGHT_DECAY": 5e-4, "WARMUP_EPOCHS": 5, "CHECKPOINT_PERIOD": 10, "LOG_PERIOD": 100},
}
_STAGE2 = {
    **{"IMS_PER_BATCH": 64, "OPTIMIZER_NAME": "Adam", "MAX_EPOCHS": 100, "BASE_LR": 3e-4, "LARGE_FC_LR": False},
    **{"BIAS_LR_FACTOR": 1.0, "MOMENTUM": 0.9, "CENTER_LR": 0.5, "CENTER_LOSS_WEIGHT": 5e-4, "WEIGHT_DECAY": 5e-4},
    **{"WEIGHT_DECAY_BIAS": 5e-4, "GAMMA": 0.1, "STEPS": (40, 70), "WARMUP_FACTOR": 0.01, "WARMUP_ITERS": 500},
    **{"WARMUP_METHOD": "linear", "CHECKPOINT_PERIOD": 10, "LOG_PERIOD": 100, "EVAL_PERIOD": 10},
}
_IDLE1 = {  # what the original declares and nobody needs: default, why
    "WEIGHT_DECAY_BIAS": (5e-4, "the prompts have no bias"),
    "WARMUP_FACTOR": (0.01, "SOLVER.STAGE1.WARMUP_LR_INIT is the first learning rate"),
    "WARMUP_ITERS": (500, "SOLVER.STAGE1.WARMUP_EPOCHS is the length of the warm-up"),
    "WARMUP_METHOD": ("linear", "the warm-up of stage 1 is linear"),
    "EVAL_PERIOD": (10, "stage 1 does not change the embedding of an image"),
}
_IDLE2 = {
    "WARMUP_EPOCHS": (5, "SOLVER.STAGE2.WARMUP_ITERS is the length of the warm-up, in epochs"),
    "WARMUP_LR_INIT": (0.01, "SOLVER.STAGE2.WARMUP_FACTOR gives the first learning rate"),
    "LR_MIN": (1.6e-5, "SOLVER.STAGE2.STEPS and GAMMA give the last learning rate"),
}
_MARGIN = {
    "COSINE_MARGIN": (0.5, "SOLVER.COSINE_MARGIN is the margin of arcface, cosface, amsoftmax, circle"),
    "COSINE_SCALE": (30.0, "SOLVER.COSINE_SCALE is the scale of arcface, cosface, amsoftmax, circle"),
}


def _of_stage(stage: str, defaults: dict[str, Any], idle: dict[str, tuple[Any, str]]) -> dict[str, Key]:
    """Return the keys of a stage: those of SOLVER with defaults of their own, and those that nothing reads."""
    keys = {name: SOLVER[f"SOLVER.{name}"]._replace(default=default) for name, default in defaults.items()}
    keys |= {name: Key(default, "", instead=why) for name, (default, why) in (idle | _MARGIN).items()}
    return {f"SOLVER.{stage}.{name}": key for name, key in keys.items()}


KEYS = {
    "MODEL.PROMPT": Key(
        "",
        "the sentence of stage 1, {} stands for the learnt tokens; '' = 'A photo of a {} person.', of vehicles vehicle",
    ),
    "MODEL.PROMPT_TOKENS": Key(
        4, "learnt tokens of each identity", low=1, high=64, why="a sentence of CLIP has 77 tokens in all"
    ),
    "MODEL.I2T_LOSS_WEIGHT": Key(
        1.0, "weight of the image-to-text loss in stage 2", low=0, high=MOST_WEIGHT, why=OUTWEIGHS
    ),
    "LOSS.I2T.NORMALISE": Key(False, "image-text logits of both stages: cosines in place of dot products"),
    "LOSS.I2T.TEMPERATURE": Key(
        1.0, "these logits are divided by it", low=1e-4, high=1e4, why="at 0 one pair has all weight"
    ),
    "SOLVER.STAGE1.WARMUP_LR_INIT": Key(
        0.01, "learning rate of stage 1 from which the warm-up starts", low=0, high=100, why="every step diverges"
    ),
    "SOLVER.STAGE1.LR_MIN": Key(1.6e-5, "last learning rate of stage 1", low=0, high=100, why="every step diverges"),
    **_of_stage("STAGE1", _STAGE1, _IDLE1),
    **_of_stage("STAGE2", _STAGE2, _IDLE2),
}
