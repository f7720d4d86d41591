"""Samples in arrays are the list that they were made of, and workers need no copy of them."""

import multiprocessing
import pickle
import pickletools
from collections.abc import Iterable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.bases import Sample
from datasets.packed import PackedSamples
from datasets.sampler import ShardSampler, ShuffleSampler
from datasets.torch_datasets import ImageDataset

MEMORY = Path("/proc/self/smaps_rollup")
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)


def many(number: int) -> list[Sample]:
    return [Sample(f"/data/gallery/{row:09d}.jpg", row // 10, row % 7, -1) for row in range(number)]


@given(st.lists(st.builds(Sample, TEXT, st.integers(0, 2**40), st.integers(-1, 9), st.integers(-1, 9)), max_size=9))
def test_packed_samples_are_the_list(samples):
    packed = PackedSamples(samples)
    assert list(packed) == samples and len(packed) == len(samples)
    assert [packed[row] for row in range(-len(samples), len(samples))] == samples + samples
    assert packed[1:] == samples[1:] and packed[-3::2] == samples[-3::2]
    for row in (len(samples), -len(samples) - 1):
        with pytest.raises(IndexError):
            packed[row]


def test_a_name_that_is_no_unicode_and_labels_of_its_own_over_the_same_paths():
    samples = [Sample("a/\udcff.jpg", 1, 2, 3), Sample("b.jpg", 4, 5, 6)]
    told = [sample._replace(camid=-1) for sample in samples]
    assert list(PackedSamples(told, PackedSamples(samples))) == told


def size_and_operations(number: int) -> tuple[int, int]:
    """Return bytes and operations of what a process that does not fork gets of a set of images."""
    samples = many(number)
    told = [sample._replace(viewid=0) for sample in samples]
    sent = pickle.dumps(ImageDataset(samples, (8, 8), "bilinear", "pillow", told))
    return len(sent), sum(1 for _ in pickletools.genops(sent))


def test_what_is_sent_to_a_worker_has_no_object_for_each_image_and_its_path_once():
    small, few = size_and_operations(100)
    large, as_few = size_and_operations(10_100)
    assert as_few <= few + 5  # longer integers
    assert large - small <= 10_000 * (len(many(1)[0].path) + 7 * 8) + 100


def read_all(samples: Iterable[Sample], pipe: Connection) -> None:
    """Read every sample in a forked process and send how many bytes of its own it has for that."""

    def own() -> int:
        lines = MEMORY.read_text().splitlines()
        return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Private_"))

    before = own()
    for _ in samples:
        pass
    pipe.send(own() - before)


@pytest.mark.skipif(not MEMORY.is_file(), reason="the system does not tell what memory is a process's own")
def test_a_forked_worker_that_reads_every_row_copies_none():
    samples, grown, context = many(50_000), [], multiprocessing.get_context("fork")
    for rows in (PackedSamples(samples), samples):
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=read_all, args=(rows, there))
        process.start()
        grown.append(here.recv())
        process.join()
    packed, listed = grown
    assert packed < 2**21 < listed  # 2 MiB; the arrays have 4, the objects of the list more


def test_an_epoch_is_no_list_of_its_rows():
    rows = iter(ShuffleSampler(range(200_000), 64))
    assert sorted([next(rows), *rows]) == list(range(200_000))
    shard = ShardSampler(10**9 + 1, 1, 2)
    assert len(shard) == 5 * 10**8 + 1 and next(iter(shard)) == 5 * 10**8 + 1
    assert list(ShardSampler(5, 1, 2)) == [3, 4, 4]
