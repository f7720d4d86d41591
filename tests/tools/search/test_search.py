"""Searching a folder: the ranking is the brute-force one, with and without FAISS, ties and near ties included."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests import commands
from tools.feature_extractor import FeatureExtractor
from tools.search import __main__ as search
from tools.search import nearest


def unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def brute_force(query: np.ndarray, gallery: np.ndarray, topk: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and similarities, pair by pair in float64; of equal ones the lower row first."""
    rows, similarity = [], []
    for one in query.astype(np.float64):
        values = [float((one * other).sum()) for other in gallery.astype(np.float64)]
        order = sorted(range(len(values)), key=lambda row, values=values: (-values[row], row))[:topk]
        rows.append(order)
        similarity.append([values[row] for row in order])
    return np.array(rows), np.array(similarity)


def crowded(seed: int, num_query: int, num_gallery: int, width: int, copies: int) -> tuple[np.ndarray, np.ndarray]:
    """Return queries and a gallery in which many rows are equal to each other or differ in the last bits."""
    rng = np.random.default_rng(seed)
    base = unit(rng.normal(size=(max(1, num_gallery // copies), width)))
    gallery = base[rng.integers(0, len(base), num_gallery)]
    moved = rng.random(num_gallery) < 0.5
    gallery[moved] *= 1 + rng.integers(-2, 3, (moved.sum(), width)).astype(np.float32) * np.float32(2**-23)
    query = np.concatenate([base[:1], unit(rng.normal(size=(num_query, width)))])[:num_query]
    return query, gallery


@pytest.mark.parametrize(
    ("num_query", "num_gallery", "width", "copies", "topk"),
    [(7, 50, 16, 1, 10), (5, 300, 8, 60, 10), (30, 400, 64, 400, 5), (3, 6, 3, 2, 100), (2, 1, 4, 1, 1)],
)
def test_the_ranking_is_that_of_brute_force(num_query, num_gallery, width, copies, topk):
    query, gallery = crowded(0, num_query, num_gallery, width, copies)
    rows, similarity = nearest.nearest(query, gallery, topk)
    expected_rows, expected = brute_force(query, gallery, topk)
    assert rows.shape == (num_query, min(topk, num_gallery))
    np.testing.assert_allclose(similarity, expected, atol=1e-12)
    np.testing.assert_array_equal(rows, expected_rows)


def test_equal_images_come_in_the_order_of_their_names():
    query = unit(np.ones((1, 4)))
    gallery = np.repeat(query, 200, axis=0)
    rows, similarity = nearest.nearest(query, gallery, 7)
    assert rows.tolist() == [list(range(7))] and np.ptp(similarity) == 0


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 120), st.integers(1, 40), st.integers(1, 12))
def test_any_gallery_is_ranked_as_by_brute_force(seed, num_query, num_gallery, copies, topk):
    query, gallery = crowded(seed, num_query, num_gallery, 24, copies)
    rows, similarity = nearest.nearest(query, gallery, topk)
    expected_rows, expected = brute_force(query, gallery, topk)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(similarity, expected, atol=1e-12)


def test_the_order_does_not_depend_on_the_blocks(monkeypatch):
    query, gallery = crowded(3, 20, 500, 96, 50)
    whole = nearest.nearest(query, gallery, 20)
    monkeypatch.setattr(nearest, "BLOCK_BYTES", 3000)
    for one, other in zip(whole, nearest.nearest(query, gallery, 20), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def photos(photos: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)  # pictures go to logs/search
    return photos


@pytest.fixture
def gallery(photos: list[str], tmp_path: Path) -> Path:
    return tmp_path / "photos"


run = partial(commands.run, search.main)


def printed(text: str) -> list[tuple[str, list[tuple[float, str]]]]:
    """Return [(query, [(similarity, path)])] of the command's output."""
    blocks = []
    for line in text.splitlines():
        if line.startswith("query "):
            blocks.append((line.removeprefix("query "), []))
        elif found := re.fullmatch(r" *(\d+) +(-?\d\.\d{4})  (.+)", line):
            blocks[-1][1].append((float(found[2]), found[3]))
            assert int(found[1]) == len(blocks[-1][1])
    return blocks


def test_a_search_prints_and_draws_the_nearest_images(trained_run, photos, gallery, tmp_path, capsys):
    words = ["--run", trained_run, "--query", photos[4], photos[1], "--gallery", gallery, "--topk", 4]
    assert run(*words) == 0
    blocks = printed(capsys.readouterr().out)
    extractor = FeatureExtractor.from_run(trained_run)
    rows, similarity = brute_force(extractor([photos[4], photos[1]]).numpy(), extractor(photos).numpy(), 4)
    assert [query for query, _ in blocks] == [photos[4], photos[1]]
    for (query, found), order, values in zip(blocks, rows, similarity, strict=True):
        assert [path for _, path in found] == [photos[row] for row in order] and found[0][1] == query
        np.testing.assert_allclose([value for value, _ in found], values, atol=1e-4)
    names = sorted(path.name for path in (tmp_path / "logs" / "search").iterdir())
    assert names == ["1_e.png", "2_b.png"]
    with Image.open(tmp_path / "logs" / "search" / "1_e.png") as picture:
        assert picture.format == "PNG" and picture.width > 400


def test_the_next_search_embeds_only_what_is_new(trained_run, photos, gallery, capsys, caplog):
    caplog.set_level("INFO")
    words = ["--run", trained_run, "--query", photos[0], "--gallery", gallery, "--topk", 100]
    assert run(*words) == 0
    first = printed(capsys.readouterr().out)
    assert run(*words) == 0
    assert printed(capsys.readouterr().out) == first and len(first[0][1]) == 6
    Image.new("RGB", (9, 9)).save(gallery / "new.png")
    assert run(*words, "--index", "elsewhere.npz") == 0 and run(*words) == 0
    said = [line for line in caplog.text.splitlines() if "to embed" in line]
    assert [re.search(r"(\d+) known, (\d+) to embed", line).groups() for line in said] == [
        ("0", "6"),
        ("6", "0"),
        ("0", "7"),
        ("6", "1"),
    ]


def test_a_large_gallery_is_searched_by_the_same_command(trained_run, photos, gallery, monkeypatch, capsys, caplog):
    words = ["--run", trained_run, "--query", photos[2], "--gallery", gallery, "--topk", 4]
    assert run(*words) == 0
    [(query, small)] = printed(capsys.readouterr().out)
    monkeypatch.setattr("tools.search.index.LARGE_FROM", 3)
    caplog.set_level("INFO")
    for more in ([], ["--exact"], ["--update"]):
        assert run(*words, *more) == 0
        [(again, large)] = printed(capsys.readouterr().out)
        assert again == query and [path for _, path in large] == [path for _, path in small]
        np.testing.assert_allclose([value for value, _ in large], [value for value, _ in small], atol=1e-3)
    assert [path.suffix for path in gallery.glob(".reid_index*")] == [".shards"]
    embedded = [re.search(r"(\d) to embed", line)[1] for line in caplog.text.splitlines() if "to embed" in line]
    assert embedded == ["6", "0", "0", "0"]


@pytest.mark.parametrize(("mode", "name", "other"), [("bf16", "bfloat16", "off"), ("off", "float32", "bf16")])
def test_queries_follow_the_precision_of_the_index(trained_run, photos, gallery, caplog, mode, name, other):
    caplog.set_level("INFO")
    words = ["--query", photos[2], "--gallery", gallery]
    for amp in (mode, "auto", other):
        assert run("--run", trained_run, "TEST.AMP", amp, *words) == 0
    said = [re.search(r"(\d) known, (\d) to embed in (\w+)", line) for line in caplog.text.splitlines()]
    first, followed, anew = (match.groups() for match in said if match)
    assert first == ("0", "6", name) and followed == ("6", "0", name)
    assert anew[:2] == ("0", "6") and anew[2] != name and f"was embedded in {name}, this search" in caplog.text


def test_a_broken_gallery_image_is_an_error_unless_it_may_be_left_out(trained_run, photos, gallery, capsys):
    (gallery / "k.jpg").write_bytes(b"not a picture")
    words = ["--run", trained_run, "--query", photos[0], "--gallery", gallery]
    assert run(*words) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "k.jpg' does not decode" in error and "--skip-broken" in error
    assert run(*words, "--skip-broken") == 0
    assert len(printed(capsys.readouterr().out)[0][1]) == 6


def test_a_file_name_that_is_no_unicode_is_printed(trained_run, photos, gallery, capsys):
    name = b"\xff.png"
    (gallery / "a.png").rename(str(gallery) + "/" + name.decode(errors="surrogateescape"))
    assert run("--run", trained_run, "--query", photos[1], "--gallery", gallery) == 0
    assert "\\udcff.png" in capsys.readouterr().out


def test_long_names_and_names_of_several_lines_are_printed_and_drawn(trained_run, photos, gallery, tmp_path, capsys):
    strange = [gallery / "new\nline\t\x1b[31m.png", gallery / f"{'x' * 251}.png"]
    for path in strange:
        Image.new("RGB", (9, 9)).save(path)
    assert run("--run", trained_run, "--query", *strange, "--gallery", gallery) == 0
    blocks = printed(capsys.readouterr().out)
    escaped = str(gallery) + r"/new\nline\t\x1b[31m.png"
    assert [query for query, _ in blocks] == [escaped, str(strange[1])] and len(blocks[0][1]) == 8
    names = sorted(path.name for path in (tmp_path / "logs" / "search").iterdir())
    assert names == ["1_new_nline_t_x1b[31m.png", f"2_{'x' * 50}.png"]


def test_an_index_that_cannot_be_written_is_refused_before_anything_is_embedded(trained_run, photos, gallery, capsys):
    assert run("--run", trained_run, "--query", photos[0], "--gallery", gallery, "--index", "/proc/x/i.npz") == 2
    assert "to embed" not in capsys.readouterr().err
    assert run("--run", trained_run, "--query", photos[0], "--gallery", gallery, "--index", "new/folder/i.npz") == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--query", "nowhere.jpg", "--gallery", "PHOTOS"], "--query: no file 'nowhere.jpg'"),
        (["--query", "PHOTO", "MODEL.DEVICE", "cpu", "--gallery", "PHOTOS"], "KEY VALUE pairs stand before --query"),
        (["--query", "NOTE", "--gallery", "PHOTOS"], "notes.txt' does not decode"),
        (["--query", "PHOTOS", "--gallery", "PHOTOS"], "photos' is a folder; name the images in it"),
        (["--query", "PHOTO", "--gallery", "nowhere"], "--gallery 'nowhere' does not exist"),
        (["--query", "PHOTO", "--gallery", "EMPTY"], "holds no image (.jpg, .jpeg, .png, .bmp, .webp, .tif, .tiff)"),
        (["--query", "PHOTO", "--gallery", "PHOTOS", "--topk", "0"], "got '0', need a whole number of at least 1"),
        (["--query", "PHOTO", "--gallery", "PHOTOS", "--topk", "ten"], "got 'ten', need a whole number"),
        (["--query", "PHOTO", "--gallery", "PHOTOS", "--index", "i.pkl"], "--index 'i.pkl' must end in .npz"),
        (["--query", "PHOTO", "--gallery", "PHOTOS", "--index", "/proc/x/i.npz"], "--index '/proc/x': cannot write"),
        (["--query", "PHOTO", "--gallery", ""], "argument --gallery: is empty"),
        (["--query", "PHOTO", "--gallery", "PHOTOS", "--out", "/proc/x"], "--out '/proc/x': cannot write there"),
        (["--query", "PHOTO", "--gallery", "PHOTOS", "--weights", "w.pth"], "one of the two"),
        (["--query", "PHOTO"], "--gallery"),
        (["--gallery", "PHOTOS"], "--query"),
    ],
)
def test_mistakes_are_one_line_and_code_2(trained_run, photos, gallery, tmp_path, capsys, words, message):
    (tmp_path / "empty").mkdir()
    places = {"PHOTOS": gallery, "PHOTO": photos[0], "NOTE": gallery / "notes.txt", "EMPTY": tmp_path / "empty"}
    argv = ["--run", trained_run, *(places.get(word, word) for word in words)]
    try:
        code = run(*argv)
    except SystemExit as end:  # the parser's own errors
        code = end.code
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2 and error.startswith("error: ") and message in error
