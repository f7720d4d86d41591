"""Random branch update: how often branches are kept, what their losses become, and what the draws follow from."""

import math

import pytest
import torch

from configs.phases import Phase
from losses.branches import Draws, Reduce, draw_branches
from losses.identity import IdentityLoss, IdentityTerm
from model import ModelOutput
from tests.losses.batches import random_features
from tests.reference import slow_branches, slow_losses

LABELS = [0, 1, 2, 1, 0, 2]
PIDS = torch.tensor(LABELS)
PHASE = Phase(1, 0, "static", {"id": 1.0}, 2, False)
SETTINGS = [(7, 1), (7, 6), (2, 1), (2, 3), (3, 4), (1, 5), (5, 0)]
FAR = 6  # standard deviations


def shares_are_as_counted(count: int, draws: int, steps: int, generator: torch.Generator) -> None:
    """Assert that in `steps` draws each branch, and each number of kept ones, comes as often as all outcomes say."""
    kept = torch.stack([draw_branches(count, draws, generator) for _ in range(steps)])
    chances = slow_branches.chances(count, draws)
    got = [*kept.double().mean(0).tolist(), *((kept.sum(1) == number).double().mean() for number in range(count + 1))]
    expected = [sum(chance for one, chance in chances.items() if branch in one) for branch in range(count)]
    expected += [sum(chance for one, chance in chances.items() if len(one) == number) for number in range(count + 1)]
    for share, chance in zip(got, expected, strict=True):
        chance = min(chance, 1.0)
        assert abs(share - chance) <= FAR * math.sqrt(chance * (1 - chance) / steps) + 1e-9


@pytest.mark.parametrize(("count", "draws"), SETTINGS)
def test_branches_are_kept_as_often_as_all_outcomes_say(count, draws):
    shares_are_as_counted(count, draws, 1000, torch.Generator().manual_seed(1))


@pytest.mark.slow
@pytest.mark.parametrize(("count", "draws"), SETTINGS)
def test_branches_are_kept_as_often_as_all_outcomes_say_in_many_draws(count, draws):
    shares_are_as_counted(count, draws, 100_000, torch.Generator().manual_seed(2))


def test_seven_branches_and_six_draws_keep_2_77_of_them():
    chances = slow_branches.chances(7, 6)
    assert sum(len(kept) * chance for kept, chance in chances.items()) == pytest.approx(7 * (6 / 7) ** 6)
    assert sum(chance for kept, chance in chances.items() if 0 in kept) == pytest.approx(0.397, abs=5e-4)


@pytest.mark.parametrize("draws", range(1, 5))
def test_of_two_branches_exactly_one_stays(draws):
    assert all(draw_branches(2, draws).sum() == 1 for _ in range(50))


def test_no_draw_and_a_lone_branch_leave_all():
    assert draw_branches(4, 0).tolist() == [True] * 4 and draw_branches(1, 9).tolist() == [True]
    assert draw_branches(4, 0).dtype == torch.bool


@pytest.mark.parametrize(("count", "draws"), [(0, 1), (3, -1)])
def test_impossible_numbers_are_refused(count, draws):
    with pytest.raises(ValueError, match="expected at least"):
        draw_branches(count, draws)


def test_draws_follow_from_seed_and_step_alone():
    def of_steps(seed: int, steps: range) -> list[list[bool]]:
        torch.rand(7)  # what else is drawn does not matter
        return [Draws(6, seed).kept(7, {"step": step}) for step in steps]

    whole = of_steps(5, range(1, 41))
    assert of_steps(5, range(21, 41)) == whole[20:]  # a run that goes on
    assert of_steps(6, range(1, 41)) != whole
    assert len({tuple(kept) for kept in whole}) > 20


def test_draws_of_consecutive_steps_are_independent():
    kept = torch.tensor([Draws(3, 1234).kept(5, {"step": step}) for step in range(1, 1001)]).double()
    centred = kept - kept.mean(0)
    together = centred[1:].t() @ centred[:-1] / len(kept) / kept.var(0).mean()  # of every branch with every other
    assert together.abs().max() < FAR / math.sqrt(len(kept))


def test_draws_leave_the_random_state_of_training_alone():
    before = torch.get_rng_state()
    Draws(6, 1).kept(7, {"step": 3})
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_without_its_step_is_refused_only_where_it_is_read():
    assert Draws(0, 1).kept(7, {}) is None
    with pytest.raises(ValueError, match="step"):
        Draws(1, 1).kept(7, {})


@pytest.mark.parametrize("kind", ["sum", "mean"])
def test_the_identity_loss_is_that_of_the_kept_branches(kind):
    logits = [random_features(6, 3, seed) for seed in range(5)]
    values = [slow_losses.cross_entropy(one.tolist(), LABELS) for one in logits]
    term = IdentityTerm(IdentityLoss(), Reduce(kind), Draws(3, 7))
    seen = set()
    for step in range(1, 13):
        batch = {"pids": PIDS, "step": step}
        kept = Draws(3, 7).kept(5, batch)
        seen.add(sum(kept))
        expected = slow_branches.reduced(values, kept, kind)
        assert term(ModelOutput(logits, [], []), batch, PHASE)["id"].item() == pytest.approx(expected, rel=1e-12)
    assert seen == {2, 3, 4}


def test_a_branch_that_is_left_out_has_a_gradient_of_0_and_the_others_their_own():
    logits = [random_features(6, 3, seed).requires_grad_() for seed in range(4)]
    batch = {"pids": PIDS, "step": 2}
    kept = Draws(2, 0).kept(4, batch)
    IdentityTerm(IdentityLoss(), Reduce("sum"), Draws(2, 0))(ModelOutput(logits, [], []), batch, PHASE)["id"].backward()
    assert 0 < sum(kept) < 4
    for one, keep in zip(logits, kept, strict=True):
        alone = torch.autograd.grad(IdentityLoss()(one, PIDS), one)[0]
        torch.testing.assert_close(one.grad, alone * keep)


def test_without_draws_the_loss_is_bit_for_bit_that_of_all_branches():
    logits = [random_features(6, 3, seed).float() for seed in range(5)]
    for reduce in (Reduce("sum"), Reduce("mean"), Reduce()):
        with_key = IdentityTerm(IdentityLoss(), reduce, Draws(0, 3))(ModelOutput(logits, [], []), {"pids": PIDS}, PHASE)
        values = torch.vmap(lambda one: IdentityLoss()(one, PIDS))(torch.stack(logits))
        assert torch.equal(with_key["id"], reduce(values))


def test_halves_of_drawn_branches_are_refused():
    with pytest.raises(ValueError, match="halves"):
        Reduce("halves")(torch.ones(3), [True, False, True])


def test_draws_are_printed():
    assert "draws=6" in repr(IdentityTerm(IdentityLoss(), Reduce("sum"), Draws(6, 1)))
