"""A training of several modalities that breaks off and goes on, with all that is random in it."""

from pathlib import Path

import pytest
import torch
from torch import nn

import train
from model import ModelOutput
from processor.systems import multimodal
from tests.clip_reid_runs import differing, words
from tests.multimodal_trainings import write_multimodal_yaml

STEPS = 2  # of an epoch


@pytest.mark.slow
def test_a_run_that_broke_off_ends_with_the_same_weights_bit_by_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config, run = write_multimodal_yaml(tmp_path), ("SOLVER.EVAL_PERIOD", 0, "MODEL.DROP_PATH", 0.2)
    forward, calls = multimodal.forward_modalities, []

    def breaking(model: nn.Module, batch: dict) -> ModelOutput:
        calls.append(len(batch["pids"]))
        if len(calls) == 2 * STEPS:  # in the second step of the second epoch
            raise OSError("the disk is gone")
        return forward(model, batch)

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train.main(words(config, whole, *run))
    monkeypatch.setattr(multimodal, "forward_modalities", breaking)
    with pytest.raises(OSError, match="the disk is gone"):
        train.main(words(config, broken, *run))
    assert (broken / "multimodal_1.pth").is_file() and not (broken / "multimodal_2.pth").exists()
    torch.manual_seed(99)
    train.main(words(config, broken, *run))
    assert len(calls) == 3 * STEPS
    assert differing(whole / "multimodal_2.pth", broken / "multimodal_2.pth") == []
    assert differing(whole / "multimodal_1.pth", whole / "multimodal_2.pth")
