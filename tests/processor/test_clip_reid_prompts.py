"""Stage 1 of CLIP-ReID on a data set: the features it keeps, the batches it draws, and what it learns."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from yacs.config import CfgNode

from datasets import ReIDData, make_dataloader
from processor import make_stage
from processor.epoch import train_epoch
from processor.stage import Stage
from tests.model.clip_reids import (
    HEADS,
    RESNET,
    RESNET_HEADS,
    SIZE,
    TEXT_HEADS,
    VIT,
    assert_near,
    clip_reid_cfg,
    in_float64,
    make_clip_reid,
    write_clip,
)
from tests.reference import slow_clip_reid as slow
from tests.tolerance import bounds

CTX = "prompt_learner.cls_ctx"
CLASSES, IMAGES, BATCH = 6, 36, 10  # of `identities` of the tiny archive; the last batch of an epoch is smaller
RATES = (0.02, 0.004, 0.001, 2, 4)  # base, first, lowest, warm-up, epochs
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny VeRi with as many training identities as the tiny CLIP-ReIDs have classes."""
    from tests.conftest import write_tiny_veri

    return write_tiny_veri(tmp_path_factory.mktemp("six"), train_ids=CLASSES, test_ids=2)


@pytest.fixture
def made(archive: Path, tmp_path: Path) -> Callable[..., tuple[CfgNode, nn.Module, ReIDData]]:
    """make(vision, *opts) returns (cfg, model, data) of a tiny CLIP-ReID on that archive."""

    def make(vision: dict, *opts: object) -> tuple[CfgNode, nn.Module, ReIDData]:
        keys = ("BASE_LR", "WARMUP_LR_INIT", "LR_MIN", "WARMUP_EPOCHS", "MAX_EPOCHS")
        solver = [word for key, value in zip(keys, RATES, strict=True) for word in (f"SOLVER.STAGE1.{key}", value)]
        cfg = clip_reid_cfg(
            write_clip(tmp_path, vision),
            *("DATASETS.NAMES", ("veri",), "DATASETS.ROOT_DIR", str(archive), "DATALOADER.NUM_WORKERS", 0),
            *("DATALOADER.NUM_INSTANCE", 2, "SOLVER.STAGE2.IMS_PER_BATCH", 4, "SOLVER.STAGE1.IMS_PER_BATCH", BATCH),
            *("SOLVER.STAGE1.WEIGHT_DECAY", 0.02, "INPUT.PIXEL_MEAN", MEAN, "INPUT.PIXEL_STD", STD),
            *("TEST.IMS_PER_BATCH", 8, *solver, *opts),
        )
        data = make_dataloader(cfg)
        assert (data.num_classes, len(data.train_loader_normal.dataset)) == (CLASSES, IMAGES)
        return cfg, make_clip_reid(cfg, data.camera_num, data.view_num), data

    return make


def plain_images(data: ReIDData) -> tuple[torch.Tensor, list[int]]:
    """Return the training images as they are, [N, 3, H, W] float64 normalised, and their identities."""
    found = []
    for sample in data.train_loader_normal.dataset.samples:
        with Image.open(sample.path) as image:
            pixels = np.asarray(image.convert("RGB").resize(SIZE[::-1], Image.Resampling.BILINEAR), dtype=np.float64)
        found.append(((pixels / 255 - MEAN) / STD).transpose(2, 0, 1))
    return torch.tensor(np.stack(found)), [sample.pid for sample in data.train_loader_normal.dataset.samples]


def features_of(stage: Stage) -> torch.Tensor:
    """Return the features [N, D] that stage 1 keeps."""
    return stage.loader.dataset.features


def train(stage: Stage, epoch: int) -> dict[str, float]:
    """Train an epoch as the loop does and return the means of all its steps."""
    means: dict[str, float] = {}
    stage.sampler.set_epoch(epoch)
    stage.scheduler.step(epoch)
    train_epoch(stage, stage.trained, stage.plan.at(epoch), lambda _, found: means.update(found))
    return means


@pytest.mark.parametrize("vision", [VIT, RESNET], ids=["vit", "resnet"])
def test_kept_features_are_those_of_the_plain_images_without_side_information(made, vision):
    side = ("MODEL.SIE_CAMERA", True, "MODEL.SIE_VIEW", True) if vision is VIT else ()
    cfg, model, data = made(vision, *side, "TEST.FLIP", True)
    model.train()  # whatever mode it comes in
    stage = make_stage(cfg, "stage1", model, data)
    images, pids = plain_images(data)
    state = in_float64(model)
    if vision is VIT:
        exact = slow.vit(state, images, (16, 16), HEADS).projected
    else:
        exact = slow.resnet(state, images, RESNET_HEADS).projected
    assert_near(features_of(stage), exact)
    assert stage.loader.dataset.pids.tolist() == pids


def test_three_epochs_on_a_data_set_are_the_formula_s(made):
    """In float64 from the kept features on; the order of the rows is the loader's, which other tests look at."""
    cfg, model, data = made(VIT)
    stage = make_stage(cfg, "stage1", model, data)
    model.double()
    stage.loader.dataset.features = features_of(stage).double()
    state, adam = in_float64(model), slow.Adam(0.02)
    features, pids = features_of(stage), stage.loader.dataset.pids.tolist()
    for epoch in (1, 2, 3):
        means = train(stage, epoch)
        rows, totals = list(stage.sampler), []
        for batch in (rows[start : start + BATCH] for start in range(0, IMAGES, BATCH)):
            labels = [pids[row] for row in batch]
            context = state[CTX].requires_grad_()
            texts = slow.texts(state, labels, TEXT_HEADS)
            sides = (
                slow.contrast(features[batch], texts, labels, labels),
                slow.contrast(texts, features[batch], labels, labels),
            )
            (gradient,) = torch.autograd.grad(sum(sides), context)
            state[CTX] = adam.step(context.detach(), gradient, slow.prompt_rate(epoch, *RATES))
            totals.append([value.item() for value in (*sides, sum(sides))])
        torch.testing.assert_close(model.prompt_learner.cls_ctx.detach(), state[CTX], rtol=1e-7, atol=1e-9)
        for name, values in zip(("i2t", "t2i", "loss"), zip(*totals, strict=True), strict=True):
            assert means[name] == pytest.approx(sum(values) / len(values), rel=1e-5), name


def test_an_epoch_draws_each_row_once_and_keeps_the_short_batch(made):
    cfg, model, data = made(VIT)
    stage = make_stage(cfg, "stage1", model, data)
    orders = []
    for epoch in (1, 2):
        stage.sampler.set_epoch(epoch)
        order = list(stage.sampler)
        assert sorted(order) == list(range(IMAGES))
        batches = list(stage.loader)
        assert [len(batch["pids"]) for batch in batches] == [10, 10, 10, 6]
        pids, features = (torch.cat([batch[name] for batch in batches]) for name in ("pids", "features"))
        assert torch.equal(pids, stage.loader.dataset.pids[order])
        assert torch.equal(features, features_of(stage)[order])
        for batch in batches:
            labels, place = batch["distinct"]
            assert labels.tolist() == sorted(set(batch["pids"].tolist()))
            assert torch.equal(labels[place], batch["pids"])
        orders.append(order)
    assert orders[0] != orders[1]


@pytest.mark.parametrize("batch, sizes", [(12, [12, 12, 12]), (36, [36]), (64, [36]), (35, [35, 1]), (1, [1] * 36)])
def test_no_batch_is_empty_whatever_divides(made, batch, sizes):
    cfg, model, data = made(VIT, "SOLVER.STAGE1.IMS_PER_BATCH", batch)
    stage = make_stage(cfg, "stage1", model, data)
    assert [len(found["pids"]) for found in stage.loader] == sizes and len(stage.loader) == len(sizes)


@pytest.mark.parametrize("vision", [VIT, RESNET], ids=["vit", "resnet"])
def test_an_epoch_of_stage_one_moves_the_prompts_and_nothing_else(made, vision):
    cfg, model, data = made(vision)
    before = in_float64(model)
    stage = make_stage(cfg, "stage1", model, data)
    train(stage, 1)
    after = in_float64(model)
    assert [name for name in before if not torch.equal(before[name], after[name])] == [CTX]
    assert all(weight.grad is None for name, weight in model.named_parameters() if name != CTX)


def naive_accuracy(features: torch.Tensor, pids: list[int], texts: torch.Tensor) -> float:
    """Return the share of images whose text has the largest dot product, an image at a time."""
    right = 0
    for row, pid in zip(features.tolist(), pids, strict=True):
        logits = [sum(a * b for a, b in zip(row, text, strict=True)) for text in texts.tolist()]
        right += max(range(len(logits)), key=logits.__getitem__) == pid
    return right / len(pids)


def test_image_to_text_accuracy_is_the_naive_one_and_rises(made):
    cfg, model, data = made(VIT)
    stage = make_stage(cfg, "stage1", model, data)
    pids = stage.loader.dataset.pids.tolist()
    reached = []
    for epoch in range(4):
        if epoch:
            train(stage, epoch)
        accuracy, chance = stage.measure().values()
        texts = slow.texts(in_float64(model), range(CLASSES), TEXT_HEADS)
        assert accuracy == pytest.approx(naive_accuracy(features_of(stage), pids, texts))
        assert chance == 1 / CLASSES
        reached.append(accuracy)
    assert reached[-1] > reached[0]


def test_prompts_shifted_by_one_identity_have_no_accuracy_left(made):
    cfg, model, data = made(VIT)
    stage = make_stage(cfg, "stage1", model, data)
    texts = model.prototypes()  # [C, D]: images are made whose dot product is 1 with their own text and 0 with others
    features_of(stage).copy_(torch.linalg.pinv(texts).t()[stage.loader.dataset.pids])
    assert next(iter(stage.measure().values())) == 1.0
    with torch.no_grad():
        model.prompt_learner.cls_ctx.copy_(model.prompt_learner.cls_ctx.roll(1, 0))
    assert next(iter(stage.measure().values())) == 0.0


def test_with_and_without_data_a_step_is_the_same(made):
    found = []
    for with_data in (True, False):
        cfg, model, data = made(VIT)
        stage = make_stage(cfg, "stage1", model, data if with_data else None)
        batch = {
            "features": torch.randn(8, 24, generator=torch.Generator().manual_seed(3)),
            "pids": torch.arange(8) % 5,
        }
        stage.scheduler.step(1)
        total, _ = stage.criterion(stage.forward_batch(stage.trained, batch), batch, stage.plan.at(1))
        stage.updater.backward(total, 1, 1)
        stage.updater.step()
        found.append((total.detach(), model.prompt_learner.cls_ctx.detach()))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, **bounds(100))
