"""Batches of (image, caption) pairs: what is in them, which epoch masks what, and how batches are drawn."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets import ReIDData, make_dataloader
from datasets import loaders as loaders_of_data
from datasets.decode import read_image
from datasets.tokens import MASK_ID, mask_tokens
from tests.datasets.captioned import LENGTH, caption_cfg, entries_of, pairs_by_hand, write_captioned
from utils.distributed import Ranks

NUM_PAIRS = 13
IDS = {"train": (9, 2, 30, 4), "test": (7,)}
MLM = ("mlm_ids", "mlm_labels")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_captioned(tmp_path, entries_of(IDS))


def epoch_of(data: ReIDData, epoch: int) -> list[dict]:
    """Return the batches of an epoch."""
    data.train_loader.batch_sampler.sampler.set_epoch(epoch)
    return list(data.train_loader)


def rows_of(batches: list[dict]) -> dict[tuple[int, tuple[int, ...]], list[list[int]]]:
    """Return what is masked of each pair: (image_id, caption) -> [mlm_ids, mlm_labels]."""
    return {
        (image_id, tuple(caption)): masked
        for batch in batches
        for image_id, caption, *masked in zip(
            *(batch[name].tolist() for name in ("image_ids", "caption_ids", *MLM)), strict=True
        )
    }


def test_an_epoch_is_every_pair_once_with_its_image_identity_and_tokens(root):
    cfg = caption_cfg(root)
    expected = pairs_by_hand(entries_of(IDS))
    batches = epoch_of(make_dataloader(cfg), 1)
    assert len(expected) == NUM_PAIRS and [len(batch["pids"]) for batch in batches] == [4, 4, 4, 1]
    found = []
    for batch in batches:
        assert set(batch) == {"images", "pids", "image_ids", "caption_ids", "paths", *MLM}
        assert batch["images"].dtype == torch.uint8
        assert {batch[name].dtype for name in ("pids", "image_ids", "caption_ids", *MLM)} == {torch.int64}
        assert all(batch[name].shape == (len(batch["pids"]), LENGTH) for name in ("caption_ids", *MLM))
        for row, path in enumerate(batch["paths"]):
            image = read_image(path, (16, 8), cfg.INPUT.FILTER_TRAIN, cfg.INPUT.DECODER)
            assert torch.equal(batch["images"][row], torch.as_tensor(image))
            labels = (batch["pids"][row].item(), batch["image_ids"][row].item())
            found.append((os.path.basename(path), *labels, batch["caption_ids"][row].tolist()))
    assert sorted(found) == sorted(expected)


def test_epochs_differ_in_order_and_masks_and_come_back_the_same(root):
    data = make_dataloader(caption_cfg(root))
    first, second, again = (epoch_of(data, epoch) for epoch in (1, 2, 1))
    assert [batch["paths"] for batch in first] == [batch["paths"] for batch in again]
    assert [batch["paths"] for batch in first] != [batch["paths"] for batch in second]
    assert rows_of(first) == rows_of(again) and rows_of(first).keys() == rows_of(second).keys()
    assert rows_of(first) != rows_of(second)


@pytest.mark.parametrize(
    "opts",
    [("SOLVER.IMS_PER_BATCH", 6), ("DATALOADER.NUM_WORKERS", 1), ("DATALOADER.SAMPLER", "softmax_triplet")],
    ids=["other batches", "a worker", "other order"],
)
def test_what_is_masked_depends_on_seed_epoch_and_pair_alone(root, opts):
    masked = rows_of(epoch_of(make_dataloader(caption_cfg(root)), 3))
    others = rows_of(epoch_of(make_dataloader(caption_cfg(root, "DATALOADER.NUM_INSTANCE", 2, *opts)), 3))
    assert others and all(masked[pair] == words for pair, words in others.items())
    assert rows_of(epoch_of(make_dataloader(caption_cfg(root, "SOLVER.SEED", 6)), 3)) != masked


def test_words_are_masked_in_a_copy_and_labels_tell_what_they_were(root):
    for batch in epoch_of(make_dataloader(caption_cfg(root, "INPUT.TEXT.MASK_RATE", 0.5)), 1):
        ids, masked, labels = (batch[name] for name in ("caption_ids", *MLM))
        asked = labels != 0
        assert asked.any(1).all() and (ids != MASK_ID).all()
        assert torch.equal(torch.where(asked, labels, masked), ids)


def test_the_captions_of_a_batch_are_masked_as_each_alone_would_be(root):
    rows = make_dataloader(caption_cfg(root)).train_loader.dataset
    batch = rows.__getitems__([(row, 4) for row in range(len(rows))])
    for row, ids in enumerate(batch["caption_ids"]):
        state = np.random.SeedSequence((5, 4, row)).generate_state(1, np.uint64)
        masked, labels = mask_tokens(ids, torch.Generator().manual_seed(int(state[0])))
        assert torch.equal(batch["mlm_ids"][row], masked) and torch.equal(batch["mlm_labels"][row], labels)


@pytest.mark.parametrize(
    ("opts", "masks"),
    [
        (("INPUT.TEXT.MASK_SHARE", 1.0, "INPUT.TEXT.KEEP_SHARE", 0.0), lambda ids, masked: masked == MASK_ID),
        (("INPUT.TEXT.MASK_SHARE", 0.0, "INPUT.TEXT.KEEP_SHARE", 1.0), lambda ids, masked: masked == ids),
    ],
    ids=["all masked", "all kept"],
)
def test_the_shares_of_the_keys_are_read(root, opts, masks):
    rate = ("INPUT.TEXT.MASK_RATE", 1.0)
    for batch in epoch_of(make_dataloader(caption_cfg(root, *rate, *opts)), 1):
        asked = batch["mlm_labels"] != 0
        is_word = (batch["caption_ids"] > 0) & (batch["caption_ids"] < MASK_ID)
        assert torch.equal(asked, is_word) and masks(batch["caption_ids"], batch["mlm_ids"])[asked].all()


def test_a_living_worker_learns_of_the_next_epoch(root):
    loaders = [make_dataloader(caption_cfg(root, "DATALOADER.NUM_WORKERS", workers)) for workers in (0, 1)]
    for epoch in (1, 2):
        alone, worked = (rows_of(epoch_of(data, epoch)) for data in loaders)
        assert alone == worked


def test_without_the_loss_of_masked_words_nothing_is_masked(root):
    batch = epoch_of(make_dataloader(caption_cfg(root, "LOSS.TEXT.NAMES", ("sdm", "id"))), 1)[0]
    assert not set(MLM) & set(batch)


def test_words_are_asked_for_in_the_epochs_whose_phase_weighs_them(root):
    phased = ("LOSS.PHASED.ENABLE", True, "LOSS.PHASED.BOUNDARIES", [3, 5], "SOLVER.MAX_EPOCHS", 6)
    specs = ("LOSS.PHASED.W_TERMS", ["mlm=const:1|const:0|linear:0.5->0.0"])
    plain, data = make_dataloader(caption_cfg(root)), make_dataloader(caption_cfg(root, *phased, *specs))
    for epoch in range(1, 7):
        for batch, whole in zip(epoch_of(data, epoch), epoch_of(plain, epoch), strict=True):
            assert torch.equal(batch["mlm_ids"], whole["mlm_ids"])  # what all losses may see
            assert ("mlm_labels" in batch) == (epoch in (1, 2, 5))
            assert epoch > 2 or torch.equal(batch["mlm_labels"], whole["mlm_labels"])


def test_batches_by_identity_hold_as_many_pairs_of_each(tmp_path):
    ids = {"train": tuple(range(5)), "test": (9,)}
    root = write_captioned(tmp_path, entries_of(ids, images=(2,), captions=(2,)))
    options = ("DATALOADER.SAMPLER", "softmax_triplet", "DATALOADER.NUM_INSTANCE", 4, "SOLVER.IMS_PER_BATCH", 8)
    batches = epoch_of(make_dataloader(caption_cfg(root, *options), num_instance=4), 1)
    assert len(batches) == 2
    for batch in batches:
        assert sorted(batch["pids"].bincount().tolist(), reverse=True)[:2] == [4, 4]
        pairs = {*zip(batch["image_ids"].tolist(), map(tuple, batch["caption_ids"].tolist()), strict=True)}
        assert len(pairs) == 8  # each identity has four: none is drawn twice


@pytest.mark.parametrize("sampler", ["softmax", "softmax_triplet"])
def test_processes_share_the_pairs_of_an_epoch(tmp_path, monkeypatch, sampler):
    ids = {"train": tuple(range(4)), "test": (9,)}
    root = write_captioned(tmp_path, entries_of(ids, images=(2,), captions=(2,)))
    cfg = caption_cfg(root, "DATALOADER.SAMPLER", sampler, "DATALOADER.NUM_INSTANCE", 2)
    shares = []
    for rank in (0, 1):
        monkeypatch.setattr(loaders_of_data, "find_ranks", lambda _, rank=rank: Ranks(rank, 2))
        shares.append(epoch_of(make_dataloader(cfg), 1))
    monkeypatch.undo()
    alone = rows_of(epoch_of(make_dataloader(cfg), 1))
    first, second = map(rows_of, shares)
    assert all(len(batch["pids"]) == 2 for share in shares for batch in share)
    assert not first.keys() & second.keys() and first | second == alone and len(alone) == 16


def test_the_training_images_come_in_order_each_once(root):
    data = make_dataloader(caption_cfg(root))
    batches = list(data.train_loader_normal)
    pids = torch.cat([batch["pids"] for batch in batches]).tolist()
    expected = {image_id: (name, pid) for name, pid, image_id, _ in pairs_by_hand(entries_of(IDS))}
    names = [os.path.basename(path) for batch in batches for path in batch["paths"]]
    assert [*zip(names, pids, strict=True)] == [expected[image_id] for image_id in range(len(expected))]


def test_the_random_state_of_training_is_left_alone(root):
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    epoch_of(make_dataloader(caption_cfg(root, "DATALOADER.NUM_WORKERS", 1)), 1)
    assert torch.equal(before[0], torch.get_rng_state()) and before[1] == np.random.get_state()[1].tolist()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_known_after_the_epoch(root, caplog, workers):
    path = root / "RSTPReid" / "imgs" / "0030_c1.jpg"
    path.write_bytes(path.read_bytes()[:-40])
    loader = make_dataloader(caption_cfg(root, "DATALOADER.NUM_WORKERS", workers)).train_loader
    for batch in loader:
        assert "damaged" not in batch
    loader.images.tell_damage()
    assert f"damaged images: 1 of 8, what does not decode of them is grey: '{path}'" in caplog.text


def test_captions_that_are_cut_are_counted_in_training_and_in_the_notes_of_the_test(root, caplog):
    caplog.set_level("INFO")
    cfg = caption_cfg(root, "INPUT.TEXT.LENGTH", 9)
    data = make_dataloader(cfg, num_instance=1)
    words = "captions have more than 9 tokens, and lose the words beyond (INPUT.TEXT.LENGTH)"
    # "person 9 in a purple coat" has 8 tokens, one more for each further digit, 3 more where there is a bag
    assert f"training: 5 of {NUM_PAIRS} {words}" in caplog.text
    assert data.test.notes == (f"2 of 4 {words}",)
    assert not make_dataloader(caption_cfg(root, "INPUT.TEXT.LENGTH", 77)).test.notes
