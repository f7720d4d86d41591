"""A model's output is gone through without naming its fields, whatever it has and however wide."""

import pytest
import torch

from model import ModelOutput, map_tensors, tensors_of

FULL = ModelOutput(
    logits=[torch.zeros(2, 5)],
    pre_bn=[torch.zeros(2, 4), torch.zeros(2, 3)],
    bnneck=[torch.zeros(2, 4)],
    projection=torch.zeros(2, 8),
    extra={"last": torch.zeros(2, 6), "valid": torch.zeros(2, 16)},
)
BARE = ModelOutput(logits=[], pre_bn=[torch.zeros(2, 4)], bnneck=[])


def by_hand(output: ModelOutput) -> list[torch.Tensor]:
    projection = [] if output.projection is None else [output.projection]
    return [*output.logits, *output.pre_bn, *output.bnneck, *projection, *output.extra.values()]


@pytest.mark.parametrize("output", [FULL, BARE])
def test_every_tensor_is_found_once_in_the_order_of_the_fields(output):
    found = tensors_of(output)
    assert [id(tensor) for tensor in found] == [id(tensor) for tensor in by_hand(output)]


def test_no_field_is_left_out():
    assert len(tensors_of(FULL)) == 7 and set(FULL._fields) == {"logits", "pre_bn", "bnneck", "projection", "extra"}


@pytest.mark.parametrize("output", [FULL, BARE])
def test_a_change_reaches_every_tensor_and_nothing_else(output):
    changed = map_tensors(output, lambda tensor: tensor + 1)
    assert isinstance(changed, ModelOutput)
    for before, after in zip(by_hand(output), by_hand(changed), strict=True):
        assert torch.equal(after, before + 1) and not before.any()
    assert [len(field) for field in changed[:3]] == [len(field) for field in output[:3]]
    assert changed.extra.keys() == output.extra.keys() and (changed.projection is None) == (output.projection is None)
