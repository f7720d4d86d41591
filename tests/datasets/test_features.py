"""Batches of cached features over several processes are those of one."""

import pytest
import torch

from datasets.features import feature_loader
from datasets.loader import Loader

SEED = 9


def make(count: int, batch: int, rank: int, world: int) -> Loader:
    """Return the loader of one process; feature i is (i, -i), its identity i % 5."""
    numbers = torch.arange(count)
    return feature_loader(torch.stack([numbers, -numbers], dim=1), numbers % 5, batch, SEED, rank, world)


def rows_of(loader: Loader, epoch: int) -> list[list[int]]:
    """Return the rows of each batch of an epoch."""
    loader.sampler.set_epoch(epoch)
    batches = list(loader)
    assert len(batches) == len(loader)
    for batch in batches:
        rows = batch["features"][:, 0]
        assert torch.equal(batch["features"][:, 1], -rows) and torch.equal(batch["pids"], rows % 5)
        labels, place = batch["distinct"]
        assert len(set(labels.tolist())) == len(labels) and torch.equal(labels[place], batch["pids"])
    return [batch["features"][:, 0].tolist() for batch in batches]


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize(
    "count, batch", [(48, 16), (48, 20), (48, 48), (48, 64), (47, 16), (49, 24), (50, 48), (4, 8), (41, 40)]
)
def test_processes_share_the_batches_of_one(count, batch, world):
    alone = rows_of(make(count, batch, 0, 1), epoch=3)
    ranks = [rows_of(make(count, batch, rank, world), epoch=3) for rank in range(world)]
    steps = [sorted(sum(shares, [])) for shares in zip(*ranks, strict=True)]
    assert all(len({len(share) for share in shares}) == 1 and shares[0] for shares in zip(*ranks, strict=True))
    left_out = count % world  # shares are equal, so the end of the permutation has no place
    assert sum(map(len, steps)) == count - left_out
    for mine, whole in zip(steps, alone, strict=False):
        assert set(mine) <= set(whole)
        assert len(mine) == len(whole) or mine is steps[-1]
    if not left_out:
        assert steps == [sorted(rows) for rows in alone]


def test_what_has_no_place_is_another_row_each_epoch():
    loaders = [make(47, 16, rank, 2) for rank in range(2)]
    missing = {
        epoch: set(range(47)) - {row for loader in loaders for rows in rows_of(loader, epoch) for row in rows}
        for epoch in range(1, 6)
    }
    assert all(len(rows) == 1 for rows in missing.values()) and len(set.union(*missing.values())) > 1


def test_last_batch_of_one_row_is_a_batch():
    assert [len(rows) for rows in rows_of(make(21, 20, 0, 1), 1)] == [20, 1]
    assert [len(rows) for rows in rows_of(make(22, 20, 1, 2), 1)] == [10, 1]


def test_training_s_random_numbers_do_not_depend_on_the_batches():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    rows_of(make(48, 16, 0, 1), 1)
    assert torch.equal(torch.rand(3), expected)
