"""Steps of IRRA's stage: terms, readings and gradients by the formulas, what a batch becomes, and going on."""

import logging
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from processor import make_stage
from processor.systems.irra import prepare_pairs, which_caption
from tests.processor.irra_stages import (
    ALL,
    LENGTH,
    irra_cfg,
    irra_model,
    irra_stage,
    pairs_data,
    raw_batch,
    ready_batch,
    slow_parts,
)
from tests.processor.stage_runs import assert_a_broken_run_ends_alike, assert_formulas
from utils.errors import ConfigError

NAMES = "LOSS.TEXT.NAMES"
WEIGHTS = {"sdm": 1.0, "itc": 1.0, "cmpm": 1.0, "id": 0.5, "mlm": 0.25}
OF_WEIGHTS = ("LOSS.TEXT.ID_W", 0.5, "LOSS.TEXT.MLM_W", 0.25)


@pytest.mark.parametrize(
    ("opts", "settings"),
    [
        ((), {}),
        (("LOSS.TEXT.SOFT_LABEL", 0.3), {"soft_label": 0.3}),
        (("LOSS.TEXT.CMPM_TARGET", "l2"), {"target": "l2"}),
    ],
)
def test_total_parts_and_gradients_are_the_formulas(opts, settings):
    stage, batch = irra_stage(NAMES, ALL, *OF_WEIGHTS, *opts), ready_batch(9)
    exact = slow_parts(stage.forward_batch(stage.model, batch), batch, **settings)
    assert list(exact) == ALL
    assert_formulas(stage, batch, exact, WEIGHTS)


def test_the_temperature_is_that_of_sdm_and_itc():
    stage, batch = irra_stage(NAMES, ["sdm", "itc"], "LOSS.TEXT.TEMPERATURE", 0.25), ready_batch(6)
    assert stage.criterion.sdm.scale == stage.criterion.itc.scale == 4.0
    cosine = irra_stage(NAMES, ["sdm"], "LOSS.TEXT.TEMPERATURE", 1e4)
    output = cosine.forward_batch(cosine.model, batch)
    parts = cosine.criterion(output, batch, cosine.plan.at(1))[1]
    counts = [batch["pids"].tolist().count(pid) for pid in batch["pids"].tolist()]
    flat = sum(  # all shares are 1/6
        -torch.log(torch.tensor(6.0)) + (torch.tensor(float(n)).log() * n - torch.tensor(1e-8).log() * (6 - n)) / 6
        for n in counts
    )
    assert parts["sdm"].item() == pytest.approx(2 * flat.item() / 6, abs=1e-2)


@pytest.mark.parametrize("names", [["sdm"], ["itc"], ["sdm", "id"], ["id", "mlm"], ["cmpm", "mlm"]])
def test_a_step_has_the_terms_and_readings_of_its_names_alone(names):
    stage, batch = irra_stage(NAMES, names), ready_batch(6, masked="mlm" in names)
    output, phase = stage.forward_batch(stage.model, batch), stage.plan.at(1)
    total, parts = stage.criterion(output, batch, phase)
    assert set(parts) == set(names) and torch.isfinite(total)
    readings = (["acc", "text_acc"] if "id" in names else []) + (["mlm_acc"] if "mlm" in names else [])
    assert list(stage.criterion.readings(output, batch, phase)) == readings
    assert stage.criterion.names(phase) == [*parts, *readings]


def test_readings_are_shares_of_images_captions_and_masked_words():
    stage, batch = irra_stage(), ready_batch(4)
    output = stage.forward_batch(stage.model, batch)
    logits = torch.eye(5, dtype=torch.float64)
    batch["pids"] = torch.tensor([0, 1, 2, 3])
    output = output._replace(
        logits=[logits[[0, 1, 2, 4]], logits[[0, 0, 0, 3]]],
        extra={"mlm_logits": logits[[2, 2, 4, 1, 0]], "mlm_targets": torch.tensor([2, 2, 4, 0, 0])},
    )
    found = stage.criterion.readings(output, batch, stage.plan.at(1))
    assert {name: float(value) for name, value in found.items()} == pytest.approx(
        {"acc": 0.75, "text_acc": 0.5, "mlm_acc": 0.8}
    )


def test_a_batch_without_a_masked_word_learns_the_rest_and_reaches_every_weight():
    stage, batch = irra_stage(), ready_batch(4)
    batch |= {"mlm_ids": batch["caption_ids"], "mlm_labels": torch.zeros_like(batch["mlm_labels"])}
    output = stage.forward_batch(stage.model, batch)
    total, parts = stage.criterion(output, batch, stage.plan.at(1))
    total.backward()
    assert parts["mlm"] == 0 and torch.isfinite(total)
    assert stage.criterion.readings(output, batch, stage.plan.at(1))["mlm_acc"] == 0
    assert all(weight.grad is not None for weight in stage.model.parameters())  # what several processes wait for


def test_a_loss_that_a_phase_turns_off_leaves_gradients_of_zero():
    phases = ("LOSS.PHASED.ENABLE", True, "LOSS.PHASED.BOUNDARIES", [2], "LOSS.PHASED.W_TERMS", ["mlm=const:1|const:0"])
    stage, batch = irra_stage(*phases), ready_batch(4)
    total, parts = stage.criterion(stage.forward_batch(stage.model, batch), batch, stage.plan.at(2))
    total.backward()
    assert set(parts) == {"sdm", "id"}
    assert bool((stage.model.mlm_head.weight.grad == 0).all())


def test_captions_are_cut_to_the_longest_of_the_batch_which_changes_no_loss():
    stage, raw = irra_stage("INPUT.PROB", 0.0, "INPUT.PADDING", 0, "INPUT.RE_PROB", 0.0, double=False), raw_batch(6)
    ready = stage.prepare(raw)
    longest = int((raw["caption_ids"] != 0).sum(1).max())
    assert longest < LENGTH
    for name in ("caption_ids", "mlm_ids", "mlm_labels"):
        assert torch.equal(ready[name], raw[name][:, :longest])
    assert ready["images"].dtype == torch.float32 and ready["images"].shape == raw["images"].shape
    whole = ready | {name: raw[name] for name in ("caption_ids", "mlm_ids", "mlm_labels")}
    found = [stage.criterion(stage.forward_batch(stage.model, own), own, stage.plan.at(1))[1] for own in (ready, whole)]
    torch.testing.assert_close(*found)


def test_captions_go_to_the_device_whole_in_the_pinned_memory_of_the_loader():
    raw, moved = raw_batch(4), {}
    prepare_pairs(raw, lambda batch: moved.update(batch) or dict(batch))
    assert all(moved[name] is value for name, value in raw.items() if name != "mlm_labels")
    assert "mlm_labels" not in moved


def test_a_token_of_the_id_of_padding_is_not_cut_off():
    raw = raw_batch(1)
    raw["caption_ids"] = torch.tensor([[28, 5, 0, 0, 29, 0, 0]])  # 0 is a sign inside a word, too
    raw |= {"mlm_ids": raw["caption_ids"], "mlm_labels": raw["caption_ids"]}
    assert irra_stage(double=False).prepare(raw)["caption_ids"].tolist() == [[28, 5, 0, 0, 29]]


def test_labels_stay_on_the_cpu_where_counting_them_waits_for_no_device(monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # "meta" has none
    cfg = irra_cfg(NAMES, ALL, "LOSS.TEXT.SOFT_LABEL", 0.3)
    stage = make_stage(cfg, "main", irra_model(cfg).to("meta"))
    ready = stage.prepare(raw_batch(4))
    assert ready["mlm_labels"].device.type == "cpu"
    assert {ready[name].device.type for name in ("images", "pids", "image_ids", "caption_ids", "mlm_ids")} == {"meta"}
    output = stage.forward_batch(stage.model, ready)
    total, _ = stage.criterion(output, ready, stage.plan.at(1))
    stage.criterion.readings(output, ready, stage.plan.at(1))
    total.backward()  # on "meta", whose tensors have no values, whatever asks for one fails
    assert total.device.type == "meta"


@pytest.mark.parametrize("masked", [True, False])
def test_the_global_branch_sees_the_caption_that_the_log_says(masked, caplog):
    caplog.set_level(logging.INFO)
    stage, batch = irra_stage("INPUT.TEXT.MASK_CAPTION", masked), ready_batch(6)
    text = stage.forward_batch(stage.model, batch).pre_bn[1]
    seen = batch["mlm_ids" if masked else "caption_ids"]
    assert torch.equal(text, stage.model.encode_text(seen))
    assert which_caption(irra_cfg("INPUT.TEXT.MASK_CAPTION", masked)) in caplog.messages


@pytest.mark.parametrize(
    ("names", "masked", "words"),
    [
        (
            ["sdm", "id", "mlm"],
            False,
            "sdm, id: captions as they are written, mlm: masked ones (INPUT.TEXT.MASK_CAPTION",
        ),
        (
            ["sdm", "mlm"],
            True,
            "sdm, mlm: masked captions for all losses, as in the published runs (INPUT.TEXT.MASK_CAP",
        ),
        (["sdm", "id"], True, "sdm, id: captions as they are written; without mlm none is masked"),
        (["mlm"], False, "mlm: masked captions"),
    ],
)
def test_the_log_says_which_caption_each_loss_sees(names, masked, words):
    assert which_caption(irra_cfg(NAMES, names, "INPUT.TEXT.MASK_CAPTION", masked)).startswith(words)


def test_an_unknown_stage_is_refused():
    cfg = irra_cfg()
    with pytest.raises(ConfigError, match="MODEL.NAME irra has no stage 'stage1'; its stages are main"):
        make_stage(cfg, "stage1", irra_model(cfg))


def run_opts(folder: Path) -> tuple[object, ...]:
    phased = (
        "LOSS.PHASED.ENABLE",
        True,
        "LOSS.PHASED.BOUNDARIES",
        [3],
        "LOSS.PHASED.W_TERMS",
        ["mlm=const:1|const:0.5"],
    )
    rates = ("SOLVER.MAX_EPOCHS", 4, "SOLVER.BASE_LR", 0.01, "SOLVER.WARMUP_EPOCHS", 0, "SOLVER.CHECKPOINT_PERIOD", 1)
    return (NAMES, ALL, "OUTPUT_DIR", str(folder), *phased, *rates, "INPUT.RE_PROB", 0.5)


def test_a_run_that_broke_off_ends_with_the_same_weights_bit_by_bit(tmp_path):
    """It breaks within the third epoch."""
    log = assert_a_broken_run_ends_alike(
        *(tmp_path, lambda folder: irra_cfg(*run_opts(folder)), irra_model, pairs_data, 24 * 2 + 12, 2)
    )
    assert all(f'"{name}": ' in log for name in (*ALL, "acc", "text_acc", "mlm_acc", "weight_mlm"))
