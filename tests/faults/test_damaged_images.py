"""Images that are cut short: trained and scored as grey, and counted wherever they are read, or refused by name."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import test as test_script
import train
from datasets.bases import Sample
from datasets.torch_datasets import ImageDataset, ImageLoader, collate
from processor.evaluation.cautions import collapse
from tests.commands import args_for, run
from tests.conftest import TINY_YAML
from tests.faults.mistakes import refusal
from tests.ranks import run_in_group
from tools import extract
from tools.check import main as check
from tools.feature_extractor import FeatureExtractor
from tools.visualize.__main__ import main as visualize
from utils.distributed import own_rank
from utils.errors import DataError
from utils.test_folder import TestFolder

pytestmark = pytest.mark.fault("damaged images")

SIZE = (24, 16)
CUT = (2, 7)  # rows of the damaged images


def cut(path: Path | str) -> None:
    """Take the last third of a file away."""
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: 2 * len(content) // 3])


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Ten images, two of them damaged."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    found = []
    for row in range(10):
        path = tmp_path / "images" / f"{row}.jpg"
        Image.fromarray(rng.integers(0, 256, (60, 40, 3), dtype=np.uint8)).save(path)
        found.append(Sample(str(path), row % 3, 0, 0))
    for row in CUT:
        cut(found[row].path)
    return found


def images_of(samples: list[Sample], broken: str = "grey") -> ImageDataset:
    return ImageDataset(samples, SIZE, "bicubic", "torchvision", broken=broken)


def loader_of(images: ImageDataset, workers: int) -> ImageLoader:
    return ImageLoader(images, batch_size=4, num_workers=workers, collate_fn=collate)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_worker_finds_damaged_the_main_process_knows_and_tells_once(samples, workers, caplog):
    images = images_of(samples)
    for _ in range(2):
        batches = list(loader_of(images, workers))
        assert all(set(batch) == {"images", "pids", "camids", "viewids", "paths"} for batch in batches)
        images.tell_damage()
    assert images.damaged == set(CUT)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"damaged images: 2 of 10, what does not decode of them is grey: '{samples[2].path}', ")


def tell_on_ranks(samples: list[Sample]) -> None:
    """Each process has seen its own share of the images."""
    images = images_of(samples)
    images.__getitems__(range(own_rank(), 10, 2))
    images.tell_damage()
    assert images.damaged == set(CUT)


@pytest.mark.slow
def test_what_each_process_of_a_run_finds_damaged_counts(samples):
    run_in_group(tell_on_ranks, samples)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("run_number", ["first", "second"])
def test_a_cache_hides_no_damage_of_the_run_that_built_it_or_of_a_later_one(samples, tmp_path, workers, run_number):
    plain, cached = images_of(samples), images_of(samples)
    cached.use_cache(str(tmp_path / "cache"), workers)
    if run_number == "second":
        cached = images_of(samples)
        cached.use_cache(str(tmp_path / "cache"), workers, build=False)
    assert cached.damaged == set(CUT)
    rows = list(range(10))
    assert torch.equal(cached.__getitems__(rows)["images"], plain.__getitems__(rows)["images"])
    with pytest.raises(DataError, match=r"2.jpg' is damaged: .* INPUT.BROKEN_IMAGES grey"):
        images_of(samples, "error").use_cache(str(tmp_path / "cache"), workers)


def test_a_cache_that_lacks_what_it_knows_of_damage_is_built_again(samples, tmp_path):
    images_of(samples).use_cache(str(tmp_path / "cache"), 0)
    (file,) = (tmp_path / "cache").glob("*.npy")
    with open(file, "r+b") as stream:
        stream.truncate(file.stat().st_size - 10)
    images = images_of(samples)
    images.use_cache(str(tmp_path / "cache"), 0)
    assert images.damaged == set(CUT)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cache", [False, True])
def test_error_refuses_the_first_damaged_image_by_its_name(samples, tmp_path, workers, cache):
    images = images_of(samples, "error")
    with pytest.raises(DataError, match="2.jpg' is damaged"):
        if cache:
            images.use_cache(str(tmp_path / "cache"), workers)
        list(loader_of(images, workers))
    sound = images_of([samples[0], samples[1]], "error")
    assert len(list(loader_of(sound, workers))) == 1


@pytest.fixture
def damaged_run(tiny_root: Path, trained_run: Path, tmp_path: Path) -> Path:
    """A YAML of the tiny experiment whose archive has one damaged training image and two damaged queries."""
    shutil.copytree(tiny_root / "VeRi", tmp_path / "data" / "VeRi")
    for split, count in (("train", 1), ("query", 2)):
        for path in sorted((tmp_path / "data" / "VeRi" / f"image_{split}").iterdir())[:count]:
            cut(path)
    config = tmp_path / "tiny.yml"
    config.write_text(TINY_YAML.format(root=tmp_path / "data", output=tmp_path / "run"))
    return config


def warnings_of(folder: Path, name: str) -> list[str]:
    return [line for line in (folder / name).read_text().splitlines() if "damaged images: " in line]


@pytest.mark.parametrize("cache", [False, True])
def test_training_tells_once_how_many_of_its_images_are_damaged(damaged_run, tmp_path, cache):
    options = ("DATALOADER.CACHE", tmp_path / "cache") if cache else ()
    for folder in ("a", "b"):  # the second run finds the cache of the first
        out = tmp_path / folder
        assert run(train.main, *args_for(damaged_run, "OUTPUT_DIR", out, "SOLVER.MAX_EPOCHS", 2, *options)) == 0
        (log,) = [path for path in out.iterdir() if path.name.endswith("log.txt")]
        (line,) = warnings_of(out, log.name)
        assert "damaged images: 1 of 48," in line and "_c001_" in line


@pytest.mark.parametrize("report", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_test_tells_it_too_and_keeps_the_count_with_its_result(damaged_run, trained_run, tmp_path, report):
    options = ("TEST.WEIGHT", trained_run / "transformer_2.pth", "TEST.REPORT", report)
    assert run(test_script.main, *args_for(damaged_run, *options)) == 0
    folder = TestFolder(tmp_path / "run")
    summary = json.loads(folder.summary.read_text())
    (caution,) = summary["cautions"]
    assert summary["damaged_images"] == 2 and caution.startswith("damaged images: 2 of ")
    assert len(warnings_of(folder.path, folder.log.name)) == 1
    assert not report or '<p class="caution">Caution: damaged images: 2 of ' in folder.report.read_text()


def test_a_sound_test_set_has_no_cautions(tiny_root, trained_run, tmp_path):
    config = trained_run.parent / "tiny.yml"
    options = ("TEST.WEIGHT", trained_run / "transformer_2.pth", "OUTPUT_DIR", tmp_path / "test", "TEST.REPORT", False)
    assert run(test_script.main, *args_for(config, *options)) == 0
    summary = json.loads((tmp_path / "test" / "summary.json").read_text())
    assert not {"cautions", "damaged_images"} & set(summary)


@pytest.mark.parametrize("command", ["train", "test"])
def test_a_run_that_refuses_damage_ends_in_one_line(damaged_run, trained_run, tmp_path, capsys, command):
    main = {"train": train.main, "test": test_script.main}[command]
    options = ("TEST.WEIGHT", trained_run / "transformer_2.pth", "INPUT.BROKEN_IMAGES", "error")
    line = refusal(main, *args_for(damaged_run, *options), capsys=capsys)
    assert ".jpg' is damaged: " in line and str(tmp_path / "data") in line
    assert not (tmp_path / "run" / "summary.json").exists()


def test_the_doctor_lists_each(damaged_run, capsys):
    assert run(check, *args_for(damaged_run)) == 1
    assert capsys.readouterr().out.count("does not decode") == 3


def test_loose_images_are_counted_or_left_out(trained_run, samples, tmp_path, caplog, capsys):
    out, folder = tmp_path / "feats.npz", tmp_path / "images"
    caplog.set_level(logging.WARNING)
    assert run(extract.main, "--run", trained_run, "--images", folder, "--out", out) == 0
    (line,) = [record.getMessage() for record in caplog.records if "damaged" in record.getMessage()]
    assert line.startswith(f"damaged images: 2 of 10, what does not decode of them is grey: '{samples[2].path}', ")
    words = ("--run", trained_run, "INPUT.BROKEN_IMAGES", "error", "--out", out)
    assert "2.jpg' is damaged" in refusal(extract.main, *words, "--images", folder, capsys=capsys)
    assert run(extract.main, *words, "--skip-broken", "--images", folder) == 0
    assert "8 images x 160 values, 2 left out" in capsys.readouterr().out


def test_an_image_that_pillow_has_yet_to_read_is_completed_and_counted(trained_run, samples, caplog):
    extractor = FeatureExtractor.from_run(trained_run)
    by_path = extractor([sample.path for sample in samples])
    caplog.clear()
    by_image = extractor([Image.open(sample.path) for sample in samples])
    assert torch.equal(by_path, by_image)
    assert ["damaged images: 2 of 10" in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.slow
def test_pictures_tell_it_too(damaged_run, trained_run, tmp_path, caplog):
    data = ("--run", trained_run, "DATASETS.ROOT_DIR", tmp_path / "data", "--out", tmp_path / "pictures")
    for words in (("ranks", "--num-queries", 1), ("embedding", "--method", "pca", "--num-ids", 99), ("attention",)):
        caplog.clear()
        assert run(visualize, words[0], *data, *words[1:]) == 0
        assert sum("damaged images: 2 of " in record.getMessage() for record in caplog.records) == 1, words


@pytest.mark.parametrize(
    ("feat", "is_told"),
    [
        (torch.ones(50, 8), True),
        (torch.zeros(50, 8), True),
        (torch.ones(5000, 8) + 1e-6 * torch.randn(5000, 8), True),
        (torch.rand(50, 1) * torch.ones(50, 8), True),  # of one direction, and all that counts of them is that
        (torch.ones(50, 8) + 0.01 * torch.randn(50, 8), False),
        (torch.randn(50, 8), False),
        (torch.eye(2), False),
        (torch.ones(1, 8), False),
        (torch.full((50, 8), torch.nan), False),  # an error of its own
    ],
)
def test_embeddings_that_are_alike_are_told(feat, is_told):
    torch.manual_seed(0)
    assert collapse(feat).startswith(f"the embeddings of all {len(feat)} images are alike") is is_told


def test_a_collapsed_model_is_told_once_at_its_test(trained_run, tmp_path):
    weights = torch.load(trained_run / "transformer_2.pth", weights_only=True)
    for value in weights.values():
        if value.is_floating_point():
            value.zero_()
    torch.save(weights, tmp_path / "transformer_2.pth")
    options = ("TEST.WEIGHT", tmp_path / "transformer_2.pth", "OUTPUT_DIR", tmp_path / "test", "TEST.REPORT", False)
    assert run(test_script.main, *args_for(trained_run.parent / "tiny.yml", *options)) == 0
    assert (tmp_path / "test" / "test_log.txt").read_text().count("images are alike") == 1
    assert "are alike" in json.loads((tmp_path / "test" / "summary.json").read_text())["cautions"][0]


@pytest.mark.parametrize(("threshold", "side"), [(0.0, "bright"), (1.0, "dark"), (0.35, "")])
def test_routing_all_images_to_one_loss_is_told_once(tiny_root, tmp_path, threshold, side):
    config = tmp_path / "tiny.yml"
    config.write_text(TINY_YAML.format(root=tiny_root, output=tmp_path / "run"))
    options = ("LOSS.TRIPLETX.ENABLE", True, "LOSS.BRIGHTNESS.ENABLE", True, "LOSS.BRIGHTNESS.THRESH", threshold)
    assert run(train.main, *args_for(config, "SOLVER.MAX_EPOCHS", 2, *options)) == 0
    text = "".join(path.read_text() for path in (tmp_path / "run").glob("*log.txt"))
    assert text.count("had no image at all") == int(bool(side))
    assert not side or f"epoch 1: all images are {side} by LOSS.BRIGHTNESS.THRESH {threshold:g}" in text
