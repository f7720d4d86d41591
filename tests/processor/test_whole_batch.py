"""Outputs and labels of all processes come back where they were; the exchange itself is played."""

import pytest
import torch

from model import ModelOutput
from processor.whole_batch import gather_batch


def make_output(projection: bool) -> ModelOutput:
    features = [torch.rand(3, width) for width in (4, 4, 5, 5, 6, 6, 7)]
    return ModelOutput(features[:2], features[2:4], features[4:6], features[6] if projection else None)


BATCH = {
    "images": torch.rand(3, 3, 2, 2),
    "pids": torch.tensor([0, 1, 2]),
    "camids": torch.tensor([3, 4, 5]),
    "viewids": torch.tensor([6, 7, 8]),
    "paths": ["a", "b", "c"],
}


@pytest.mark.parametrize("projection", [True, False])
def test_outputs_and_labels_of_two_processes_keep_their_places(monkeypatch, projection):
    monkeypatch.setattr("processor.whole_batch.whole_batch", lambda tensors: [torch.cat([x, -x]) for x in tensors])
    output = make_output(projection)
    batch = BATCH | ({"brightness": torch.rand(3)} if projection else {})
    whole, labels = gather_batch(output, batch)
    for given, got in zip(output[:3], whole[:3], strict=True):
        assert all(torch.equal(torch.cat([x, -x]), y) for x, y in zip(given, got, strict=True))
    if projection:
        assert torch.equal(whole.projection, torch.cat([output.projection, -output.projection]))
    else:
        assert whole.projection is None
    assert labels.keys() == batch.keys() - {"images", "paths"}
    assert all(torch.equal(labels[name], torch.cat([batch[name], -batch[name]])) for name in labels)


def test_one_process_computes_on_its_own_tensors():
    output = make_output(True)
    whole, labels = gather_batch(output, BATCH)
    assert all(
        x is y for given, got in zip(output[:3], whole[:3], strict=True) for x, y in zip(given, got, strict=True)
    )
    assert whole.projection is output.projection and labels["pids"] is BATCH["pids"]
