"""Patches of an image as rows of a matrix product, in place of a convolution: the same values, to rounding."""

import torch
import torch.nn.functional as F
from torch import nn

from utils.errors import ConfigError
from utils.precision import in_autocast_type

NO_PADDING = (0, 0)


class PatchProduct(nn.Conv2d):
    """Images [B, C, H, W] -> maps [B, D, rows, columns] of patches that may overlap, as nn.Conv2d makes them.

    It shares the weights of `conv`, and their names. Each patch becomes a row, and one product makes all values; seen
    as [B, N, D] the result needs no copy. cuDNN has slow kernels for large patches that overlap.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, bias=False, device="meta")
        self.weight = conv.weight
        self.register_parameter("bias", conv.bias)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the maps of `input`."""
        (height, width), (down, right) = self.kernel_size, self.stride
        patches = in_autocast_type(input).unfold(2, height, down).unfold(3, width, right)  # [B, C, h, w, y, x]
        rows, columns = patches.shape[2:4]
        matrix = patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)  # [B, N, C y x]
        values = F.linear(matrix, self.weight.flatten(1), self.bias)
        return values.transpose(1, 2).unflatten(2, (rows, columns))


def multiply_patches(model: nn.Module) -> None:
    """Replace each convolution of `model` that makes patches, in place; ConfigError where it has none.

    These are the ones that reach no pixel outside the image, see none but images, and stride over at least one pixel.
    """
    found = [
        (parent, name, module)
        for parent in model.modules()
        for name, module in parent.named_children()
        if makes_patches(module)
    ]
    if not found:
        raise ConfigError("MODEL.PATCHES product: this model has no patches; set it to convolution")
    for parent, name, conv in found:
        setattr(parent, name, PatchProduct(conv))


def makes_patches(module: nn.Module) -> bool:
    """Return whether a module is a convolution that makes patches of an image."""
    if type(module) is not nn.Conv2d or module.in_channels != 3 or module.groups != 1:
        return False
    return module.padding == NO_PADDING and module.dilation == (1, 1) and min(module.stride) > 1
