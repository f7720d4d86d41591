"""Names of TransReID's checkpoints."""

import torch

from model.weights.transreid import reid_trunk


def test_trained_global_block_of_a_jigsaw_checkpoint_becomes_the_last_block():
    state = {
        "base.blocks.0.norm1.weight": torch.tensor([0.0]),
        "base.blocks.1.norm1.weight": torch.tensor([1.0]),
        "base.norm.weight": torch.tensor([2.0]),
        "b1.0.norm1.weight": torch.tensor([3.0]),
        "b1.1.weight": torch.tensor([4.0]),
        "b2.1.weight": torch.tensor([5.0]),
        "classifier.weight": torch.tensor([6.0]),
    }
    trunk = {name: value.item() for name, value in reid_trunk(state).items()}
    assert trunk == {"blocks.0.norm1.weight": 0.0, "blocks.1.norm1.weight": 3.0, "norm.weight": 4.0}
