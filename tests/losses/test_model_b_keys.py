"""Every configuration key of Model B's losses reaches the value that is trained on."""

import pytest

from tests.losses.model_b import (
    CAMIDS,
    PIDS,
    ROUTING,
    SUPCON,
    TRIPLETX,
    check,
    criterion_cfg,
    evaluate,
    make_batch,
    make_output,
)
from tests.reference import slow_model_b


@pytest.mark.parametrize("epoch", [1, 9, 10, 60])
@pytest.mark.parametrize("warmup", [5, 10])
def test_epoch_of_the_phase_decides_the_warm_up(epoch, warmup):
    check(criterion_cfg(*TRIPLETX, "LOSS.TRIPLETX.WARMUP_EPOCHS", warmup), epoch, make_output(1))


CHANGES = [
    ("LOSS.TRIPLETX.MARGIN", 0.9, 12),
    ("LOSS.TRIPLETX.SOFT_WARMUP", False, 1),
    ("LOSS.TRIPLETX.WARMUP_EPOCHS", 3, 5),
    ("LOSS.TRIPLETX.K", 1, 12),
    ("LOSS.TRIPLETX.ALPHA", 7.0, 12),
    ("LOSS.TRIPLETX.CROSS_CAM_POS", False, 12),
    ("LOSS.TRIPLETX.SAME_CAM_NEG_BOOST", 1.7, 12),
    ("LOSS.TRIPLETX.NORM_FEAT", False, 12),
    ("LOSS.TRIPLETX.FEAT_SRC", "bnneck", 12),
    ("LOSS.TRIPLETX.W", 2.5, 12),
    ("LOSS.TRIPLET.FEAT_SRC", "bnneck", 12),
    ("LOSS.TRIPLET.HARD_FACTOR", 0.3, 12),
    ("MODEL.TRIPLET_LOSS_WEIGHT", 0.2, 12),
    ("MODEL.NO_MARGIN", True, 12),
    ("SOLVER.MARGIN", 0.8, 12),
    ("LOSS.GLOBAL_WEIGHT", 0.9, 12),
    ("LOSS.SUPCON.T", 0.5, 12),
    ("LOSS.SUPCON.W", 0.7, 12),
    ("LOSS.SUPCON.CAM_AWARE", False, 12),
    ("LOSS.SUPCON.DARK_GAMMA", 1.8, 12),
    ("LOSS.BRIGHTNESS.THRESH", 0.55, 12),
    ("LOSS.BRIGHTNESS.MODE", "soft", 12),
    ("LOSS.BRIGHTNESS.BRANCHES", "global", 12),
]


@pytest.mark.parametrize(("key", "value", "epoch"), CHANGES)
def test_every_loss_key_reaches_the_loss(key, value, epoch):
    plain, changed = (criterion_cfg(*ROUTING["hard"], *SUPCON, *opts) for opts in ((), (key, value)))
    output = make_output(2)
    check(changed, epoch, output)
    assert evaluate(changed, epoch, output)[0].item() != pytest.approx(
        evaluate(plain, epoch, output)[0].item(), abs=1e-4
    )


def test_softness_reaches_soft_routing_and_only_it():
    output = make_output(2)
    changed = ("LOSS.BRIGHTNESS.K", 0.5)
    for routing in ("soft", "hard"):
        plain = evaluate(criterion_cfg(*ROUTING[routing]), 12, output)[0].item()
        check(criterion_cfg(*ROUTING[routing], *changed), 12, output)
        moved = abs(evaluate(criterion_cfg(*ROUTING[routing], *changed), 12, output)[0].item() - plain)
        assert (moved > 1e-4) == (routing == "soft")


@pytest.mark.parametrize(
    ("aware", "rule", "across"),
    [(True, "class", True), (True, "class+camera", True), (False, "class+camera", True), (False, "class", False)],
)
def test_supcon_looks_across_cameras_by_either_key(aware, rule, across):
    cfg = criterion_cfg(*SUPCON, "LOSS.SUPCON.CAM_AWARE", aware, "LOSS.SUPCON.POS_RULE", rule)
    output = make_output(1)
    expected = slow_model_b.supcon(output.projection, PIDS, CAMIDS if across else None)
    assert check(cfg, 1, output)["supcon"] == pytest.approx(expected.item(), abs=1e-9)


def test_self_supervised_views_share_their_camera_and_are_positives_all_the_same():
    cfg = criterion_cfg(*SUPCON, "MODEL.TRAINING_MODE", "self_supervised", "DATALOADER.SAMPLER", "random")
    batch = make_batch(pids=[0, 1, 2, 0, 1, 2], camids=[0, 1, 2, 0, 1, 2], brightness=[0.5] * 6)
    parts = check(cfg, 1, make_output(5, 6), batch)
    assert list(parts) == ["supcon"] and parts["supcon"] > 0


def test_dark_samples_are_not_boosted_by_default():
    output = make_output(1)
    parts = check(criterion_cfg(*ROUTING["hard"], *SUPCON), 1, output)
    assert parts["supcon"] == pytest.approx(slow_model_b.supcon(output.projection, PIDS, CAMIDS).item(), abs=1e-9)
