"""The plan of losses, weights and K."""

import pytest

from configs import get_cfg_defaults
from processor.phases import PhasePlan


def plan_for(*opts):
    cfg = get_cfg_defaults()
    cfg.merge_from_list(list(opts))
    return PhasePlan(cfg)


@pytest.mark.parametrize(
    ("sampler", "metric", "expected"),
    [
        ("softmax_triplet", "triplet", (0.7, 0.4)),
        ("softmax_triplet", "triplet_center", (0.7, 0.4)),
        ("softmax_triplet", "center", (0.7, 0.0)),
        ("softmax_triplet", "none", (0.7, 0.0)),
        ("softmax", "triplet", (0.7, 0.0)),
        ("triplet", "triplet", (0.0, 0.4)),
    ],
)
def test_sampler_and_metric_type_decide_which_losses_act(sampler, metric, expected):
    plan = plan_for(
        *("DATALOADER.SAMPLER", sampler, "MODEL.METRIC_LOSS_TYPE", metric),
        *("MODEL.ID_LOSS_WEIGHT", 0.7, "MODEL.TRIPLET_LOSS_WEIGHT", 0.4, "DATALOADER.NUM_INSTANCE", 8),
    )
    for epoch in (1, 60, 120):
        phase = plan.at(epoch)
        assert (phase.weights["id"], phase.weights["triplet"]) == expected
        assert phase.weights["tripletx"] == phase.weights["supcon"] == 0.0
        assert (phase.epoch, phase.num_instance, phase.routed) == (epoch, 8, False)


def test_epochs_count_from_one():
    with pytest.raises(ValueError, match="count from 1"):
        plan_for().at(0)
