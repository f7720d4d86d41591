"""Rules between the keys of learning rate, losses and self-supervised training."""

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any, NamedTuple

from yacs.config import CfgNode

from configs.keys.irra import NAME as IRRA
from configs.keys.multimodal import NAME as MULTIMODAL
from configs.keys.solver import STEPPED
from configs.loss_weights import center_weight
from configs.own_values import own_value
from configs.phases import Problem, segments_of
from configs.stages import ALONE, ONE_STAGE, STAGES, WITHOUT_IMAGES, solver_key, solver_of, stages_of
from configs.values import value_of

SMALLEST_CENTER_WEIGHT = 1e-9


class Deciding(NamedTuple):
    """The keys that decide whether a loss is left."""

    keys: tuple[str, ...]  # any of which may be the one to change
    shown: tuple[str, ...]  # whose values an error tells


OF_IMAGES = ("DATALOADER.SAMPLER", "MODEL.METRIC_LOSS_TYPE", "MODEL.ID_LOSS_WEIGHT", "MODEL.TRIPLET_LOSS_WEIGHT")
OF_TEXT = ("LOSS.TEXT.NAMES", "LOSS.TEXT.ID_W", "LOSS.TEXT.MLM_W", "LOSS.PHASED.W_TERMS")
IN_PHASES = tuple(f"LOSS.PHASED.{name}" for name in ("METRIC_SEQ", "W_METRIC_SEQ", "W_SUP_SPEC"))
IMAGE_WEIGHTS = Deciding((*OF_IMAGES, *IN_PHASES), (*OF_IMAGES, "LOSS.SUPCON.ENABLE"))
TEXT_WEIGHTS = Deciding(OF_TEXT, OF_TEXT)
OF_SETS = ("LOSS.ALIGN.W", "LOSS.ALIGN.START", "LOSS.FEAT_NORM.W")
SET_WEIGHTS = Deciding((*IMAGE_WEIGHTS.keys, *OF_SETS), (*IMAGE_WEIGHTS.shown, *OF_SETS))
DECIDING = {IRRA: TEXT_WEIGHTS, MULTIMODAL: SET_WEIGHTS}  # by MODEL.NAME: others than IMAGE_WEIGHTS


def find_stage_problems(cfg: CfgNode) -> Iterator[Problem]:
    """Yield what is wrong with SOLVER.STAGES, as (keys concerned, one line that says what to do)."""
    name, names = cfg.MODEL.NAME, tuple(cfg.SOLVER.STAGES)
    known, alone = STAGES.get(name, ONE_STAGE), ALONE.get(name, ())
    if names != tuple(stage for stage in known if stage in names) and names not in {(stage,) for stage in alone}:
        other = f", or {' or '.join(alone)} alone" if alone else ""
        yield (
            ("MODEL.NAME", "SOLVER.STAGES"),
            f"SOLVER.STAGES got {names}, allowed for MODEL.NAME {name}: {', '.join(known)}, each once and in this "
            f"order{other}",
        )


def find_solver_problems(cfg: CfgNode) -> Iterator[Problem]:
    """Yield what is wrong with the learning rate, as (keys concerned, one line that says what to do)."""
    yield from dict.fromkeys(problem for stage in stages_of(cfg) for problem in _rate_problems(cfg, stage))


def _rate_problems(cfg: CfgNode, stage: str) -> Iterator[Problem]:
    solver = solver_of(cfg, stage)
    steps, steps_key, rate_key = solver.STEPS, solver_key(cfg, "STEPS", stage), solver_key(cfg, "BASE_LR", stage)
    schedule = own_value(cfg, "SOLVER.SCHEDULER")
    if schedule in STEPPED and (list(steps) != sorted(set(steps)) or min(steps, default=1) < 1):
        yield (steps_key,), f"{steps_key} got {steps}, expected ascending epochs from 1"
    if solver.BASE_LR == 0:
        yield (rate_key,), f"{rate_key} is 0, so nothing would be learnt"
    if stage not in WITHOUT_IMAGES:
        yield from _curve_problems(schedule, solver.BASE_LR, rate_key, cfg.SOLVER)
    yield from _clip_problems(cfg, stage)
    center_key = solver_key(cfg, "CENTER_LOSS_WEIGHT", stage)
    if 0 < solver.CENTER_LOSS_WEIGHT < SMALLEST_CENTER_WEIGHT:
        yield (
            (center_key,),
            f"{center_key} {solver.CENTER_LOSS_WEIGHT} overflows: the centres' gradient is divided by it; "
            f"allowed: 0, or {SMALLEST_CENTER_WEIGHT:g} and above",
        )


def _clip_problems(cfg: CfgNode, stage: str) -> Iterator[Problem]:
    solver = solver_of(cfg, stage)
    if solver.GRAD_CLIP > 0 and solver.GRAD_CLIP_QUANTILE > 0:
        keys = tuple(solver_key(cfg, name, stage) for name in ("GRAD_CLIP", "GRAD_CLIP_QUANTILE"))
        yield (
            keys,
            f"{keys[0]} {solver.GRAD_CLIP:g} and {keys[1]} {solver.GRAD_CLIP_QUANTILE:g} both limit the norm of the "
            "gradient; set one of them to 0",
        )


def _curve_problems(schedule: str, base_lr: float, rate_key: str, solver: CfgNode) -> Iterator[Problem]:
    """Yield why the learning rate would rise after the warm-up."""
    if schedule in ("after_warmup_cosine", "after_warmup_poly") and base_lr < solver.TARGET_LR:
        yield (
            ("SOLVER.TARGET_LR", "SOLVER.SCHEDULER", rate_key),
            f"SOLVER.TARGET_LR {solver.TARGET_LR:g} is above {rate_key} {base_lr:g}, so {schedule} would rise; set it "
            "lower",
        )
    if schedule == "after_warmup_exp" and solver.POWER > 1:
        yield (
            ("SOLVER.POWER", "SOLVER.SCHEDULER"),
            f"SOLVER.POWER {solver.POWER:g}: the learning rate of {schedule} is multiplied by it over the epochs, so "
            "it would rise; set it below 1",
        )


def find_loss_problems(cfg: CfgNode) -> Iterator[Problem]:
    """Yield what is wrong with losses whose schedule is sound, as (keys concerned, one line that says what to do)."""
    idle = [range(first.epoch, last.epoch + 1) for first, last in segments_of(cfg) if not any(first.weights.values())]
    if idle:
        deciding = DECIDING.get(cfg.MODEL.NAME, IMAGE_WEIGHTS)
        values = ", ".join(f"{key} {_shown(value_of(cfg, key))}" for key in (*deciding.shown, "LOSS.PHASED.ENABLE"))
        yield deciding.keys, f"no loss is left in epoch {_some(map(str, chain(*idle)), 3)}: {values}"
    if cfg.LOSS.SUPCON.ENABLE and cfg.LOSS.SUPCON.DARK_GAMMA > 1 and not cfg.LOSS.BRIGHTNESS.ENABLE:
        yield (
            ("LOSS.SUPCON.DARK_GAMMA", "LOSS.BRIGHTNESS.ENABLE"),
            f"LOSS.SUPCON.DARK_GAMMA {cfg.LOSS.SUPCON.DARK_GAMMA} boosts dark images, which only "
            "LOSS.BRIGHTNESS.ENABLE True tells apart; set it, or DARK_GAMMA 1.0",
        )


def find_ssl_problems(cfg: CfgNode) -> Iterator[Problem]:
    """Yield what is wrong with self-supervised training, as (keys concerned, one line that says what to do)."""
    views = cfg.INPUT.SSL
    for name in ("CROP_SCALE", "CROP_RATIO"):
        if views[name][0] > views[name][1]:
            yield (f"INPUT.SSL.{name}",), f"INPUT.SSL.{name} got {views[name]}, expected [lowest, highest]"
    if cfg.MODEL.TRAINING_MODE != "self_supervised":
        return
    if cfg.DATALOADER.SAMPLER != "random":
        yield (
            ("MODEL.TRAINING_MODE", "DATALOADER.SAMPLER"),
            f"MODEL.TRAINING_MODE self_supervised knows no identities to sample by, so DATALOADER.SAMPLER "
            f"{cfg.DATALOADER.SAMPLER} cannot serve; set it to random",
        )
    for key, on, why in (
        ("LOSS.BRIGHTNESS.ENABLE", cfg.LOSS.BRIGHTNESS.ENABLE, "there is no metric loss to route; set it False"),
        (
            "MODEL.JPM",
            cfg.MODEL.JPM,
            "SupCon trains no local branch; set it False (a run with JPM can start from it)",
        ),
        ("SOLVER.CENTER_LOSS_WEIGHT", center_weight(cfg) > 0, "the centre loss needs identities; set it to 0"),
    ):
        if on:
            yield ("MODEL.TRAINING_MODE", key), f"MODEL.TRAINING_MODE self_supervised with {key}: {why}"
    if not cfg.LOSS.SUPCON.ENABLE:
        yield (
            ("MODEL.TRAINING_MODE", "LOSS.SUPCON.ENABLE"),
            "MODEL.TRAINING_MODE self_supervised trains with SupCon alone; set LOSS.SUPCON.ENABLE True",
        )


def _shown(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _some(values: Iterable[str], most: int) -> str:
    values = list(islice(values, most + 1))
    return ", ".join(values[:most]) + (", ..." if len(values) > most else "")
