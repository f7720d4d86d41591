"""Batches of cached features, on the device where they were made, in place of images."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.utils.data import Dataset

from datasets.batch import Batch
from datasets.loader import Loader
from datasets.sampler import ShuffleSampler


class Distinct(NamedTuple):
    """The identities of a batch, each once, and where each row finds its own: pids = labels[place]."""

    labels: torch.Tensor  # int64 [u]
    place: torch.Tensor  # int64 [n] in 0..u-1


class FeatureDataset(Dataset):
    """Features [N, D] with identities [N], read as whole batches: `features` where they lie, `pids` and `distinct`.

    The labels stay on the CPU, where counting them makes no GPU wait.
    """

    def __init__(self, features: torch.Tensor, pids: torch.Tensor) -> None:
        self.features = features
        self.pids = pids.cpu()

    def __len__(self) -> int:
        return len(self.pids)

    def __getitems__(self, rows: Sequence[int]) -> Batch:
        """Return the batch of some rows: features [n, D], pids int64 [n], distinct."""
        chosen = torch.tensor(rows)
        pids = self.pids[chosen]
        distinct = Distinct(*pids.unique(return_inverse=True))
        return {"features": self.features[chosen.to(self.features.device)], "pids": pids, "distinct": distinct}


def feature_loader(
    features: torch.Tensor, pids: torch.Tensor, batch_size: int, seed: int, rank: int, world_size: int
) -> Loader:
    """Return a loader that draws each row once an epoch; a short last batch is kept.

    The processes draw the same order and get equal shares of each batch of `batch_size` rows.
    """
    dataset = FeatureDataset(features, pids)
    sampler = ShuffleSampler(pids, batch_size, seed, rank, world_size, smallest=1)
    share = batch_size // world_size
    generator = torch.Generator()  # the loader's own draws leave the training's random state alone
    return Loader(dataset, batch_size=share, sampler=sampler, collate_fn=_as_it_is, generator=generator)


def _as_it_is(batch: Batch) -> Batch:
    return batch
