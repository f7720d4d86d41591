"""What a query finds on the page: what the search finds, with maps over the images, whichever model it is."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from configs.modalities import GREY
from processor.trained import Trained, load_trained
from tests.tools.irra_runs import NAME as IRRA
from tests.tools.irra_runs import write_irra_run
from tests.tools.modal_runs import NAME as MODAL
from tests.tools.modal_runs import write_modal_run
from tools.demo.engine import MOST, SIDE, Engine
from tools.demo.gallery import open_gallery
from tools.demo.overlays import GLOBAL, Overlays
from tools.demo.uploads import Given, read_upload, shown
from tools.feature_extractor import FeatureExtractor
from tools.search.nearest import nearest
from tools.visualize.attention import heat_map, overlay
from tools.visualize.words import Captioned, geometry_of, word_maps
from utils.errors import DataError


@pytest.fixture(scope="module")
def irra(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A tiny IRRA with cross attention."""
    return load_trained(write_irra_run(tmp_path_factory.mktemp("irra") / "run") / IRRA)


@pytest.fixture(scope="module")
def modal(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A tiny model of five modalities."""
    return load_trained(write_modal_run(tmp_path_factory.mktemp("modal")) / MODAL)


@pytest.fixture
def folder(photos: list[str], tmp_path: Path) -> Path:
    """A gallery of photographs of two cameras and of none."""
    for number, name in enumerate(("0001_c1s1_01_00.png", "0002_c2s1_01_00.png", "0003_c1s1_01_00.png")):
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (40, 20, 3), dtype=np.uint8)).save(
            tmp_path / "photos" / name
        )
    return tmp_path / "photos"


def make_engine(trained: Trained, folder: Path) -> Engine:
    extractor = FeatureExtractor(trained)
    return Engine(trained, extractor, open_gallery(extractor, folder))


def given(engine: Engine, path: str, modality: str = "vis") -> Given:
    """Return an image as an upload that is read for a query."""
    copy = engine.gallery.root.parent / "uploads" / "x" / Path(path).name
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(Path(path).read_bytes())
    return read_upload(str(copy), copy.parents[1], engine.settings, modality in GREY)


def assert_found(engine: Engine, feat: torch.Tensor, answer: object, topk: int) -> None:
    """Assert that an answer is that of the search by a feature [1, D]."""
    rows, similarity = nearest(feat.numpy(), engine.gallery.feat, topk)
    assert [result.hit.row for result in answer.results] == rows[0].tolist()
    assert [result.hit.similarity for result in answer.results] == similarity[0].tolist()
    assert [result.hit.name for result in answer.results] == engine.gallery.names[rows[0]].tolist()


def test_an_image_finds_what_the_search_finds(trained_run, photos, folder):
    engine = make_engine(load_trained(trained_run / "transformer_2.pth"), folder)
    extractor = FeatureExtractor.from_run(trained_run)
    for path in photos[:2]:
        answer = engine.answer({"vis": given(engine, path)}, 4)
        assert_found(engine, extractor.embed_queries([{"vis": path}]), answer, 4)
        assert answer.results[0].hit.name == Path(path).name and answer.note == answer.sentence == ""
        assert answer.results[0].hit.similarity == pytest.approx(1, abs=1e-6)
        assert max(answer.results[0].picture.size) <= SIDE and list(answer.query) == ["vis"]
    only = engine.answer({"vis": given(engine, photos[0])}, 10, [2])
    assert [(result.hit.name, result.hit.camera) for result in only.results] == [("0002_c2s1_01_00.png", 2)]


def test_the_number_of_results_has_bounds(trained_run, photos, folder):
    engine = make_engine(load_trained(trained_run / "transformer_2.pth"), folder)
    item = given(engine, photos[0])
    assert [len(engine.answer({"vis": item}, number).results) for number in (-3, 0, 1, 10**9)] == [1, 1, 1, 9]
    assert len(engine.gallery.names) == 9 < MOST


def test_a_query_without_items_and_images_that_are_gone_are_told(trained_run, photos, folder, tmp_path):
    engine = make_engine(load_trained(trained_run / "transformer_2.pth"), folder)
    with pytest.raises(DataError, match="drop an image first"):
        engine.answer({}, 3)
    item = given(engine, photos[0])
    (folder / "a.png").unlink()
    secret = tmp_path / "secret.png"
    Image.new("RGB", (8, 8)).save(secret)
    (folder / "b.JPG").unlink()
    (folder / "b.JPG").symlink_to(secret)  # since the index was made
    answer = engine.answer({"vis": item}, 20, attention=True)
    absent = {result.hit.name for result in answer.results if result.picture is None}
    assert absent == {"a.png", "b.JPG"} and len(answer.results) == 9


def test_maps_of_a_transformer_are_its_roll_out(trained_run, photos, folder):
    from model.rollout import patches_of, rollout

    trained = load_trained(trained_run / "transformer_2.pth")
    engine = make_engine(trained, folder)
    plain, drawn = (engine.answer({"vis": given(engine, photos[0])}, 9, attention=on) for on in (False, True))
    assert [one.hit for one in plain.results] == [one.hit for one in drawn.results] and drawn.note == ""
    mean, std = (
        torch.tensor(values).view(3, 1, 1) for values in (engine.settings.PIXEL_MEAN, engine.settings.PIXEL_STD)
    )
    pairs = [(plain.query["vis"], drawn.query["vis"], photos[0])]
    pairs += [
        (one.picture, other.picture, str(folder / one.hit.name))
        for one, other in zip(plain.results, drawn.results, strict=True)
    ]
    for picture, with_map, path in pairs:
        pixels = given(engine, path).pixels
        maps = rollout(trained.model, ((pixels / 255 - mean) / std)[None])[GLOBAL][0].numpy()
        expected = overlay(picture, heat_map(maps, *patches_of(trained.model), (picture.height, picture.width)))
        assert np.abs(np.asarray(with_map).astype(int) - np.asarray(expected)).max() <= 2  # batches round differently


def test_a_sentence_finds_what_the_search_finds_and_its_words_look_at_the_images(irra, folder):
    engine = make_engine(irra, folder)
    sentence = "a woman in a red coat"
    answer = engine.answer({"text": sentence}, 5, attention=True)
    assert_found(engine, FeatureExtractor(irra).embed_texts([sentence]), answer, 5)
    assert (answer.sentence, answer.query, answer.note) == (sentence, {}, "")
    for result in answer.results:
        path = str(folder / result.hit.name)
        picture = shown(path, SIDE)
        maps = np.mean([one for _, one in word_maps(irra, Captioned(path, sentence))], axis=0)
        expected = overlay(picture, heat_map(maps, *geometry_of(irra), (picture.height, picture.width)))
        assert np.abs(np.asarray(result.picture).astype(int) - np.asarray(expected)).max() <= 2


def test_a_sentence_that_the_model_cuts_is_said(irra, folder):
    engine = make_engine(irra, folder)
    length = irra.cfg.INPUT.TEXT.LENGTH
    fits, cut = (engine.answer({"text": "a " * count}, 1).note for count in (length - 2, length - 1))
    assert fits == "" and cut.startswith(f"the model reads {length} tokens of a sentence")


def test_an_image_has_no_words_that_look(irra, photos, folder):
    engine = make_engine(irra, folder)
    answer = engine.answer({"vis": given(engine, photos[0])}, 2, attention=True)
    assert answer.note == "type a sentence to see where its words look" and len(answer.results) == 2
    with pytest.raises(DataError, match="drop an image or type a sentence first"):
        engine.answer({}, 3)
    with pytest.raises(DataError, match="has no words"):
        engine.answer({"text": "&nbsp;"}, 3)


def test_several_modalities_are_one_query(modal, photos, folder):
    engine = make_engine(modal, folder)
    items = {"text": "a man", "sk": given(engine, photos[1], "sk"), "nir": given(engine, photos[0], "nir")}
    answer = engine.answer(items, 6, attention=True)
    query = {"nir": photos[0], "sk": photos[1], "text": "a man"}
    assert_found(engine, FeatureExtractor(modal).embed_queries([query]), answer, 6)
    assert list(answer.query) == ["nir", "sk"] and answer.sentence == "a man"
    assert re.search("cannot be rolled out", answer.note) and engine.takes_several


def test_a_model_without_attention_says_so(modal):
    assert re.search("MODEL.NAME transformer", Overlays(modal).why_not)
