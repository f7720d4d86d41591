"""Data sets, samplers and transforms: from archives on disk to batches on the device."""

from datasets.make_dataloader import ReIDData, make_dataloader
from datasets.make_transforms import make_transforms

__all__ = ["RandomIdentitySampler", "ReIDData", "make_dataloader", "make_transforms"]


def __getattr__(name: str) -> type:
    """Import the sampler when it is asked for: it needs torch, which the data set doctor's --help must not wait for."""
    if name == "RandomIdentitySampler":
        from datasets.sampler import RandomIdentitySampler

        return RandomIdentitySampler
    raise AttributeError(f"module 'datasets' has no attribute '{name}'")
