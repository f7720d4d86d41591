"""Terms and readings over sets of modalities: which rows count, what losses on distances see, and the whole."""

import pytest
import torch
from yacs.config import CfgNode

from configs.modalities import MODALITIES, sets_of
from configs.phases import Phase
from losses.criterion import Criterion
from losses.identity import identity_loss
from losses.multimodal import make_multimodal_loss, query_accuracy, sizes_of
from losses.supcon import supcon_loss
from losses.triplet import TripletLoss
from model import ModelOutput
from tests.cfgs import cfg_with
from tests.losses.test_alignment import PIDS, drawn_rows, drawn_valid
from tests.reference import slow_alignment as slow

CLOSE = {"rtol": 1e-9, "atol": 1e-9}
SETS, CLASSES, WIDTH = sets_of(MODALITIES), 5, 5
PIDS_OF_BATCH = torch.tensor(PIDS)
BATCH = {"pids": PIDS_OF_BATCH, "camids": torch.zeros(6, dtype=torch.int64), "brightness": torch.linspace(0, 1, 6)}
OFF = {"triplet": 0.0, "tripletx": 0.0, "supcon": 0.0}
ALL = {"id": 1.0, **OFF, "align": 0.1, "norm": 2e-3}


def output_of(valid: torch.Tensor, seed: int = 0) -> ModelOutput:
    """What the model gives: zeros in rows that are not valid."""
    sets = valid.shape[1]
    logits, raw, neck = (drawn_rows(len(PIDS), sets, seed + part) * valid.t()[..., None] for part in range(3))
    leaves = [[row.clone().requires_grad_() for row in part] for part in (logits, raw, neck)]
    return ModelOutput(*leaves, None, {"valid": valid})


def cfg_of(*opts: object) -> CfgNode:
    return cfg_with("MODEL.NAME", "multimodal", *opts)


def criterion_of(*opts: object, sets: tuple = SETS) -> Criterion:
    return make_multimodal_loss(cfg_of(*opts), sets, CLASSES, WIDTH)


def phase_of(**weights: float) -> Phase:
    return Phase(3, 0, "static", ALL | weights, 2, False)


@pytest.mark.parametrize(
    ("share", "smoothing", "form"), [(0.0, 0.0, "ce"), (0.3, 0.05, "ce"), (0.3, 0.0, "kl"), (0.7, 0.05, "ce")]
)
def test_total_parts_and_gradients_are_the_formulas(share, smoothing, form):
    valid = drawn_valid(len(PIDS), share=share, seed=2)
    output, smooth = output_of(valid), ("MODEL.IF_LABELSMOOTH", "on", "LOSS.LABEL_SMOOTH_EPS", smoothing)
    criterion = criterion_of(*smooth, "LOSS.ALIGN.FORM", form, "LOSS.FEAT_NORM.TARGET", 2.0, "LOSS.FEAT_NORM.BAND", 0.5)
    total, parts = criterion(output, BATCH, phase_of())
    exact = {
        "id": slow.identity(output.logits, valid, PIDS, smoothing),
        "align": slow.of_sets(output.bnneck, valid, PIDS, SETS, 0.1, form),
        "norm": slow.penalty([output.bnneck[s][i] for i in range(6) for s in range(16) if valid[i, s]], 2.0, 0.5),
    }
    assert list(parts) == list(exact)
    for name, value in exact.items():
        torch.testing.assert_close(parts[name], value.detach(), **CLOSE)
    whole = sum(ALL[name] * value for name, value in exact.items())
    torch.testing.assert_close(total, whole, **CLOSE)
    leaves = [*output.logits, *output.bnneck]
    expected = torch.autograd.grad(whole, leaves, allow_unused=True)
    for got, wanted, leaf in zip(torch.autograd.grad(total, leaves), expected, leaves, strict=True):
        torch.testing.assert_close(got, torch.zeros_like(leaf) if wanted is None else wanted, **CLOSE)


def test_a_batch_in_which_nothing_is_valid_has_zeros_with_gradients():
    output = output_of(torch.zeros(6, 16, dtype=torch.bool))
    total, parts = criterion_of()(output, BATCH, phase_of())
    total.backward()
    assert total == 0 and list(parts) == ["id", "align", "norm"] and not any(parts.values())
    assert all(bool((leaf.grad == 0).all()) for part in output[:3] for leaf in part)


def test_a_set_counts_once_however_many_samples_have_it():
    valid = torch.zeros(6, 3, dtype=torch.bool)
    valid[:, 0], valid[0, 1] = True, True
    output = output_of(valid)
    value = criterion_of("MODEL.IF_LABELSMOOTH", "off", sets=SETS[:3]).id(output, BATCH, phase_of())["id"]
    of_all, of_one = (identity_loss(output.logits[s][:n], PIDS_OF_BATCH[:n]) for s, n in ((0, 6), (1, 1)))
    torch.testing.assert_close(value, (of_all + of_one) / 2, **CLOSE)


def test_triplet_and_supcon_see_rgb_alone_and_supcon_its_features_after_the_neck():
    output = output_of(drawn_valid(len(PIDS)))
    opts = ("LOSS.SUPCON.ENABLE", True, "LOSS.SUPCON.CAM_AWARE", False, "LOSS.SUPCON.POS_RULE", "class")
    criterion = criterion_of(*opts, "LOSS.TRIPLETX.ENABLE", True)
    phase = phase_of(id=0.0, align=0.0, norm=0.0, triplet=1.0, tripletx=1.2, supcon=0.3)
    total, parts = criterion(output, BATCH, phase)
    triplet = TripletLoss(margin=0.3)(output.pre_bn[0], PIDS_OF_BATCH)
    torch.testing.assert_close(parts["triplet"], triplet.detach(), **CLOSE)
    supcon = supcon_loss(output.bnneck[0], PIDS_OF_BATCH, None, cfg_of().LOSS.SUPCON.T)
    torch.testing.assert_close(parts["supcon"], supcon.detach(), **CLOSE)
    total.backward()
    assert parts["tripletx"] > 0
    for part in (output.pre_bn, output.bnneck):
        assert part[0].grad.abs().max() > 0 and all(bool((row.grad == 0).all()) for row in part[1:])


def test_brightness_routes_the_rgb_images_and_the_share_of_dark_ones_is_read():
    output, criterion = output_of(drawn_valid(len(PIDS))), criterion_of("LOSS.BRIGHTNESS.ENABLE", True)
    phase = phase_of(triplet=1.0, tripletx=1.0)._replace(routed=True)
    _, parts = criterion(output, BATCH, phase)
    assert parts.keys() >= {"triplet", "tripletx"}
    found = criterion.readings(output, BATCH, phase)
    assert found["dark"] == pytest.approx(2 / 6)  # of 0, 0.2, 0.4, ... below 0.35
    assert list(found) == ["dark", "acc", "query_acc"]


def test_the_centres_see_rgb_and_are_found_by_the_optimizer():
    criterion = criterion_of("MODEL.IF_WITH_CENTER", "yes")
    assert [name for name, _ in criterion.named_parameters()] == ["center.centers"]
    output = output_of(drawn_valid(len(PIDS)))
    criterion(output, BATCH, phase_of(id=0.0, align=0.0, norm=0.0)._replace(weights={"center": 0.5}))[0].backward()
    assert output.pre_bn[0].grad.abs().max() > 0


def test_readings_are_shares_of_rgb_and_of_the_valid_rows_of_queries():
    logits = torch.eye(5, dtype=torch.float64)
    valid = torch.tensor([[True, True, False], [True, False, True], [True, True, True], [True, False, False]])
    named = [logits[[0, 1, 2, 4]], logits[[0, 1, 0, 3]], logits[[0, 1, 2, 3]]]
    output = ModelOutput(named, [], [], None, {"valid": valid})
    batch = {"pids": torch.tensor([0, 1, 2, 3])}
    found = criterion_of(sets=SETS[:3]).readings(output, batch, phase_of())
    assert {name: float(value) for name, value in found.items()} == pytest.approx({"acc": 0.75, "query_acc": 3 / 4})
    none = output._replace(extra={"valid": torch.zeros_like(valid)})
    assert query_accuracy(none, batch) == 0


def test_without_weight_a_term_is_not_computed_and_identity_is_not_read():
    output, criterion, phase = output_of(drawn_valid(6)), criterion_of(), phase_of(id=0.0, align=0.0)
    assert list(criterion(output, BATCH, phase)[1]) == ["norm"] and criterion.readings(output, BATCH, phase) == {}


@pytest.mark.parametrize(
    ("modalities", "sizes"), [(MODALITIES, (4, 6, 4, 1)), (("vis", "nir", "text"), (2, 1)), (("vis", "sk"), (1,))]
)
def test_sizes_are_numbers_of_sets_of_equally_many_modalities(modalities, sizes):
    assert sizes_of(sets_of(modalities)[1:]) == sizes


def test_sets_in_another_order_than_by_size_are_refused():
    with pytest.raises(ValueError, match="in the order of their sizes"):
        sizes_of((("nir", "sk"), ("nir",)))


def test_features_of_two_modalities_align_as_one_set():
    sets = sets_of(("vis", "text"))
    valid = drawn_valid(len(PIDS), 2, seed=1)
    output = output_of(valid)
    value = criterion_of("LOSS.ALIGN.T", 0.3, sets=sets).align(output, BATCH, phase_of())["align"]
    torch.testing.assert_close(value, slow.of_sets(output.bnneck, valid, PIDS, sets, 0.3), **CLOSE)
