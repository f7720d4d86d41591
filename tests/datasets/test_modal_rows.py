"""Batches of records: what is in them, whose partners they hold, what is dropped, masked and absent."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets import ReIDData, make_dataloader
from datasets import loaders as loaders_of_data
from datasets.decode import read_image
from datasets.make_transforms import make_modality_transforms
from datasets.tokens import MASK_ID, tokenize
from tests.datasets.modal import LENGTH, SIZE, annotations, modal_cfg, write_json, write_orbench
from tests.datasets.trees import write_image
from tests.reference.slow_orbench import slow_draw, slow_records
from utils.distributed import Ranks

ALL = ("vis", "nir", "sk", "cp", "text")
DROP = "MODEL.MULTIMODAL.MODALITY_DROPOUT"
SHUFFLED = ("DATALOADER.SAMPLER", "softmax")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = write_orbench(tmp_path, {40: "sk"})
    entries = annotations()
    entries[4]["caption"] = "  "
    write_json(folder / "train_annos.json", entries)
    return tmp_path


def epoch_of(data: ReIDData, epoch: int) -> list[dict]:
    data.train_loader.batch_sampler.sampler.set_epoch(epoch)
    return list(data.train_loader)


def shown(batches: list[dict]) -> dict[str, list]:
    """Return what each record showed: path of the RGB image -> for each modality whether it is there, and its sum."""
    found = {}
    for batch in batches:
        for row, path in enumerate(batch["paths"]):
            found[path] = [
                (bool(batch["present"][name][row]), batch["modalities"][name][row].long().sum().item())
                for name in batch["modalities"]
            ]
    return found


def pixels_of(path: str, modality: str) -> torch.Tensor:
    return read_image(path, SIZE, "bicubic", "pillow", grey=modality in ("nir", "sk"))


def test_a_batch_holds_what_a_loop_draws_for_each_record(root):
    data = make_dataloader(modal_cfg(root, DROP, 0.4, *SHUFFLED))
    records = slow_records(root / "ORBench", "train_annos.json")
    places = {record[1]: row for row, record in enumerate(records)}
    labels = {pid: place for place, pid in enumerate(sorted({record[0] for record in records}))}
    seen = Counter()
    for epoch in (1, 2, 3):
        for batch in epoch_of(data, epoch):
            assert set(batch) == {"modalities", "present", "pids", "camids", "viewids", "paths"}
            assert [*batch["modalities"]] == [*batch["present"]] == [*ALL]
            assert {value.dtype for value in batch["present"].values()} == {torch.bool}
            assert batch["modalities"]["text"].shape == (4, LENGTH) and batch["modalities"]["text"].dtype == torch.int64
            for row, path in enumerate(batch["paths"]):
                record = records[places[path]]
                drawn = slow_draw(record, 5, epoch, places[path], 0.4) | {"vis": path}
                assert batch["pids"][row] == labels[record[0]] and batch["camids"][row] == batch["viewids"][row] == 0
                for name in ALL:
                    assert bool(batch["present"][name][row]) is (name in drawn)
                    seen[name, name in drawn] += 1
                    values = batch["modalities"][name][row]
                    if name == "text":
                        assert torch.equal(values, tokenize(record[2], LENGTH))
                    elif name in drawn:
                        assert torch.equal(values, pixels_of(drawn[name], name)) and values.dtype == torch.uint8
                    else:
                        assert not values.any()
    assert len(seen) == 9  # vis is always there, each other one was and was not


@pytest.mark.parametrize(
    "opts",
    [("SOLVER.IMS_PER_BATCH", 6), ("DATALOADER.NUM_WORKERS", 2), ("DATALOADER.SAMPLER", "softmax_triplet")],
    ids=["other batches", "workers", "other order"],
)
def test_what_a_record_shows_depends_on_seed_epoch_and_record_alone(root, opts):
    mask = ("INPUT.TEXT.MASK_CAPTION", True, "INPUT.TEXT.MASK_RATE", 0.5)
    alone = shown(epoch_of(make_dataloader(modal_cfg(root, *SHUFFLED, *mask)), 3))
    others = make_dataloader(modal_cfg(root, *SHUFFLED, *mask, *opts))
    epoch_of(others, 2)
    found = shown(epoch_of(others, 3))
    assert found and all(alone[path] == values for path, values in found.items())
    assert shown(epoch_of(make_dataloader(modal_cfg(root, *SHUFFLED, *mask)), 2)) != alone
    assert shown(epoch_of(make_dataloader(modal_cfg(root, *SHUFFLED, *mask, "SOLVER.SEED", 6)), 3)) != alone


def test_fewer_modalities_change_nothing_of_those_that_are_left(root):
    off = (DROP, 0.0, *SHUFFLED)
    alone = shown(epoch_of(make_dataloader(modal_cfg(root, *off)), 1))
    few = make_dataloader(modal_cfg(root, *off, "MODEL.MULTIMODAL.MODALITIES", ("text", "vis", "cp")))
    batches = epoch_of(few, 1)
    assert [*batches[0]["modalities"]] == ["vis", "cp", "text"]
    assert all(values == [alone[path][place] for place in (0, 3, 4)] for path, values in shown(batches).items())
    images = make_dataloader(modal_cfg(root, *off, "MODEL.MULTIMODAL.MODALITIES", ("vis", "nir")))
    assert [*epoch_of(images, 1)[0]["modalities"]] == ["vis", "nir"]


def test_partners_are_drawn_evenly_and_dropping_has_its_rate_and_leaves_one(root):
    rows = make_dataloader(modal_cfg(root, DROP, 0.3)).train_loader.dataset
    batch = rows.__getitems__([(0, epoch) for epoch in range(1, 401)])
    present = torch.stack([batch["present"][name] for name in ALL[1:]], 1)
    assert present.any(1).all()
    # share of a modality that stays: 0.7, and where all four are dropped (0.3 ** 4) all stay
    share = 0.7 + 0.3**4
    spread = (share * (1 - share) / 400) ** 0.5
    assert (present.double().mean(0) - share).abs().max() < 4 * spread
    images = batch["modalities"]["sk"][batch["present"]["sk"]].flatten(1).long().sum(1)
    counts = np.array([*Counter(images.tolist()).values()])
    assert len(counts) == 3 and np.abs(counts / counts.sum() - 1 / 3).max() < 4 * (2 / 9 / counts.sum()) ** 0.5


def test_dropping_everything_leaves_everything(root):
    rows = make_dataloader(modal_cfg(root, DROP, 1.0)).train_loader.dataset
    whole = make_dataloader(modal_cfg(root, DROP, 0.0)).train_loader.dataset
    asked = [(row, 1) for row in range(len(rows))]
    for name in ALL:
        assert torch.equal(rows.__getitems__(asked)["present"][name], whole.__getitems__(asked)["present"][name])


def test_what_is_not_there_is_zero_and_not_present(root):
    batch = make_dataloader(modal_cfg(root, DROP, 0.0)).train_loader.dataset.__getitems__(
        [(row, 1) for row in range(12)]
    )
    assert batch["present"]["sk"].tolist() == [True] * 6 + [False] * 3 + [True] * 3  # person 40 has no sketch
    assert not batch["modalities"]["sk"][6:9].any() and batch["modalities"]["sk"][:6].flatten(1).any(1).all()
    assert batch["present"]["text"].tolist() == [row != 4 for row in range(12)]
    alone = make_dataloader(modal_cfg(root)).train_loader.dataset.__getitems__([(6, 1), (7, 1)])
    assert alone["modalities"]["sk"].shape == (2, 3, *SIZE) and not alone["modalities"]["sk"].any()


def test_infrared_and_sketches_have_three_equal_channels_others_not(root):
    batch = make_dataloader(modal_cfg(root, DROP, 0.0)).train_loader.dataset.__getitems__([(0, 1), (3, 1)])
    for name in ALL[:4]:
        red, green, blue = batch["modalities"][name].unbind(1)
        assert (torch.equal(red, green) and torch.equal(red, blue)) is (name in ("nir", "sk"))


def test_words_of_captions_are_masked_where_that_is_asked_for(root):
    written = torch.stack(
        [tokenize(record[2], LENGTH) for record in slow_records(root / "ORBench", "train_annos.json")]
    )
    asked = [(row, epoch) for epoch in range(1, 41) for row in range(12)]
    for opts, rate in (((), 0.0), (("INPUT.TEXT.MASK_CAPTION", True, "INPUT.TEXT.MASK_RATE", 0.3), 0.3)):
        rows = make_dataloader(
            modal_cfg(root, *opts, "MODEL.MULTIMODAL.MODALITIES", ("vis", "text"))
        ).train_loader.dataset
        tokens = rows.__getitems__(asked)["modalities"]["text"]
        plain = written.repeat(40, 1)
        is_word = (plain > 0) & (plain < MASK_ID)
        assert torch.equal(tokens[~is_word], plain[~is_word])
        changed = (tokens != plain)[is_word].double().mean().item()
        masked = (tokens == MASK_ID)[is_word].double().mean().item()
        spread = 4 * (0.25 / is_word.sum().item()) ** 0.5
        assert abs(changed - 0.9 * rate) <= (spread if rate else 0) and abs(masked - 0.8 * rate) <= (
            spread if rate else 0
        )


def test_a_rate_of_zero_masks_no_word_at_all(root):
    opts = ("INPUT.TEXT.MASK_CAPTION", True, "INPUT.TEXT.MASK_RATE", 0.0)
    masked, plain = (shown(epoch_of(make_dataloader(modal_cfg(root, *SHUFFLED, *more)), 1)) for more in (opts, ()))
    assert masked == plain


def test_batches_are_persons_with_as_many_records_each(root):
    batches = epoch_of(make_dataloader(modal_cfg(root), num_instance=2), 1)
    assert batches and all(sorted(Counter(batch["pids"].tolist()).values()) == [2, 2] for batch in batches)


def test_processes_share_the_records_of_an_epoch(root, monkeypatch):
    shares = []
    for rank in (0, 1):
        monkeypatch.setattr(loaders_of_data, "find_ranks", lambda _, rank=rank: Ranks(rank, 2))
        shares.append(epoch_of(make_dataloader(modal_cfg(root, *SHUFFLED)), 1))
    monkeypatch.undo()
    first, second = map(shown, shares)
    assert not first.keys() & second.keys()
    assert first | second == shown(epoch_of(make_dataloader(modal_cfg(root, *SHUFFLED)), 1))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_of_any_modality_is_known_after_the_epoch(root, caplog, workers):
    for path in (root / "ORBench" / "cp").rglob("*.jpg"):
        write_image(path)
        path.write_bytes(path.read_bytes()[:-40])
    loader = make_dataloader(modal_cfg(root, "DATALOADER.NUM_WORKERS", workers, DROP, 0.0)).train_loader
    assert all("damaged" not in batch for batch in loader)
    vis, _, _, cp = loader.image_sets
    cp.tell_damage()
    assert f"of {len(cp)}, what does not decode of them is grey" in caplog.text and not vis.damaged
    assert all(f"{os.sep}cp{os.sep}" in cp.samples[row].path for row in cp.damaged)


def test_the_cache_of_pixels_changes_nothing(root, tmp_path):
    plain = epoch_of(make_dataloader(modal_cfg(root), num_instance=2), 1)
    cached = modal_cfg(root, "DATALOADER.CACHE", str(tmp_path / "cache"))
    for _ in range(2):  # built, then found
        for batch, other in zip(plain, epoch_of(make_dataloader(cached, num_instance=2), 1), strict=True):
            assert all(torch.equal(value, other["modalities"][name]) for name, value in batch["modalities"].items())
    names = [path.name for path in (tmp_path / "cache").glob("*.npy")]
    assert len(names) == 4 + 4  # of training and of testing, which differ in filter and files


def test_the_random_state_of_training_is_left_alone(root):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    epoch_of(make_dataloader(modal_cfg(root, "DATALOADER.NUM_WORKERS", 1)), 1)
    assert torch.equal(before, torch.get_rng_state())


def test_each_modality_has_a_transform_and_colours_alone_are_jittered():
    cfg = modal_cfg(Path("x"), "INPUT.JITTER", [0.2, 0.2, 0.0, 0.0], "INPUT.PADDING", 2)
    train, test = make_modality_transforms(cfg)
    assert [*train] == [*test] == ["vis", "nir", "sk", "cp"]
    assert [any(train[name].jitter) for name in train] == [True, False, False, True]
    assert len({id(one) for one in train.values()}) == 4 and all(one.padding == 2 for one in train.values())
    assert all(one.flip_prob == one.erase_prob == one.padding == 0 for one in test.values())


def test_padding_adds_paper_to_drawings_and_black_to_photographs():
    train, _ = make_modality_transforms(modal_cfg(Path("x"), "INPUT.PADDING", 6, "INPUT.RE_PROB", 0.0))
    lowest, highest = {}, {}
    for name, transform in train.items():
        torch.manual_seed(0)
        grey = transform(torch.full((16, 3, 8, 8), 128, dtype=torch.uint8))
        own = transform.luma(grey.amin((2, 3), keepdim=True)), transform.luma(grey.amax((2, 3), keepdim=True))
        lowest[name], highest[name] = own[0].min().item(), own[1].max().item()
    half = 128 / 255
    assert lowest == pytest.approx({"vis": 0, "nir": 0, "sk": half, "cp": half}, abs=1e-5)
    assert highest == pytest.approx({"vis": half, "nir": half, "sk": 1, "cp": 1}, abs=1e-5)
