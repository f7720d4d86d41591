"""P x K batches: invariants of every batch and of every epoch."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from datasets import RandomIdentitySampler
from datasets.sampler import ShardSampler, ShuffleSampler, check_pxk
from utils.errors import ConfigError


def make_source(counts: Sequence[int]) -> list[tuple[str, int]]:
    """Return tuples (path, pid) with interleaved identities; pids are not contiguous."""
    source = [(f"{pid}_{i}", pid * 7 + 2) for pid, count in enumerate(counts) for i in range(count)]
    order = np.random.default_rng(0).permutation(len(source))
    return [source[row] for row in order]


def batches_of(sampler: Iterable[int], size: int) -> list[list[int]]:
    rows = list(sampler)
    assert len(rows) % size == 0
    return [rows[start : start + size] for start in range(0, len(rows), size)]


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 13), min_size=4, max_size=20),
    k=st.sampled_from([1, 2, 4]),
    epoch=st.integers(0, 5),
)
def test_every_batch_is_p_identities_times_k_and_no_image_repeats_where_it_need_not(counts, k, epoch):
    source = make_source(counts)
    size_of = Counter(pid for _, pid in source)
    sampler = RandomIdentitySampler(source, 4 * k, k, seed=3)
    sampler.set_epoch(epoch)
    used = Counter()
    blocks = Counter()
    for batch in batches_of(sampler, 4 * k):
        pids = Counter(source[row][1] for row in batch)
        assert len(pids) == 4 and set(pids.values()) == {k}
        for start in range(0, len(batch), k):
            block = batch[start : start + k]
            assert len({source[row][1] for row in block}) == 1
            if size_of[source[block[0]][1]] >= k:
                assert len(set(block)) == k
        used.update(batch)
        blocks.update(pids.keys())
    for row, times in used.items():
        assert times == 1 or size_of[source[row][1]] < k
    # no block is used twice, and the epoch ends only when fewer than P identities have one left
    left = {pid: max(count // k, 1) - blocks[pid] for pid, count in size_of.items()}
    assert min(left.values()) >= 0 and sum(value > 0 for value in left.values()) < 4
    assert len(sampler) == sum(used.values())


def test_an_identity_with_fewer_than_k_images_is_drawn_with_replacement_from_its_own():
    source = make_source([2, 8, 8, 8])
    sampler = RandomIdentitySampler(source, 16, 4)
    (batch,) = batches_of(sampler, 16)
    own = {row for row, (_, pid) in enumerate(source) if pid == 2}
    assert len(own) == 2 and sum(row in own for row in batch) == 4


def test_the_plan_depends_on_seed_and_epoch_only():
    source = make_source([6] * 10)
    one, two = (RandomIdentitySampler(source, 16, 4, seed=5) for _ in range(2))
    list(one)  # iterating does not change what follows
    for epoch in (3, 1, 3):
        one.set_epoch(epoch)
        two.set_epoch(epoch)
        assert list(one) == list(two) == list(one)
    assert list(RandomIdentitySampler(source, 16, 4, seed=6)) != list(RandomIdentitySampler(source, 16, 4, seed=5))
    first = list(one)
    one.set_epoch(4)
    assert list(one) != first


def test_every_image_is_seen_over_some_epochs():
    source = make_source([5] * 9)
    sampler = RandomIdentitySampler(source, 8, 2)
    seen = set()
    for epoch in range(30):
        sampler.set_epoch(epoch)
        seen.update(sampler)
    assert seen == set(range(len(source)))


def test_identities_are_drawn_uniformly_as_in_the_loop_version():
    """First batches of many epochs hold each identity equally often, whatever its number of images."""
    source = make_source([4, 16, 4, 16, 4, 4, 4, 4])
    count = Counter()
    sampler = RandomIdentitySampler(source, 8, 2)
    for epoch in range(1500):
        sampler.set_epoch(epoch)
        count.update(source[row][1] for row in list(sampler)[:8:2])
    shares = np.array([count[pid] for pid in sorted(count)]) / 1500
    assert np.abs(shares - 0.5).max() < 0.06  # P / identities = 4 / 8; 4.6 standard errors


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_share_each_global_batch_without_overlap(world_size):
    source = make_source([9, 4, 4, 12, 8, 8, 8, 5, 2])
    whole = RandomIdentitySampler(source, 16, 4, seed=1)
    parts = [RandomIdentitySampler(source, 16, 4, seed=1, rank=r, world_size=world_size) for r in range(world_size)]
    for sampler in (whole, *parts):
        sampler.set_epoch(2)
    assert {len(part) for part in parts} == {len(whole) // world_size}
    split = [batches_of(part, 16 // world_size) for part in parts]
    for i, batch in enumerate(batches_of(whole, 16)):
        pids_of_ranks = [{source[row][1] for row in batches[i]} for batches in split]
        assert sorted(row for batches in split for row in batches[i]) == sorted(batch)
        assert sum(map(len, pids_of_ranks)) == len(set().union(*pids_of_ranks)) == 4


def test_k_changes_in_place_and_p_follows():
    source = make_source([16] * 12)
    sampler = RandomIdentitySampler(source, 16, 4)
    assert sampler.num_identities == 4
    list(sampler)
    sampler.set_num_instances(8)
    assert sampler.num_identities == 2
    for batch in batches_of(sampler, 16):
        assert set(Counter(source[row][1] for row in batch).values()) == {8}
    assert list(sampler) == list(RandomIdentitySampler(source, 16, 8))


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(1, 20), min_size=8, max_size=14),
    steps=st.lists(st.tuples(st.integers(0, 4), st.sampled_from([2, 4, 8]), st.booleans()), min_size=1, max_size=6),
)
def test_the_plan_is_that_of_a_fresh_sampler_whatever_came_before(counts, steps):
    source = make_source(counts)
    used = RandomIdentitySampler(source, 16, 4, seed=9)
    for epoch, k, k_first in steps:
        calls = [lambda k=k: used.set_num_instances(k), lambda epoch=epoch: used.set_epoch(epoch)]
        for call in calls if k_first else reversed(calls):
            call()
        fresh = RandomIdentitySampler(source, 16, k, seed=9)
        fresh.set_epoch(epoch)
        assert len(used) == len(fresh) == len(list(fresh)) and used.num_identities == 16 // k
        assert list(used) == list(fresh)


class Rows(Dataset):
    """A data set whose items are their row numbers."""

    def __len__(self) -> int:
        return 96

    def __getitem__(self, row: int) -> int:
        return row


def test_a_loader_with_living_workers_follows_a_switch_of_k():
    source = make_source([12] * 8)
    sampler = RandomIdentitySampler(source, 16, 4, seed=1)
    loader = DataLoader(Rows(), batch_size=16, sampler=sampler, num_workers=1, persistent_workers=True)
    workers = []
    for epoch, k in ((1, 4), (2, 8), (3, 2)):
        sampler.set_epoch(epoch)
        sampler.set_num_instances(k)
        expected = RandomIdentitySampler(source, 16, k, seed=1)
        expected.set_epoch(epoch)
        batches = [batch.tolist() for batch in loader]
        assert batches == batches_of(expected, 16) and len(loader) == len(batches)
        workers.append([worker.pid for worker in loader._iterator._workers])
    assert workers[0] == workers[1] == workers[2]


def test_a_batch_that_k_or_the_processes_do_not_divide_is_refused():
    source = make_source([8] * 20)
    with pytest.raises(ConfigError, match=r"IMS_PER_BATCH 64 is not a multiple of K 5 \(DATALOADER"):
        RandomIdentitySampler(source, 64, 5)
    with pytest.raises(ConfigError, match="x 3 processes"):
        RandomIdentitySampler(source, 64, 4, world_size=3)


def test_fewer_identities_than_p_name_the_largest_batch():
    with pytest.raises(ConfigError, match="needs 16 identities, the training set has 10; .* at most 40"):
        RandomIdentitySampler(make_source([8] * 10), 64, 4)


def test_a_refused_k_leaves_the_sampler_as_it_was():
    sampler = RandomIdentitySampler(make_source([8] * 6), 16, 4)
    plan = list(sampler)
    for k, words in ((2, "needs 8 identities, the training set has 6"), (5, "not a multiple of K 5")):
        with pytest.raises(ConfigError, match=words) as error:
            sampler.set_num_instances(k)
        assert "DATALOADER.NUM_INSTANCE or DATALOADER.PHASED.K_" in str(error.value)
    assert sampler.num_instances == 4 and list(sampler) == plan


def test_the_description_counts_what_the_epoch_uses():
    text = RandomIdentitySampler(make_source([8] * 6 + [2]), 8, 4).describe()
    assert "PxK = 2x4" in text and "1 identities with fewer than 4 samples" in text


@pytest.mark.parametrize(("images", "world_size"), [(20, 1), (21, 1), (21, 2), (17, 1)])
def test_shuffling_sees_every_image_once_and_leaves_no_batch_of_one(images, world_size):
    source = make_source([1] * images)
    samplers = [ShuffleSampler(source, 8, rank=r, world_size=world_size) for r in range(world_size)]
    rows = [row for sampler in samplers for row in sampler]
    share = 8 // world_size
    assert len(rows) == len(set(rows)) and set(rows) <= set(range(images))
    assert len({len(sampler) for sampler in samplers}) == 1
    assert len(samplers[0]) % share != 1
    assert images - len(rows) < 2 * world_size


@pytest.mark.parametrize(("images", "world_size"), [(20, 1), (21, 2), (16, 2), (31, 4), (8, 4)])
def test_whole_batches_only_where_the_short_one_is_dropped(images, world_size):
    source = make_source([1] * images)
    samplers = [ShuffleSampler(source, 8, 0, rank, world_size, drop_last=True) for rank in range(world_size)]
    rows = [list(sampler) for sampler in samplers]
    assert {len(part) for part in rows} == {images // 8 * 8 // world_size} == {len(samplers[0])}
    flat = sum(rows, [])
    assert len(set(flat)) == len(flat) and set(flat) <= set(range(images))
    whole = [list(ShuffleSampler(source, 8, 0, rank, world_size)) for rank in range(world_size)]
    assert all(long[: len(part)] == part for long, part in zip(whole, rows, strict=True))
    assert f"{images // 8} batches, {len(flat)} of {images} samples" in samplers[0].describe()


def test_images_left_out_of_a_dropped_batch_come_in_other_epochs():
    sampler = ShuffleSampler(make_source([1] * 15), 8, drop_last=True)
    seen = set()
    for epoch in range(12):
        sampler.set_epoch(epoch)
        seen.update(sampler)
    assert seen == set(range(15))


def test_fewer_images_than_a_batch_are_refused_only_where_short_batches_are_dropped():
    source = make_source([1] * 7)
    with pytest.raises(ConfigError, match="IMS_PER_BATCH 8 exceeds the 7 training images.* can be at most 7"):
        ShuffleSampler(source, 8, drop_last=True)
    assert len(ShuffleSampler(source, 8)) == 7


def test_shuffling_follows_the_epoch():
    sampler = ShuffleSampler(make_source([1] * 20), 8)
    first = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first
    sampler.set_epoch(0)
    assert list(sampler) == first


def test_a_batch_of_one_is_refused():
    with pytest.raises(ConfigError, match="batch normalisation"):
        ShuffleSampler(make_source([1] * 20), 1)


@given(st.integers(0, 50), st.integers(1, 9))
def test_shards_are_equally_long_and_hold_all_rows_in_order(size, world_size):
    shards = [list(ShardSampler(size, rank, world_size)) for rank in range(world_size)]
    assert {len(shard) for shard in shards} == {len(ShardSampler(size, 0, world_size))} == {-(-size // world_size)}
    rows = [row for shard in shards for row in shard]
    assert rows[:size] == list(range(size))
    assert set(rows[size:]) <= {size - 1}


def test_the_description_of_each_rank_is_that_of_its_rows():
    source = make_source([8, 4, 9, 3, 8, 8, 2, 5])
    for rank, world_size in ((0, 1), (0, 2), (1, 2)):
        sampler = RandomIdentitySampler(source, 16, 4, seed=1, rank=rank, world_size=world_size)
        rows = list(sampler)
        assert sampler.describe() == (
            f"PxK = 4x4, {len(rows) * world_size // 16} batches, {len(set(rows))} different samples on this rank, "
            "2 identities with fewer than 4 samples (drawn with replacement)"
        )


@pytest.mark.parametrize(
    ("images", "world_size", "batches", "used"), [(20, 1, 3, 20), (21, 2, 3, 20), (17, 1, 2, 16), (16, 2, 2, 16)]
)
def test_the_description_of_shuffled_images_counts_the_short_batch_and_the_images_of_all_ranks(
    images, world_size, batches, used
):
    samplers = [ShuffleSampler(make_source([1] * images), 8, 0, rank, world_size) for rank in range(world_size)]
    assert sum(map(len, samplers)) == used
    expected = f"shuffled, {batches} batches, {used} of {images} samples an epoch"
    assert [sampler.describe() for sampler in samplers] == [expected] * world_size


def test_defaults_are_seed_0_of_one_process_that_keeps_the_short_batch():
    source = make_source([5] * 9)
    plain, named = RandomIdentitySampler(source, 8, 2), RandomIdentitySampler(source, 8, 2, 0, 0, 1)
    assert list(plain) == list(named) and plain.epoch == 0
    assert list(ShuffleSampler(source, 8)) == list(ShuffleSampler(source, 8, 0, 0, 1, False))
    assert list(ShardSampler(7)) == list(range(7))
    assert list(ShuffleSampler(source, 8, seed=1)) != list(ShuffleSampler(source, 8))


def test_a_short_batch_of_two_images_is_kept():
    assert len(ShuffleSampler(make_source([1] * 18), 8)) == 18
    assert len(ShuffleSampler(make_source([1] * 10), 8, drop_last=True)) == 8


@pytest.mark.parametrize(
    ("images", "batch_size", "world_size"), [(20, 1, 1), (20, 4, 4), (1, 8, 1), (3, 8, 2), (15, 16, 8), (0, 4, 1)]
)
def test_batches_of_one_image_a_process_are_refused_whatever_makes_them(images, batch_size, world_size):
    words = f"IMS_PER_BATCH {batch_size} over {world_size} processes and {images} training images leave .*one image"
    with pytest.raises(ConfigError, match=words):
        ShuffleSampler(make_source([1] * images), batch_size, world_size=world_size)


@pytest.mark.parametrize(("images", "batch_size", "world_size"), [(2, 2, 1), (4, 4, 2), (8, 8, 4)])
def test_two_images_a_process_are_enough(images, batch_size, world_size):
    for drop_last in (False, True):
        samplers = [
            ShuffleSampler(make_source([1] * images), batch_size, 0, rank, world_size, drop_last)
            for rank in range(world_size)
        ]
        assert sorted(row for sampler in samplers for row in sampler) == list(range(images))


def test_a_batch_that_the_processes_do_not_divide_is_refused_before_it_is_cut():
    with pytest.raises(ConfigError, match="^SOLVER.IMS_PER_BATCH 10 is not a multiple of 4 processes$"):
        ShuffleSampler(make_source([1] * 40), 10, world_size=4)


def test_what_k_asks_for_is_told_with_the_key_that_it_comes_from():
    check_pxk(16, 4, 2, 4)
    check_pxk(16, 4, 1, 4, "K")
    known = "is not a multiple of K 3 (DATALOADER.NUM_INSTANCE)"
    for batch, world_size, told in ((16, 1, ""), (12, 8, " x 8 processes")):
        with pytest.raises(ConfigError) as error:
            check_pxk(batch, 3, world_size, 9, "DATALOADER.NUM_INSTANCE")
        assert str(error.value) == f"SOLVER.IMS_PER_BATCH {batch} {known}{told}; change either"
    with pytest.raises(ConfigError, match=r"16 images with K 4 \(K\) needs 4 identities, .* has 3; .* at most 12$"):
        check_pxk(16, 4, 1, 3, "K")


def test_images_of_an_identity_are_drawn_evenly_with_and_without_replacement():
    source = make_source([3, 9, 9, 9])
    size_of, drawn, epochs = Counter(pid for _, pid in source), {3: Counter(), 9: Counter()}, 600
    sampler = RandomIdentitySampler(source, 16, 4)
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        for row in list(sampler)[:16]:
            drawn[size_of[source[row][1]]][row] += 1
    # the identity of 3 gives 4 draws an epoch; each of the others 4 of its 9 images: 5 standard errors each
    assert len(drawn[3]) == 3 and max(abs(times / epochs - 4 / 3) for times in drawn[3].values()) < 0.2
    assert len(drawn[9]) == 27 and max(abs(times / epochs - 4 / 9) for times in drawn[9].values()) < 0.11
