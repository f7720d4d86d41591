"""Sentences in FeatureExtractor, tools.extract and tools.search: as the formulas have it, or one clear error."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.tokens import tokenize
from tests import commands
from tests.model.clip_reids import EMBED, assert_near
from tests.tools.irra_runs import NAME, image_features, text_features, write_irra_run
from tests.tools.search.test_search import printed
from tools import extract
from tools.feature_extractor import FeatureExtractor
from tools.search import __main__ as search
from tools.visualize import grid
from utils.digest import sha256_of
from utils.errors import ConfigError, DataError

TEXTS = ["a woman in a red coat", "red", "Zwei Männer & a dog’s leash!", "a man  with 2 bags,\tand a hat", "red"]
LONG = "a man with a bag and " * 20
NO_WORDS = "which reads no sentences; use a model that was trained on captions (MODEL.NAME irra)"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of a tiny IRRA; read only."""
    return write_irra_run(tmp_path_factory.mktemp("irra") / "run")


@pytest.fixture(scope="module")
def extractor(run: Path) -> FeatureExtractor:
    return FeatureExtractor.from_run(run)


def read(file: Path) -> dict[str, np.ndarray]:
    with np.load(file, allow_pickle=False) as content:
        return dict(content)


def refusal(main: object, *words: object, capsys: pytest.CaptureFixture) -> str:
    """Return the one line of a command that ends with code 2, the parser's errors included."""
    try:
        code = commands.run(main, *words)
    except SystemExit as end:
        code = end.code
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2 and error.startswith("error: ")
    return error


def test_sentences_and_images_become_what_the_formulas_make_of_them(extractor, run, photos):
    assert_near(extractor.embed_texts(TEXTS), text_features(run, TEXTS))
    assert_near(extractor(photos), image_features(run, photos))
    assert_near(FeatureExtractor.from_run(run, opts=["TEST.FLIP", "True"])(photos), image_features(run, photos, True))


def test_sentences_and_images_are_the_features_of_the_model_made_unit_vectors(extractor, photos):
    with torch.no_grad():
        expected = extractor.model.encode_text(torch.stack([tokenize(text) for text in TEXTS]))
    assert_near(extractor.embed_texts(TEXTS), torch.nn.functional.normalize(expected.double(), dim=1))


@pytest.mark.parametrize("size", [1, 2, 100])
def test_neither_order_nor_batch_changes_the_embedding_of_a_sentence(run, size):
    small = FeatureExtractor.from_run(run, opts=["TEST.IMS_PER_BATCH", str(size)])
    texts = [*TEXTS, LONG]
    assert_near(small.embed_texts(texts[::-1]), text_features(run, texts[:-1] + [LONG[:-1]]).flip(0))


def test_one_sentence_is_a_batch_of_one_and_none_is_an_empty_one(extractor, run):
    assert_near(extractor.embed_texts(TEXTS[0]), text_features(run, TEXTS[:1]))
    assert extractor.embed_texts([]).shape == (0, EMBED)
    assert not extractor.embed_texts("red").is_inference()


@pytest.mark.parametrize("length", [5, 77])
def test_sentences_are_cut_at_the_length_of_the_model_and_counted(run, length, caplog):
    extractor = FeatureExtractor.from_run(run, opts=["INPUT.TEXT.LENGTH", str(length)])
    cut = extractor.embed_texts([LONG, "red", "a b c d e f g"])
    words = LONG.split()
    assert_near(cut[:1], extractor.embed_texts([" ".join(words[: length - 2])]).double())
    number = {5: 2, 77: 1}[length]
    assert f"{number} of 3 captions have more than {length} tokens, and lose the words beyond" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"text 1 \(from 0\), '', has no words"),
        (" \t", "has no words"),
        ("&nbsp;", "'&nbsp;', has no words"),
        (7, "is of type int; give a sentence"),
        (b"red", "is of type bytes"),
        ("red \udcff", r"'red \\udcff', is no Unicode text"),
    ],
)
def test_what_is_no_sentence_is_named(extractor, text, message):
    with pytest.raises(DataError, match=message):
        extractor.embed_texts(["red", text])


def test_the_original_file_needs_its_yaml_alone(run, extractor, photos, tmp_path):
    weights = {f"module.{name}": value.half() for name, value in extractor.model.state_dict().items()}
    torch.save({"model": weights, "epoch": 3, "iteration": 7}, tmp_path / "best.pth")
    (tmp_path / "its.yml").write_text(extractor.cfg.dump())
    original = FeatureExtractor.from_checkpoint(tmp_path / "best.pth", tmp_path / "its.yml")
    for got, ours in ((original(photos), extractor(photos)), (original.embed_texts(TEXTS), text_features(run, TEXTS))):
        assert (got.double() * ours.double()).sum(1).min() > 1 - 1e-4  # float16 keeps three decimals


def test_a_model_of_images_alone_says_so(trained_run):
    with pytest.raises(ConfigError, match=re.escape(f"transformer_2.pth' is of MODEL.NAME transformer, {NO_WORDS}")):
        FeatureExtractor.from_run(trained_run).embed_texts("red")


def test_broken_weights_are_told_for_sentences_too(run):
    extractor = FeatureExtractor.from_run(run)
    extractor.model.base_model.text_projection.data.fill_(float("nan"))
    with pytest.raises(DataError, match="irra_3.pth' gives embeddings with NaN or infinity"):
        extractor.embed_texts("red")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_text_file_becomes_embeddings_sentences_and_their_lines(run, extractor, tmp_path, capsys, caplog, end):
    file, out = tmp_path / "captions.txt", tmp_path / "new" / "texts.npz"
    lines = ["\ufeffa red coat", "", "  a blue hat ", "\t", "a red coat", "", ""]
    file.write_bytes(end.join(lines).encode())
    assert commands.run(extract.main, "--run", run, "--texts", file, "--out", out) == 0
    assert capsys.readouterr().out == f"{out}: 3 texts x {EMBED} values\n"
    assert "2 blank lines are left out, the first is line 2" in caplog.text
    content = read(out)
    texts = ["a red coat", "a blue hat", "a red coat"]
    assert content["text"].tolist() == texts and content["line"].tolist() == [1, 3, 5]
    assert_near(torch.from_numpy(content["feat"]), text_features(run, texts))
    meta = json.loads(str(content["meta"]))
    assert meta["weight_sha256"] == sha256_of(run / NAME) and meta["fingerprint"] == extractor.fingerprint
    assert meta["length"] == 77 and meta["precision"] == "float32" and "size" not in meta


def test_a_text_file_without_blank_lines_is_no_reason_to_say_anything(run, tmp_path, caplog):
    (tmp_path / "a.txt").write_text("red\nblue\n")
    assert commands.run(extract.main, "--run", run, "--texts", tmp_path / "a.txt", "--out", tmp_path / "a.npz") == 0
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_images_of_a_run_with_captions_are_extracted(run, photos, tmp_path):
    out = tmp_path / "f.npz"
    assert commands.run(extract.main, "--run", run, "--images", tmp_path / "photos", "--out", out) == 0
    content = read(out)
    assert content["path"].tolist() == photos and "text" not in content
    assert_near(torch.from_numpy(content["feat"]), image_features(run, photos))


FILES = {
    "EMPTY": b"\n \n\r\n",
    "LATIN": "a caf\u00e9\nred\n".encode("latin-1"),
    "WIDE": "red".encode("utf-16"),
    "LONG": b"red\n" + b"a " * 6000,
    "ENTITY": b"red\n&nbsp;\n",
    "FINE": b"red\n",
}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--texts", "EMPTY"], "EMPTY' holds no sentence; write one on each line"),
        (["--texts", "LATIN"], "LATIN:1: not UTF-8 text"),
        (["--texts", "WIDE"], "not UTF-8 text"),
        (["--texts", "LONG"], "LONG:2: has 11,999 characters; a sentence has at most 10,000"),
        (["--texts", "ENTITY"], "text 1 (from 0), '&nbsp;', has no words"),
        (["--texts", "gone.txt"], "--texts: no file 'gone.txt'"),
        (["--texts", "PHOTOS"], "photos' is a folder, expected a file"),
        (["--texts", "PHOTO"], "not UTF-8 text"),
        (["--texts", ""], "argument --texts: is empty; name a path"),
        (["--texts", "FINE", "FINE"], "FINE"),
        (["--texts", "FINE", "--images", "PHOTO"], "one of the two"),
        ([], "--images PATH ... or --texts FILE.txt, one of the two"),
        (["--texts", "FINE", "--skip-broken"], "--skip-broken goes with --images"),
        (["--texts", "FINE", "INPUT.TEXT.LENGHT", "9"], "did you mean INPUT.TEXT.LENGTH?"),
        (["--texts", "FINE", "--epoch", "7"], "has no epoch 7"),
        (["--texts", "FINE", "--out", "f.txt"], "must name a file that ends in .npz"),
    ],
)
def test_mistakes_with_texts_are_one_line_and_code_2(run, photos, tmp_path, capsys, words, message):
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    places = {name: tmp_path / name for name in FILES} | {"PHOTOS": tmp_path / "photos", "PHOTO": photos[0]}
    given = [places.get(word, word) for word in words]
    out = [] if "--out" in words else ["--out", tmp_path / "f.npz"]
    assert message in refusal(extract.main, "--run", run, *given, *out, capsys=capsys)
    assert not (tmp_path / "f.npz").exists()


def test_texts_for_a_model_of_images_alone_are_one_error(trained_run, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("red\n")
    words = ["--run", trained_run, "--texts", tmp_path / "a.txt", "--out", tmp_path / "a.npz"]
    assert NO_WORDS in refusal(extract.main, *words, capsys=capsys)


@pytest.fixture
def gallery(photos: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # pictures go to logs/search
    return tmp_path / "photos"


def found_by_words(text: str) -> list[tuple[str, list[tuple[float, str]]]]:
    """Return [(sentence, [(similarity, path)])] of what a search printed."""
    return printed(re.sub(r"^text ", "query ", text, flags=re.MULTILINE))


def test_a_search_by_words_prints_and_draws_the_images_that_the_formulas_rank_first(run, photos, gallery, capsys):
    words = ["--run", run, "--text", TEXTS[0], "--text", TEXTS[3], "--gallery", gallery, "--topk", 4]
    assert commands.run(search.main, *words) == 0
    similarity = (text_features(run, [TEXTS[0], TEXTS[3]]) @ image_features(run, photos).T).numpy()
    blocks = found_by_words(capsys.readouterr().out)
    assert [sentence for sentence, _ in blocks] == [TEXTS[0], TEXTS[3].replace("\t", "\\t")]
    for (_, found), row in zip(blocks, similarity, strict=True):
        order = np.argsort(-row)[:4]
        assert [path for _, path in found] == [photos[place] for place in order]
        np.testing.assert_allclose([value for value, _ in found], row[order], atol=1e-4)
    names = sorted(path.name for path in Path("logs/search").iterdir())
    assert names == ["1_a_woman_in_a_red_coat.png", "2_a_man_with_2_bags_and_a_hat.png"]


def test_images_come_before_sentences_each_searched_by_itself(run, photos, gallery, capsys):
    words = ["--run", run, "--query", photos[2], photos[0], "--gallery", gallery, "--topk", 2]
    assert commands.run(search.main, *words[:5], *words[5:], "--text", "red") == 0
    together = capsys.readouterr().out
    assert commands.run(search.main, *words, "--out", "alone") == 0
    assert commands.run(search.main, "--run", run, "--text", "red", "--gallery", gallery, "--topk", 2) == 0
    alone = found_by_words(capsys.readouterr().out)
    assert found_by_words(together) == alone and [what for what, _ in alone] == [photos[2], photos[0], "red"]
    assert {"1_c.png", "2_a.png", "3_red.png"} <= {path.name for path in Path("logs/search").iterdir()}


def test_sentences_use_the_index_that_images_left_in_its_precision(run, photos, gallery, caplog):
    caplog.set_level("INFO")
    words = ["--gallery", gallery, "--topk", 1]
    assert commands.run(search.main, "--run", run, "TEST.AMP", "bf16", "--query", photos[0], *words) == 0
    assert commands.run(search.main, "--run", run, "TEST.AMP", "auto", "--text", "red", *words) == 0
    said = [re.search(r"(\d) known, (\d) to embed in (\w+)", line) for line in caplog.text.splitlines()]
    assert [match.groups() for match in said if match] == [("0", "6", "bfloat16"), ("6", "0", "bfloat16")]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("../../etc/passwd", "etc_passwd"),
        ("!?", "text"),
        ("学校" * 90, "学校" * 25),
        ("x\n\x1b[31my", "x_31my"),
    ],
)
def test_any_sentence_is_printed_on_one_line_and_names_its_picture(run, gallery, capsys, text, name):
    assert commands.run(search.main, "--run", run, "--text", text, "--gallery", gallery, "--topk", 1) == 0
    lines = [line for line in capsys.readouterr().out.split("\n") if line.startswith("text ")]
    assert len(lines) == 1 and "\x1b" not in lines[0]
    assert [path.name for path in Path("logs/search").iterdir()] == [f"1_{name}.png"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--text", "", "--gallery", "PHOTOS"], "argument --text: is empty; write a sentence"),
        (["--text", "  ", "--gallery", "PHOTOS"], "argument --text: is empty"),
        (["--text", "red \udcff", "--gallery", "PHOTOS"], "which is no UTF-8 text"),
        (["--text", "&nbsp;", "--gallery", "PHOTOS"], "'&nbsp;', has no words"),
        (["--text", "--gallery", "PHOTOS"], "argument --text: expected one argument"),
        (["--text", "a", "red", "coat", "--gallery", "PHOTOS"], "got 'red' beside it; write --text \"a red coat\""),
        (["--text", "red", "TEST.FLIPP", "True", "--gallery", "PHOTOS"], "did you mean TEST.FLIP?"),
        (["--gallery", "PHOTOS"], '--query IMG ..., --text "WORDS", or both'),
        (["--text", "red"], "--gallery"),
        (["--text", "red", "--gallery", "nowhere"], "--gallery 'nowhere' does not exist"),
        (["--text", "red", "--gallery", "PHOTOS", "--topk", "0"], "need a whole number of at least 1"),
        (["--text", "red", "--query", "gone.jpg", "--gallery", "PHOTOS"], "--query: no file 'gone.jpg'"),
        (["--text", "red", "--gallery", "PHOTOS", "--epoch", "9"], "has no epoch 9"),
    ],
)
def test_mistakes_with_words_are_one_line_and_code_2(run, gallery, capsys, words, message):
    given = [gallery if word == "PHOTOS" else word for word in words]
    assert message in refusal(search.main, "--run", run, *given, capsys=capsys)


def test_words_for_a_model_of_images_alone_are_one_error_before_anything_is_embedded(trained_run, gallery, capsys):
    words = ["--run", trained_run, "--text", "a red coat", "--gallery", gallery]
    assert NO_WORDS in refusal(search.main, *words, capsys=capsys)
    assert not list(gallery.glob(".reid_index*"))


def title_height(picture: Image.Image, plain: Image.Image) -> float:
    """Return the lines of a title by which a picture is higher than one without."""
    return (picture.height - plain.height) / grid.TITLE_LINE


def test_a_title_stands_above_all_images_and_there_is_no_query_beside_them():
    tiles = [grid.Tile(Image.new("RGB", (100, 100), (200, 150, 0)), str(rank)) for rank in range(1, 8)]
    plain = grid.grid_image(None, tiles, 5, 100)
    titled = grid.grid_image(None, tiles, 5, 100, "a woman in a red coat")
    assert title_height(titled, plain) == 1 and titled.width == plain.width
    pixels = np.asarray(titled)
    assert (pixels[: grid.TITLE_LINE] < 128).all(2).any() and not (pixels == grid.QUERY_COLOUR).all(2).any()
    assert np.array_equal(pixels[grid.GAP + grid.TITLE_LINE :], np.asarray(plain)[grid.GAP :])
    beside = grid.grid_image(tiles[0], tiles, 5, 100, "a woman in a red coat")
    assert (np.asarray(beside) == grid.QUERY_COLOUR).all(2).any() and beside.width > titled.width


def test_a_long_title_is_wrapped_within_the_picture_and_ends_somewhere():
    tile = grid.Tile(Image.new("RGB", (40, 100)))
    plain, font = grid.grid_image(None, [tile], 5, 100), grid.font_of(grid.TITLE_SIZE)
    for title in (LONG, "x" * 500, "a\nb\x1b " * 400):
        titled = grid.grid_image(None, [tile], 5, 100, title)
        lines = grid._title_lines(title, titled.width - 2 * grid.GAP)
        assert titled.width == grid.TITLE_WIDTH > plain.width and title_height(titled, plain) == len(lines)
        assert max(font.getlength(line) for line in lines) <= titled.width - 2 * grid.GAP
        assert len(lines) < 40 and all(line.isprintable() for line in lines)
    kept = " ".join(grid._title_lines(LONG, 464))
    assert kept == LONG.strip() and len(LONG) < grid.TITLE_LENGTH
