"""Queries of several modalities in FeatureExtractor, tools.extract and tools.search: as the formulas have it."""

import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from processor.trained import Trained, load_trained
from tests import commands
from tests.model.clip_reids import assert_near
from tests.tools.modal_runs import NAME, embeddings_of, write_modal_run
from tests.tools.search.test_search import printed
from tests.tools.test_words import refusal
from tools import extract
from tools.feature_extractor import FeatureExtractor
from tools.queries import parse_queries, query_word
from tools.search import __main__ as search
from tools.visualize import grid
from utils.errors import ConfigError, DataError

TEXT = "a woman in a red coat"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of a tiny model of all modalities; read only."""
    return write_modal_run(tmp_path_factory.mktemp("modal"))


@pytest.fixture(scope="module")
def trained(run: Path) -> Trained:
    return load_trained(run / NAME)


@pytest.fixture(scope="module")
def extractor(trained: Trained) -> FeatureExtractor:
    return FeatureExtractor(trained)


@pytest.fixture
def gallery(photos: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # pictures go to logs/search
    return tmp_path / "photos"


def queries_of(photos: list[str]) -> list[dict[str, str]]:
    """Return queries of one to four items, in orders of their own."""
    return [
        {"text": TEXT, "nir": photos[0]},
        {"sk": photos[1]},
        {"text": "red"},
        {"cp": photos[3], "sk": photos[0], "text": "a man with a bag, and a hat", "nir": photos[1]},
        {"vis": photos[2]},
    ]


def of_formulas(trained: Trained, queries: list[dict[str, str]], flip: bool = False) -> torch.Tensor:
    return embeddings_of(trained.model, trained.cfg, queries, flip)


def changed(trained: Trained, *opts: object) -> FeatureExtractor:
    """Return the extractor of a model with other keys."""
    cfg = trained.cfg.clone()
    cfg.defrost()
    cfg.merge_from_list(list(opts))
    return FeatureExtractor(trained._replace(cfg=cfg))


@pytest.mark.parametrize("flip", [False, True])
def test_queries_of_any_items_become_what_the_formulas_make_of_them(trained, photos, flip):
    extractor, queries = changed(trained, "TEST.FLIP", flip), queries_of(photos)
    assert_near(extractor.embed_queries(queries), of_formulas(trained, queries, flip))
    assert extractor.embed_queries([]).shape == (0, extractor.feat_dim)


def test_neither_the_order_of_items_nor_the_batch_changes_a_query(trained, extractor, photos):
    queries, small = queries_of(photos), changed(trained, "TEST.IMS_PER_BATCH", 1)
    turned = [dict(reversed(query.items())) for query in queries]
    assert_near(small.embed_queries(turned), extractor.embed_queries(queries).double())


@pytest.mark.parametrize("modality", ["vis", "nir", "sk", "cp"])
def test_images_of_one_modality_are_queries_of_it_alone(trained, photos, modality):
    extractor = FeatureExtractor(trained, modality)
    assert_near(extractor(photos), of_formulas(trained, [{modality: photo} for photo in photos]))


def test_a_sentence_is_a_query_of_text_alone(extractor, trained):
    assert_near(extractor.embed_texts([TEXT, "red"]), of_formulas(trained, [{"text": TEXT}, {"text": "red"}]))


def test_each_modality_has_an_index_of_its_own(run, trained, extractor):
    other = FeatureExtractor(trained, "nir")
    assert other.fingerprint != extractor.fingerprint == FeatureExtractor.from_run(run, modality="vis").fingerprint


@pytest.mark.parametrize(
    ("queries", "error", "message"),
    [
        ([{"nir": "PHOTO"}, {}], DataError, r"query 1 \(from 0\) has no item"),
        ([{"thermal": "PHOTO"}], ConfigError, "'thermal' is no modality; .* reads vis, nir, sk, cp, text"),
        ([{"text": " "}], DataError, "has no words"),
        ([{"nir": "gone.jpg"}], DataError, "image 'gone.jpg' is missing"),
    ],
)
def test_what_is_no_query_is_told(extractor, photos, queries, error, message):
    given = [{name: value.replace("PHOTO", photos[0]) for name, value in query.items()} for query in queries]
    with pytest.raises(error, match=message):
        extractor.embed_queries(given)


@pytest.mark.parametrize("queries", [["photo.jpg"], {"nir": "photo.jpg"}, "photo.jpg"])
def test_what_is_no_list_of_dicts_is_told(extractor, queries):
    with pytest.raises(DataError, match=r"query 0 \(from 0\) is of type str; give a list of dicts"):
        extractor.embed_queries(queries)


def test_rgb_beside_other_items_is_told_to_be_new_to_the_model(extractor, photos, caplog):
    extractor.embed_queries([{"vis": photos[0], "nir": photos[1]}])
    assert "a query of vis and more: the model has never seen vis with other modalities" in caplog.text


def test_other_models_take_one_item_a_query(trained_run, photos):
    extractor = FeatureExtractor.from_run(trained_run)
    torch.testing.assert_close(extractor.embed_queries([{"vis": photos[0]}]), extractor(photos[0]))
    with pytest.raises(ConfigError, match="MODEL.NAME transformer, which takes all images for RGB ones, not for nir"):
        extractor.embed_queries([{"nir": photos[0]}])
    with pytest.raises(ConfigError, match="takes all images for RGB ones, not for sk; leave the modality out"):
        FeatureExtractor.from_run(trained_run, modality="sk")
    with pytest.raises(ConfigError, match=re.escape("which reads no sentences; use a model that was trained on")):
        extractor.embed_queries([{"vis": photos[0], "text": TEXT}])


searched = partial(commands.run, search.main)


def test_a_search_by_several_items_prints_and_draws_what_is_nearest(
    run, trained, photos, gallery, tmp_path, capsys, monkeypatch
):
    drawn = []
    monkeypatch.setattr(grid, "save_picture", lambda picture, path: drawn.append((Path(path).name, picture)))
    words = ["--query", f"ir={photos[0]}", f"txt={TEXT}", "--query", f"sk={photos[1]}", "--query", photos[2], photos[3]]
    assert searched("--run", run, *words, "--text", "red", "--gallery", gallery, "--topk", 4) == 0
    queries = [{"nir": photos[0], "text": TEXT}, {"sk": photos[1]}, {"vis": photos[2]}, {"vis": photos[3]}]
    cosines = (
        of_formulas(trained, [*queries, {"text": "red"}]) @ of_formulas(trained, [{"vis": one} for one in photos]).t()
    )
    lines = capsys.readouterr().out
    blocks = printed(lines.replace("\ntext red", "\nquery red"))
    titles = [f'nir={photos[0]} text="{TEXT}"', f"sk={photos[1]}", photos[2], photos[3], "red"]
    assert [title for title, _ in blocks] == titles and "\ntext red" in lines
    for row, (_, found) in enumerate(blocks):
        order = cosines[row].argsort(descending=True)[:4].tolist()
        assert [path for _, path in found] == [photos[place] for place in order]
        np.testing.assert_allclose([value for value, _ in found], cosines[row, order], atol=1e-4)
    assert [name for name, _ in drawn] == ["1_a_nir_text.png", "2_b_sk.png", "3_c.png", "4_d.png", "5_red.png"]


def test_a_picture_shows_all_items_beside_each_other_and_the_sentence_above(tmp_path):
    images = [
        grid.Tile(Image.new("RGB", (100, 100), colour), "x") for colour in ((200, 0, 0), (0, 200, 0), (0, 0, 200))
    ]
    result = grid.Tile(Image.new("RGB", (100, 100), (90, 90, 90)))
    plain = grid.grid_image(images[0], [result], 5, 100)
    both = np.asarray(grid.grid_image(images[0]._replace(beside=tuple(images[1:])), [result], 5, 100))
    assert (
        both.shape[0] == plain.height
        and (both[:, : plain.width // 2] == np.asarray(plain)[:, : plain.width // 2]).all()
    )
    places = [
        np.argwhere((both == colour).all(2))[:, 1] for colour in ((200, 0, 0), (0, 200, 0), (0, 0, 200), (90, 90, 90))
    ]
    assert all(len(own) == 100 * 100 for own in places)  # whole, nothing over them
    steps = np.diff([own.min() for own in places])
    assert steps[0] == steps[1] and steps[2] == steps[0] + grid.GAP  # a wider gap before what was found


def test_a_gallery_of_another_modality_has_its_own_index(run, trained, photos, gallery, capsys):
    words = ("--query", f"text={TEXT}", "--gallery", gallery, "--topk", 6)
    assert searched("--run", run, *words) == 0
    visible = printed(capsys.readouterr().out.replace("text a", "query a"))
    assert searched("--run", run, "TEST.GALLERY_SET", "['nir']", *words) == 0
    infrared = printed(capsys.readouterr().out.replace("text a", "query a"))
    assert len(list(gallery.glob(".reid_index*"))) == 2
    cosines = (of_formulas(trained, [{"text": TEXT}]) @ of_formulas(trained, [{"nir": one} for one in photos]).t())[0]
    order = cosines.argsort(descending=True).tolist()
    assert [path for _, path in infrared[0][1]] == [photos[row] for row in order]
    assert infrared != visible


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--query", "thermal=PHOTO"], "'thermal' is no modality; there are vis, nir, sk, cp, text (also rgb"),
        (["--query", "nir=gone.jpg"], "--query nir=: no file 'gone.jpg'"),
        (["--query", "nir="], "--query nir= is empty; name an image file, nir=FILE"),
        (["--query", "sk=PHOTOS"], "photos' is a folder; name the images in it"),
        (["--query", "text=PHOTO"], "names an image; write a sentence in quotes, or vis="),
        (["--query", "text= "], "--query text= is empty; write a sentence"),
        (["--query", "nir=PHOTO", "ir=PHOTO"], "--query names nir twice, a query has one item of a modality"),
        (
            ["--query", "nir=PHOTO", "text=a", "man"],
            "'man' stands among items and has no modality; write --query nir=a",
        ),
        (["--query", "nir=PHOTO", "PHOTO"], "a.png' stands among items and has no modality"),
        (["--query", "cp=NOTE"], "notes.txt' does not decode"),
        (["TEST.GALLERY_SET", "['text']", "--query", "nir=PHOTO"], "the images of a folder are of one modality"),
        (["TEST.GALLERY_SET", "['vis','nir']", "--query", "sk=PHOTO"], "the images of a folder are of one modality"),
    ],
)
def test_mistakes_in_a_query_are_one_line(run, photos, gallery, capsys, words, message):
    places = {"PHOTOS": gallery, "PHOTO": photos[0], "NOTE": gallery / "notes.txt"}
    for name, value in places.items():
        words = [re.sub(rf"\b{name}\b", str(value), word) for word in words]
    assert message in refusal(search.main, "--run", run, *words, "--gallery", gallery, capsys=capsys)
    assert not list(gallery.glob(".reid_index*"))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("a\0b", "--query nir=: the path 'a\\x00b' holds a NUL character"),
        ("~nobody_of_this_name/x", "--query nir=: '~nobody_of_this_name/x' names a home folder that does not exist"),
        ("x" * 300, "--query nir=: '" + "x" * 300 + "' cannot be used"),
        ("x\ud800", "is no path of this system"),
    ],
)
def test_a_name_that_no_file_has_is_told_as_everywhere(path, words):
    with pytest.raises(ConfigError) as caught:
        parse_queries([[query_word(f"nir={path}")]], [])
    assert words in str(caught.value)


def test_a_home_folder_is_found_in_an_item(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.png").write_bytes(b"")
    (query,) = parse_queries([["nir=~/a.png"]], [])
    assert query.items == {"nir": str(tmp_path / "a.png")}


def test_a_query_of_a_modality_that_the_model_lacks_is_told(tmp_path, photos, gallery, capsys):
    run = write_modal_run(tmp_path / "two", "MODEL.MULTIMODAL.MODALITIES", ("vis", "text"))
    error = refusal(search.main, "--run", run, "--query", f"nir={photos[0]}", "--gallery", gallery, capsys=capsys)
    assert "was trained on vis, text (MODEL.MULTIMODAL.MODALITIES), not on nir; leave nir out" in error


def test_items_need_a_model_of_modalities(trained_run, photos, gallery, capsys):
    words = ("--run", trained_run, "--query", f"nir={photos[0]}", f"sk={photos[1]}", "--gallery", gallery)
    assert "which takes all images for RGB ones, not for nir" in refusal(search.main, *words, capsys=capsys)


def test_a_file_whose_name_looks_like_an_item_is_a_path(trained_run, photos, gallery, capsys):
    (gallery / "a.png").rename("v=1.png")
    assert searched("--run", trained_run, "--query", "v=1.png", "--gallery", gallery) == 0
    assert printed(capsys.readouterr().out)[0][0] == "v=1.png"


def test_embeddings_of_a_modality_and_of_sentences_go_to_files(run, trained, photos, gallery, tmp_path, capsys):
    out, lines = tmp_path / "f.npz", tmp_path / "texts.txt"
    assert commands.run(extract.main, "--run", run, "--modality", "sketch", "--images", gallery, "--out", out) == 0
    with np.load(out) as file:
        assert_near(torch.from_numpy(file["feat"]), of_formulas(trained, [{"sk": photo} for photo in photos]))
        assert json.loads(str(file["meta"]))["modality"] == "sk"
    lines.write_text(f"{TEXT}\nred\n")
    assert commands.run(extract.main, "--run", run, "--texts", lines, "--out", out) == 0
    with np.load(out) as file:
        assert_near(torch.from_numpy(file["feat"]), of_formulas(trained, [{"text": TEXT}, {"text": "red"}]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--modality", "thermal", "--images", "PHOTOS"],
            "argument --modality: 'thermal' is no modality; there are vis",
        ),
        (["--modality", "text", "--images", "PHOTOS"], "--modality says of what modality --images are"),
        (["--modality", "nir", "--texts", "t.txt"], "--modality says of what modality --images are"),
    ],
)
def test_mistakes_in_a_modality_are_one_line(run, gallery, capsys, words, message):
    words = [gallery if word == "PHOTOS" else word for word in words]
    assert message in refusal(extract.main, "--run", run, *words, "--out", "f.npz", capsys=capsys)
