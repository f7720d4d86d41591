"""Steps of the stage of several modalities: terms and gradients by the formulas, what a batch becomes, and going on."""

import logging
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from configs.modalities import MODALITIES
from datasets.transforms import brightness
from processor import make_stage
from tests.processor.modal_stages import (
    CALM,
    LENGTH,
    SAMPLES,
    modal_cfg,
    modal_data,
    modal_model,
    modal_stage,
    raw_batch,
    ready_batch,
)
from tests.processor.stage_runs import assert_a_broken_run_ends_alike, assert_formulas
from tests.reference import slow_alignment as slow

COLOURS = [0.5, 0.4, 0.3], [0.25, 0.5, 0.2]  # mean and deviation
NO_SMOOTHING = ("MODEL.IF_LABELSMOOTH", "off")


def step(stage: object, batch: dict, epoch: int = 4) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    return stage.criterion(stage.forward_batch(stage.model, batch), batch, stage.plan.at(epoch))


def test_total_parts_and_gradients_are_the_formulas():
    stage, batch = modal_stage(*NO_SMOOTHING), ready_batch(6)
    output = stage.forward_batch(stage.model, batch)
    pids, valid = batch["pids"].tolist(), output.extra["valid"]
    assert 0.2 < valid.float().mean() < 0.8
    rows = [output.bnneck[s][i] for i in range(6) for s in range(16) if valid[i, s]]
    exact = {
        "id": slow.identity(output.logits, valid, pids),
        "align": slow.of_sets(output.bnneck, valid, pids, stage.model.sets, 0.1),
        "norm": slow.penalty(rows, 3.0, 0.5),
    }
    assert_formulas(stage, batch, exact, {"id": 1, "align": 0.05, "norm": 2e-3}, epoch=2)


def test_a_modality_that_no_sample_has_leaves_gradients_of_zero_and_the_rest_as_it_is():
    stage, batch = modal_stage(), ready_batch(8)
    batch["present"]["nir"] = torch.zeros(8, dtype=torch.bool)
    total, parts = step(stage, batch)
    total.backward()
    assert all(bool(torch.isfinite(value)) for value in parts.values())
    assert bool((stage.model.images["nir"].weight.grad == 0).all())
    assert stage.model.images["sk"].weight.grad.abs().max() > 0


def test_images_are_normalised_each_as_itself_captions_cut_and_all_else_moved_along():
    norm = ("INPUT.PIXEL_MEAN", COLOURS[0], "INPUT.PIXEL_STD", COLOURS[1])
    stage, raw = modal_stage(*CALM, *norm, double=False), raw_batch(6)
    ready = stage.prepare(raw)
    longest = int((raw["modalities"]["text"] != 0).sum(1).max())
    assert longest < LENGTH and torch.equal(ready["modalities"]["text"], raw["modalities"]["text"][:, :longest])
    assert list(ready["modalities"]) == list(MODALITIES)
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in COLOURS)
    for name in MODALITIES[:-1]:
        images = raw["modalities"][name].float() / 255
        torch.testing.assert_close(ready["modalities"][name], (images - mean) / std, rtol=0, atol=1e-5)
    assert ready["present"].keys() == raw["present"].keys() and ready["paths"] == raw["paths"]
    assert all(torch.equal(ready[name], raw[name]) for name in ("pids", "camids", "viewids"))
    assert raw["modalities"]["vis"].dtype == torch.uint8 and "brightness" not in ready


def test_captions_cut_to_the_longest_change_no_loss():
    stage, raw = modal_stage(*CALM, double=False), raw_batch(6)
    ready = stage.prepare(raw)
    whole = ready | {"modalities": ready["modalities"] | {"text": raw["modalities"]["text"]}}
    torch.testing.assert_close(step(stage, ready), step(stage, whole))


def test_a_batch_goes_to_the_device_whole_in_the_pinned_memory_of_the_loader(monkeypatch):
    moved, to = [], torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", lambda own, *args, **kw: moved.append((own, kw)) or to(own, *args, **kw))
    stage, raw = modal_stage(*CALM, double=False), raw_batch(4)
    moved.clear()
    stage.prepare(raw)
    sent = [id(own) for own, options in moved if options.get("non_blocking")]
    tensors = [*raw["modalities"].values(), raw["pids"], raw["camids"], raw["viewids"]]
    assert {id(tensor) for tensor in tensors} == {*sent}  # and not what is present, which the CPU asks for its places


@pytest.mark.parametrize("source", ["clean", "augmented"])
def test_the_brightness_is_that_of_the_rgb_images(source):
    opts = ("LOSS.BRIGHTNESS.ENABLE", True, "LOSS.BRIGHTNESS.SOURCE", source)
    raw = raw_batch(6)
    ready = modal_stage(*CALM, *opts, double=False).prepare(raw)  # nothing random: both are alike
    torch.testing.assert_close(ready["brightness"], brightness(raw["modalities"]["vis"]), rtol=0, atol=1e-5)


def test_two_modalities_are_two_rows_a_sample_and_images_alone_need_no_captions():
    names = ("vis", "nir")
    stage = modal_stage("MODEL.MULTIMODAL.MODALITIES", names, double=False)
    ready = stage.prepare(raw_batch(6, modalities=names))
    total, parts = step(stage, ready)
    assert list(ready["modalities"]) == list(names) and list(parts) == ["id", "align", "norm"]
    assert torch.isfinite(total) and len(stage.forward_batch(stage.model, ready).logits) == 2


def test_the_log_names_the_rows(caplog):
    caplog.set_level(logging.INFO)
    modal_stage("MODEL.MULTIMODAL.MODALITIES", ("vis", "nir", "text"))
    assert "each sample trains 4 rows: VIS, NIR, TEXT, NIR+TEXT" in caplog.messages


@pytest.mark.parametrize("form", ["ce", "kl"])
def test_a_step_waits_for_no_device(monkeypatch, form):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # "meta" has none
    metrics = ("DATALOADER.SAMPLER", "softmax_triplet", "MODEL.METRIC_LOSS_TYPE", "triplet", "LOSS.SUPCON.ENABLE", True)
    cfg = modal_cfg("LOSS.ALIGN.FORM", form, "SOLVER.GRAD_CLIP_QUANTILE", 0.7, *metrics, "DATALOADER.NUM_INSTANCE", 4)
    stage = make_stage(cfg, "main", modal_model(cfg).to("meta"))
    ready, phase = stage.prepare(raw_batch(8)), stage.plan.at(4)
    assert {there.device.type for there in ready["present"].values()} == {"cpu"}
    output = stage.forward_batch(stage.model, ready)
    total, parts = stage.criterion(output, ready, phase)
    stage.criterion.readings(output, ready, phase)
    stage.updater.backward(total, 1, 2)  # on "meta", whose tensors have no values, whatever asks for one fails
    stage.updater._clip(list(stage.model.parameters()))
    assert total.device.type == "meta" and parts.keys() == {"id", "triplet", "supcon", "align", "norm"}


def run_opts(folder: Path) -> tuple[object, ...]:
    rates = ("SOLVER.MAX_EPOCHS", 3, "SOLVER.BASE_LR", 0.01, "SOLVER.WARMUP_EPOCHS", 2, "SOLVER.CHECKPOINT_PERIOD", 1)
    schedule = ("SOLVER.SCHEDULER", "warmup_cosine", "SOLVER.GRAD_CLIP_QUANTILE", 0.7, "SOLVER.IMS_PER_BATCH", 2)
    return ("OUTPUT_DIR", str(folder), *rates, *schedule, "INPUT.RE_PROB", 0.5, "LOSS.ALIGN.START", 2)


def test_a_run_that_broke_off_ends_with_the_same_weights_bit_by_bit(tmp_path):
    """It breaks within the second epoch of eleven steps: the last is clipped by the norms of the epoch."""
    log = assert_a_broken_run_ends_alike(
        *(tmp_path, lambda folder: modal_cfg(*run_opts(folder)), modal_model, modal_data, SAMPLES + 14, 1)
    )
    assert all(f'"{name}": ' in log for name in ("id", "align", "norm", "acc", "query_acc", "weight_align"))
