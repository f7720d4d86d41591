"""What makes training fast changes nothing: against models written out, in float64, with one group a tensor.

Fast are the fused attention, the last blocks that compute the class token alone, the local branches in one call, the
losses of all branches in one call, and the fused optimizer with a group for each rate.
"""

from copy import deepcopy
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from yacs.config import CfgNode

from losses import make_loss
from model import make_model
from processor.phases import PhasePlan
from solver import make_optimizer
from solver.update import make_scaler, update
from tests.model.builds import TINY_VIT, images, make_cfg
from tests.model.clips import redraw
from tests.model.trunks import KINDS, kind_cfg
from tests.reference import slow_model_b, slow_timm, slow_transreid
from tests.reference.slow_transreid import Shape

CLASSES, CAMERAS, VIEWS, STEPS = 4, 3, 2, 3
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


def make_case(name: str, *more) -> tuple[CfgNode, nn.Module]:
    """Return configuration and model, of weights that are nowhere 0 or 1 as after initialisation."""
    case = CASES[name]
    options = ("TEST.NECK_FEAT", "before", "DATALOADER.SAMPLER", "softmax_triplet", *CALM, *SOLVER)
    cfg = make_cfg(*TINY_VIT, *options, *case.opts, *more)
    torch.manual_seed(0)
    return cfg, redraw(make_model(cfg, CLASSES, *case.sides)).train()


def make_batch() -> dict[str, torch.Tensor]:
    return {"pids": torch.tensor(PIDS), "camids": torch.tensor(CAMIDS), "viewids": torch.tensor(VIEWIDS)}


def run_fast(model: nn.Module, step: int):
    return model(images(len(PIDS), seed=step), cam_label=torch.tensor(CAMIDS), view_label=torch.tensor(VIEWIDS))


def doubled(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the state of a model in float64, its trained weights as leaves that collect gradients."""
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    return {name: value.double().requires_grad_(name in trained) for name, value in model.state_dict().items()}


def run_plain(state: dict, case: Case, cfg: CfgNode, step: int):
    rows = {"": None, "cam": CAMIDS, "cam x view": [c * VIEWS + v for c, v in zip(CAMIDS, VIEWIDS, strict=True)]}
    batch = images(len(PIDS), seed=step)
    return slow_transreid.train_outputs(state, case.shape, batch, rows[case.row], cfg.MODEL.SIE_COE)


def losses_of(cfg: CfgNode, fast, plain) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the total of the run's criterion and that of the slow loop, each of its own output."""
    phase = PhasePlan(cfg).at(1)
    total, _ = make_loss(cfg, CLASSES, fast.pre_bn[0].shape[1])(fast, make_batch(), phase)
    expected, _ = slow_model_b.criterion(plain, make_batch(), phase, cfg)
    return total, expected


def check_gradients(model: nn.Module, expected: dict[str, torch.Tensor], tolerance: float) -> None:
    """Each gradient is the expected one, relative to its norm (and where that is next to nothing, to that of all)."""
    whole = torch.cat([value.flatten() for value in expected.values()]).norm()
    compared = 0
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            distance = (weight.grad.double() - expected[name]).norm()
            assert distance <= tolerance * max(expected[name].norm(), 1e-2 * whole), (name, distance)
            compared += 1
    assert compared == len(expected) > 5


def plain_optimizer(state: dict[str, torch.Tensor]) -> torch.optim.Optimizer:
    """Return SGD with a group for each tensor and none of torch's fast paths; rates as in SOLVER."""
    groups = [
        {"params": [value], "lr": 0.04, "weight_decay": 0.002} if "bias" in name else {"params": [value]}
        for name, value in state.items()
        if value.requires_grad
    ]
    return torch.optim.SGD(groups, lr=0.02, weight_decay=0.01, momentum=0.9, foreach=False, fused=False)


@pytest.mark.parametrize("name", CASES)
def test_losses_gradients_and_weights_of_three_steps_are_the_plain_models(name):
    cfg, model = make_case(name)
    optimizer, _ = make_optimizer(cfg, model, make_loss(cfg, CLASSES, model.feat_dim))
    state = doubled(model)
    first = {name: value.detach().clone() for name, value in state.items()}
    plain = plain_optimizer(state)
    scaler = make_scaler(torch.device("cpu"), None)
    assert len(optimizer.param_groups) <= 2 and optimizer.defaults["fused"]
    for step in range(STEPS):
        fast_output, plain_output = run_fast(model, step), run_plain(state, CASES[name], cfg, step)
        for got, expected in zip(fast_output.pre_bn, plain_output.pre_bn, strict=True):
            torch.testing.assert_close(got.double(), expected, atol=1e-5 * expected.abs().max().item(), rtol=0)
        total, expected = losses_of(cfg, fast_output, plain_output)
        assert total.item() == pytest.approx(expected.item(), rel=1e-5)
        total.backward()
        expected.backward()
        gradients = {name: value.grad for name, value in state.items() if value.requires_grad}
        check_gradients(model, gradients, 1e-4)
        update(model, optimizer, scaler, grad_clip=0.0)
        plain.step()
        plain.zero_grad()
    for name, weight in model.state_dict().items():
        if weight.is_floating_point():
            moved = (state[name] - first[name]).norm()
            assert (weight.double() - state[name]).norm() <= 1e-3 * moved + 1e-6, name


@pytest.mark.parametrize("name", CASES)
def test_embeddings_are_the_plain_models(name):
    _, model = make_case(name)
    state = slow_transreid.with_adapters({name: value.double() for name, value in model.state_dict().items()})
    case = CASES[name]
    rows = {"": None, "cam": CAMIDS, "cam x view": [c * VIEWS + v for c, v in zip(CAMIDS, VIEWIDS, strict=True)]}
    expected = slow_transreid.embed(state, case.shape, images(len(PIDS)), rows[case.row])
    with torch.inference_mode():
        got = run_fast(model.eval(), 1)
    torch.testing.assert_close(got.double(), expected, atol=1e-5 * expected.abs().max().item(), rtol=0)


@pytest.mark.parametrize("name", ["deit", "deit with jigsaw and Model B's losses"])
def test_bfloat16_keeps_the_loss_within_two_percent_and_the_embedding_in_its_direction(name):
    cfg, model = make_case(name)
    state = doubled(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = run_fast(model, 1)
    total, expected = losses_of(cfg, output, run_plain(state, CASES[name], cfg, 1))
    assert total.dtype == torch.float32
    assert total.item() == pytest.approx(expected.item(), rel=0.02)
    embedding = slow_transreid.embed(doubled(model), CASES[name].shape, images(len(PIDS))).detach()
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
    plain = deepcopy(model).double()
    batch = images(len(PIDS), size)
    fast_output, plain_output = model(batch), slow_timm.train_outputs(plain, batch.double())
    for got, expected in zip(fast_output.pre_bn, plain_output.pre_bn, strict=True):
        torch.testing.assert_close(got.double(), expected, atol=1e-5 * expected.abs().max().item(), rtol=0)
    total, expected = losses_of(cfg, fast_output, plain_output)
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)
    total.backward()
    expected.backward()
    check_gradients(model, {name: w.grad for name, w in plain.named_parameters() if w.requires_grad}, 1e-4)
