"""The stage with the model that it is for: what a step gives, what absent modalities leave, and no wait in a step."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from processor import make_stage
from processor.stage import Stage
from tests.model.builds import images
from tests.model.clip_reids import VIT, write_clip
from tests.model.irras import captions
from tests.model.multimodals import ALL, CLASSES, OF_IMAGES, SIZE, make_multimodal, multimodal_cfg
from tests.reference import slow_alignment as slow
from tests.tolerance import bounds

CALM = ("INPUT.PROB", 0.0, "INPUT.PADDING", 0, "INPUT.RE_PROB", 0.0)
LOSSES = ("LOSS.ALIGN.START", 1, "LOSS.ALIGN.RAMP", 4, "LOSS.FEAT_NORM.TARGET", 3.0, "LOSS.FEAT_NORM.BAND", 0.5)
LENGTHS, PIDS = (5, 12, 3, 9), [4, 0, 4, 2]
ABSENT = {"nir": [1], "sk": [0, 1, 3], "text": [2]}  # samples


def real_stage(folder: Path, *opts: object, device: str = "cpu") -> Stage:
    """Return a stage of a tiny model with random weights, for batches of the caller."""
    opts = (*CALM, *LOSSES, *opts)
    model = make_multimodal(folder, *opts).train()
    return make_stage(multimodal_cfg(write_clip(folder, VIT), *opts), "main", model.to(device))


def loader_batch(absent: dict[str, list[int]] = ABSENT) -> dict:
    """Return a batch as a loader hands it over."""
    inputs = {
        name: (255 * images(4, SIZE, seed)).clamp(0, 255).to(torch.uint8) for seed, name in enumerate(OF_IMAGES, 1)
    } | {"text": captions(LENGTHS)}
    present = {name: torch.ones(4, dtype=torch.bool) for name in ALL}
    for name, rows in absent.items():
        present[name][rows] = False
    labels = {"camids": torch.zeros(4, dtype=torch.int64), "viewids": torch.zeros(4, dtype=torch.int64)}
    return {"modalities": inputs, "present": present, "pids": torch.tensor(PIDS), "paths": [""] * 4} | labels


@pytest.mark.parametrize("opts", [(), ("MODEL.MULTIMODAL.SEMANTIC", True, "MODEL.MULTIMODAL.FREEZE_SHARED", True)])
def test_a_step_gives_the_outputs_and_parts_of_the_contract(tmp_path, opts):
    stage = real_stage(tmp_path, *opts)
    batch = stage.prepare(loader_batch())
    output = stage.forward_batch(stage.model, batch)
    valid = output.extra["valid"]
    assert [len(side) for side in (output.logits, output.pre_bn, output.bnneck)] == [16, 16, 16]
    expected = [[all(batch["present"][name][i] for name in names) for names in stage.model.sets] for i in range(4)]
    assert valid.tolist() == expected
    total, parts = stage.criterion(output, batch, stage.plan.at(2))
    total.backward()
    assert all(weight.grad is not None for weight in stage.model.parameters() if weight.requires_grad)
    logits, necks = ([one.detach().double() for one in side] for side in (output.logits, output.bnneck))
    exact = {
        "id": slow.identity(logits, valid, PIDS, 0.1),
        "align": slow.of_sets(necks, valid, PIDS, stage.model.sets, 0.1),
        "norm": slow.penalty([necks[s][i] for i in range(4) for s in range(16) if valid[i, s]], 3.0, 0.5),
    }
    for name, value in exact.items():
        torch.testing.assert_close(parts[name].double(), value, **bounds(1000, 20.0))
    assert logits[0].shape == (4, CLASSES)


def test_what_absent_modalities_hold_reaches_no_loss_and_no_gradient(tmp_path):
    stage, found = real_stage(tmp_path), []
    learnt = [weight for weight in stage.model.parameters() if weight.requires_grad]
    for other in (False, True):
        raw = loader_batch()
        for name, rows in ABSENT.items() if other else ():
            raw["modalities"][name][rows] = captions((9,), seed=8)[0] if name == "text" else 255
        batch = stage.prepare(raw)
        total, _ = stage.criterion(stage.forward_batch(stage.model, batch), batch, stage.plan.at(2))
        found.append((total.detach(), *torch.autograd.grad(total, learnt)))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, **bounds(1000, max(1.0, two.abs().max().item())))


def test_a_batch_that_lacks_a_modality_altogether_leaves_its_adapters_gradients_of_zero(tmp_path):
    stage = real_stage(tmp_path)
    batch = stage.prepare(loader_batch({"cp": [0, 1, 2, 3]}))
    total, parts = stage.criterion(stage.forward_batch(stage.model, batch), batch, stage.plan.at(2))
    total.backward()
    own = {name: weight.grad for name, weight in stage.model.named_parameters() if ".cp" in name}
    others = [weight.grad for name, weight in stage.model.named_parameters() if ".nir" in name]
    assert own and all(grad is not None and not grad.any() for grad in own.values())
    assert any(bool(grad.any()) for grad in others) and torch.isfinite(total)


def test_a_step_waits_for_no_device(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # "meta" has none
    stage = real_stage(tmp_path, device="meta")
    batch, phase = stage.prepare(loader_batch()), stage.plan.at(1)
    output = stage.forward_batch(stage.model, batch)  # on "meta", whatever asks for a value fails
    total, _ = stage.criterion(output, batch, phase)
    stage.criterion.readings(output, batch, phase)
    total.backward()
    assert total.device.type == "meta"
