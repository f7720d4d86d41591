"""What every refused checkpoint has in common."""

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.model.builds import save
from utils.errors import DataError


def refuse(model: nn.Module, state: dict[str, torch.Tensor], tmp_path: Path, words: str) -> None:
    """Assert that `state` is refused in one line with `words` and leaves the model as it was."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(DataError, match=words) as caught:
        model.load_param(save(state, tmp_path))
    assert "\n" not in str(caught.value) and "TEST.WEIGHT" in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
