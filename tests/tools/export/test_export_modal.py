"""Exported towers of single modalities and their fusion: the embeddings of the formulas in float64."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from datasets.tokens import tokenize_all
from processor.trained import Trained, load_trained
from tests.model.clip_reids import EMBED, assert_near, in_float64
from tests.tools.export.test_export import LOADERS
from tests.tools.export.test_export_clip_reid import names_in
from tests.tools.modal_runs import LENGTH, NAME, embeddings_of, naive_pixels, unfused, write_modal_run
from tests.tools.photos import write_photos
from tests.tools.test_words import refusal
from tools.export import __main__ as export
from tools.export import graphs, modal, parity
from tools.export.exporter import export_model
from tools.export.modal import FUSION
from utils.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated:FutureWarning")

TEXTS = ["a woman in a red coat", "red", "a man with two bags"]
ONE_SLOW = [pytest.param("onnx", marks=pytest.mark.slow), "torchscript"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A tiny model of all modalities; read only."""
    return load_trained(write_modal_run(tmp_path_factory.mktemp("modal"), "TEST.FLIP", True) / NAME)


@pytest.fixture(scope="module")
def exported(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """exported(part, fmt, fused) -> the file, written once; read only."""
    folder = tmp_path_factory.mktemp("files")

    def export(part: str, fmt: str = "torchscript", fused: bool = True) -> Path:
        path = folder / f"{part}_{fused}.{fmt}"
        if not path.exists():
            export_model(trained, path, fmt, part=part, fused=fused)
        return path

    return export


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_photos(tmp_path_factory.mktemp("photos"))[:4]


def loaded(path: Path, fmt: str) -> object:
    """Return a function that runs a file on tensors, in the order of its inputs."""
    if fmt == "torchscript":
        return torch.jit.load(path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return lambda *rows: torch.from_numpy(
        session.run(["embedding"], {name: value.numpy() for name, value in zip(names, rows, strict=True)})[0]
    )


def metadata_of(path: Path) -> dict:
    extra = {graphs.METADATA: ""}
    torch.jit.load(path, _extra_files=extra)
    return json.loads(extra[graphs.METADATA])


@pytest.mark.parametrize("fmt", ONE_SLOW)
def test_a_modality_is_one_graph_whose_embedding_is_that_of_a_query_of_it_alone(fmt, trained, exported, photos):
    run, images = loaded(exported("sk", fmt), fmt), torch.cat([naive_pixels(one, "sk", trained.cfg) for one in photos])
    exact = embeddings_of(trained.model, trained.cfg, [{"sk": photo} for photo in photos], flip=True)
    for count in (1, 3, 4):
        assert_near(run(images[:count]), exact[:count], f"{count} images")


@pytest.mark.parametrize("fmt", ONE_SLOW)
def test_the_graph_of_text_takes_tokens(fmt, trained, exported):
    run = loaded(exported("text", fmt), fmt)
    exact = embeddings_of(trained.model, trained.cfg, [{"text": text} for text in TEXTS])
    for count in (1, 2, 3):
        assert_near(run(tokenize_all(TEXTS, LENGTH)[:count]), exact[:count], f"{count} texts")


@pytest.mark.parametrize("fmt", ONE_SLOW)
def test_any_query_is_built_from_unfused_graphs_and_the_fusion(fmt, trained, exported, photos):
    items = {"text": TEXTS[0], "nir": photos[0]}
    rows = {"nir": naive_pixels(photos[0], "nir", trained.cfg), "text": tokenize_all(TEXTS[:1], LENGTH)}
    features = torch.full((2, 5, EMBED), torch.nan)  # what is not there may hold anything
    mask = torch.zeros(2, 5, dtype=torch.bool)
    exact = unfused(trained.model, trained.cfg, items, flip=True)
    for place, (name, x) in enumerate(rows.items()):
        feature = loaded(exported(name, fmt, False), fmt)(x)
        assert_near(feature, exact[name], name)
        features[:, 2 * place + 1], mask[:, 2 * place + 1] = feature, True
    mask[1, 1] = False  # the second query has its sentence alone
    fused = loaded(exported(FUSION, fmt), fmt)(features, mask)
    expected = embeddings_of(trained.model, trained.cfg, [items, {"text": TEXTS[0]}], flip=True)
    assert_near(fused, expected)


@pytest.mark.slow
@pytest.mark.parametrize("fmt", LOADERS)
def test_a_file_holds_nothing_that_it_does_not_run(fmt, exported):
    files = {"nir": exported("nir", fmt), "text": exported("text", fmt, False), FUSION: exported(FUSION, fmt)}
    names = {part: " ".join(names_in(path, fmt)) for part, path in files.items()}
    assert "tokenizers.nir" in names["nir"] and "fusion" in names["nir"] and "token_embedding" in names["text"]
    wrong = {
        "nir": ("lora", ".vis.", ".sk.", "token_embedding"),
        "text": ("vision", "fusion"),
        FUSION: ("vision", "text."),
    }
    assert not [(part, word) for part, words in wrong.items() for word in words if word in names[part]]
    assert not [part for part in names if "classifier" in names[part]]


def test_metadata_says_what_a_file_takes(trained, exported):
    files = exported("sk"), exported("text", fused=False), exported(FUSION)
    sketch, text, fusion = map(metadata_of, files)
    assert (sketch["modality"], sketch["grey"], sketch["size"], sketch["fused"], sketch["flip"]) == (
        *("sk", True, list(trained.cfg.INPUT.SIZE_TEST), True, True),
    )
    assert (text["modality"], text["length"], text["end"], text["fused"], text["feature_norm"]) == (
        *("text", LENGTH, 49407, False, False),
    )
    assert fusion["modalities"] == ["vis", "nir", "sk", "cp", "text"] and fusion["feature_norm"]
    assert sketch["weight_sha256"] == text["weight_sha256"] == fusion["weight_sha256"] and fusion["epoch"] == 3


def test_images_of_another_size_are_refused(exported):
    with pytest.raises(torch.jit.Error, match="images must be 48 x 32 pixels"):
        torch.jit.load(exported("sk"))(torch.zeros(1, 3, 32, 48))


def test_pixels_are_normalised_inside_on_request(trained, photos, tmp_path):
    export_model(trained, tmp_path / "vis.pt", "torchscript", normalise=True, part="vis")
    pixels = naive_pixels(photos[0], "vis", trained.cfg)
    mean, std = (torch.tensor(row).view(3, 1, 1) for row in (trained.cfg.INPUT.PIXEL_MEAN, trained.cfg.INPUT.PIXEL_STD))
    exact = embeddings_of(trained.model, trained.cfg, [{"vis": photos[0]}], flip=True)
    assert_near(torch.jit.load(tmp_path / "vis.pt")((pixels * std + mean) * 255), exact)


def test_the_model_itself_stays_as_it_is(trained):
    before = in_float64(trained.model)
    modal.ImageEmbedder(trained.model, "nir", None, flip=False, unit=True)
    after = in_float64(trained.model)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_random_queries_hold_one_to_all_items(trained):
    embedder = parity.FusionEmbedder(trained.model, unit=True)
    how = parity.make_embedding(trained.cfg, torch.device("cpu"), exact=True)
    masks = torch.cat([asked.others["mask"] for asked in parity.DRAWS[type(embedder)](embedder, trained, how)])
    assert np.unique(masks.sum(1)).tolist() == [1, 2, 3, 4, 5] and len(masks) == 20


def test_a_model_of_modalities_wants_to_know_which(trained, tmp_path):
    with pytest.raises(ConfigError, match=r"name one, --modality vis\|nir\|sk\|cp\|text, or --fusion"):
        export_model(trained, tmp_path / "model.pt", "torchscript")
    assert not list(tmp_path.iterdir())


def test_mistakes_of_the_command_are_one_line(trained, trained_run, tmp_path, capsys):
    own, out = ("--run", trained.weight.parent), ("--format", "torchscript", "--out", tmp_path / "m.pt")
    other = ("--run", trained_run)
    cases = {
        (*own, *out, "--modality", "thermal"): "argument --modality: 'thermal' is no modality; there are vis, nir",
        (*own, *out, "--modality", "nir", "--fusion"): "--modality and --fusion are a file each; give one of the two",
        (*own, *out, "--unfused"): "--unfused goes with --modality",
        (*own, *out, "--modality", "text", "--normalise"): "--normalise is of images",
        (*own, *out, "--fusion", "--normalise"): "--normalise is of images",
        (*other, *out, "--fusion"): "--fusion: '",
        (
            *other,
            *out,
            "--modality",
            "nir",
        ): "is of MODEL.NAME transformer, which has no such parts; leave the flag out",
    }
    for words, message in cases.items():
        assert message in refusal(export.main, *words, capsys=capsys)
    assert not list(tmp_path.iterdir())


def test_the_command_names_its_file(trained, tmp_path, capsys):
    words = [
        "--format",
        "torchscript",
        "--run",
        str(trained.weight.parent),
        "--fusion",
        "--out",
        str(tmp_path / "f.pt"),
    ]
    assert export.main(words) == 0
    expected = (
        f"{tmp_path / 'f.pt'}: torchscript, features, mask -> embedding [batch, {EMBED}]; 20 random queries against"
    )
    assert capsys.readouterr().out.startswith(expected)
