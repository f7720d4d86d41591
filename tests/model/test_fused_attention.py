"""Attention over all tokens is fused in every trunk and CLIP tower: no matrix of tokens x tokens is made."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from model import make_model
from tests.model import clips
from tests.model.builds import images
from tests.model.trunks import KINDS, kind_cfg

FUSED = "_scaled_dot_product"


class Watch(TorchDispatchMode):
    """Counts fused attention calls, and keeps the shapes of softmax results."""

    def __init__(self) -> None:
        super().__init__()
        self.fused, self.softmax = 0, []

    def __torch_dispatch__(self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        result = func(*args, **(kwargs or {}))
        self.fused += func.__name__.startswith(FUSED)
        if "softmax" in func.__name__:
            self.softmax.append(tuple(result.shape))
        return result


def watch(model: nn.Module, batch: torch.Tensor) -> tuple[int, list[tuple[int, ...]]]:
    with Watch() as seen:
        output = model(batch)
        if model.training:
            feature = output if isinstance(output, torch.Tensor) else output.pre_bn[0]
            feature.sum().backward()
    squares = [shape for shape in seen.softmax if shape[-1] == shape[-2]]
    return seen.fused, squares


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_trunks_fuse_their_attention(kind, training):
    model = make_model(kind_cfg(kind, "MODEL.JPM", True, "MODEL.DEVIDE_LENGTH", 3), 5, 0, 0).train(training)
    fused, squares = watch(model, images(3, model.base.image_size))
    assert fused >= len(model.base.blocks) - 1 and not squares


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("variant", ["minimal", "hf"])
def test_clip_towers_fuse_their_attention(variant, training, sources):
    model = clips.build(sources, variant).train(training)
    fused, squares = watch(model.clip_model, images(3, clips.SIZE))
    assert fused >= 2 and not squares
