"""The metric losses of a run: whose features each of the two sees, which one acts, and what is refused."""

import pytest
import torch

from configs.phases import Phase
from losses import TripletLoss, TripletXLoss
from losses.branches import Reduce
from losses.metric import MetricLosses
from losses.routing import Routing
from tests.losses.model_b import CAMIDS, PIDS, make_batch, make_output
from tests.reference import slow_losses, slow_model_b

CROSSED = {"triplet": "bnneck", "tripletx": "pre_bn"}


def phase_of(triplet: float, tripletx: float, routed: bool = False) -> Phase:
    return Phase(12, 0, "static", {"id": 1.0, "triplet": triplet, "tripletx": tripletx}, 4, routed)


@pytest.mark.parametrize("weights", [(0.0, 0.0), (0.5, 0.0), (0.0, 2.0), (0.5, 2.0)])
def test_only_terms_with_weight_are_computed_each_on_its_own_source_and_half_of_it_global(weights):
    output = make_output(3)
    term = MetricLosses(TripletLoss(0.3), TripletXLoss(), Routing(), CROSSED)
    values = term(output, make_batch(), phase_of(*weights))
    each = {
        "triplet": [slow_losses.triplet(feat.tolist(), PIDS, 0.3) for feat in output.bnneck],
        "tripletx": [slow_model_b.tripletx(feat, PIDS, CAMIDS, 12).item() for feat in output.pre_bn],
    }
    expected = {
        name: slow_losses.combine(losses, 0.5)
        for (name, losses), weight in zip(each.items(), weights, strict=True)
        if weight
    }
    assert {name: value.item() for name, value in values.items()} == pytest.approx(expected, abs=1e-9)


def test_a_term_that_the_phase_does_not_know_is_not_computed():
    term = MetricLosses(TripletLoss(), TripletXLoss(), Routing(), CROSSED)
    assert term(make_output(1), make_batch(), Phase(1, 0, "static", {"id": 1.0}, 4, False)) == {}


def test_routing_without_brightness_is_refused_by_name():
    term = MetricLosses(TripletLoss(), TripletXLoss(), Routing(), CROSSED)
    batch = {"pids": torch.tensor(PIDS), "camids": torch.tensor(CAMIDS)}
    with pytest.raises(ValueError, match=r"needs batch\['brightness'\]"):
        term(make_output(1), batch, phase_of(1.0, 1.0, routed=True))


@pytest.mark.parametrize("wrong", [{"triplet": "after"}, {"tripletx": "logits"}, {"triplet": "pre_bn", "tripletx": ""}])
def test_an_unknown_source_is_refused(wrong):
    with pytest.raises(ValueError, match="sources got .*expected pre_bn or bnneck"):
        MetricLosses(TripletLoss(), TripletXLoss(), Routing(), CROSSED | wrong)


def test_settings_are_printed():
    text = repr(MetricLosses(TripletLoss(), TripletXLoss(), Routing(soft=True), CROSSED, Reduce("halves", 0.7)))
    assert f"sources={CROSSED}, {Reduce('halves', 0.7)}, {Routing(soft=True)}" in text
    assert "kind='halves', global_weight=0.7" in text
