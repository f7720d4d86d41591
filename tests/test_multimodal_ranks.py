"""Two processes train several modalities as one does: the losses of each step, the weights, the figures of all sets."""

import pytest
import torch

from tests.clip_reid_runs import weights_of
from tests.multimodal_trainings import CALM, write_multimodal_yaml
from tests.rank_trainings import Folders, assert_same_figures, assert_same_losses, assert_same_weights, train_both

# plain SGD: Adam would blow the rounding noise of vanishing gradients up to whole steps
OPTS = (*CALM, "SOLVER.OPTIMIZER_NAME", "SGD", "SOLVER.BASE_LR", 0.01)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    work = tmp_path_factory.mktemp("multimodal_ranks")
    return train_both(write_multimodal_yaml(work), work, *OPTS)


def test_each_step_of_two_processes_has_the_losses_of_one(folders):
    one = assert_same_losses(folders)
    assert len(one) >= 4
    assert {"id", "norm", "acc", "query_acc"} <= one[0].keys() and "align" not in one[0]  # it starts in epoch 2
    assert one[-1]["align"] > 0


def test_two_processes_learn_the_weights_of_one(folders):
    one = assert_same_weights(*(folder / "multimodal_2.pth" for folder in folders))
    first = weights_of(folders[0] / "multimodal_1.pth")
    moved = [name for name, weight in one.items() if not torch.equal(weight, first[name])]
    assert any("lora_b" in name for name in moved) and "bottleneck.running_mean" in moved


def test_two_processes_evaluate_as_one(folders):
    assert {"mAP", "Rank-1"} <= assert_same_figures(folders).keys()
