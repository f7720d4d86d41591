"""The spectral feature transform against loops, hand values and what it must leave alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from configs.phases import Phase
from losses.identity import IdentityLoss
from losses.margin_softmax import amsoftmax
from losses.spectral import SpectralTerm, spectral_transform
from model import ModelOutput
from tests.losses.batches import random_features
from tests.reference import slow_losses, slow_spectral
from tests.tolerance import rounding
from utils.errors import ConfigError

BY_HAND = torch.tensor([[3.0, 4.0], [4.0, 3.0], [0.0, 2.0], [-1.0, 0.0]], dtype=torch.float64)
PIDS = torch.tensor([0, 0, 1, 1, 2, 2])
PHASE = Phase(3, 0, "static", {"spectral": 1.0}, 2, False)


def test_hand_values():
    expected = [[3.146381, 3.478865], [3.559655, 3.386113], [0.415381, 2.250409], [-0.999954, 0.000091]]
    got = spectral_transform(BY_HAND, 0.1)
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=5e-7)


@given(count=st.integers(1, 9), width=st.integers(1, 6), temperature=st.sampled_from([0.05, 0.1, 0.3, 2.0]))
def test_it_is_the_formula(count, width, temperature):
    feat = random_features(count, width, seed=count * 10 + width)
    expected = torch.tensor(slow_spectral.transform(feat.tolist(), temperature), dtype=torch.float64)
    torch.testing.assert_close(spectral_transform(feat, temperature), expected, rtol=1e-10, atol=1e-10)


def test_rows_sum_to_one_so_that_equal_features_stay():
    feat = torch.tensor([[1.5, -2.0, 0.25]], dtype=torch.float64).repeat(5, 1)
    torch.testing.assert_close(spectral_transform(feat, 0.3), feat)
    shares = slow_spectral.affinity(random_features(5).tolist(), 0.3)
    assert [sum(row) for row in shares] == pytest.approx([1] * 5)


def test_a_temperature_near_0_changes_nothing():
    torch.testing.assert_close(spectral_transform(BY_HAND, 1e-4), BY_HAND)


def test_a_high_temperature_gives_the_mean_of_the_batch():
    feat = random_features(6)
    torch.testing.assert_close(spectral_transform(feat, 1e9), feat.mean(0).expand(6, -1))


def test_the_softmax_is_over_rows_and_raw_features_are_blended():
    feat = BY_HAND * torch.tensor([[1.0], [100.0], [1.0], [1.0]], dtype=torch.float64)
    got = spectral_transform(feat, 0.5)
    shares = torch.tensor(slow_spectral.affinity(BY_HAND.tolist(), 0.5), dtype=torch.float64)  # lengths do not count
    torch.testing.assert_close(got, shares @ feat)
    assert not torch.allclose(got, shares.t() @ feat)


def test_order_of_the_batch_does_not_matter():
    feat, order = random_features(7), torch.randperm(7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(spectral_transform(feat[order], 0.2), spectral_transform(feat, 0.2)[order])


def test_the_gradient_passes_through_the_affinity():
    feat = random_features(5, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: spectral_transform(x, 0.3), (feat,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_types_are_computed_in_float32_under_autocast(dtype):
    feat = random_features(6, 8).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = spectral_transform(feat, 0.1)
    assert got.dtype == torch.float32
    bound = rounding(8 * 6) / 0.1  # the temperature magnifies what cosines lose
    torch.testing.assert_close(got.double(), spectral_transform(feat.double(), 0.1), rtol=bound, atol=bound)


def test_a_zero_row_and_a_lone_row_have_finite_gradients():
    for feat in (random_features(4, 3), random_features(1, 3)):
        feat[0] = 0
        feat.requires_grad_()
        value = spectral_transform(feat, 0.1)
        value.square().sum().backward()
        assert torch.isfinite(value).all() and torch.isfinite(feat.grad).all()


@pytest.mark.parametrize("temperature", [0.0, -0.1, float("nan")])
def test_a_temperature_that_is_not_above_0_is_refused(temperature):
    with pytest.raises(ConfigError, match="LOSS.SPECTRAL.T got"):
        spectral_transform(BY_HAND, temperature)


def test_the_term_is_the_identity_loss_of_the_transformed_logits_with_the_margin_of_its_epoch():
    logits = torch.tanh(random_features(6, 3))
    output = ModelOutput([], [], [], extra={"spectral_logits": logits})
    term = SpectralTerm(IdentityLoss(0.1, amsoftmax, 15.0, 0.3, warmup_epochs=4))
    logits_of_epoch_3 = slow_losses.margin_logits("amsoftmax", logits.tolist(), PIDS.tolist(), 15.0, 0.15)
    expected = slow_losses.cross_entropy(logits_of_epoch_3, PIDS.tolist(), 0.1)
    assert term(output, {"pids": PIDS}, PHASE)["spectral"].item() == pytest.approx(expected, rel=1e-10)


def test_a_model_without_transformed_logits_is_told_so():
    with pytest.raises(ValueError, match="spectral_logits"):
        SpectralTerm(IdentityLoss())(ModelOutput([], [], []), {"pids": PIDS}, PHASE)
