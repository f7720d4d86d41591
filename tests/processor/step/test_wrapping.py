"""The model together with those of other processes."""

import pytest
import torch
from torch import nn

from processor.step import wrapping


def test_what_a_step_hands_over_on_the_cpu_stays_there_for_a_model_on_a_gpu(monkeypatch):
    """DistributedDataParallel moves all that it gets to the devices that it is told, and a step then waits for it."""
    told: dict[str, object] = {}
    monkeypatch.setattr(wrapping, "DistributedDataParallel", lambda model, **options: told.update(options) or model)
    model = nn.Linear(2, 2)
    assert wrapping.wrap(model, torch.device("cuda", 0), 2, sync_bn=False) is model
    assert told and told.get("device_ids") is None


@pytest.mark.parametrize("device", [torch.device("cpu"), torch.device("cuda", 0)])
def test_one_process_has_the_model_itself(device):
    model = nn.Linear(2, 2)
    assert wrapping.wrap(model, device, 1, sync_bn=False) is model
