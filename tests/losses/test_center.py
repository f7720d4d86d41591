"""The centre loss."""

import pytest
import torch

from configs.phases import Phase
from losses import CenterLoss
from losses.center import CenterTerm, center_loss
from model import ModelOutput
from tests.reference import slow_losses


def doubles(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_loss_is_the_mean_squared_distance_to_the_own_centre():
    feat, centers, labels = doubles(6, 4), doubles(3, 4, seed=1), [0, 2, 2, 1, 0, 2]
    expected = slow_losses.center(feat.tolist(), labels, centers.tolist())
    assert center_loss(feat, torch.tensor(labels), centers).item() == pytest.approx(expected, abs=1e-12)


def test_gradients_match_finite_differences_for_features_and_centres():
    labels = torch.tensor([0, 2, 2, 1])
    inputs = (doubles(4, 3).requires_grad_(), doubles(3, 3, seed=1).requires_grad_())
    assert torch.autograd.gradcheck(lambda feat, centers: center_loss(feat, labels, centers), inputs)


def test_feature_far_away_is_clamped_and_stops_pulling():
    feat = torch.tensor([[2e6], [1.0]], requires_grad=True)
    loss = center_loss(feat, torch.tensor([0, 0]), torch.zeros(1, 1))
    loss.backward()
    assert loss.item() == pytest.approx((1e12 + 1) / 2)
    assert feat.grad.tolist() == [[0.0], [1.0]]


def test_centres_are_a_parameter_drawn_from_a_standard_normal():
    torch.manual_seed(0)
    module = CenterLoss(200, 300)
    assert dict(module.named_parameters())["centers"].shape == (200, 300)
    assert module.centers.mean().item() == pytest.approx(0, abs=0.02)
    assert module.centers.std().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_features_give_a_float32_loss_that_does_not_overflow(dtype):
    feat = torch.full((2, 768), 30.0, dtype=dtype)  # |x|^2 is 691,200, above the largest float16
    loss = center_loss(feat, torch.tensor([0, 0]), torch.zeros(1, 768))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(691_200)


def test_empty_batch_gives_a_differentiable_zero():
    module = CenterLoss(3, 2)
    loss = module(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(module.centers.grad, torch.zeros(3, 2))


def test_width_that_differs_from_the_centres_is_refused():
    with pytest.raises(ValueError, match="768 wide.*2048"):
        CenterLoss(2, 2048)(torch.zeros(3, 768), torch.zeros(3, dtype=torch.int64))


def test_feature_at_its_centre_keeps_a_least_distance_and_stops_pulling():
    feat = torch.ones(2, 3, requires_grad=True)
    loss = center_loss(feat, torch.tensor([0, 0]), torch.ones(1, 3))
    loss.backward()
    assert loss.item() == pytest.approx(1e-12) and not feat.grad.any()


def test_labels_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match=r"labels \[N\]"):
        center_loss(torch.zeros(3, 2), torch.zeros(1, dtype=torch.int64), torch.zeros(4, 2))


def test_term_is_that_of_the_global_branch_and_tells_the_centres_their_weight():
    module, feat, labels = CenterLoss(3, 4), doubles(5, 4).float(), torch.tensor([0, 2, 1, 1, 0])
    term = CenterTerm(module)
    phase = Phase(1, 0, "static", {"id": 1.0, "center": 0.25}, 4, False)
    value = term(ModelOutput([], [feat, feat + 1], [], None), {"pids": labels}, phase)
    assert list(value) == ["center"] and value["center"].item() == module(feat, labels).item()
    assert term.centers is module.centers and module.centers.loss_weight == 0.25


def test_sizes_are_printed():
    assert repr(CenterLoss(3, 4)) == "CenterLoss(num_classes=3, feat_dim=4)"
