"""Rules between the keys of distillation, and which of them have no effect."""

import os
from collections.abc import Iterator

from yacs.config import CfgNode

from configs.keys.distill import KEYS
from configs.keys.irra import NAME as IRRA
from configs.keys.multimodal import NAME as MULTIMODAL
from configs.loss_weights import has_teacher
from configs.phases import Problem
from configs.stages import WITHOUT_IMAGES, solver_key, solver_of, stages_of
from configs.values import is_set, value_of

WEIGHTS = ("DISTILL.W_LOGIT", "DISTILL.W_FEAT", "DISTILL.W_RELATION")
TEACHERS = ("DISTILL.TEACHER_RUN", "DISTILL.TEACHER_WEIGHT")
READ_WITH = {  # keys -> the weight above 0 with which they are read
    ("DISTILL.T", "DISTILL.SYMMETRIC"): "DISTILL.W_LOGIT",
    ("DISTILL.T_RELATION",): "DISTILL.W_RELATION",
}
FEWEST = 3  # images of a batch whose relations are compared: with two, each has the other alone


def find_distill_problems(cfg: CfgNode) -> Iterator[Problem]:
    """Yield every rule that `cfg` breaks, as (keys concerned, one line that says what to do)."""
    settings = cfg.DISTILL
    for key in ("DISTILL.TEACHER_WEIGHT", "DISTILL.TEACHER_CONFIG"):
        if settings.TEACHER_RUN and value_of(cfg, key):
            yield (
                ("DISTILL.TEACHER_RUN", key),
                f"DISTILL.TEACHER_RUN '{settings.TEACHER_RUN}' and {key} '{value_of(cfg, key)}' name a teacher each; "
                "set one of them to ''",
            )
    if settings.TEACHER_CONFIG and not has_teacher(cfg):
        yield (
            ("DISTILL.TEACHER_CONFIG", "DISTILL.TEACHER_WEIGHT"),
            f"DISTILL.TEACHER_CONFIG '{settings.TEACHER_CONFIG}' without DISTILL.TEACHER_WEIGHT: name the teacher's "
            "checkpoint, or its training in DISTILL.TEACHER_RUN",
        )
    if has_teacher(cfg):
        yield from _student_problems(cfg)


def _student_problems(cfg: CfgNode) -> Iterator[Problem]:
    teacher = next(key for key in TEACHERS if value_of(cfg, key))
    other = {IRRA: "captions", MULTIMODAL: "several modalities"}.get(cfg.MODEL.NAME)
    if other:
        yield (
            (teacher, "MODEL.NAME"),
            f"{teacher}: MODEL.NAME {cfg.MODEL.NAME} learns from {other}, a teacher teaches models of images; leave it "
            "out",
        )
    if cfg.MODEL.TRAINING_MODE == "self_supervised":
        yield (
            (teacher, "MODEL.TRAINING_MODE"),
            f"{teacher}: MODEL.TRAINING_MODE self_supervised trains with SupCon alone; set supervised, or no teacher",
        )
    if set(stages_of(cfg)) <= set(WITHOUT_IMAGES):
        yield (
            (teacher, "SOLVER.STAGES"),
            f"{teacher}: SOLVER.STAGES {list(stages_of(cfg))} has no stage on images, in which a teacher teaches",
        )
    places = [os.path.abspath(path) for path in (cfg.DISTILL.TEACHER_RUN, cfg.OUTPUT_DIR) if path]
    if len(places) == 2 and len(set(places)) == 1:
        yield (
            ("DISTILL.TEACHER_RUN", "OUTPUT_DIR"),
            f"DISTILL.TEACHER_RUN and OUTPUT_DIR are both '{cfg.OUTPUT_DIR}': a run cannot teach itself; choose "
            "another OUTPUT_DIR",
        )
    if not any(value_of(cfg, key) for key in WEIGHTS):
        yield (
            (teacher, *WEIGHTS),
            f"{teacher}: {', '.join(f'{key} 0' for key in WEIGHTS)}, so nothing of the teacher is learnt; set one "
            "above 0, or no teacher",
        )
    batch = solver_of(cfg).IMS_PER_BATCH
    if cfg.DISTILL.W_RELATION > 0 and batch < FEWEST:
        key = solver_key(cfg, "IMS_PER_BATCH")
        yield (
            ("DISTILL.W_RELATION", key),
            f"DISTILL.W_RELATION {cfg.DISTILL.W_RELATION:g} compares each image with all others of a batch, {key} "
            f"{batch} has too few; use at least {FEWEST}",
        )


def find_distill_notices(cfg: CfgNode) -> Iterator[str]:
    """Yield one line for every key of DISTILL that is set and not read."""
    given = [key for key in KEYS if is_set(cfg, key)]
    if not has_teacher(cfg):
        if given:
            yield f"{', '.join(given)}: not used, DISTILL.TEACHER_RUN and TEACHER_WEIGHT name no teacher"
        return
    for keys, weight in READ_WITH.items():
        idle = [key for key in keys if key in given and not value_of(cfg, weight)]
        if idle:
            yield f"{', '.join(idle)}: not used, {weight} is 0"
