"""The quantile of the last norms as a limit: against numpy, over epochs, under accumulation and loss scaling."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from solver import Updater, make_updater
from solver.clipping import QuantileClip
from tests.cfgs import cfg_with
from tests.solver.models import OneLayer

CPU = torch.device("cpu")
ROUNDING = 16 * 2.0**-23  # relative: a few operations on float32


def slow_limit(norms: list[float], quantile: float = 0.7, window: int = 10) -> float:
    """The limit of the last of the norms of an epoch."""
    if len(norms) <= window:
        return 1.0
    return float(np.clip(1.15 * np.percentile(norms[-window:], 100 * quantile, method="linear"), 0.5, 3.0))


@pytest.mark.parametrize("scale", [0.05, 1.0, 30.0])
@pytest.mark.parametrize(("quantile", "window"), [(0.7, 10), (0.0, 10), (1.0, 4), (0.35, 3), (0.5, 1)])
def test_limits_are_those_of_numpy_in_every_epoch_anew(quantile, window, scale):
    clip = QuantileClip(quantile=quantile, window=window)
    norms = (scale * np.random.default_rng(3).gamma(2.0, size=25)).tolist()
    for epoch in (norms, norms[::-1]):
        clip.reset()
        for step, norm in enumerate(epoch, start=1):
            limit = clip.limit(torch.tensor(norm, dtype=torch.float64))
            assert limit.item() == pytest.approx(slow_limit(epoch[:step], quantile, window), rel=1e-12)


def test_by_hand_the_eleventh_norm_is_the_first_that_counts():
    """Of 2..11, the 70th percentile is 2 + 0.7 * 9 = 8.3 tenths: 1.15 * 0.83."""
    clip = QuantileClip()
    limits = [clip.limit(torch.tensor(number / 10)).item() for number in range(1, 12)]
    assert limits[:10] == [1.0] * 10 and limits[10] == pytest.approx(1.15 * 0.83, rel=ROUNDING)


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_norm_that_is_not_finite_counts_as_the_largest(bad):
    clip = QuantileClip()
    for norm in [1.0] * 8 + [bad] * 2:
        clip.limit(torch.tensor(norm))
    assert clip.limit(torch.tensor(1.0)).item() == pytest.approx(1.15)
    for _ in range(8):
        limit = clip.limit(torch.tensor(bad))
    assert limit.item() == 3.0


@pytest.mark.parametrize("settings", [{"quantile": 1.5}, {"quantile": -0.1}, {"window": 0}])
def test_a_quantile_outside_0_to_1_and_an_empty_window_are_refused(settings):
    with pytest.raises(ValueError, match="got quantile"):
        QuantileClip(**settings)


def weights_of(*sizes: int) -> list[nn.Parameter]:
    return [nn.Parameter(torch.zeros(size)) for size in sizes]


def test_gradients_are_bounded_together_as_torch_does_and_smaller_ones_stay():
    for size in (0.1, 5.0):
        own, torchs = weights_of(3, 5, 2), weights_of(3, 5, 2)
        for pair in zip(own, torchs, strict=True):
            grad = size * torch.linspace(-1, 2, len(pair[0]))
            for weight in pair:
                weight.grad = grad.clone()
        own.append(nn.Parameter(torch.zeros(1)))  # without a gradient
        QuantileClip()(own)
        nn.utils.clip_grad_norm_(torchs, 1.0)
        for one, two in zip(own, torchs, strict=False):
            torch.testing.assert_close(one.grad, two.grad, rtol=ROUNDING, atol=0)
        assert own[-1].grad is None


def test_without_any_gradient_nothing_happens():
    clip = QuantileClip()
    clip(weights_of(3))
    assert all(clip.limit(torch.tensor(9.0)) == 1.0 for _ in range(10))  # no norm was taken in


class Steps:
    """An updater of one weight by plain SGD, whose gradients are given; keeps how far each step went."""

    def __init__(self, accum_steps: int = 1, scale: float = 1.0) -> None:
        self.weight = nn.Parameter(torch.zeros(2, dtype=torch.float64))
        scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=10**6, enabled=scale > 1)
        optimizer = torch.optim.SGD([self.weight], lr=1.0)
        self.updater = Updater(optimizer, scaler=scaler, clip=QuantileClip(), accum_steps=accum_steps)
        self.moves: list[float] = []

    def epoch(self, norms: list[float]) -> None:
        for step, norm in enumerate(norms, start=1):
            gradient = torch.tensor([0.6 * norm, 0.8 * norm], dtype=torch.float64)
            self.updater.backward((self.weight * gradient).sum(), step, len(norms))
            if self.updater.updates_at(step, len(norms)):
                before = self.weight.detach().clone()
                self.updater.step()
                self.moves.append((self.weight.detach() - before).norm().item())


def expected_moves(norms: list[float]) -> list[float]:
    return [min(norm, slow_limit(norms[:step])) for step, norm in enumerate(norms, start=1)]


@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_steps_are_bounded_by_unscaled_norms_and_each_epoch_starts_anew(scale):
    steps, rng = Steps(scale=scale), np.random.default_rng(1)
    epochs = [rng.gamma(2.0, size=15).tolist() for _ in range(2)]
    for norms in epochs:
        steps.epoch(norms)
    expected = [move for norms in epochs for move in expected_moves(norms)]
    assert steps.moves == pytest.approx(expected, rel=1e-5)  # 1e-6 is added to a norm that is divided by
    assert any(move not in (1.0, norm) for move, norm in zip(expected, sum(epochs, []), strict=True))


def test_batches_that_share_a_step_are_one_norm():
    steps, norms = Steps(accum_steps=2), np.random.default_rng(2).gamma(3.0, size=30).tolist()
    steps.epoch(norms)
    means = [(one + two) / 2 for one, two in zip(norms[::2], norms[1::2], strict=True)]
    assert steps.moves == pytest.approx(expected_moves(means), rel=1e-5)


def test_a_run_that_goes_on_after_an_epoch_moves_bit_by_bit_as_one_that_went_through():
    """The state of an updater says nothing of norms: none counts beyond its epoch."""
    through, first, second = Steps(), Steps(), Steps()
    norms = np.random.default_rng(5).gamma(2.0, size=24).tolist()
    for steps in (through, first):
        steps.epoch(norms)
    second.updater.load_state_dict(first.updater.state_dict())
    second.weight.data.copy_(first.weight)
    for steps in (through, second):
        steps.moves.clear()
        steps.epoch(norms[::-1])
    assert second.moves == through.moves and torch.equal(second.weight, through.weight)


@pytest.mark.parametrize(
    ("opts", "kind"),
    [((), type(None)), (("SOLVER.GRAD_CLIP_QUANTILE", 0.6), QuantileClip), (("SOLVER.GRAD_CLIP", 2.0), object)],
)
def test_the_keys_decide_what_clips(opts, kind):
    model = OneLayer()
    updater = make_updater(cfg_with(*opts), "", model, nn.Identity(), CPU)
    assert isinstance(updater._clip, kind)
    if kind is QuantileClip:
        assert updater._clip.quantile == 0.6


def test_clipping_waits_for_no_device():
    clip, weights = QuantileClip(window=2), [weight.to("meta") for weight in weights_of(3, 2)]
    weights = [nn.Parameter(weight) for weight in weights]
    for _ in range(4):  # on "meta", whatever asks for a value fails
        for weight in weights:
            weight.grad = torch.empty_like(weight)
        clip(weights)
    assert weights[0].grad.device.type == "meta"
