"""The cache holds exactly the pixels of the decoder, is never out of date or half built, and refuses what cannot be."""

import logging
import multiprocessing
import os
import pickle
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NoReturn

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from tqdm import tqdm

from configs import load_cfg
from datasets import make_dataloader, pixel_cache
from datasets.bases import Sample
from datasets.decode import read_image
from datasets.pixel_cache import Wanted, find_cache, make_cache
from datasets.torch_datasets import ImageDataset, collate
from utils.errors import ConfigError, DataError, RunError, run_command

SIZE = (24, 16)


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    """150 images of several formats and sizes: three blocks of rows."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    paths = []
    for number in range(150):
        shape = (*rng.integers(10, 40, 2), 3)
        name = tmp_path / "images" / f"{number}.{('jpg', 'png')[number % 2]}"
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(name)
        paths.append(str(name))
    return paths


def wanted(paths: list[str], **changes: object) -> Wanted:
    return Wanted(paths, SIZE, "bicubic", "torchvision")._replace(**changes)


def pixels_of(cache: pixel_cache.PixelCache, number: int) -> torch.Tensor:
    images = torch.empty(number, 3, *SIZE, dtype=torch.uint8)
    cache.copy_rows(range(number), images)
    return images


def decoded(paths: list[str]) -> torch.Tensor:
    return torch.stack([read_image(path, SIZE, "bicubic", "torchvision") for path in paths])


def files_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if not file.name.startswith(pixel_cache.LOCK_NAME))


@pytest.mark.parametrize("workers", [0, 2])
def test_cache_holds_the_pixels_of_the_decoder(tmp_path, paths, workers):
    cache = make_cache(str(tmp_path / "cache"), wanted(paths), workers)
    assert torch.equal(pixels_of(cache, 150), decoded(paths))
    assert files_in(tmp_path / "cache") == [cache.file.name]
    assert torch.equal(pixels_of(pickle.loads(pickle.dumps(cache)), 150), decoded(paths))
    assert len(pickle.dumps(cache)) < 1000
    with pytest.raises(IndexError):
        cache.copy_rows([0, 150], torch.empty(2, 3, *SIZE, dtype=torch.uint8))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_from_the_cache_are_those_without(tmp_path, paths, workers, caplog):
    samples = [Sample(path, number % 7, number % 3, -1) for number, path in enumerate(paths)]
    plain, cached = (ImageDataset(samples, SIZE, "bicubic", "torchvision") for _ in range(2))
    cached.use_cache(str(tmp_path / "cache"), workers)
    rows = [149, 3, 3, 77]
    for name, value in plain.__getitems__(rows).items():
        other = cached.__getitems__(rows)[name]
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other
    assert torch.equal(plain[5][0], cached[5][0]) and plain[5][1] == cached[5][1] == samples[5]


@pytest.fixture
def spawning() -> Iterator[None]:
    """Processes are started as on macOS, where a worker gets the data set by pickle."""
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.slow  # each process imports torch
def test_spawned_workers_build_and_read_the_cache(tmp_path, paths, spawning):
    dataset = ImageDataset([Sample(path, 1, 0, 0) for path in paths], SIZE, "bicubic", "torchvision")
    dataset.use_cache(str(tmp_path / "cache"), 1)
    dataset.__getitems__([0])  # maps the array in this process
    assert len(pickle.dumps(dataset)) < 150 * 3 * SIZE[0] * SIZE[1] / 4
    loader = DataLoader(dataset, batch_size=100, num_workers=1, collate_fn=collate)
    assert torch.equal(torch.cat([batch["images"] for batch in loader]), decoded(paths))


def test_the_second_run_decodes_nothing(tmp_path, paths, monkeypatch):
    first = make_cache(str(tmp_path), wanted(paths), 0)
    monkeypatch.setattr(pixel_cache, "read_image", None)
    assert torch.equal(pixels_of(make_cache(str(tmp_path), wanted(paths), 0), 150), pixels_of(first, 150))
    assert find_cache(str(tmp_path), wanted(paths)).file == first.file
    assert find_cache(str(tmp_path), wanted(paths[1:])) is None


def test_relative_paths_name_the_same_cache(tmp_path, paths, monkeypatch):
    monkeypatch.chdir(tmp_path / "images")
    relative = [os.path.basename(path) for path in paths]
    assert wanted(relative).file_name() == wanted(paths).file_name()


@pytest.mark.parametrize(
    "changes", [{"size": (24, 17)}, {"resize_filter": "bilinear"}, {"decoder": "pillow"}], ids=lambda value: [*value][0]
)
def test_what_the_pixels_depend_on_makes_another_cache(paths, changes):
    assert wanted(paths, **changes).file_name() != wanted(paths).file_name()
    assert wanted(paths[::-1]).file_name() != wanted(paths).file_name()


def test_another_library_makes_another_cache(paths, monkeypatch):
    before = wanted(paths).file_name()
    monkeypatch.setattr(pixel_cache.PIL, "__version__", "0.1")
    assert wanted(paths).file_name() != before


def test_a_changed_image_makes_another_cache(tmp_path, paths):
    before = make_cache(str(tmp_path / "cache"), wanted(paths), 0)
    Image.new("RGB", (30, 30), (1, 2, 3)).save(paths[7])
    after = make_cache(str(tmp_path / "cache"), wanted(paths), 0)
    assert torch.equal(pixels_of(after, 150), decoded(paths))
    assert not torch.equal(pixels_of(after, 150), pixels_of(before, 150))
    os.utime(paths[8], ns=(0, 0))  # the same size
    assert wanted(paths).file_name() != after.file.name


def _build(folder: str, paths: list[str], delay: float) -> None:
    """Build slowly, in a process of its own."""

    def slow(*args: object) -> torch.Tensor:
        time.sleep(delay)
        return read_image(*args)

    pixel_cache.read_image = slow
    tqdm.set_lock(threading.RLock())  # forks share tqdm's own, which a killed one would hold for ever
    make_cache(folder, wanted(paths), 0)


def _start(*args: object) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=_build, args=args)
    process.start()
    return process


def _wait_for_temporary(folder: Path) -> None:
    for _ in range(500):
        if folder.is_dir() and any(name.endswith(".tmp") for name in files_in(folder)):
            return
        time.sleep(0.01)
    raise AssertionError("no build began")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes are forked")
def test_a_killed_build_leaves_nothing_that_is_read(tmp_path, paths):
    folder = tmp_path / "cache"
    process = _start(str(folder), paths, 0.01)
    _wait_for_temporary(folder)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert find_cache(str(folder), wanted(paths)) is None and len(files_in(folder)) == 1
    cache = make_cache(str(folder), wanted(paths), 0)
    assert torch.equal(pixels_of(cache, 150), decoded(paths))
    assert files_in(folder) == [cache.file.name]


def test_what_a_killed_build_of_another_user_left_stops_nobody(tmp_path, paths):
    (tmp_path / "cache" / "other.npy.999999999.tmp").mkdir(parents=True)  # for a file that only its owner may remove
    assert torch.equal(pixels_of(make_cache(str(tmp_path / "cache"), wanted(paths), 0), 150), decoded(paths))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes are forked")
def test_of_two_processes_one_builds_and_the_other_waits(tmp_path, paths, monkeypatch, caplog):
    folder = tmp_path / "cache"
    process = _start(str(folder), paths, 0.005)
    _wait_for_temporary(folder)
    monkeypatch.setattr(pixel_cache, "read_image", None)  # this process decodes nothing
    with caplog.at_level(logging.INFO):
        cache = make_cache(str(folder), wanted(paths), 0)
    process.join()
    assert process.exitcode == 0 and torch.equal(pixels_of(cache, 150), decoded(paths))
    assert f"waiting for process {process.pid}" in caplog.text


@pytest.mark.parametrize("damage", ["short", "empty", "header"])
def test_a_damaged_cache_is_built_again(tmp_path, paths, damage, caplog):
    file = make_cache(str(tmp_path), wanted(paths), 0).file
    content = file.read_bytes()
    file.write_bytes({"short": content[:-1], "empty": b"", "header": b"x" + content[1:]}[damage])
    assert find_cache(str(tmp_path), wanted(paths)) is None
    cache = make_cache(str(tmp_path), wanted(paths), 0)
    assert torch.equal(pixels_of(cache, 150), decoded(paths)) and "is damaged" in caplog.text


def test_too_little_room_is_refused_with_figures(tmp_path, paths, monkeypatch):
    paths = paths * 10_000  # 1.7 GB
    monkeypatch.setattr(Wanted, "file_name", lambda self: "x.npy")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(9, 8, 10**9))
    words = (
        r"DATALOADER.CACHE '.*': 1500000 images of 24 x 16 need 1.73 GB, 1.00 GB are free; .* set DATALOADER.CACHE ''"
    )
    with pytest.raises(RunError, match=words):
        make_cache(str(tmp_path / "cache"), wanted(paths), 0)
    assert files_in(tmp_path / "cache") == []


def test_a_disk_that_fills_during_the_build_is_told_and_nothing_stays(tmp_path, paths, monkeypatch):
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pixel_cache, "open", _opener(full), raising=False)
    with pytest.raises(RunError, match="DATALOADER.CACHE: cannot write '.*' .No space left on device.; make room"):
        make_cache(str(tmp_path / "cache"), wanted(paths), 0)
    assert files_in(tmp_path / "cache") == []


def _opener(full: Callable[[], NoReturn]) -> Callable[..., IO]:
    """Return an `open` that refuses to write pixels."""

    def opened(path: str, mode: str, *args: object) -> IO:
        return full() if mode == "r+b" else open(path, mode, *args)

    return opened


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_named_and_nothing_stays(tmp_path, paths, workers):
    with open(paths[70], "wb") as stream:
        stream.write(b"no image")
    with pytest.raises(DataError, match="70.jpg' does not decode"):
        make_cache(str(tmp_path / "cache"), wanted(paths), workers)
    assert files_in(tmp_path / "cache") == []


def test_a_missing_image_is_named(tmp_path, paths):
    os.unlink(paths[3])
    with pytest.raises(DataError, match="3.png' is missing"):
        make_cache(str(tmp_path / "cache"), wanted(paths), 0)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, paths):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="DATALOADER.CACHE '.*file/cache': cannot write there"):
        make_cache(str(tmp_path / "file" / "cache"), wanted(paths), 0)
    (tmp_path / "cache" / pixel_cache.LOCK_NAME).mkdir(parents=True)  # for another user's file, which root may open
    with pytest.raises(ConfigError, match="DATALOADER.CACHE: cannot write '.*cache.lock' .*; choose"):
        make_cache(str(tmp_path / "cache"), wanted(paths), 0)


@pytest.mark.parametrize("word", [" ", "None", "True", "off", "0"])
def test_a_word_that_was_meant_as_a_switch_makes_no_folder(tmp_path, paths, monkeypatch, word):
    monkeypatch.chdir(tmp_path)
    for use in (lambda: make_cache(word, wanted(paths), 0), lambda: find_cache(word, wanted(paths))):
        with pytest.raises(ConfigError, match=f"DATALOADER.CACHE got '{word}', which is no folder; .* or '' for none"):
            use()
    assert os.listdir(tmp_path) == ["images"]


def test_the_tilde_of_a_yaml_is_the_users_folder(tmp_path, paths, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))  # Windows
    assert make_cache("~/cache", wanted(paths[:3]), 0).file.parent == tmp_path / "home" / "cache"
    assert find_cache("~/cache", wanted(paths[:3])) is not None


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("damage", [os.unlink, lambda file: os.truncate(file, 99)])
def test_a_cache_that_goes_during_the_run_is_one_clear_line(tmp_path, paths, capsys, damage, workers):
    images = ImageDataset([Sample(path, 0, 0, 0) for path in paths], SIZE, "bicubic", "torchvision")
    images.use_cache(str(tmp_path / "cache"), 0)
    (name,) = files_in(tmp_path / "cache")
    damage(tmp_path / "cache" / name)
    assert run_command(lambda _: next(iter(DataLoader(images, 64, num_workers=workers, collate_fn=collate)))) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: DATALOADER.CACHE: '") and line.endswith(
        "was deleted or damaged during the run; the same command builds it again and continues"
    )


@pytest.mark.parametrize("workers", ["0", "2"])
def test_loaders_read_from_the_folder_of_the_key(tmp_path, tiny_config, workers):
    opts = ["DATALOADER.NUM_WORKERS", workers, "DATALOADER.CACHE", str(tmp_path / "cache")]
    cached = make_dataloader(load_cfg(tiny_config, opts), 2)
    plain = make_dataloader(load_cfg(tiny_config, opts[:2]), 2)
    assert len(files_in(tmp_path / "cache")) == 2  # training and test
    for name in ("train_loader", "train_loader_normal", "val_loader"):
        batches = zip(getattr(cached, name), getattr(plain, name), strict=True)
        assert all(torch.equal(ours["images"], theirs["images"]) for ours, theirs in batches)


def test_code_that_only_tests_builds_no_cache_of_training_images(tmp_path, tiny_config):
    make_dataloader(load_cfg(tiny_config, ["DATALOADER.CACHE", str(tmp_path / "cache")]))
    (name,) = files_in(tmp_path / "cache")
    assert name.startswith("108x32x32_bilinear_torchvision_")


def test_grey_images_have_a_cache_of_their_own(tmp_path, paths):
    folder = str(tmp_path / "cache")
    colour, grey = (make_cache(folder, wanted(paths[:9], grey=grey), 0) for grey in (False, True))
    expected = torch.stack([read_image(path, SIZE, "bicubic", "torchvision", grey=True) for path in paths[:9]])
    assert torch.equal(pixels_of(grey, 9), expected) and not torch.equal(pixels_of(colour, 9), expected)
    assert len(files_in(tmp_path / "cache")) == 2
