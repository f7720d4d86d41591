"""What keys change in the losses of CLIP-ReID's stages, against the formulas in float64."""

import math

import pytest
import torch

from processor import make_stage
from processor.stage import Stage
from tests.model.clip_reids import CLASSES, TEXT_HEADS, in_float64
from tests.processor.clip_reid_stages import (
    PIDS,
    feature_batch,
    image_batch,
    image_levels,
    make_parts,
    prompt_stage,
    solver_keys,
)
from tests.reference import slow_clip_reid as slow
from tests.tolerance import assert_rounded

COSINES = ("LOSS.I2T.NORMALISE", True, "LOSS.I2T.TEMPERATURE", 0.1)
WARM = ("LOSS.I2T.TEMPERATURE", 2.0)


def unit(rows: torch.Tensor) -> torch.Tensor:
    """Return rows [n, D] of length 1."""
    return rows / (rows * rows).sum(1, keepdim=True).sqrt()


def parts_of(stage: Stage, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the unweighted terms of a batch in training mode."""
    stage.trained.train()
    return stage.criterion(stage.forward_batch(stage.trained, batch), batch, stage.plan.at(1))[1]


@pytest.mark.parametrize("opts, normalise, t", [(COSINES, True, 0.1), (WARM, False, 2.0)])
def test_keys_of_the_logits_act_in_stage_one(tmp_path, opts, normalise, t):
    stage, batch = prompt_stage(tmp_path, *opts), feature_batch(1)
    labels = batch["pids"].tolist()
    images, texts = batch["features"], slow.texts(in_float64(stage.model), labels, TEXT_HEADS)
    if normalise:
        images, texts = unit(images), unit(texts)
    parts = parts_of(stage, batch)
    torch.testing.assert_close(parts["i2t"], slow.contrast(images, texts, labels, labels, t))
    torch.testing.assert_close(parts["t2i"], slow.contrast(texts, images, labels, labels, t))


@pytest.mark.parametrize("opts, normalise, t", [(COSINES, True, 0.1), (WARM, False, 2.0)])
def test_keys_of_the_logits_act_in_stage_two(tmp_path, opts, normalise, t):
    cfg, model = make_parts(tmp_path, "stage2", *solver_keys("stage2"), *opts)
    stage, state, batch = make_stage(cfg, "stage2", model), in_float64(model), image_batch(1)
    images, texts = image_levels(state, batch).projected, slow.texts(state, range(CLASSES), TEXT_HEADS)
    if normalise:
        images, texts = unit(images), unit(texts)
    expected = slow.cross_entropy(images @ texts.t() / t, PIDS, 0.1)
    torch.testing.assert_close(parts_of(stage, batch)["i2t"], expected)


@pytest.mark.parametrize("stage_name", ["stage2", "main"])
def test_without_a_margin_the_triplet_loss_is_soft_in_all_three_features(tmp_path, stage_name):
    cfg, model = make_parts(tmp_path, stage_name, *solver_keys(stage_name), "MODEL.NO_MARGIN", True)
    stage, state, batch = make_stage(cfg, stage_name, model), in_float64(model), image_batch(1)
    expected = 0.0
    for features in image_levels(state, batch):
        for i, own in enumerate(PIDS):
            apart = [math.dist(features[i].tolist(), row) for row in features.tolist()]
            farthest = max(apart[j] for j, pid in enumerate(PIDS) if pid == own and j != i)
            nearest = min(apart[j] for j, pid in enumerate(PIDS) if pid != own)
            expected += math.log(1 + math.exp(farthest - nearest)) / len(PIDS)
    assert parts_of(stage, batch)["triplet"].item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("stage_name, terms", [("stage2", {"id", "i2t"}), ("main", {"id"})])
def test_a_plain_shuffle_trains_without_triplets(tmp_path, stage_name, terms):
    cfg, model = make_parts(tmp_path, stage_name, *solver_keys(stage_name), "DATALOADER.SAMPLER", "softmax")
    assert set(parts_of(make_stage(cfg, stage_name, model), image_batch(1))) == terms


def test_identities_of_any_number_of_images_make_triplets(tmp_path):
    cfg, model = make_parts(tmp_path, "stage2", *solver_keys("stage2"))
    stage, batch = make_stage(cfg, "stage2", model), image_batch(1)
    batch["pids"] = torch.tensor([0, 0, 0, 0, 2, 2])
    expected = sum(slow.triplet(feat, batch["pids"].tolist()) for feat in image_levels(in_float64(model), batch))
    torch.testing.assert_close(parts_of(stage, batch)["triplet"], expected)


@pytest.mark.parametrize("kind", ["mean", "halves"])
def test_the_rule_of_branches_acts_on_scores_and_triplets(tmp_path, kind):
    cfg, model = make_parts(tmp_path, "main", *solver_keys("main"), "LOSS.BRANCHES.REDUCE", kind)
    stage, state, batch = make_stage(cfg, "main", model), in_float64(model), image_batch(1)
    levels = image_levels(state, batch)
    ids = [slow.cross_entropy(logits, PIDS, 0.1) for logits in slow.scores(state, levels)]
    own, projected, last = (slow.triplet(feat, PIDS) for feat in (levels.own, levels.projected, levels.last))
    parts = parts_of(stage, batch)
    torch.testing.assert_close(parts["id"], sum(ids) / 2)
    triplets = (own + projected + last) / 3 if kind == "mean" else own / 2 + (projected + last) / 4
    torch.testing.assert_close(parts["triplet"], triplets)


@pytest.mark.parametrize("stage_name, read, name", [("stage2", "i2t", "i2t_acc"), ("main", "id", "acc")])
def test_the_accuracy_that_is_logged_is_that_of_the_stage(tmp_path, stage_name, read, name):
    """Stage 2 reads the image-to-text logits, the baseline the scores of the first classifier."""
    cfg, model = make_parts(tmp_path, stage_name, *solver_keys(stage_name))
    stage, state, batch = make_stage(cfg, stage_name, model), in_float64(model), image_batch(1)
    levels = image_levels(state, batch)
    logits = slow.scores(state, levels)[0]
    if read == "i2t":
        logits = levels.projected @ slow.texts(state, range(CLASSES), TEXT_HEADS).t()
    batch["pids"] = logits.argmax(1).clone()
    batch["pids"][:2] = (batch["pids"][:2] + 1) % CLASSES  # two of six are wrong
    model.train()
    output = stage.forward_batch(model, batch)
    readings = stage.criterion.readings(output, batch, stage.plan.at(1))
    assert list(readings) == [name] and readings[name].item() == pytest.approx(4 / 6)


@pytest.mark.parametrize("stage_name", ["stage1", "stage2", "main"])
def test_losses_of_half_precision_features_are_float32(tmp_path, stage_name):
    """All of them are what the formulas give for the features as they came, rounded as those are."""
    cfg, model = make_parts(tmp_path, stage_name, *solver_keys(stage_name))
    stage = make_stage(cfg, stage_name, model.float())
    batch = feature_batch(1) if stage_name == "stage1" else image_batch(1)
    batch = {name: value.float() if value.is_floating_point() else value for name, value in batch.items()}
    model.train()
    with torch.autocast("cpu", torch.bfloat16):
        output = stage.forward_batch(stage.trained, batch)
        total, parts = stage.criterion(output, batch, stage.plan.at(1))
    assert total.dtype == torch.float32 and {value.dtype for value in parts.values()} == {torch.float32}
    labels, scales = batch["pids"].tolist(), {}
    if stage_name == "stage1":
        images, texts = (output.extra[name].double() for name in ("image", "text"))
        assert output.extra["text"].dtype == torch.bfloat16
        exact = {
            "i2t": slow.contrast(images, texts, labels, labels),
            "t2i": slow.contrast(texts, images, labels, labels),
        }
    else:
        features = [feat.double() for feat in [*output.pre_bn, output.extra["last"]]]
        exact = {
            "id": sum(slow.cross_entropy(logits.double(), labels, 0.1) for logits in output.logits),
            "triplet": sum(slow.triplet(feat, labels) for feat in features),
        }
        scales = {"triplet": max(feat.square().sum(1).max().item() for feat in features)}  # distances cancel squares
    for name, value in exact.items():
        assert_rounded(parts[name], value.detach(), terms=100, scale=scales.get(name, 0.0), name=name)
