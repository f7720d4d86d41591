"""The criterion of a whole run (routing, branches, feature sources, phases) against a slow loop in float64."""

import pytest
import torch

from configs.phases import PhasePlan
from tests.losses.model_b import (
    GLOBAL_ONLY,
    PHASED,
    PIDS,
    ROUTING,
    SUPCON,
    TRIPLETX,
    Output,
    branch_gradients,
    check,
    criterion_cfg,
    evaluate,
    gradients,
    make_batch,
    make_output,
)
from tests.reference import slow_model_b
from tests.tolerance import rounding


@pytest.mark.parametrize("branches", [1, 5])
@pytest.mark.parametrize("sources", [(a, b) for a in ("pre_bn", "bnneck") for b in ("pre_bn", "bnneck")])
@pytest.mark.parametrize("opts", [ROUTING["off"], TRIPLETX, ROUTING["hard"], ROUTING["soft"]])
def test_feature_sources_are_honoured_list_for_list(opts, sources, branches):
    names = "LOSS.TRIPLET.FEAT_SRC", "LOSS.TRIPLETX.FEAT_SRC"
    cfg = criterion_cfg(*opts, *(word for pair in zip(names, sources, strict=True) for word in pair), *SUPCON)
    check(cfg, 1, make_output(branches))


@pytest.mark.parametrize("where", ["all", "global"])
@pytest.mark.parametrize("supcon", [(), SUPCON, (*SUPCON, "LOSS.SUPCON.DARK_GAMMA", 1.8)])
@pytest.mark.parametrize("routing", ["hard", "soft"])
def test_routed_branches_and_the_dark_boost_match_the_loop(routing, supcon, where):
    cfg = criterion_cfg(*ROUTING[routing], *supcon, "LOSS.BRIGHTNESS.BRANCHES", where)
    parts = check(cfg, 12)
    assert set(parts) == {"id", "triplet", "tripletx", *(["supcon"] if supcon else [])}


@pytest.mark.parametrize("routing", ["off", "hard", "soft"])
@pytest.mark.parametrize(
    ("epoch", "names"),
    [
        (1, {"id", "triplet"}),
        (9, {"id", "triplet"}),
        (10, {"id", "tripletx", "supcon"}),
        (19, {"id", "tripletx", "supcon"}),
        (25, {"id", "supcon"}),
        (30, {"id", "supcon"}),
        (40, {"id", "tripletx"}),
        (50, {"id", "triplet"}),
    ],
)
def test_each_phase_calls_its_own_losses(routing, epoch, names):
    parts = check(criterion_cfg(*ROUTING[routing], *PHASED), epoch, make_output(2))
    assert set(parts) == (names | {"triplet"} if routing != "off" and "tripletx" in names else names)


def test_phases_change_the_loss_and_not_only_its_weight():
    cfg = criterion_cfg(*PHASED, "LOSS.PHASED.W_METRIC_SEQ", [1.0])
    output = make_output()
    metric = [evaluate(cfg, epoch, output)[1] for epoch in (9, 10)]
    assert metric[0]["triplet"].item() != pytest.approx(metric[1]["tripletx"].item(), abs=1e-2)


@pytest.mark.parametrize("kind", ["triplet", "retired"])
def test_dark_boost_acts_wherever_brightness_is_known(kind):
    opts = () if kind == "triplet" else (*PHASED, "LOSS.PHASED.TRIPLETX_END", 12)
    cfg = criterion_cfg("LOSS.BRIGHTNESS.ENABLE", True, *SUPCON, "LOSS.SUPCON.DARK_GAMMA", 1.8, *opts)
    assert set(check(cfg, 12, make_output(2))) == {"id", "triplet", "supcon"}


def test_dark_boost_without_brightness_is_refused():
    cfg = criterion_cfg(*SUPCON, "LOSS.BRIGHTNESS.ENABLE", True, "LOSS.SUPCON.DARK_GAMMA", 1.8)
    batch = {name: value for name, value in make_batch().items() if name != "brightness"}
    with pytest.raises(ValueError, match="dark"):
        evaluate(cfg, batch=batch)


@pytest.mark.parametrize("routing", ["hard", "soft"])
def test_routing_without_brightness_is_refused(routing):
    batch = {name: value for name, value in make_batch().items() if name != "brightness"}
    with pytest.raises(ValueError, match="brightness"):
        evaluate(criterion_cfg(*ROUTING[routing]), batch=batch)


def test_supcon_without_a_projection_is_refused():
    with pytest.raises(ValueError, match="supcon"):
        evaluate(criterion_cfg(*SUPCON), output=make_output(projection=False))


@pytest.mark.parametrize("branches", [1, 5])
@pytest.mark.parametrize("where", ["all", "global"])
@pytest.mark.parametrize(("weight", "stands_in"), [(0.8, "triplet"), (0.0, "tripletx")])
def test_triplet_of_the_whole_batch_stands_in_where_neither_side_has_a_valid_anchor(weight, stands_in, where, branches):
    labels = [0, 0, 3, 1, 1, 4, 2, 2, 5]  # dark: 0, 1, 2; bright: 0, 3, 1, 4, 2, 5
    batch = make_batch([0.1, 0.8, 0.8] * 3, labels, [0, 1, 2] * 3)
    opts = ("MODEL.TRIPLET_LOSS_WEIGHT", weight, "MODEL.ID_LOSS_WEIGHT", 0.0, "LOSS.BRIGHTNESS.BRANCHES", where)
    output = make_output(branches, 9)
    parts = check(criterion_cfg(*ROUTING["hard"], *opts), 1, output, batch)
    feats = output.pre_bn if where == "all" else output.pre_bn[:1]
    expected = slow_model_b.combine(lambda x: slow_model_b.triplet(x, labels, 0.3), feats)
    assert parts.pop(stands_in) == pytest.approx(expected.item(), abs=1e-9) and expected > 0
    assert list(parts.values()) == ([0] if weight else [])


@pytest.mark.parametrize("level", [0.1, 0.9])
def test_one_sided_batch_is_left_to_its_side(level):
    output = make_output(5)
    parts = check(criterion_cfg(*ROUTING["hard"]), 1, output, make_batch([level] * len(PIDS)))
    dark = level < 0.35
    assert parts["triplet" if dark else "tripletx"] == 0
    assert parts["tripletx" if dark else "triplet"] > 0


@pytest.mark.parametrize("routing", ["off", "hard", "soft"])
@pytest.mark.parametrize("pids", [[0] * 4, [0, 1, 2, 3], [0]])
def test_batch_without_a_pair_is_a_differentiable_zero(routing, pids):
    cfg = criterion_cfg(*ROUTING[routing], *SUPCON, "MODEL.ID_LOSS_WEIGHT", 0.0)
    count = len(pids)
    batch = make_batch([0.1, 0.9, 0.1, 0.9][:count], pids, [0] * count)
    total, _, output = evaluate(cfg, 1, make_output(5, count), batch)
    assert total.item() == 0
    assert not any(gradient.any() for gradient in gradients(total, output))


def test_split_with_one_dark_image_of_an_even_batch_does_not_raise():
    pids = [identity for identity in range(8) for _ in range(8)]
    brightness = [0.1] + [0.6] * 63  # bright counts 7, 8, ..., 8
    batch = make_batch(brightness, pids, [i % 4 for i in range(64)])
    cfg = criterion_cfg(*ROUTING["hard"], "MODEL.ID_LOSS_WEIGHT", 0.0)
    parts = check(cfg, 1, make_output(1, 64), batch)
    assert parts["tripletx"] == 0 and parts["triplet"] > 0


@pytest.mark.parametrize("routing", ["hard", "soft"])
def test_routing_reaches_every_branch_unless_told_otherwise(routing):
    opts = (*ROUTING[routing], "MODEL.ID_LOSS_WEIGHT", 0.0)
    total, _, output = evaluate(criterion_cfg(*opts))
    assert branch_gradients(total, output.pre_bn) == [True] * 5
    total, parts, output = evaluate(criterion_cfg(*opts, *GLOBAL_ONLY))
    assert branch_gradients(total, output.pre_bn) == [True] + [False] * 4
    alone = evaluate(criterion_cfg(*opts), output=output._replace(pre_bn=output.pre_bn[:1]))[1]
    assert {name: part.item() for name, part in parts.items()} == {name: part.item() for name, part in alone.items()}


def test_global_only_ends_where_routing_does():
    cfg = criterion_cfg(*ROUTING["hard"], *PHASED, *GLOBAL_ONLY, "MODEL.ID_LOSS_WEIGHT", 0.0)
    for epoch, routed in ((5, False), (15, True), (55, False)):
        total, _, output = evaluate(cfg, epoch)
        assert branch_gradients(total, output.pre_bn) == [True] + [not routed] * 4


def test_neck_features_of_the_local_branches_carry_the_metric_loss():
    opts = ("LOSS.TRIPLET.FEAT_SRC", "bnneck", "MODEL.ID_LOSS_WEIGHT", 0.0)
    total, _, output = evaluate(criterion_cfg(*opts))
    assert branch_gradients(total, output.bnneck) == [True] * 5
    assert branch_gradients(total, output.pre_bn) == [False] * 5


def test_supcon_sees_the_projection_alone():
    cfg = criterion_cfg(*SUPCON, "MODEL.ID_LOSS_WEIGHT", 0.0, "MODEL.TRIPLET_LOSS_WEIGHT", 0.0)
    total, parts, output = evaluate(cfg)
    assert list(parts) == ["supcon"]
    assert branch_gradients(total, [*output.logits, *output.pre_bn, *output.bnneck]) == [False] * 15
    assert branch_gradients(total, [output.projection]) == [True]


@pytest.mark.parametrize("projection", [True, False])
def test_heads_that_no_term_reaches_still_get_a_gradient(projection):
    cfg = criterion_cfg(*SUPCON, "LOSS.SUPCON.W", 0.0, "MODEL.ID_LOSS_WEIGHT", 0.0)
    total, _, output = evaluate(cfg, output=make_output(projection=projection))
    total.backward()
    heads = [*output.logits, *([output.projection] if projection else [])]
    assert all(head.grad is not None and not head.grad.any() for head in heads)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("routing", ["off", "hard", "soft"])
def test_half_outputs_and_autocast_give_a_float32_total(routing, dtype):
    cfg = criterion_cfg(*ROUTING[routing], *SUPCON, "LOSS.SUPCON.DARK_GAMMA", 1.5 if routing != "off" else 1.0)
    output = make_output(2, dtype=dtype)
    batch = make_batch()
    batch["brightness"] = batch["brightness"].float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, parts, _ = evaluate(cfg, 1, output, batch)
    wide = Output(
        *([x.detach().double() for x in branch] for branch in output[:3]), output.projection.detach().double()
    )
    expected, _ = slow_model_b.criterion(wide, make_batch(), PhasePlan(cfg).at(1), cfg)
    assert total.dtype == torch.float32 and {part.dtype for part in parts.values()} == {torch.float32}
    assert total.item() == pytest.approx(expected.item(), rel=rounding(32))
    total.backward()
    assert all(torch.isfinite(x.grad).all() for x in output.tensors() if x.grad is not None)


def test_non_finite_feature_reaches_the_total():
    output = make_output(1)
    output.pre_bn[0].data[4, 0] = float("nan")
    total, _, _ = evaluate(criterion_cfg(*ROUTING["hard"]), 1, output)
    assert not torch.isfinite(total)
