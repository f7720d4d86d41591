"""A step of part branches: its losses by their formulas, when features are transformed, and that nothing waits."""

import pytest
import torch
import torch.nn.functional as F

from losses.branches import Draws
from losses.spectral import spectral_transform
from model import ModelOutput
from processor.step.compiling import CompiledTraining
from processor.step.wrapping import unwrapped
from processor.systems.transreid import forward_images
from tests.processor.pcb_stages import CLASSES, EVERYTHING, SPECTRAL, WIDTHS, pcb_stage, ready_batch
from tests.reference import slow_branches, slow_losses, slow_spectral

MARGIN = ("MODEL.ID_LOSS_TYPE", "amsoftmax", "SOLVER.COSINE_MARGIN", 0.3, "SOLVER.COSINE_SCALE", 15.0)


def rows_of(tensor: torch.Tensor) -> list:
    return tensor.detach().tolist()


def pooled_of(model: torch.nn.Module, batch: dict) -> torch.Tensor:
    """Return what the global branch reduces, the largest value of each channel of the map, [B, c]."""
    return model.base.forward_map(batch["images"]).amax((2, 3)).detach()


def second_pass(model: torch.nn.Module, feature: torch.Tensor) -> torch.Tensor:
    """Return the global logits [B, C] of pooled features, by the formulas of a norm in training."""
    reduction, norm, head = (part["whole"] for part in (model.reduction, model.bottleneck, model.classifier))
    reduced = feature @ reduction.weight.t() + reduction.bias
    normed = (reduced - reduced.mean(0)) / (reduced.var(0, unbiased=False) + norm.eps).sqrt()
    return (normed * norm.weight + norm.bias) @ head.weight.t() + head.bias


def test_the_losses_of_a_step_are_their_formulas():
    stage, batch = pcb_stage(*EVERYTHING), ready_batch(step=3)
    output = stage.forward_batch(stage.trained, batch)
    total, parts = stage.criterion(output, batch, stage.plan.at(1))
    pids, kept = batch["pids"].tolist(), Draws(2, 1234).kept(3, batch)
    values = [slow_losses.cross_entropy(rows_of(logits), pids) for logits in output.logits]
    transformed = torch.tensor(slow_spectral.transform(rows_of(pooled_of(stage.model, batch)), 0.2)).double()
    logits = second_pass(stage.model, transformed)
    expected = {
        "id": slow_branches.reduced(values, kept, "sum"),
        "triplet": slow_branches.triplets([rows_of(feat) for feat in output.bnneck], pids, 0.16, "global+concat"),
        "spectral": slow_losses.cross_entropy(rows_of(logits), pids),
    }
    assert 0 < sum(kept) < 3
    assert {name: value.item() for name, value in parts.items()} == pytest.approx(expected, rel=1e-6)
    weighted = expected["id"] + expected["triplet"] + 0.5 * expected["spectral"]
    assert total.item() == pytest.approx(weighted, rel=1e-6)
    right = [one.argmax(1).eq(batch["pids"]).double().mean().item() for one in output.logits]
    accuracy = stage.criterion.readings(output, batch, stage.plan.at(1))
    assert {name: value.item() for name, value in accuracy.items()} == {"mean_acc": pytest.approx(sum(right) / 3)}


def test_of_the_embedding_the_classifier_alone_is_asked_again():
    stage, batch = pcb_stage(*SPECTRAL, "LOSS.SPECTRAL.FEAT", "embedding"), ready_batch()
    output = stage.forward_batch(stage.trained, batch)
    expected = stage.model.classifier["whole"](spectral_transform(output.bnneck[0], 0.2))
    torch.testing.assert_close(output.extra["spectral_logits"], expected)
    assert list(output.extra) == ["spectral_logits"]
    assert stage.model.bottleneck["whole"].num_batches_tracked == 1


def test_features_are_transformed_from_the_start_epoch_on_and_the_norm_sees_them_only_then():
    stage = pcb_stage(*SPECTRAL, "LOSS.SPECTRAL.START_EPOCH", 3)
    norm = stage.model.bottleneck["whole"]
    for epoch, passes in ((2, 1), (3, 3), (5, 5)):
        batch = ready_batch(epoch=epoch)
        output = stage.forward_batch(stage.trained, batch)
        assert list(output.extra) == (["spectral_logits"] if epoch >= 3 else [])
        assert norm.num_batches_tracked == passes
        _, parts = stage.criterion(output, batch, stage.plan.at(epoch))
        assert ("spectral" in parts) == (epoch >= 3)
    assert stage.model.bottleneck["part1"].num_batches_tracked == 3


def test_phases_weigh_the_transformed_features():
    phased = ("LOSS.PHASED.ENABLE", True, "LOSS.PHASED.BOUNDARIES", [3])
    stage = pcb_stage(*SPECTRAL, *phased, "LOSS.PHASED.W_TERMS", ["spectral=const:0|const:0.25"])
    for epoch, weight in ((1, 0), (3, 0.25)):
        assert stage.plan.at(epoch).weights["spectral"] == weight
        output = stage.forward_batch(stage.trained, ready_batch(epoch=epoch))
        assert ("spectral_logits" in output.extra) == (weight > 0)


def test_without_a_weight_a_step_is_that_of_any_image_model():
    stage = pcb_stage()
    assert stage.forward_batch is forward_images
    assert "spectral" not in stage.plan.at(1).weights


def test_margins_warm_up_in_both_identity_losses():
    stage, batch = pcb_stage(*SPECTRAL, *MARGIN, "SOLVER.COSINE_MARGIN_WARMUP", 4), ready_batch()
    output, pids = stage.forward_batch(stage.trained, batch), batch["pids"].tolist()

    def loss(cosine: torch.Tensor, margin: float) -> float:
        logits = slow_losses.margin_logits("amsoftmax", rows_of(cosine), pids, 15.0, margin)
        return slow_losses.cross_entropy(logits, pids)

    for epoch, margin in ((1, 0.0), (3, 0.15), (5, 0.3)):
        parts = stage.criterion(output, batch, stage.plan.at(epoch))[1]
        assert parts["id"].item() == pytest.approx(sum(loss(cosine, margin) for cosine in output.logits), rel=1e-6)
        assert parts["spectral"].item() == pytest.approx(loss(output.extra["spectral_logits"], margin), rel=1e-6)


def test_stripes_without_a_global_branch_are_all_parts_of_the_triplet_loss():
    stage, batch = pcb_stage("MODEL.PCB.GLOBAL_DIM", 0, "LOSS.TRIPLET.BRANCHES", "concat"), ready_batch()
    output = stage.forward_batch(stage.trained, batch)
    _, parts = stage.criterion(output, batch, stage.plan.at(1))
    side_by_side = rows_of(torch.cat(output.bnneck, 1))
    assert len(output.bnneck) == 2
    assert parts["triplet"].item() == pytest.approx(slow_losses.triplet(side_by_side, batch["pids"].tolist(), 0.16))


def test_branches_of_unequal_widths_all_learn():
    stage, batch = pcb_stage(*SPECTRAL), ready_batch()
    assert stage.model.branches == WIDTHS
    stage.criterion(stage.forward_batch(stage.trained, batch), batch, stage.plan.at(1))[0].backward()
    assert all(weight.grad is not None and torch.isfinite(weight.grad).all() for weight in stage.model.parameters())


@pytest.mark.parametrize("feat", ["pooled", "embedding"])
def test_nothing_in_a_step_waits_for_the_device(feat):
    stage = pcb_stage(*EVERYTHING, *MARGIN, "LOSS.SPECTRAL.FEAT", feat)
    model = stage.model.to("meta")  # whatever asks for a value fails there
    batch = {
        name: value.to("meta") if isinstance(value, torch.Tensor) else value for name, value in ready_batch().items()
    }
    output: ModelOutput = stage.forward_batch(model, batch)
    total, _ = stage.criterion(output, batch, stage.plan.at(1))
    total.backward()
    assert total.device.type == "meta" and output.extra["spectral_logits"].shape == (8, CLASSES)


def test_a_compiled_step_asks_the_same_layers(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda forward, **_: forward)  # what is compiled does not matter here
    stage = pcb_stage(*SPECTRAL)
    compiled = CompiledTraining(stage.model)
    assert unwrapped(compiled) is stage.model and unwrapped(stage.model) is stage.model


def test_the_second_pass_is_what_a_norm_in_training_makes_of_the_transformed_features():
    stage, batch = pcb_stage(*SPECTRAL), ready_batch()
    output = stage.forward_batch(stage.trained, batch)
    first = F.cross_entropy(output.logits[0], batch["pids"])
    again = F.cross_entropy(output.extra["spectral_logits"], batch["pids"])
    assert list(output.extra) == ["spectral_logits"] and not torch.isclose(first, again)
    plain = second_pass(stage.model, pooled_of(stage.model, batch))
    torch.testing.assert_close(output.logits[0], plain)  # the same layers: untransformed features give its logits
