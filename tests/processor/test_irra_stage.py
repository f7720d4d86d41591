"""The stage with the model that it is for: what a step gives, captions whole and cut, and no wait for a device."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from processor import make_stage
from processor.stage import Stage
from tests.model.builds import images
from tests.model.clip_reids import VIT, write_clip
from tests.model.irras import SIZE, captions, irra_cfg, make_irra, masked
from tests.processor.irra_stages import ALL, slow_parts
from tests.tolerance import bounds

NAMES = "LOSS.TEXT.NAMES"
CALM = ("INPUT.PROB", 0.0, "INPUT.PADDING", 0, "INPUT.RE_PROB", 0.0)
LENGTHS, PIDS = (5, 12, 3, 9), [4, 0, 4, 2]


def real_stage(folder: Path, *opts: object, device: str = "cpu") -> Stage:
    """Return a stage of a tiny IRRA with random weights, for batches of the caller."""
    model = make_irra(folder, NAMES, ALL, *CALM, *opts).train()
    return make_stage(irra_cfg(write_clip(folder, VIT), NAMES, ALL, *CALM, *opts), "main", model.to(device))


def loader_batch() -> dict:
    """Return a batch of pairs as a loader hands it over, with three masked words."""
    ids = captions(LENGTHS)
    hidden, labels = masked(ids, ((0, 2), (1, 1), (1, 9)))
    batch = {"images": (255 * images(4, SIZE, 1)).clamp(0, 255).to(torch.uint8), "pids": torch.tensor(PIDS)}
    batch |= {"image_ids": torch.arange(4), "caption_ids": ids, "mlm_ids": hidden, "mlm_labels": labels}
    return batch | {"paths": [""] * 4}


@pytest.mark.parametrize("opts", [(), ("INPUT.TEXT.MASK_CAPTION", True), ("MODEL.CMT_MASK_PADDING", True)])
def test_a_step_gives_the_outputs_and_parts_of_the_contract(tmp_path, opts):
    stage = real_stage(tmp_path, *opts)
    batch = stage.prepare(loader_batch())
    output = stage.forward_batch(stage.model, batch)
    assert [len(side) for side in (output.logits, output.pre_bn, output.bnneck)] == [2, 2, 2]
    assert output.extra["mlm_targets"].tolist() == batch["mlm_labels"][batch["mlm_labels"] > 0].tolist()
    total, parts = stage.criterion(output, batch, stage.plan.at(1))
    total.backward()
    assert all(weight.grad is not None for weight in stage.model.parameters())
    in_double = output._replace(
        logits=[one.double() for one in output.logits],
        pre_bn=[one.double() for one in output.pre_bn],
        extra={name: one.double() if one.is_floating_point() else one for name, one in output.extra.items()},
    )
    for name, exact in slow_parts(in_double, batch).items():
        # logits are up to 50 (sdm, itc) or of the size of the features (cmpm)
        scale = max(50.0, output.pre_bn[0].norm(dim=1).max().item())
        torch.testing.assert_close(parts[name].double(), exact.detach(), **bounds(len(PIDS), scale))


def test_a_phase_without_masked_words_learns_the_same_where_they_are_not_asked_for(tmp_path):
    phased = ("LOSS.PHASED.ENABLE", True, "LOSS.PHASED.BOUNDARIES", [2], "LOSS.PHASED.W_TERMS", ["mlm=const:1|const:0"])
    stage, found = real_stage(tmp_path, *phased), []
    for asked in (True, False):
        raw = {name: value for name, value in loader_batch().items() if asked or name != "mlm_labels"}
        batch = stage.prepare(raw)
        total, parts = stage.criterion(stage.forward_batch(stage.model, batch), batch, stage.plan.at(2))
        total.backward()
        grads = {name: weight.grad for name, weight in stage.model.named_parameters()}
        stage.model.zero_grad(set_to_none=True)
        found.append((total, parts, grads))
    (total, parts, grads), (_, _, own) = found
    assert list(parts) == ["sdm", "itc", "cmpm", "id"]
    torch.testing.assert_close(found[1][0], total, **bounds(1000, total.item()))
    for name, grad in grads.items():
        if name.startswith(("base_model", "classifier")):
            torch.testing.assert_close(own[name], grad, **bounds(1000, max(1.0, grad.abs().max().item())))
        else:
            assert not own[name].any() and not grad.any()  # there, and 0


@pytest.mark.parametrize("left_out", [("mlm_labels",), ("mlm_ids", "mlm_labels")])
def test_a_batch_without_masked_words_while_they_are_trained_is_one_clear_error(tmp_path, left_out):
    stage = real_stage(tmp_path, "LOSS.TEXT.MLM_W", 0.5)
    batch = stage.prepare({name: value for name, value in loader_batch().items() if name not in left_out})
    output = stage.forward_batch(stage.model, batch)
    with pytest.raises(ValueError, match="the loss mlm has the weight 0.5, but the batch asks for no words: it needs"):
        stage.criterion(output, batch, stage.plan.at(1))


def test_captions_cut_to_the_longest_give_what_whole_ones_do(tmp_path):
    stage, raw = real_stage(tmp_path), loader_batch()
    ready = stage.prepare(raw)
    assert ready["caption_ids"].shape == (4, max(LENGTHS))
    whole = ready | {name: raw[name] for name in ("caption_ids", "mlm_ids", "mlm_labels")}
    cut, full = (stage.forward_batch(stage.model, batch) for batch in (ready, whole))
    for one, two in ((cut.pre_bn[1], full.pre_bn[1]), (cut.extra["mlm_logits"], full.extra["mlm_logits"])):
        torch.testing.assert_close(one, two, **bounds(1000, two.abs().max().item()))


def test_a_step_waits_for_no_device(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # "meta" has none
    stage = real_stage(tmp_path, "LOSS.TEXT.SOFT_LABEL", 0.3, device="meta")
    batch, phase = stage.prepare(loader_batch()), stage.plan.at(1)
    output = stage.forward_batch(stage.model, batch)  # on "meta", whatever asks for a value fails
    total, _ = stage.criterion(output, batch, phase)
    stage.criterion.readings(output, batch, phase)
    total.backward()
    assert total.device.type == "meta" and output.extra["mlm_targets"].shape == (3,)
