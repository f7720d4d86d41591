"""What makes training fast changes nothing: against models written out, in float64, with one group a tensor.

Fast are the fused attention, the last blocks that compute the class token alone, the local branches in one call, the
losses of all branches in one call, and the fused optimizer with a group for each rate.
"""

from collections.abc import Iterable
from copy import deepcopy
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from yacs.config import CfgNode

from configs.phases import PhasePlan
from losses import make_loss
from model import make_model
from model.outputs import ModelOutput
from solver import make_optimizer
from solver.update import Updater
from tests.model.builds import TINY_VIT, images, make_cfg
from tests.model.clips import redraw
from tests.model.trunks import KINDS, kind_cfg
from tests.reference import slow_model_b, slow_timm, slow_transreid
from tests.reference.slow_transreid import Shape
from tests.tolerance import assert_rounded, jittered

CLASSES, CAMERAS, VIEWS, STEPS = 4, 3, 2, 3
DRAWS = range(1, 4)  # of the slow path in float32
TERMS = 2000  # numbers added up one after the other from pixels to gradients: 3 blocks there and back, 300 to 400 each
PIDS = [0, 0, 1, 1, 2, 2, 3, 3]
CAMIDS, VIEWIDS = [0, 1, 2, 0, 1, 2, 0, 1], [1, 0, 0, 1, 1, 0, 1, 0]
TINY = Shape(width=24, depth=3, heads=2, hidden=96, rows=4, columns=3, patch=8, stride=8)
JPM = ("MODEL.JPM", True)
CALM = ("MODEL.DROP_PATH", 0.0)  # other drop rates are 0 by default
SOLVER = (
    *("SOLVER.OPTIMIZER_NAME", "SGD", "SOLVER.BASE_LR", 0.02, "SOLVER.BIAS_LR_FACTOR", 2.0),
    *("SOLVER.WEIGHT_DECAY", 0.01, "SOLVER.WEIGHT_DECAY_BIAS", 0.002),
)
MODEL_B = ("LOSS.TRIPLETX.ENABLE", True, "LOSS.SUPCON.ENABLE", True, "LOSS.SUPCON.FEAT_SRC", "pre_bn")


class Case(NamedTuple):
    """A model of ours and how its reference is shaped; `row` tells an image's side information."""

    shape: Shape
    opts: tuple
    sides: tuple[int, int] = (0, 0)
    row: str = ""  # cam, or cam x view


CASES = {
    "deit": Case(TINY, ()),
    "deit with jigsaw and Model B's losses": Case(TINY._replace(branches=4), (*JPM, *MODEL_B)),
    "sides, overlapping patches, jigsaw": Case(
        TINY._replace(rows=7, columns=5, stride=4, branches=4, side_rows=CAMERAS * VIEWS),
        (*JPM, "MODEL.SIE_CAMERA", True, "MODEL.SIE_VIEW", True, "MODEL.STRIDE_SIZE", [4, 4]),
        (CAMERAS, VIEWS),
        "cam x view",
    ),
    "vit_small": Case(
        TINY._replace(hidden=72, qkv_bias=False, scale=24**-0.5, branches=4, side_rows=CAMERAS),
        (*JPM, "MODEL.TRANSFORMER_TYPE", "vit_small_patch16_224_TransReID", "MODEL.SIE_CAMERA", True),
        (CAMERAS, 0),
        "cam",
    ),
    "low-rank adapters": Case(TINY._replace(branches=4), (*JPM, "MODEL.LORA.RANK", 2, "MODEL.LORA.ALPHA", 3.0)),
}


def make_case(name: str, *more: object) -> tuple[CfgNode, nn.Module]:
    """Return configuration and model, of weights that are nowhere 0 or 1 as after initialisation."""
    case = CASES[name]
    options = ("TEST.NECK_FEAT", "before", "DATALOADER.SAMPLER", "softmax_triplet", *CALM, *SOLVER)
    cfg = make_cfg(*TINY_VIT, *options, *case.opts, *more)
    torch.manual_seed(0)
    return cfg, redraw(make_model(cfg, CLASSES, *case.sides)).train()


def make_batch() -> dict[str, torch.Tensor]:
    return {"pids": torch.tensor(PIDS), "camids": torch.tensor(CAMIDS), "viewids": torch.tensor(VIEWIDS)}


def run_fast(model: nn.Module, step: int) -> ModelOutput:
    return model(images(len(PIDS), seed=step), cam_label=torch.tensor(CAMIDS), view_label=torch.tensor(VIEWIDS))


def wide(value: torch.Tensor, draw: int) -> torch.Tensor:
    """Return the numbers of the slow path: in float64 for draw 0, else in float32, moved by a rounding."""
    return jittered(value, draw) if draw else value.double()


def state_of(model: nn.Module, draw: int = 0) -> dict[str, torch.Tensor]:
    """Return the state of a model for the slow path, its trained weights as leaves that collect gradients."""
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    return {name: wide(value, draw).requires_grad_(name in trained) for name, value in model.state_dict().items()}


def run_plain(state: dict, case: Case, cfg: CfgNode, step: int, draw: int = 0) -> slow_transreid.Outputs:
    rows = {"": None, "cam": CAMIDS, "cam x view": [c * VIEWS + v for c, v in zip(CAMIDS, VIEWIDS, strict=True)]}
    batch = wide(images(len(PIDS), seed=step), draw)
    return slow_transreid.train_outputs(state, case.shape, batch, rows[case.row], cfg.MODEL.SIE_COE)


def total_of(cfg: CfgNode, output: ModelOutput) -> torch.Tensor:
    """Return the total of the run's criterion."""
    return make_loss(cfg, CLASSES, output.pre_bn[0].shape[1])(output, make_batch(), PhasePlan(cfg).at(1))[0]


def plain_total_of(cfg: CfgNode, output: ModelOutput) -> torch.Tensor:
    """Return the total of the slow loop."""
    return slow_model_b.criterion(output, make_batch(), PhasePlan(cfg).at(1), cfg)[0]


class Readings(NamedTuple):
    """What a step gives, by name."""

    values: dict[str, torch.Tensor]  # features and the loss
    gradients: dict[str, torch.Tensor]


def read(output: ModelOutput, total: torch.Tensor, weights: Iterable[tuple[str, torch.Tensor]]) -> Readings:
    """Return the readings of a step, the loss propagated back to the weights."""
    total.backward()
    features = {f"feature {number}": feat.detach() for number, feat in enumerate(output.pre_bn)}
    return Readings(features | {"loss": total.detach()}, {name: weight.grad.clone() for name, weight in weights})


def check_step(got: Readings, exact: Readings, slow: list[Readings]) -> None:
    check_same(got.values, exact.values, [run.values for run in slow])
    check_same(got.gradients, exact.gradients, [run.gradients for run in slow])


def check_same(got: dict, exact: dict, slow: list[dict], terms: int = TERMS) -> None:
    """Each tensor is the exact one. Where its terms cancel, they are as large as those of the other tensors."""
    assert got.keys() == exact.keys()
    whole = torch.cat([value.flatten() for value in exact.values()])
    for name, value in got.items():
        scale = whole.norm().item() * (value.numel() / len(whole)) ** 0.5
        assert_rounded(value, exact[name], [run[name] for run in slow], terms, scale, name)


def plain_optimizer(state: dict[str, torch.Tensor]) -> torch.optim.Optimizer:
    """Return SGD with a group for each tensor and none of torch's fast paths; rates as in SOLVER."""
    groups = [
        {"params": [value], "lr": 0.04, "weight_decay": 0.002} if "bias" in name else {"params": [value]}
        for name, value in state.items()
        if value.requires_grad
    ]
    return torch.optim.SGD(groups, lr=0.02, weight_decay=0.01, momentum=0.9, foreach=False, fused=False)


def trained(weights: Iterable[tuple[str, torch.Tensor]]) -> list[tuple[str, torch.Tensor]]:
    return [(name, weight) for name, weight in weights if weight.requires_grad]


@pytest.mark.parametrize("name", CASES)
def test_losses_gradients_and_weights_of_three_steps_are_the_plain_models(name):
    cfg, model = make_case(name)
    optimizer, _ = make_optimizer(cfg, model, make_loss(cfg, CLASSES, model.feat_dim))
    states = [state_of(model, draw) for draw in (0, *DRAWS)]
    plain = [plain_optimizer(state) for state in states]
    updater = Updater(optimizer)
    assert len(optimizer.param_groups) <= 2 and optimizer.defaults["fused"]
    for step in range(STEPS):
        output = run_fast(model, step)
        got = read(output, total_of(cfg, output), trained(model.named_parameters()))
        slow = []
        for draw, (state, mover) in enumerate(zip(states, plain, strict=True)):
            output = run_plain(state, CASES[name], cfg, step, draw)
            slow.append(read(output, plain_total_of(cfg, output), trained(state.items())))
            mover.step()
            mover.zero_grad()
        check_step(got, slow[0], slow[1:])
        updater.step()
    kept = {name for name, value in model.state_dict().items() if value.is_floating_point()}
    after, *others = ({name: state[name].detach() for name in kept} for state in states)
    check_same({name: value for name, value in model.state_dict().items() if name in kept}, after, others, 3 * STEPS)


@pytest.mark.parametrize("name", CASES)
def test_embeddings_are_the_plain_models(name):
    _, model = make_case(name)
    state = slow_transreid.with_adapters({name: value.double() for name, value in model.state_dict().items()})
    case = CASES[name]
    rows = {"": None, "cam": CAMIDS, "cam x view": [c * VIEWS + v for c, v in zip(CAMIDS, VIEWIDS, strict=True)]}
    expected = slow_transreid.embed(state, case.shape, images(len(PIDS)), rows[case.row])
    with torch.inference_mode():
        got = run_fast(model.eval(), 1)
    assert_rounded(got, expected, terms=TERMS)


@pytest.mark.parametrize("name", ["deit", "deit with jigsaw and Model B's losses"])
def test_bfloat16_keeps_the_loss_within_two_percent_and_the_embedding_in_its_direction(name):
    cfg, model = make_case(name)
    expected = plain_total_of(cfg, run_plain(state_of(model), CASES[name], cfg, 1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total = total_of(cfg, run_fast(model, 1))
    assert total.dtype == torch.float32
    assert total.item() == pytest.approx(expected.item(), rel=0.02)
    embedding = slow_transreid.embed(state_of(model), CASES[name].shape, images(len(PIDS))).detach()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        got = run_fast(model.eval(), 1)
    assert F.cosine_similarity(got.double(), embedding).min() > 0.999


@pytest.mark.parametrize("jigsaw", [False, True])
@pytest.mark.parametrize("kind", ["dinov3", "rope_mixed"])
def test_trunks_with_rotary_positions_train_as_timm_runs_them(kind, jigsaw):
    size = tuple(side * KINDS[kind].patch for side in (4, 3))
    cfg = kind_cfg(kind, "MODEL.JPM", jigsaw, "DATALOADER.SAMPLER", "softmax_triplet")
    torch.manual_seed(0)
    model = redraw(make_model(cfg, CLASSES, 0, 0)).train()
    batch, slow = images(len(PIDS), size), []
    for draw in (0, *DRAWS):
        plain = deepcopy(model) if draw else deepcopy(model).double()
        plain.load_state_dict({name: wide(value, draw) for name, value in model.state_dict().items()})
        output = slow_timm.train_outputs(plain, wide(batch, draw))
        slow.append(read(output, plain_total_of(cfg, output), trained(plain.named_parameters())))
    output = model(batch)
    got = read(output, total_of(cfg, output), trained(model.named_parameters()))
    check_step(got, slow[0], slow[1:])
