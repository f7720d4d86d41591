"""Empty cases, shapes and weights, the same for every loss."""

import pytest
import torch

from losses.numeric import attached_zero, check_camids, check_labels, weighted_mean


def test_zero_is_attached_to_every_tensor_even_where_none_is_finite():
    tensors = [torch.full(shape, float("inf"), requires_grad=True) for shape in ((3, 2), (1, 4), (0, 2))]
    zero = attached_zero(tensors)
    zero.backward()
    assert zero.item() == 0 and zero.ndim == 0
    assert all(torch.equal(tensor.grad, torch.zeros_like(tensor)) for tensor in tensors)


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        ([torch.float16], torch.float32),
        ([torch.bfloat16, torch.bfloat16], torch.float32),
        ([torch.float64], torch.float64),
    ],
)
def test_zero_is_of_at_least_float32(types, expected):
    assert attached_zero([torch.ones(2, 3, dtype=kind) for kind in types]).dtype == expected


@pytest.mark.parametrize(
    ("feat", "labels"), [((4,), (4,)), ((4, 2, 3), (4,)), ((4, 2), (4, 1)), ((4, 2), (3,)), ((4, 2), ()), ((), ())]
)
def test_shapes_that_would_broadcast_are_refused_and_named(feat, labels):
    with pytest.raises(ValueError) as refusal:
        check_labels(torch.zeros(feat), torch.zeros(labels))
    assert str(refusal.value).endswith(f"got {list(feat)} and {list(labels)}")


def test_sound_shapes_and_no_cameras_are_accepted():
    check_labels(torch.zeros(4, 2), torch.zeros(4))
    check_labels(torch.zeros(0, 2), torch.zeros(0))
    check_camids(torch.zeros(4), None)
    check_camids(torch.zeros(4), torch.zeros(4))
    with pytest.raises(ValueError, match=r"like labels \[4\], got \[3\]"):
        check_camids(torch.zeros(4), torch.zeros(3))


@pytest.mark.parametrize("weights", [[0.5, 2.0, 0.25], [1e-3, 2e-3, 0.0], [3.0, 0.0, 0.0]])
def test_weighted_mean_is_the_sum_of_weighed_values_over_the_sum_of_weights(weights):
    values = [4.0, -1.0, 10.0]
    expected = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
    assert weighted_mean(torch.tensor(values), torch.tensor(weights)).item() == pytest.approx(expected, rel=1e-5)


def test_weighted_mean_takes_masks_and_is_zero_without_weight():
    values = torch.tensor([4.0, -1.0, 10.0], dtype=torch.float64)
    mean = weighted_mean(values, torch.tensor([True, False, True]))
    assert mean.item() == 7.0 and mean.dtype == torch.float64
    assert weighted_mean(values, torch.zeros(3)).item() == 0
    assert weighted_mean(values[:0], torch.zeros(0)).item() == 0
