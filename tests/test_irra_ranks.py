"""Two processes train IRRA as one does: the same losses in every step, the same weights, the same figures."""

import pytest

from tests.clip_reid_runs import CALM, weights_of
from tests.irra_trainings import STEPS, write_irra_yaml
from tests.rank_trainings import (
    TERMS,
    Folders,
    assert_same_figures,
    assert_same_losses,
    assert_same_weights,
    train_both,
)
from tests.tolerance import rounding

# plain SGD: Adam would blow the rounding noise of vanishing gradients up to whole steps. In the second epoch nobody
# asks for masked words, and the processes wait for the gradients of what guesses them all the same
OPTS = (
    *CALM,
    *("SOLVER.OPTIMIZER_NAME", "SGD", "SOLVER.BASE_LR", 0.01, "LOSS.TEXT.NAMES", "sdm+itc+cmpm+id+mlm"),
    *("LOSS.PHASED.ENABLE", True, "LOSS.PHASED.BOUNDARIES", [2], "LOSS.PHASED.W_TERMS", ["mlm=const:1|const:0"]),
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    work = tmp_path_factory.mktemp("irra_ranks")
    return train_both(write_irra_yaml(work), work, *OPTS)


def test_each_step_of_two_processes_has_the_losses_of_one(folders):
    one = assert_same_losses(folders)
    assert len(one) == 2 * STEPS
    of_terms = {"sdm", "itc", "cmpm", "id", "acc", "text_acc"}
    assert of_terms | {"mlm", "mlm_acc"} <= one[0].keys()
    assert of_terms <= one[-1].keys() and "mlm" not in one[-1]


def test_two_processes_learn_the_weights_of_one(folders):
    one = assert_same_weights(*(folder / "irra_2.pth" for folder in folders))
    first, least = weights_of(folders[0] / "irra_1.pth"), 100 * rounding(TERMS) * 0.02
    assert (one["base_model.visual.proj"] - first["base_model.visual.proj"]).abs().max() > least


def test_two_processes_evaluate_as_one(folders):
    assert {"mAP", "mINP", "Rank-1", "Rank-5", "Rank-10"} <= assert_same_figures(folders).keys()
