"""The example: a copy of it far from this repository reads the metadata and gives the cosines of the model."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from datasets.decode import FILTERS, read_image, resize
from datasets.tokens import tokenize_all
from datasets.transforms import BatchTransform
from processor.trained import Trained, load_trained
from tests.tolerance import bounds
from tests.tools.export.exports import BOTH, small
from tests.tools.export.test_export_irra import make_trained as make_irra_trained
from tests.tools.modal_runs import NAME, write_modal_run
from tests.tools.photos import write_photos
from tools import onnx_example
from tools.export.exporter import LEAST_COSINE, export_model
from tools.export.modal import FUSION
from tools.feature_extractor import FeatureExtractor
from tools.tracking import Appearance

SOURCE = Path(onnx_example.__file__)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Path, list[Path]]:
    """A trained model, its ONNX file, and three images of other sizes, one of them with transparency."""
    folder = tmp_path_factory.mktemp("example")
    trained = small(folder, *BOTH)
    export_model(trained, folder / "model.onnx", "onnx")
    shutil.copy(SOURCE, folder / "copied.py")
    rng, paths = np.random.default_rng(0), []
    for name, shape in {"a.jpg": (50, 30, 3), "b.png": (32, 24, 4), "c.png": (20, 61)}.items():
        paths.append(folder / name)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(paths[-1])
    return trained, folder, paths


def run_copy(folder: Path, *arguments: object) -> subprocess.CompletedProcess:
    """Run the copy in isolated mode: neither this folder nor PYTHONPATH is searched for modules."""
    command = [sys.executable, "-I", "copied.py", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@torch.no_grad()
def test_copied_example_prints_the_cosines_of_the_model(model):
    trained, folder, paths = model
    result = run_copy(folder, "model.onnx", *paths)
    assert result.returncode == 0 and result.stderr == ""
    rows = [line.split() for line in result.stdout.splitlines()]
    cfg = trained.cfg.INPUT
    pixels = torch.stack([read_image(path, cfg.SIZE_TEST, cfg.FILTER_TEST, "pillow") for path in paths])
    feat = F.normalize(trained.model(BatchTransform(cfg.PIXEL_MEAN, cfg.PIXEL_STD)(pixels)), dim=1)
    np.testing.assert_allclose(np.array([row[:3] for row in rows], dtype=float), feat @ feat.t(), atol=1e-4)
    assert [row[3] for row in rows] == list(map(str, paths))


@torch.no_grad()
def test_trackers_get_the_embeddings_of_the_model(model):
    trained, folder, _ = model
    crops = [np.random.default_rng(side).integers(0, 256, (2 * side, side, 3), dtype=np.uint8) for side in (9, 30, 50)]
    cfg = trained.cfg.INPUT
    pixels = torch.stack([resize(Image.fromarray(crop), cfg.SIZE_TEST, cfg.FILTER_TEST, "pillow") for crop in crops])
    expected = F.normalize(trained.model(BatchTransform(cfg.PIXEL_MEAN, cfg.PIXEL_STD)(pixels)), dim=1)
    feat = Appearance(folder / "model.onnx").of_crops([crop[..., ::-1] for crop in crops])
    assert (feat * expected.numpy()).sum(axis=1).min() > LEAST_COSINE


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("resize_filter", FILTERS)
def test_preprocessing_from_the_metadata_is_that_of_the_tests(resize_filter, inside, model):
    mean, std, size = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25], [40, 28]
    metadata = {"size": size, "resize_filter": resize_filter, "mean": mean, "std": std, "normalised_inside": inside}
    for path in model[2]:
        pixels = read_image(path, size, resize_filter, "pillow").unsqueeze(0)
        ours = pixels.float() if inside else BatchTransform(mean, std)(pixels)
        theirs = onnx_example.read_image(str(path), metadata)
        np.testing.assert_allclose(theirs, ours[0], **bounds(9))
        assert theirs.dtype == np.float32


def test_mistakes_are_one_line_each(model):
    _, folder, paths = model
    (folder / "note.txt").write_text("no model, no image")
    Image.fromarray(np.zeros((8, 8), dtype=np.uint16)).save(folder / "deep.png")
    Image.new("1", (20_000, 20_000)).save(folder / "huge.png")  # Pillow takes it for an attack
    cases = {
        ("gone.onnx", *paths): "error: no file 'gone.onnx'; python -m tools.export --format onnx writes one",
        ("note.txt", *paths): "error: 'note.txt' is no file of python -m tools.export",
        ("model.onnx", paths[0], "gone.jpg"): "error: image 'gone.jpg' cannot be read",
        ("model.onnx", paths[0], "note.txt"): "error: image 'note.txt' cannot be read",
        ("model.onnx", paths[0], "deep.png"): "error: image 'deep.png' has more than 8 bits per channel",
        ("model.onnx", paths[0], "huge.png"): "error: image 'huge.png' cannot be read",
        ("model.onnx", paths[0]): "Compare images with an exported ONNX model: python -m tools.onnx_example",
    }
    for arguments, message in cases.items():
        result = run_copy(folder, *arguments)
        assert result.returncode == 2 and result.stderr.startswith(message)
        assert len(result.stderr.splitlines()) == 1


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Path]:
    """A model that reads captions, and the folder of its two ONNX files."""
    folder = tmp_path_factory.mktemp("towers")
    trained = make_irra_trained(folder)
    export_model(trained, folder / "model.onnx", "onnx")
    shutil.copy(SOURCE, folder / "copied.py")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 30, 3), dtype=np.uint8)).save(folder / "a.png")
    return trained, folder


@torch.no_grad()
def test_copied_example_compares_images_with_captions(towers):
    trained, folder = towers
    captions = ["A red coat", "jekyll & naïve 23 " * 9, "a man"]  # the second one is cut
    result = run_copy(folder, "model.onnx", "a.png", "--text", *captions)
    assert result.returncode == 0 and result.stderr == ""
    rows = [line.split(maxsplit=4) for line in result.stdout.splitlines()]
    cfg = trained.cfg.INPUT
    pixels = read_image(str(folder / "a.png"), cfg.SIZE_TEST, cfg.FILTER_TEST, "pillow")[None]
    image = trained.model.encode_image(BatchTransform(cfg.PIXEL_MEAN, cfg.PIXEL_STD)(pixels))
    texts = trained.model.encode_text(tokenize_all(captions, cfg.TEXT.LENGTH))
    feat = F.normalize(torch.cat([image, texts]), dim=1)
    np.testing.assert_allclose(np.array([row[:4] for row in rows], dtype=float), feat @ feat.t(), atol=1e-4)
    assert [row[4].strip() for row in rows] == ["a.png", *(caption.strip() for caption in captions)]


@pytest.mark.slow
@torch.no_grad()
def test_copied_example_compares_a_query_of_several_items_with_images(tmp_path):
    trained = load_trained(write_modal_run(tmp_path / "modal") / NAME)
    photos, folder = write_photos(tmp_path / "photos"), tmp_path
    shutil.copy(SOURCE, folder / "copied.py")
    for part, fused in (("vis", True), ("nir", False), ("text", False), (FUSION, True)):
        export_model(trained, folder / f"{part}.onnx", "onnx", part=part, fused=fused)
    items = {"nir": photos[0], "text": "a red coat"}
    words = (*photos[1:3], "--query", "fusion.onnx", *(f"{name}.onnx={value}" for name, value in items.items()))
    result = run_copy(folder, "vis.onnx", *words)
    assert result.returncode == 0 and result.stderr == ""
    rows = [line.split()[:3] for line in result.stdout.splitlines()]
    extractor = FeatureExtractor.from_run(trained.weight.parent, opts=["INPUT.DECODER", "pillow"])
    feat = extractor.embed_queries([*({"vis": photo} for photo in photos[1:3]), items])
    np.testing.assert_allclose(np.array(rows, dtype=float), feat @ feat.t(), atol=1e-4)
    cases = {
        ("fusion.onnx",): "error: a query has 1 to 5 items, TOWER.onnx=ITEM each",
        ("fusion.onnx", photos[0]): f"error: '{photos[0]}' names no tower; write TOWER.onnx=",
        ("fusion.onnx", f"vis.onnx={photos[0]}"): "error: 'vis.onnx' gives embeddings, which nothing fuses; export it",
        ("nir.onnx", f"nir.onnx={photos[0]}"): "error: 'nir.onnx' is not the fusion of several modalities",
        (
            "fusion.onnx",
            f"fusion.onnx={photos[0]}",
        ): "error: 'fusion.onnx' is not the tower of one of several modalities",
    }
    for words, message in cases.items():
        result = run_copy(folder, "vis.onnx", photos[0], "--query", *words)
        assert result.returncode == 2 and result.stderr.startswith(message)


def test_tokens_of_the_example_are_those_of_the_training():
    metadata = {"length": 12, "padding": 0, "start": 49406, "end": 49407}
    captions = ["A woman's coat, 23 jekyll", "", "caf\u00e9 &amp; \u8f66 " * 9]
    np.testing.assert_array_equal(onnx_example.tokenize(captions, metadata), tokenize_all(captions, 12).numpy())


def test_captions_need_a_text_tower_beside_the_model(model, towers):
    cases = {
        (model[1], "model.onnx", model[2][0], "--text", "a man"): "error: no file 'model_text.onnx'",
        (towers[1], "model_text.onnx", "a.png", "a.png"): "error: 'model_text.onnx' is not the tower of images",
    }
    for (folder, *words), message in cases.items():
        result = run_copy(folder, *words)
        assert result.returncode == 2 and result.stderr.startswith(message)
        assert len(result.stderr.splitlines()) == 1


def test_help_says_how_it_is_started(capsys):
    assert onnx_example.main(["--help"]) == 0
    assert "python -m tools.onnx_example MODEL.onnx IMAGE" in capsys.readouterr().out
