"""Samplers whose epochs are pure functions of (seed, epoch): the same plan on every rank and after every resume."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from utils.errors import ConfigError

AT_ONCE = 2**16  # rows of an epoch that are Python numbers at the same time
K_KEY = "DATALOADER.NUM_INSTANCE or DATALOADER.PHASED.K_*"


class EpochSampler(Sampler[int], ABC):
    """Row numbers of one epoch for one rank; subclasses make the plan in `_plan(rng)`.

    `len()` is the exact number of rows that the current epoch yields on this rank.
    """

    def __init__(self, seed: int, rank: int, world_size: int) -> None:
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self._rows: np.ndarray | None = None

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose plan the next iteration follows."""
        if epoch != self.epoch:
            self.epoch = epoch
            self._rows = None

    def __iter__(self) -> Iterator[int]:
        rows = self._epoch_rows()
        for start in range(0, len(rows), AT_ONCE):
            yield from rows[start : start + AT_ONCE].tolist()

    def __len__(self) -> int:
        return len(self._epoch_rows())

    def _epoch_rows(self) -> np.ndarray:
        if self._rows is None:
            self._rows = self._plan(np.random.default_rng((self.seed, self.epoch)))
        return self._rows

    @abstractmethod
    def describe(self) -> str:
        """Return one line on the current epoch's plan."""

    @abstractmethod
    def _plan(self, rng: np.random.Generator) -> np.ndarray:
        """Return this rank's row numbers of one epoch."""


class RandomIdentitySampler(EpochSampler):
    """P identities x K images per batch, as in TransReID.

    Each identity's images are shuffled and cut into blocks of K; an incomplete last block is left out, and an identity
    with fewer than K images contributes one block drawn with replacement. Each batch then takes the next block of P
    identities drawn without replacement among those that still have one; the epoch ends when fewer than P are left.

    The batch is global: rank r of `world_size` gets P / world_size of its identities. `data_source` holds tuples
    (path, pid, ...). Raises ConfigError when batch_size, num_instances and world_size do not divide, or when the data
    has fewer than P identities.
    """

    def __init__(
        self,
        data_source: Sequence[tuple],
        batch_size: int,
        num_instances: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(seed, rank, world_size)
        self.batch_size = batch_size
        pids = np.fromiter((item[1] for item in data_source), dtype=np.int64, count=len(data_source))
        _, self._label, self._count = np.unique(pids, return_inverse=True, return_counts=True)
        self.set_num_instances(num_instances)

    @property
    def num_identities(self) -> int:
        """P, the identities of a global batch."""
        return self.batch_size // self.num_instances

    def set_num_instances(self, num_instances: int) -> None:
        """Change K; P follows from the batch size. Takes effect at the next iteration."""
        check_pxk(self.batch_size, num_instances, self.world_size, len(self._count))
        self.num_instances = num_instances
        self._rows = None

    def describe(self) -> str:
        """Return one line on the current epoch's plan."""
        repeated = int((self._count < self.num_instances).sum())
        batches = len(self) * self.world_size // self.batch_size
        return (
            f"PxK = {self.num_identities}x{self.num_instances}, {batches} batches, "
            f"{len(np.unique(self._epoch_rows()))} different samples on this rank, "
            f"{repeated} identities with fewer than {self.num_instances} samples (drawn with replacement)"
        )

    def _plan(self, rng: np.random.Generator) -> np.ndarray:
        blocks, owner = self._blocks(rng)
        chosen = self._choose(rng, np.bincount(owner, minlength=len(self._count)))
        first = np.searchsorted(owner, np.arange(len(self._count)))  # owner is sorted: first block of each identity
        mine = chosen[:, self.rank :: self.world_size]
        turn = _occurrence(chosen.ravel()).reshape(chosen.shape)[:, self.rank :: self.world_size]
        return blocks[first[mine] + turn].reshape(-1)

    def _blocks(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return rows [blocks, K] and the identity of each block, blocks of an identity side by side."""
        k, count = self.num_instances, self._count
        order = np.lexsort((rng.random(len(self._label)), self._label))  # rows by identity, shuffled within
        start = np.cumsum(count) - count
        blocks_of = np.maximum(count // k, 1)
        owner = np.repeat(np.arange(len(count)), blocks_of)
        turn = _occurrence(owner)
        position = turn[:, None] * k + np.arange(k)  # [blocks, K], position within the identity
        few = count[owner] < k
        position[few] = (rng.random((int(few.sum()), k)) * count[owner[few], None]).astype(np.int64)
        return order[start[owner][:, None] + position], owner

    def _choose(self, rng: np.random.Generator, left: np.ndarray) -> np.ndarray:
        """Return the identities of each batch [batches, P]; `left` holds the blocks of each identity."""
        available = np.flatnonzero(left)
        batches = []
        while len(available) >= self.num_identities:
            batch = rng.choice(available, self.num_identities, replace=False)
            batches.append(batch)
            left[batch] -= 1
            if (left[batch] == 0).any():
                available = available[left[available] > 0]
        return np.stack(batches)


class ShuffleSampler(EpochSampler):
    """Every image once an epoch in random order; ranks get equal shares.

    A short last batch is kept unless `drop_last`, or where it has less than `smallest` images per rank: batch
    normalisation cannot train on one. Raises ConfigError when no batch would be left to train on.
    """

    def __init__(
        self,
        data_source: Sequence[tuple],
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        smallest: int = 2,
    ) -> None:
        super().__init__(seed, rank, world_size)
        if batch_size % world_size:
            raise ConfigError(f"SOLVER.IMS_PER_BATCH {batch_size} is not a multiple of {world_size} processes")
        self.size = len(data_source)
        self.share = batch_size // world_size
        self.drop_last = drop_last
        self.smallest = smallest
        if min(self.share, self.size // world_size) < smallest:
            raise ConfigError(
                f"SOLVER.IMS_PER_BATCH {batch_size} over {world_size} processes and {self.size} training images leave "
                "batches of one image, on which batch normalisation cannot train"
            )
        if drop_last and self.size < batch_size:
            raise ConfigError(
                f"SOLVER.IMS_PER_BATCH {batch_size} exceeds the {self.size} training images, and DATALOADER.SAMPLER "
                f"random drops a short batch, so none is left; SOLVER.IMS_PER_BATCH can be at most {self.size}"
            )

    def describe(self) -> str:
        """Return one line on the current epoch's plan."""
        used = len(self) * self.world_size
        batches = math.ceil(len(self) / self.share)
        return f"shuffled, {batches} batches, {used} of {self.size} samples an epoch"

    def _plan(self, rng: np.random.Generator) -> np.ndarray:
        order = rng.permutation(self.size)
        mine = order[self.rank : self.size - self.size % self.world_size : self.world_size]
        rest = len(mine) % self.share
        return mine[: len(mine) - rest] if self.drop_last or rest < self.smallest else mine


class ShardSampler(Sampler[int]):
    """One process's share of the rows 0..size-1, in order: contiguous and equally long on all processes.

    Where `size` does not divide, the last shares are padded with the last row: the shares in rank order, cut to `size`
    rows, are all rows in order (utils.distributed.gather_shards).
    """

    def __init__(self, size: int, rank: int = 0, world_size: int = 1) -> None:
        share = math.ceil(size / world_size)
        self._rows, self._last = range(rank * share, (rank + 1) * share), size - 1

    def __iter__(self) -> Iterator[int]:
        return (min(row, self._last) for row in self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def check_pxk(batch_size: int, num_instances: int, world_size: int, identities: int, key: str = K_KEY) -> None:
    """Raise ConfigError when K = `num_instances` cannot make batches of P x K; `key` says where K comes from."""
    source = f"K {num_instances} ({key})"
    if batch_size % (num_instances * world_size):
        processes = f" x {world_size} processes" if world_size > 1 else ""
        raise ConfigError(f"SOLVER.IMS_PER_BATCH {batch_size} is not a multiple of {source}{processes}; change either")
    needed = batch_size // num_instances
    if needed > identities:
        raise ConfigError(
            f"a batch of {batch_size} images with {source} needs {needed} identities, the training set has "
            f"{identities}; SOLVER.IMS_PER_BATCH can be at most {identities * num_instances}"
        )


def _occurrence(values: np.ndarray) -> np.ndarray:
    """Return how often each entry of a 1-D array occurred before it."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    start = np.searchsorted(ordered, ordered)  # first position of each value
    result = np.empty(len(values), dtype=np.int64)
    result[order] = np.arange(len(values)) - start
    return result
