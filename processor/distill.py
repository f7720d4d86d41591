"""A teacher beside a stage on images: a trained model that sees each batch, and whose outputs the student learns too.

The teacher is frozen and in evaluation mode. It is in no state, checkpoint, optimizer or wrapper: only its answer,
`teacher` of a batch, reaches the stage.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from yacs.config import CfgNode

from configs import load_cfg
from configs.keys.irra import NAME as IRRA
from configs.loss_weights import DISTILL
from configs.readings import TEACHER_ACC
from datasets.batch import Batch
from datasets.make_dataloader import ReIDData
from losses.branches import Reduce
from losses.criterion import Reading
from losses.distill import EMBEDDING, DistillTerm, Lesson, teacher_accuracy
from losses.transreid import make_reduce
from model import ModelOutput
from model.backbones.clip import Normalisation, Renormalise
from model.clip_transreid import AT_TESTS
from model.layers.kernel import choose_attention
from model.outputs import GLOBAL
from processor.stage import Stage
from processor.trained import Trained, find_weight, load_trained
from solver.make_optimizer import describe_groups, group_outside
from utils.checkpoint import weight_file
from utils.device import autocast
from utils.distributed import mean_over_ranks
from utils.errors import ConfigError, DataError
from utils.precision import at_least_float32

logger = logging.getLogger(__name__)

NO_LOGITS = "set DISTILL.W_LOGIT 0, and W_FEAT or W_RELATION above it, which need no identities"
RESIZING = "bilinear"


class Teacher(NamedTuple):
    """A frozen model in evaluation mode on the student's device, and what is learnt of it."""

    model: nn.Module
    scale: float  # of its logits: that of the margin where its heads return cosines, else 1
    view: Callable[[torch.Tensor], torch.Tensor]  # from the student's images [B, 3, H, W] to its own
    labelled: bool  # cameras, viewpoints and identities are numbered as in the student's training set
    lesson: Lesson
    own_scale: float  # of the student's logits
    reduce: Reduce  # of the values of the student's branches
    outside: Callable[[list[nn.Parameter]], dict[str, Any]]  # group of the optimizer for weights beside the student's


def with_teacher(cfg: CfgNode, stage: Stage, data: ReIDData | None) -> Stage:
    """Return a stage whose plan weighs the term `distill` with the teacher of DISTILL, any other one as it is.

    What is drawn on the way comes from SOLVER.SEED alone. Raises as `make_teacher` and `add_teacher`.
    """
    if DISTILL not in stage.plan.at(1).weights:
        return stage
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cfg.SOLVER.SEED)
        return add_teacher(stage, make_teacher(cfg, stage, data))


def make_teacher(cfg: CfgNode, stage: Stage, data: ReIDData | None) -> Teacher:
    """Return the teacher of DISTILL for a stage; without data its images are taken for those of the caller.

    Raises ConfigError for a teacher that is not there or is no model of images, DataError for one of other identities
    where its logits are learnt, and what `load_trained` raises.
    """
    settings, device = cfg.DISTILL, stage.settings.device
    key = "DISTILL.TEACHER_RUN" if settings.TEACHER_RUN else "DISTILL.TEACHER_WEIGHT"
    trained = _load(cfg, key)
    model = trained.model.requires_grad_(False).to(device)
    choose_attention(model, device, stage.settings.amp, training=False, choice=stage.settings.attention)
    lesson = Lesson(
        w_logit=settings.W_LOGIT,
        temperature=settings.T,
        symmetric=settings.SYMMETRIC,
        w_feat=settings.W_FEAT,
        w_relation=settings.W_RELATION,
        t_relation=settings.T_RELATION,
    )
    if lesson.w_logit > 0:
        _check_identities(key, trained, stage.model.num_class, data)
    labelled = data is None or _told(trained, "train_fingerprint") == data.fingerprint
    if not labelled and model.side_rows:
        logger.warning(
            "%s: '%s' was trained on other images, so it is not told their cameras and viewpoints", key, trained.weight
        )
    logger.info("teacher: '%s' (%s), frozen", trained.weight, trained.cfg.MODEL.NAME)
    view = _view(cfg, trained.cfg).to(device)
    outside = partial(group_outside, cfg, stage.name, "projection to the teacher's width")
    return Teacher(model, _scale(trained.cfg), view, labelled, lesson, _scale(cfg), make_reduce(cfg), outside)


def find_teacher(cfg: CfgNode) -> Path | None:
    """Return the teacher's checkpoint, None without DISTILL.TEACHER_RUN or TEACHER_WEIGHT.

    Raises ConfigError, opened by the key, where it or the YAML of DISTILL.TEACHER_CONFIG is not there.
    """
    settings = cfg.DISTILL
    if settings.TEACHER_CONFIG:
        with _opened_by("DISTILL.TEACHER_CONFIG"):
            load_cfg(settings.TEACHER_CONFIG)
    if settings.TEACHER_RUN:
        with _opened_by("DISTILL.TEACHER_RUN"):
            return find_weight(settings.TEACHER_RUN)
    return weight_file(settings.TEACHER_WEIGHT, "DISTILL.TEACHER_WEIGHT") if settings.TEACHER_WEIGHT else None


def _load(cfg: CfgNode, key: str) -> Trained:
    """Return the model of images that `key` names, on the CPU; errors open with the key."""
    settings = cfg.DISTILL
    weight = find_teacher(cfg)
    with _opened_by(key):
        # on the CPU: the device of its own training may not be here, and which of several is the student's is known
        trained = load_trained(
            weight, settings.TEACHER_CONFIG or None, ("MODEL.DEVICE", "cpu"), "DISTILL.TEACHER_CONFIG"
        )
    if trained.cfg.MODEL.NAME == IRRA:
        raise ConfigError(f"{key}: '{trained.weight}' is of MODEL.NAME {IRRA}, a teacher is a model of images alone")
    return trained


@contextmanager
def _opened_by(key: str) -> Iterator[None]:
    """Let errors of the user begin with a key."""
    try:
        yield
    except (ConfigError, DataError) as error:
        raise type(error)(f"{key}: {error}") from error


def _told(trained: Trained, name: str) -> Any:
    return None if trained.provenance is None else trained.provenance[name]


def _check_identities(key: str, trained: Trained, num_class: int, data: ReIDData | None) -> None:
    """Raise DataError unless the teacher's classes are the student's; ConfigError where nobody trained them."""
    if trained.cfg.MODEL.TRAINING_MODE == "self_supervised":
        raise ConfigError(
            f"{key}: '{trained.weight}' learnt without identities, so its logits say nothing; {NO_LOGITS}"
        )
    its, own = trained.model.num_class, num_class
    if its == own and (data is None or _told(trained, "train_fingerprint") == data.fingerprint):
        return
    if trained.provenance is None:
        raise DataError(
            f"{key}: '{trained.weight}' does not tell on which images it was trained, so that its {its} classes are "
            f"the {own} identities here, in this order, cannot be known; {NO_LOGITS}"
        )
    here = "" if data is None else f" with the fingerprint {data.fingerprint}"
    raise DataError(
        f"{key}: '{trained.weight}' was trained on {', '.join(_told(trained, 'datasets'))} ({its} identities) with the "
        f"fingerprint {_told(trained, 'train_fingerprint')}, the training set here has {own} identities{here}: the "
        f"classes are others. Teach with the same DATASETS.NAMES and VAL_IDS, or {NO_LOGITS}"
    )


def _scale(cfg: CfgNode) -> float:
    """Return the factor that makes logits of what the heads return: cosines with a margin, else logits."""
    return 1.0 if cfg.MODEL.ID_LOSS_TYPE == "softmax" else cfg.SOLVER.COSINE_SCALE


def _view(student: CfgNode, teacher: CfgNode) -> nn.Module:
    """Return what makes the student's normalised images those that the teacher was trained on."""
    old, new = (Normalisation(tuple(cfg.INPUT.PIXEL_MEAN), tuple(cfg.INPUT.PIXEL_STD)) for cfg in (student, teacher))
    size = tuple(teacher.INPUT.SIZE_TRAIN)
    if (old, tuple(student.INPUT.SIZE_TRAIN)) == (new, size):
        return nn.Identity()
    return Renormalise(old, new, size, RESIZING, antialias=True)


def add_teacher(stage: Stage, teacher: Teacher) -> Stage:
    """Let a stage learn from a teacher: replaces its prepare, which fills batch["teacher"], and its criterion.

    Where features of another width are compared, a projection joins criterion, optimizer and schedule. Raises
    ConfigError where logits are learnt and no branch of one model is one of the other.
    """
    own, its = _branches_of(stage.model), _branches_of(teacher.model)
    pairs = match_branches(own, its)
    lesson = teacher.lesson
    if lesson.w_logit > 0:
        _tell_of_pairs(list(own), list(its), pairs)
    term = DistillTerm(
        lesson,
        [place for place, _ in pairs],
        stage.model.embedding_of,  # after the necks: TEST.NECK_FEAT may change when a run goes on
        (sum(own.values()), sum(its.values())),
        teacher.own_scale,
        teacher.reduce,
    ).to(stage.settings.device)
    readings = {TEACHER_ACC: Reading(teacher_accuracy, of=DISTILL)} if lesson.w_logit > 0 else {}
    stage.criterion = stage.criterion.with_term(DISTILL, term, readings)
    answer = partial(ask, teacher=teacher, places=[place for _, place in pairs], amp=stage.settings.amp)
    stage.prepare = partial(_prepare, prepare=stage.prepare, answer=answer)
    weights = list(term.parameters())
    if weights:
        group = teacher.outside(weights)
        stage.scheduler.add_group(group)
        logger.info("%s", describe_groups([group])[0])
    for weight in weights:  # DistributedDataParallel wraps the model alone
        weight.register_hook(mean_over_ranks)
    return stage


def match_branches(student: Mapping[str, int], teacher: Mapping[str, int]) -> list[tuple[int, int]]:
    """Return the places (student, teacher) of branches that are compared, for {name: width} in their order.

    The global ones are a pair, and all others are, by position, where both models have equally many.
    """
    (own, others), (its, theirs) = (_divided(branches) for branches in (student, teacher))
    pairs = [(own, its)] if own is not None and its is not None else []
    return pairs + (list(zip(others, theirs, strict=True)) if len(others) == len(theirs) else [])


def _divided(branches: Mapping[str, int]) -> tuple[int | None, list[int]]:
    """Return the place of the global branch, None without one, and those of all others."""
    names = list(branches)
    return (names.index(GLOBAL) if GLOBAL in names else None), [i for i, name in enumerate(names) if name != GLOBAL]


def _branches_of(model: nn.Module) -> dict[str, int]:
    return {name: width for name, width in model.branches.items() if name != AT_TESTS}


def _tell_of_pairs(own: list[str], its: list[str], pairs: list[tuple[int, int]]) -> None:
    """Log which branches are compared and which are not; ConfigError where none is."""
    if not pairs:
        raise ConfigError(
            f"DISTILL.W_LOGIT: no branch of the student ({', '.join(own)}) is one of the teacher ({', '.join(its)}); "
            f"both need a global branch, or equally many others. Change MODEL, or {NO_LOGITS}"
        )
    left = [f"{who}'s {', '.join(names)}" for who, names in _unmatched(own, its, pairs).items() if names]
    compared = ", ".join(f"{own[one]} from {its[two]}" for one, two in pairs)
    logger.info("logits are learnt of %s%s", compared, f"; not of the {' and the '.join(left)}" if left else "")


def _unmatched(own: list[str], its: list[str], pairs: list[tuple[int, int]]) -> dict[str, list[str]]:
    used = {"student": {one for one, _ in pairs}, "teacher": {two for _, two in pairs}}
    names = {"student": own, "teacher": its}
    return {who: [name for i, name in enumerate(names[who]) if i not in used[who]] for who in used}


def _prepare(batch: Batch, prepare: Callable[[Batch], Batch], answer: Callable[[Batch], ModelOutput]) -> Batch:
    ready = prepare(batch)
    ready["teacher"] = answer(ready)
    return ready


@torch.no_grad()
def ask(batch: Batch, teacher: Teacher, places: list[int], amp: torch.dtype | None) -> ModelOutput:
    """Return what a teacher says of a prepared batch: `logits` of its branches `places`, and extra[EMBEDDING] [B, E].

    Both are at least float32, and there where the lesson needs them. The model runs under autocast to `amp`, None =
    float32, as the student does.
    """
    images, model, lesson = teacher.view(batch["images"]), teacher.model, teacher.lesson
    labels = (batch["camids"], batch["viewids"]) if teacher.labelled else (None, None)
    with autocast(images.device, amp):
        output = model.forward_output(images, *labels)
    logits = [teacher.scale * at_least_float32(output.logits[place]) for place in places] if lesson.w_logit > 0 else []
    extra = {EMBEDDING: at_least_float32(model.embedding_of(output))} if lesson.embeds else {}
    return ModelOutput(logits, [], [], None, extra)
