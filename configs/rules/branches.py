"""Rules between the keys of losses over branches: draws, views of the triplet loss, spectral transform, margins."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from yacs.config import CfgNode

from configs.keys.clip_reid import NAMES as CLIP_REID
from configs.keys.irra import NAME as IRRA
from configs.keys.multimodal import NAME as MULTIMODAL
from configs.keys.pcb import NAME as PCB
from configs.own_values import own_value
from configs.phases import SPECTRAL, TRIPLET, Phase, Problem, segments_of
from configs.stages import draws_pxk, solver_key, solver_of
from configs.values import is_set

FEWEST_IMAGES, ADVISED_IMAGES = 2, 4  # of an identity in a batch that is transformed
DRAWS, VIEWS, WEIGHT = "LOSS.BRANCHES.DRAWS", "LOSS.TRIPLET.BRANCHES", "LOSS.SPECTRAL.W"
IDLE_WITHOUT_WEIGHT = ("LOSS.SPECTRAL.T", "LOSS.SPECTRAL.FEAT", "LOSS.SPECTRAL.START_EPOCH")
MARGIN_WARMUP = "SOLVER.COSINE_MARGIN_WARMUP"


class Branches(NamedTuple):
    """The branches of a model that losses see."""

    has_global: bool
    parts: int
    others: int = 0  # which are no part of an image
    keys: tuple[str, ...] = ("MODEL.NAME",)  # that decide it

    @property
    def count(self) -> int:
        """How many there are."""
        return self.has_global + self.parts + self.others


# by MODEL.NAME; IRRA has sides, of images and captions, in place of branches, and a model of modalities sets of them
LAYOUTS: dict[str, Callable[[CfgNode], Branches | None]] = {
    "transformer": lambda cfg: Branches(True, cfg.MODEL.DEVIDE_LENGTH if cfg.MODEL.JPM else 0, keys=("MODEL.JPM",)),
    "resnet50": lambda cfg: Branches(True, 0),
    **dict.fromkeys(CLIP_REID, lambda cfg: Branches(True, 0, others=1)),
    **dict.fromkeys((IRRA, MULTIMODAL), lambda cfg: None),
    PCB: lambda cfg: Branches(
        cfg.MODEL.PCB.GLOBAL_DIM > 0, cfg.MODEL.PCB.PARTS, keys=("MODEL.PCB.GLOBAL_DIM", "MODEL.PCB.PARTS")
    ),
}


def find_branch_problems(cfg: CfgNode) -> Iterator[Problem]:
    """Yield every rule that `cfg` breaks, of losses whose schedule is sound, as (keys concerned, what to do)."""
    name, branches, loss = cfg.MODEL.NAME, LAYOUTS[cfg.MODEL.NAME](cfg), cfg.LOSS
    if loss.BRANCHES.DRAWS:
        yield from _draw_problems(cfg, branches)
    if loss.TRIPLET.BRANCHES != "each" and branches is not None:
        yield from _view_problems(cfg, branches)
    if loss.SPECTRAL.W > 0:
        yield from _spectral_problems(cfg, branches)
    if loss.SUPCON.ENABLE and name == PCB:
        yield (
            ("LOSS.SUPCON.ENABLE", "MODEL.NAME"),
            f"LOSS.SUPCON.ENABLE True: MODEL.NAME {PCB} has no projection head; set it False",
        )


def _draw_problems(cfg: CfgNode, branches: Branches | None) -> Iterator[Problem]:
    draws, reduce = cfg.LOSS.BRANCHES.DRAWS, own_value(cfg, "LOSS.BRANCHES.REDUCE")
    if branches is None:
        yield (
            (DRAWS, "MODEL.NAME"),
            f"{DRAWS} {draws}: MODEL.NAME {cfg.MODEL.NAME} has no branches of images to draw from; set it to 0",
        )
    elif reduce == "halves":
        yield (
            (DRAWS, "LOSS.BRANCHES.REDUCE"),
            f"{DRAWS} {draws} leaves branches out, of whose halves LOSS.BRANCHES.REDUCE {reduce} knows nothing; set "
            "REDUCE sum or mean, or DRAWS 0",
        )


def _view_problems(cfg: CfgNode, branches: Branches) -> Iterator[Problem]:
    views = cfg.LOSS.TRIPLET.BRANCHES
    lacking = []
    if "global" in views and not branches.has_global:
        lacking.append("global branch")
    if "concat" in views and not branches.parts:
        lacking.append("parts to concatenate")
    if lacking or branches.others:
        ways = _possible_views(branches)
        why = f"has no {' and no '.join(lacking)}" if lacking else "has branches that are no parts of an image"
        yield (
            (VIEWS, *branches.keys),
            f"{VIEWS} {views}: the model of MODEL.NAME {cfg.MODEL.NAME} {why}; set {' or '.join(ways)}",
        )
    if cfg.LOSS.BRIGHTNESS.ENABLE:
        yield (
            (VIEWS, "LOSS.BRIGHTNESS.ENABLE"),
            f"{VIEWS} {views} with LOSS.BRIGHTNESS.ENABLE True: images are routed in pairs of the same branch; set "
            "BRANCHES each, or ENABLE False",
        )


def _possible_views(branches: Branches) -> list[str]:
    if branches.others:
        return ["each"]
    with_global = ["global"] if branches.has_global else []
    concat = ["concat"] if branches.parts else []
    return ["each", *with_global, *concat]


def _spectral_problems(cfg: CfgNode, branches: Branches | None) -> Iterator[Problem]:
    weight = f"{WEIGHT} {cfg.LOSS.SPECTRAL.W:g}"
    if cfg.MODEL.NAME != PCB:
        yield (
            (WEIGHT, "MODEL.NAME"),
            f"{weight}: the spectral transform is that of MODEL.NAME {PCB}, got {cfg.MODEL.NAME}; set it to 0",
        )
        return
    if branches is not None and not branches.has_global:
        yield (
            (WEIGHT, "MODEL.PCB.GLOBAL_DIM"),
            f"{weight} transforms the features of the global branch, but MODEL.PCB.GLOBAL_DIM is 0; give it a width, "
            "e.g. 256",
        )
    phases = _spectral_phases(cfg)
    if phases and not draws_pxk(cfg):
        yield (
            (WEIGHT, "DATALOADER.SAMPLER"),
            f"{weight} needs several images of an identity in a batch, which DATALOADER.SAMPLER "
            f"{cfg.DATALOADER.SAMPLER} draws by chance alone; set softmax_triplet (with MODEL.METRIC_LOSS_TYPE none "
            "where no triplet loss is wanted)",
        )
        return
    for phase in phases:
        if phase.num_instance < FEWEST_IMAGES:
            yield (
                (phase.k_key, WEIGHT),
                f"{phase.k_key} {phase.num_instance}: {weight} blends images of an identity in epoch {phase.epoch}; "
                f"use at least {FEWEST_IMAGES}, better {ADVISED_IMAGES}",
            )
            return


def _spectral_phases(cfg: CfgNode) -> list[Phase]:
    """Return the first phase of each run of epochs in which features are transformed."""
    return [first for first, last in segments_of(cfg) if _acts(SPECTRAL, first, last)]


def _acts(term: str, *ends: Phase) -> bool:
    """Return whether a term has a weight at either end of a run of epochs."""
    return any(phase.weights.get(term, 0) > 0 for phase in ends)


def find_branch_notices(cfg: CfgNode) -> Iterator[str]:
    """Yield one line for every key that is set and another one leaves without effect, and for what may be missed."""
    branches, loss = LAYOUTS[cfg.MODEL.NAME](cfg), cfg.LOSS
    if branches is not None and loss.BRANCHES.DRAWS and branches.count == 1:
        yield f"{DRAWS} {loss.BRANCHES.DRAWS} is not used: the model has one branch, which always stays"
    with_triplet = any(_acts(TRIPLET, first, last) for first, last in segments_of(cfg))
    if is_set(cfg, VIEWS) and not with_triplet:
        yield f"{VIEWS} {loss.TRIPLET.BRANCHES} is not used: no epoch gives the triplet loss a weight"
    if cfg.MODEL.NAME == PCB and with_triplet and loss.TRIPLET.FEAT_SRC == "pre_bn":
        yield (
            "LOSS.TRIPLET.FEAT_SRC pre_bn: the published runs of part branches have bnneck, features after norm and "
            "dropout"
        )
    yield from _spectral_notices(cfg)
    yield from _margin_notices(cfg)


def _spectral_notices(cfg: CfgNode) -> Iterator[str]:
    if cfg.LOSS.SPECTRAL.W == 0:
        idle = [key for key in IDLE_WITHOUT_WEIGHT if is_set(cfg, key)]
        if idle:
            yield f"{', '.join(idle)}: not used, {WEIGHT} is 0"
        return
    phases = _spectral_phases(cfg)
    if not phases:
        last_epoch = solver_of(cfg).MAX_EPOCHS
        yield f"{WEIGHT} {cfg.LOSS.SPECTRAL.W:g} never acts: no epoch up to {last_epoch} gives it a weight"
    fewest = min(phases, key=lambda phase: phase.num_instance, default=None)
    if fewest is not None and FEWEST_IMAGES <= fewest.num_instance < ADVISED_IMAGES:
        yield (
            f"{fewest.k_key} {fewest.num_instance} with {WEIGHT} {cfg.LOSS.SPECTRAL.W:g}: the transform blends images "
            f"of an identity; {ADVISED_IMAGES} or more are advised"
        )


def _margin_notices(cfg: CfgNode) -> Iterator[str]:
    epochs, last_epoch = cfg.SOLVER.COSINE_MARGIN_WARMUP, solver_of(cfg).MAX_EPOCHS
    if epochs and cfg.MODEL.ID_LOSS_TYPE == "softmax":
        yield f"{MARGIN_WARMUP} {epochs} is not used: MODEL.ID_LOSS_TYPE softmax has no margin"
    elif epochs >= last_epoch:
        yield (
            f"{MARGIN_WARMUP} {epochs} covers all of {solver_key(cfg, 'MAX_EPOCHS')} {last_epoch}: the margin never "
            "reaches SOLVER.COSINE_MARGIN"
        )
