"""The benchmark of PCB's training step at a tiny size: both forms are the same, and what differs stops it."""

import json
from pathlib import Path

import pytest
import torch
from torchvision.models.resnet import Bottleneck, ResNet

from benchmarks import measure, part_branches
from benchmarks.part_branches import PlainTraining, check_equal, make_batch, make_cfg, make_pair, make_steps_of
from model.backbones import resnet
from processor.stage import Stage
from tests.tolerance import rounding

SIZE = (4, 96, 32, 5)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give both forms one block in each stage."""
    counts = [1, 1, 1, 1]
    monkeypatch.setitem(resnet.KINDS, "resnet50", (Bottleneck, counts))
    monkeypatch.setattr(part_branches, "resnet50", lambda: ResNet(Bottleneck, counts))


@pytest.fixture
def forms() -> tuple[Stage, PlainTraining]:
    return make_pair(make_cfg(*SIZE[:3]), SIZE[3])


def test_both_forms_are_equal_and_their_figures_kept(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    monkeypatch.setattr(part_branches, "keep_freed_memory", lambda: None)  # of all tests that this process runs
    monkeypatch.setitem(part_branches.SIZES, "small", SIZE)
    monkeypatch.setattr(part_branches, "REPEATS", 1)
    monkeypatch.setattr(part_branches, "REST_REPEATS", 1)
    part_branches.main([])
    said = capsys.readouterr().out
    assert "equal but for rounding: loss and gradients" in said and said.count("bar:") == 3
    plain, ours = json.loads((tmp_path / "part_branches.json").read_text())["facts"]["rows"]
    assert (plain["way"], ours["way"]) == ("plain", "ours")
    for row in (plain, ours):
        assert 0 < row["seconds without the trunk"] < row["seconds"] and row["activations MiB"] > 1


def test_a_step_of_either_form_moves_the_weights_alike(forms):
    stage, training = forms
    ours, plain = stage.model.double(), training.model.double()
    ours.dropout.p = plain.dropout.p = 0.0
    before = {name: weight.detach().clone() for name, weight in ours.named_parameters()}
    batch = make_batch(*SIZE)
    for step in make_steps_of(stage, training, batch | {"images": batch["images"].double()}).values():
        step()
    expected, bound = dict(plain.named_parameters()), rounding(10_000, torch.float64)
    for name, weight in ours.named_parameters():
        assert not weight.equal(before[name]), name
        torch.testing.assert_close(weight, expected[name].view_as(weight), rtol=bound, atol=bound)


def test_forms_that_differ_stop_the_benchmark(forms):
    stage, training = forms
    training.model.names.reverse()  # stripes from bottom to top
    with pytest.raises(AssertionError, match="the forms differ"):
        check_equal(stage, training.model, make_batch(*SIZE))
