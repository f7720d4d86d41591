"""Steps of CLIP-ReID's stages against the formulas, all in float64: terms, gradients, and what optimizers make of them.

In float32 Adam would magnify the roundings of gradients that are 0, such as those of the keys' biases in attention.
"""

import pytest
import torch

from datasets.features import Distinct
from processor import make_stage
from tests.model.clip_reids import CLASSES, EMBED, TEXT_HEADS, in_float64
from tests.processor.clip_reid_stages import (
    DECAY,
    PIDS,
    STAGE1,
    STAGE2,
    fast_step,
    feature_batch,
    image_batch,
    image_levels,
    make_parts,
    prompt_stage,
    solver_keys,
)
from tests.reference import slow_clip_reid as slow
from tests.tolerance import bounds

CLOSE = {"rtol": 1e-8, "atol": 1e-10}
FROZEN = {"bottleneck.bias", "bottleneck_proj.bias"}
WEIGHTS = {"id": 0.25, "triplet": 1.5, "i2t": 0.75}
CTX = "prompt_learner.cls_ctx"


def slow_prompt_loss(state: slow.State, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (i2t, t2i): one text for each row, over all 77 positions."""
    labels = batch["pids"].tolist()
    texts = slow.texts(state, labels, TEXT_HEADS)
    images = batch["features"].double()
    return slow.contrast(images, texts, labels, labels), slow.contrast(texts, images, labels, labels)


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW"])
def test_three_epochs_of_prompts_are_the_formula_s(tmp_path, optimizer):
    stage = prompt_stage(tmp_path, "SOLVER.STAGE1.OPTIMIZER_NAME", optimizer)
    state, before = in_float64(stage.model), in_float64(stage.model)
    adam = slow.Adam(0.02, decoupled=optimizer == "AdamW")
    for epoch in (1, 2, 3):
        for batch in (feature_batch(epoch), feature_batch(10 + epoch)):
            parts = fast_step(stage, batch, epoch)
            context = state[CTX].requires_grad_()
            i2t, t2i = slow_prompt_loss(state, batch)
            (gradient,) = torch.autograd.grad(i2t + t2i, context)
            settings = (STAGE1[key] for key in ("BASE_LR", "WARMUP_LR_INIT", "LR_MIN", "WARMUP_EPOCHS", "MAX_EPOCHS"))
            state[CTX] = adam.step(context.detach(), gradient, slow.prompt_rate(epoch, *settings))
            for name, value in (("i2t", i2t), ("t2i", t2i), ("total", i2t + t2i)):
                torch.testing.assert_close(parts[name], value.detach(), **CLOSE)
            torch.testing.assert_close(stage.model.prompt_learner.cls_ctx.detach(), state[CTX], **CLOSE)
    after = in_float64(stage.model)
    assert [name for name in before if not torch.equal(before[name], after[name])] == [CTX]


@pytest.mark.parametrize(
    "stage_name, optimizer, kind",
    [("stage2", "Adam", "vit"), ("stage2", "AdamW", "vit"), ("main", "Adam", "vit"), ("stage2", "Adam", "resnet")],
)
def test_three_steps_on_images_are_the_formula_s(tmp_path, stage_name, optimizer, kind):
    cfg, model = make_parts(tmp_path, stage_name, *solver_keys(stage_name, optimizer), kind=kind)
    stage = make_stage(cfg, stage_name, model)
    state = in_float64(model)
    prototypes = None
    if stage_name == "stage2":
        prototypes = slow.texts(state, range(CLASSES), TEXT_HEADS)
    learnt = [
        name for name, _ in model.named_parameters() if not name.startswith(("text_", "prompt_")) | (name in FROZEN)
    ]
    decays = {name: DECAY["WEIGHT_DECAY_BIAS" if "bias" in name else "WEIGHT_DECAY"] for name in learnt}
    adams = {name: slow.Adam(decays[name], decoupled=optimizer == "AdamW") for name in learnt}
    for epoch in (1, 2, 3):
        batch = image_batch(epoch)
        parts = fast_step(stage, batch, epoch)
        weights = [state[name].requires_grad_() for name in learnt]
        terms = slow.image_terms(state, image_levels(state, batch, kind), PIDS, prototypes)
        total = sum(WEIGHTS[name] * value for name, value in terms.items())
        assert set(parts) == {*terms, "total"}
        for name, value in (terms | {"total": total}).items():
            torch.testing.assert_close(parts[name], value.detach(), **CLOSE)
        rate = slow.image_rate(epoch, *(STAGE2[key] for key in ("BASE_LR", "WARMUP_FACTOR", "WARMUP_ITERS")), [3], 0.2)
        for name, gradient in zip(learnt, torch.autograd.grad(total, weights), strict=True):
            own_rate = rate * (2.0 if "bias" in name else 1.0)
            state[name] = adams[name].step(state[name].detach(), gradient, own_rate)
        for name in learnt:
            got = model.get_parameter(name).detach()
            torch.testing.assert_close(
                got, state[name], rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name} {text}"
            )
    after = in_float64(model)
    still = [name for name in after if name not in learnt and "running" not in name and "num_batches" not in name]
    assert all(torch.equal(after[name], state[name]) for name in still)


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_gradients_of_a_step_on_images_are_the_formula_s(tmp_path, kind):
    cfg, model = make_parts(tmp_path, "stage2", *solver_keys("stage2"), kind=kind)
    stage, state, batch = make_stage(cfg, "stage2", model), in_float64(model), image_batch(1)
    model.train()
    total, _ = stage.criterion(stage.forward_batch(model, batch), batch, stage.plan.at(1))
    total.backward()
    learnt = {name: weight for name, weight in model.named_parameters() if weight.grad is not None}
    for name in learnt:
        state[name].requires_grad_()
    prototypes = slow.texts(state, range(CLASSES), TEXT_HEADS)
    terms = slow.image_terms(state, image_levels(state, batch, kind), PIDS, prototypes)
    exact = torch.autograd.grad(sum(WEIGHTS[name] * value for name, value in terms.items()), [*map(state.get, learnt)])
    for (name, weight), gradient in zip(learnt.items(), exact, strict=True):
        torch.testing.assert_close(
            weight.grad, gradient, rtol=1e-5, atol=1e-7, msg=lambda text, name=name: f"{name} {text}"
        )


def test_texts_computed_once_for_each_identity_give_the_plain_stage_one(tmp_path):
    """The loader's batches say where each row finds its text; the plain way is a text for each row."""
    stage = prompt_stage(tmp_path)
    model = stage.model.float()
    labels = [3, 0, 3, 3, 5, 0, 1]
    batch = {
        "features": torch.randn(7, EMBED, generator=torch.Generator().manual_seed(0)),
        "pids": torch.tensor(labels),
    }
    distinct = Distinct(torch.tensor([0, 1, 3, 5]), torch.tensor([2, 0, 2, 2, 3, 0, 1]))
    found = []
    for more in ({}, {"distinct": distinct}):
        total, parts = stage.criterion(stage.forward_batch(stage.trained, batch | more), batch, stage.plan.at(1))
        (gradient,) = torch.autograd.grad(total, model.prompt_learner.cls_ctx)
        found.append((total.detach(), parts["i2t"], parts["t2i"], gradient))
    state = in_float64(model)
    i2t, t2i = slow_prompt_loss(state | {CTX: state[CTX].requires_grad_()}, batch)
    exact = (i2t + t2i, i2t, t2i, *torch.autograd.grad(i2t + t2i, state[CTX], retain_graph=True))
    for values in found:
        for value, expected in zip(values, exact, strict=True):
            torch.testing.assert_close(value, expected.detach().float(), **bounds(100, expected.abs().max().item()))
    assert bool((found[0][3][[2, 4]] == 0).all())  # of identities that are not there


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_in_stage_one_nothing_but_the_prompts_has_a_gradient(tmp_path, kind):
    cfg, model = make_parts(tmp_path, "stage1", *solver_keys("stage1"), kind=kind)
    stage = make_stage(cfg, "stage1", model)
    before = in_float64(model)
    fast_step(stage, feature_batch(1), 1)
    total, _ = stage.criterion(stage.forward_batch(stage.trained, feature_batch(2)), feature_batch(2), stage.plan.at(1))
    total.backward()
    assert [name for name, weight in model.named_parameters() if weight.requires_grad] == [CTX]
    assert [name for name, weight in model.named_parameters() if weight.grad is not None] == [CTX]
    after = in_float64(model)
    assert [name for name in before if not torch.equal(before[name], after[name])] == [CTX]


@pytest.mark.parametrize("kind", ["vit", "resnet"])
@pytest.mark.parametrize("smoothing", ["on", "off"])
def test_in_stage_two_nothing_of_the_text_and_no_bias_of_a_neck_has_a_gradient(tmp_path, kind, smoothing):
    keys = (*solver_keys("stage2"), "MODEL.IF_LABELSMOOTH", smoothing)
    cfg, model = make_parts(tmp_path, "stage2", *keys, kind=kind)
    make_stage(cfg, "stage1", model)  # as in a run, stage 2 comes after it
    stage, batch = make_stage(cfg, "stage2", model), image_batch(1)
    state = in_float64(model)
    model.train()
    output = stage.forward_batch(model, batch)
    total, parts = stage.criterion(output, batch, stage.plan.at(1))
    total.backward()
    text = {name for name, _ in model.named_parameters() if name.startswith(("text_encoder.", "prompt_learner."))}
    assert {name for name, weight in model.named_parameters() if not weight.requires_grad} == text | FROZEN
    assert {name for name, weight in model.named_parameters() if weight.grad is None} == text | FROZEN
    prototypes = slow.texts(state, range(CLASSES), TEXT_HEADS)
    exact = slow.image_terms(state, image_levels(state, batch, kind), PIDS, prototypes, 0.1 * (smoothing == "on"))
    for name, value in exact.items():
        torch.testing.assert_close(parts[name], value, **CLOSE)


def test_prompts_that_belong_to_the_next_identity_show_in_the_scores_of_stage_two(tmp_path):
    cfg, model = make_parts(tmp_path, "stage2", *solver_keys("stage2"))
    batch = image_batch(1)
    model.train()
    right = make_stage(cfg, "stage2", model).forward_batch(model, batch).extra["i2t"]
    with torch.no_grad():
        model.prompt_learner.cls_ctx.copy_(model.prompt_learner.cls_ctx.roll(1, 0))
    shifted = make_stage(cfg, "stage2", model).forward_batch(model, batch).extra["i2t"]
    torch.testing.assert_close(shifted, right.roll(1, 1))
    assert (shifted - right).abs().max() > 1e-3
