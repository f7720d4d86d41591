"""The order of an image's numbers in memory, for trunks of convolutions."""

import torch


def in_fast_layout(images: torch.Tensor) -> torch.Tensor:
    """Return images [B, 3, H, W] as they are or, on CUDA, with the channels of a pixel side by side (channels_last).

    All maps that convolutions make of them follow. The tensor cores of a GPU read no other order; elsewhere the order
    would gain little and change the last bits. Weights keep theirs, so that checkpoints and optimizers know nothing of
    it: cudnn turns them, which are small beside the maps.
    """
    return images.contiguous(memory_format=torch.channels_last) if images.device.type == "cuda" else images
