"""A stage asks its loader for the sampler, however batches are drawn."""

from collections.abc import Iterator

from torch.utils.data import BatchSampler, DataLoader

from datasets.sampler import RandomIdentitySampler
from processor.stage import Stage

ROWS = [("", pid, 0, 0) for pid in range(4) for _ in range(3)]


class DrawnByEpoch(BatchSampler):
    """Batches of (row, epoch), for data that are drawn anew in each epoch."""

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in super().__iter__():
            yield [(row, self.sampler.epoch) for row in batch]


def stage_on(loader: DataLoader) -> Stage:
    return Stage("main", *[None] * 3, loader, *[None] * 6)


def test_a_loader_has_its_sampler():
    sampler = RandomIdentitySampler(ROWS, 4, 2)
    assert stage_on(DataLoader(ROWS, 4, sampler=sampler)).sampler is sampler


def test_a_loader_with_a_batch_sampler_follows_the_epoch_of_the_sampler_in_it():
    sampler = RandomIdentitySampler(ROWS, 4, 2)
    loader = DataLoader([*range(12)], batch_sampler=DrawnByEpoch(sampler, 4, False))
    stage = stage_on(loader)
    stage.sampler.set_epoch(3)
    assert stage.sampler is sampler
    assert {epoch for batch in loader.batch_sampler for _, epoch in batch} == {3}
