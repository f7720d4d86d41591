"""Pictures of captions: what each finds, against cosines of the formulas in float64, and where its words look."""

import csv
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.test_set import OWN_IMAGE, Labels, Trial
from datasets.tokens import END_ID, tokenize
from model.irra import Irra
from processor.evaluation.evaluate import Searched
from processor.trained import load_trained
from tests import commands
from tests.model.clip_reids import assert_near, in_float64
from tests.model.irras import HEADS
from tests.reference import slow_irra as slow
from tests.tools.captioned_runs import NAME, captions_of, write_captioned_run
from tests.tools.irra_runs import write_irra_run
from tests.tools.test_feature_extractor import naive_pixels
from tests.tools.visualize.test_visualize_commands import one_error
from tools.visualize import ranks, words
from tools.visualize.__main__ import main
from tools.visualize.caption_ranks import caption_pictures
from tools.visualize.grid import Tile
from utils.ranking.rank_list import RankList

visualize = partial(commands.run, main)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run, its data beside it; read only."""
    return write_captioned_run(tmp_path_factory.mktemp("captioned"))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Tile | None, list[Tile], str]]:
    """What is drawn into which file: query, results, title."""
    pictures = {}

    def record(query: Tile | None, results: list[Tile], path: Path, title: str = "") -> None:
        pictures[path.name] = (query, results, title)

    monkeypatch.setattr(ranks, "draw_grid", record)
    return pictures


def cosines(run: Path) -> tuple[np.ndarray, list[str]]:
    """Return the cosines [Q, G] of all captions and images by the formulas, and the paths of the images."""
    trained = load_trained(run / NAME)
    state, captions = in_float64(trained.model), captions_of(run)
    paths = list(dict.fromkeys(path for _, _, path in captions))
    pixels = torch.cat([naive_pixels(path, trained.cfg) for path in paths]).double()
    images = slow.image_tokens(state, pixels, (16, 16), HEADS["image"])[:, 0]
    ids = [tokenize(caption).tolist() for caption, _, _ in captions]
    texts = slow.text_features(state, ids, HEADS["text"])
    unit = [features / features.norm(dim=1, keepdim=True) for features in (texts, images)]
    return (unit[0] @ unit[1].t()).numpy(), paths


def test_each_caption_stands_over_its_own_image_and_what_it_finds(run, drawn, tmp_path):
    assert visualize("ranks", "--run", run, "--out", tmp_path, "--num-queries", 99, "--topk", 5) == 0
    expected, paths = cosines(run)
    captions = captions_of(run)
    owners = {path: pid for _, pid, path in captions}
    titles = [caption for caption, _, _ in captions]
    assert len(drawn) == len(captions) and sorted(title for *_, title in drawn.values()) == sorted(titles)
    scores = []
    for name, (query, results, title) in sorted(drawn.items()):
        row = next(
            number for number, (caption, _, path) in enumerate(captions) if (caption, path) == (title, query.image)
        )
        order = np.argsort(-expected[row], kind="stable")
        hits = np.array([owners[paths[place]] == captions[row][1] for place in order])
        ap = np.mean(hits.cumsum()[hits] / (np.flatnonzero(hits) + 1))
        scores.append(ap)
        assert query.label == "own image" and query.caption[:2] == (f"AP {ap:.1%}", f"pid {captions[row][1]}")
        assert [tile.image for tile in results] == [paths[place] for place in order[:5]]
        assert [tile.label for tile in results] == ["1", "2", "3", "4", "5"]
        assert [tile.status for tile in results] == ["right" if hit else "wrong" for hit in hits[:5]]
        for tile, place in zip(results, order, strict=False):
            similarity, pid, file, *own = tile.caption
            assert float(similarity.removeprefix("similarity ")) == pytest.approx(expected[row, place], abs=6e-4)
            assert (pid, file) == (f"pid {owners[paths[place]]}", Path(paths[place]).name)
            assert own == (["own image"] if paths[place] == query.image else [])
        stem = title.replace(" ", "_")[:50]
        assert name == f"{len(scores):03d}_ap{ap:.2f}_pid{captions[row][1]}_{stem}.png"
    assert scores == sorted(scores)  # the worst first


def test_images_that_search_captions_are_not_among_the_queries_drawn(run, drawn, tmp_path):
    words = ("ranks", "--run", run, "--num-queries", 99, "--topk", 2)
    assert visualize(*words, "--out", tmp_path / "one") == 0
    one, _ = dict(drawn), drawn.clear()
    assert visualize(*words, "--out", tmp_path / "both", "TEST.I2T", True) == 0
    assert drawn == one and len(one) == len(captions_of(run))
    assert visualize("embedding", "--run", run, "--out", tmp_path, "--method", "pca", "TEST.I2T", True) == 0
    splits = [row["split"] for row in csv.DictReader((tmp_path / "pca.csv").open())]
    assert splits.count("query") == len(captions_of(run))


def test_the_pictures_hold_the_caption_in_lines_above_the_images(run, tmp_path):
    for length, topk in (("short", 1), ("long", 3)):
        assert visualize("ranks", "--run", run, "--out", tmp_path / length, "--num-queries", 2, "--topk", topk) == 0
    pictures = sorted((tmp_path / "long").iterdir())
    assert len(pictures) == 3 and pictures[-1].name == "overview.png"
    ink = np.asarray(Image.open(pictures[0]).convert("L"))[:20] < 128
    assert ink.any()  # the title
    assert Image.open(pictures[-1]).height > 2 * 72


def test_a_caption_without_an_image_of_its_own_has_no_first_tile():
    labels = Labels(
        *(np.array(values) for values in ([7, 3, 7], [0, 0, 0], [-1, -1, -1])),
        ["/x/a.jpg", "/x/b.jpg", "a man"],
        {OWN_IMAGE: np.array([-1, -1, -1])},
    )
    query, gallery = np.array([2]), np.array([0, 1])
    searched = Searched(Trial("", 0, query, gallery), query, None, None)
    feat = torch.tensor([[-1.0, 0.0], [3.0, 4.0], [2.0, 0.0]])
    found = RankList(np.array([1, 0]), np.array([1, 0]), np.array([0.5, 0.6]))
    (picture,) = caption_pictures(labels, searched, feat, np.array([0]), np.array([0.5]), [found])
    assert (picture.name, picture.query, picture.title) == ("001_ap0.50_pid7_a_man.png", None, "a man (AP 50.0%)")
    assert picture.results == [
        Tile("/x/b.jpg", "1", ("similarity 0.600", "pid 3", "b.jpg"), "wrong"),
        Tile("/x/a.jpg", "2", ("similarity -1.000", "pid 7", "a.jpg"), "right"),
    ]


def test_words_look_where_the_formula_says(run):
    trained = load_trained(run / NAME)
    caption, _, path = captions_of(run)[0]
    caption += ", overcoats & 23!"
    maps = words.word_maps(trained, words.Captioned(path, caption))
    state = in_float64(trained.model)
    patches = slow.image_tokens(state, naive_pixels(path, trained.cfg).double(), (16, 16), HEADS["image"])[0]
    ids = tokenize(caption).tolist()
    shares = slow.cross_attention(state, slow.words(state, ids, HEADS["text"]), patches)[1].mean(0)[:, 1:]
    pieces = [*captions_of(run)[0][0].split(), ",", "overcoats", "&", "2", "3", "!"]  # CLIP reads single digits
    assert [name for name, _ in maps] == [piece for piece in pieces if piece not in ",&!"]
    place, left = 1, iter(maps)
    for piece in pieces:
        stop = place + (2 if piece == "overcoats" else 1)  # two tokens
        if piece not in ",&!":
            assert_near(torch.from_numpy(next(left)[1]), shares[place:stop].mean(0).reshape(3, 2), piece)
        place = stop
    assert ids[place] == END_ID


def test_words_draws_test_captions_and_those_of_the_user(run, tmp_path, capsys):
    assert visualize("words", "--run", run, "--out", tmp_path / "a", "--num-captions", 2) == 0
    assert capsys.readouterr().out == f"2 captions in {tmp_path / 'a'}\n"
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    stems = [caption.replace(" ", "_")[:50] for caption, _, _ in captions_of(run)[:2]]
    assert names == [f"{number:03d}_{stem}.png" for number, stem in enumerate(stems, 1)]
    images = run.parent / "data" / "RSTPReid" / "imgs"
    own = ("--text", "a red coat", "--images", images / "0007_c0.jpg", images / "0003_c0.jpg")
    assert visualize("words", "--run", run, "--out", tmp_path / "b", *own) == 0
    assert [path.name for path in sorted((tmp_path / "b").iterdir())] == ["001_a_red_coat.png", "002_a_red_coat.png"]


def test_images_and_captions_share_the_plane(run, tmp_path):
    assert visualize("embedding", "--run", run, "--out", tmp_path, "--method", "pca", "--num-ids", 2) == 0
    rows = list(csv.DictReader((tmp_path / "pca.csv").open()))
    pids = {int(row["pid"]) for row in rows}
    own = [(caption, pid, path) for caption, pid, path in captions_of(run) if pid in pids]
    assert len(pids) == 2 and [row["path"] for row in rows if row["split"] == "query"] == [row[0] for row in own]
    assert {row["path"] for row in rows if row["split"] == "gallery"} == {path for *_, path in own}
    trained = load_trained(run / NAME)
    with torch.no_grad():
        images = [trained.model(naive_pixels(row["path"], trained.cfg)) for row in rows if row["split"] == "gallery"]
        texts = trained.model.encode_text(torch.stack([tokenize(caption) for caption, *_ in own]))
    feat = torch.cat([*images, texts]).double()
    feat = (feat / feat.norm(dim=1, keepdim=True)).numpy()
    axes = np.linalg.svd(feat - feat.mean(0), full_matrices=False)[2][:2]
    points = np.array([[float(row["x"]), float(row["y"])] for row in rows])
    np.testing.assert_allclose(np.abs(points), np.abs((feat - feat.mean(0)) @ axes.T), atol=1e-4)


RUN, IMAGE = object(), object()  # stand for the folder of the run and for an image


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("words", "--run", RUN), "the following arguments are required: --out"),
        (("words", "--run", RUN, "--out", "o", "--txt", "a"), "'--txt' is unknown, did you mean --text?"),
        (("words", "--run", RUN, "--out", "o", "--text", "a man"), "--text needs --images PATH ... too"),
        (("words", "--run", RUN, "--out", "o", "--images", IMAGE), '--images needs --text "WORDS" too'),
        (("words", "--run", RUN, "--out", "o", "--text", " ", "--images", IMAGE), "--text: is empty"),
        (
            ("words", "--run", RUN, "--out", "o", "--text", "a", "man", "--images", IMAGE),
            "--text takes one sentence in quotes, got 'man' beside it; write --text \"a man\"",
        ),
        (("words", "--run", RUN, "--out", "o", "--text", "?!", "--images", IMAGE), "the caption '?!' of '"),
        (("words", "--run", RUN, "--out", "o", "--text", "a", "--images", "gone.jpg"), "--images: no file 'gone.jpg'"),
        (("words", "--run", RUN, "--out", "o", "--num-captions", "0"), "need a whole number of at least 1"),
        (("words", "--run", RUN, "--out", "o", "LOSS.TEXT.NAME", "id"), "LOSS.TEXT.NAME"),
        (("words", "--run", "nowhere", "--out", "o"), "run folder 'nowhere': no such folder"),
        (("ranks", "--run", RUN, "--out", "o", "--topk", "101"), "--topk got 101, a picture has room for 100"),
        (("ranks", "--run", RUN, "--out", "o", "--pids", "99"), "--pids 99: no query shows this identity; the 4 of"),
        (("attention", "--run", RUN, "--out", "o"), "the attention of Irra cannot be rolled out"),
    ],
)
def test_a_mistake_is_one_line(argv, message, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    image = run.parent / "data" / "RSTPReid" / "imgs" / "0007_c0.jpg"
    try:
        code = visualize(*({RUN: run, IMAGE: image}.get(word, word) for word in argv))
    except SystemExit as stop:  # argparse's way out
        code = stop.code
    assert code == 2
    assert message in one_error(capsys)
    assert not list(tmp_path.rglob("*.png"))


def test_a_run_without_masked_words_says_that_its_words_look_nowhere(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Irra, "word_attention", pytest.fail)
    run = write_irra_run(tmp_path / "run", "LOSS.TEXT.NAMES", ["sdm", "id"])
    capsys.readouterr()
    assert visualize("words", "--run", run, "--out", tmp_path / "o") == 2
    error = one_error(capsys)
    assert "was trained without mlm (LOSS.TEXT.NAMES sdm+id), so it has no cross attention" in error


def test_a_model_of_images_alone_says_that_it_reads_no_words(trained_run, tmp_path, capsys):
    capsys.readouterr()
    assert visualize("words", "--run", trained_run, "--out", tmp_path / "o") == 2
    assert "is of MODEL.NAME transformer, which reads no words; use a model with MODEL.NAME irra" in one_error(capsys)
