"""The gallery of the page: ranked like a naive loop, cameras by names, nothing read outside the folder."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.tools.photos import NAMES
from tools.demo.gallery import (
    UNKNOWN,
    Gallery,
    camera_of,
    cameras_in,
    file_inside,
    find,
    open_gallery,
    stays_inside,
)
from tools.feature_extractor import FeatureExtractor
from utils.errors import DataError


def make_gallery(seed: int, number: int, num_cameras: int) -> tuple[Gallery, np.ndarray]:
    """Return a gallery in which some embeddings are equal, and a query, of 6 values each."""
    rng = np.random.default_rng(seed)
    feat = rng.normal(size=(number, 6))[rng.integers(0, number, number)]
    feat = (feat / np.linalg.norm(feat, axis=1, keepdims=True)).astype(np.float32)
    names = np.array([f"{row:03d}.jpg" for row in range(number)])
    return Gallery(Path("/x"), names, feat, rng.integers(UNKNOWN, num_cameras, number)), feat[rng.integers(number)]


@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 50), st.lists(st.integers(-1, 5), max_size=4))
def test_the_nearest_of_some_cameras_are_those_of_a_naive_loop(seed, number, topk, cameras):
    gallery, query = make_gallery(seed, number, 5)
    pairs = []
    for row in range(number):
        if not cameras or gallery.cameras[row] in cameras:
            value = sum(float(a) * float(b) for a, b in zip(query, gallery.feat[row], strict=True))
            pairs.append((-value, row))
    hits = find(gallery, query, topk, cameras)
    expected = sorted(pairs)[:topk]
    assert len(hits) == len(expected)
    np.testing.assert_allclose([hit.similarity for hit in hits], [-value for value, _ in expected], atol=1e-12)
    values = dict((row, -value) for value, row in pairs)
    for hit, (value, _) in zip(hits, expected, strict=True):  # sums in another order may turn ties of the last bit
        assert values[hit.row] == pytest.approx(-value, abs=1e-12)
        assert (hit.name, hit.camera) == (gallery.names[hit.row], gallery.cameras[hit.row])
    assert len({hit.row for hit in hits}) == len(hits)


def test_equal_images_come_in_the_order_of_their_names_and_a_camera_without_images_finds_none():
    feat = np.repeat(np.array([[0.6, 0.8]], dtype=np.float32), 5, axis=0)
    gallery = Gallery(Path("/x"), np.array([*"abcde"]), feat, np.array([1, 2, 1, 2, 1]))
    assert [hit.name for hit in find(gallery, feat[0], 2, [1])] == ["a", "c"]
    assert find(gallery, feat[0], 3, [7]) == []
    assert cameras_in(gallery) == {1: 3, 2: 2}


def test_images_whose_names_tell_no_camera_are_counted_last():
    gallery = Gallery(Path("/x"), np.array([*"abc"]), np.zeros((3, 2), np.float32), np.array([3, UNKNOWN, 1]))
    assert list(cameras_in(gallery).items()) == [(1, 1), (3, 1), (UNKNOWN, 1)]


@pytest.mark.parametrize(
    ("name", "camera"),
    [
        ("0002_c1s1_000451_03.jpg", 1),  # Market-1501
        ("0005_c012_00012345_0.jpg", 12),  # VeRi
        ("-1_c6s4_1.jpg", 6),
        ("site/cam3/a.jpg", 3),
        ("Camera_07/monday/b.png", 7),
        ("c1/cam 2/x.jpg", 2),  # the nearest folder
        ("cam9/0002_c1s1_000451_03.jpg", 1),  # the file before the folder
        ("photo.jpg", UNKNOWN),
        ("camp3/a.jpg", UNKNOWN),
        ("cam3.jpg", UNKNOWN),
        ("1_c99999999999999999999.jpg", UNKNOWN),  # no number of a camera
        ("cam99999/a.jpg", UNKNOWN),
    ],
)
def test_the_camera_stands_in_the_name(name, camera):
    assert camera_of(name) == camera


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with an image, links that stay inside and links that lead out; a sibling whose name begins alike."""
    inside, outside = tmp_path / "photos", tmp_path / "photos_private"
    for folder in (inside / "day", outside):
        folder.mkdir(parents=True)
    for path in (inside / "a.png", inside / "day" / "b.png", outside / "secret.png"):
        Image.new("RGB", (8, 8)).save(path)
    (inside / "own.png").symlink_to("day/b.png")
    (inside / "up.png").symlink_to("../photos_private/secret.png")
    (inside / "absolute.png").symlink_to(outside / "secret.png")
    (inside / "chain.png").symlink_to("up.png")
    (inside / "door").symlink_to(outside)
    (inside / "home").symlink_to(inside / "day")
    (inside / "loop.png").symlink_to("loop.png")
    return inside


OUTSIDE = (
    *("up.png", "absolute.png", "chain.png", "door/secret.png", "../photos_private/secret.png"),
    *("day/../../photos_private/secret.png", "/etc/passwd", "..", ".", "", "door", "home/../../photos_private/x"),
)
INSIDE = ("a.png", "day/b.png", "own.png", "home/b.png", "day/../a.png")


@pytest.mark.parametrize("name", [*OUTSIDE, "a\0.png", "/proc/self/environ", "./../x"])
def test_a_path_that_leads_out_of_the_gallery_is_refused(tree, name):
    with pytest.raises(DataError, match="leads out of the gallery|is no path of this system"):
        file_inside(tree.resolve(), name)


@pytest.mark.parametrize("name", INSIDE)
def test_a_path_inside_is_the_file_with_its_links_resolved(tree, name):
    assert file_inside(tree.resolve(), name) == Path(os.path.realpath(tree / name))


def test_many_names_are_judged_as_each_by_itself(tree):
    names = [name for name in (*OUTSIDE, *INSIDE, "loop.png", "gone.png") if name not in ("", ".", "..")]
    accepted = []
    for name in names:
        try:
            file_inside(tree.resolve(), name)
        except DataError:
            continue
        accepted.append(name)
    kept = stays_inside(tree.resolve(), names)
    assert [name for name, stays in zip(names, kept, strict=True) if stays] == accepted
    assert set(INSIDE) <= set(accepted) and not set(OUTSIDE) & set(accepted)


def test_links_that_lead_out_are_left_out_and_counted(trained_run, tree, caplog):
    (tree / "loop.png").unlink()
    gallery = open_gallery(FeatureExtractor.from_run(trained_run), tree)
    assert gallery.names.tolist() == ["a.png", "day/b.png", "own.png"]  # "home" leads to a folder that counts once
    assert len(gallery.feat) == 3 and "left out: 4 images are links that lead out of" in caplog.text


def test_a_gallery_of_nothing_but_links_to_elsewhere_is_an_error(trained_run, tree, tmp_path):
    links = tmp_path / "links"
    links.mkdir()
    (links / "a.png").symlink_to(tree / "a.png")
    with pytest.raises(DataError, match="all of its 1 images are links that lead out of it"):
        open_gallery(FeatureExtractor.from_run(trained_run), links)


def test_a_gallery_is_the_index_of_its_folder(trained_run, photos, tmp_path):
    extractor = FeatureExtractor.from_run(trained_run)
    gallery = open_gallery(extractor, tmp_path / "photos")
    assert gallery.names.tolist() == NAMES and gallery.root == (tmp_path / "photos").resolve()
    np.testing.assert_array_equal(gallery.feat, extractor(photos).numpy())
    assert list((tmp_path / "photos").glob(".reid_index_*.npz"))
    broken = tmp_path / "photos" / "k.jpg"
    broken.write_bytes(b"no picture")
    with pytest.raises(DataError, match="--skip-broken leaves such images out"):
        open_gallery(extractor, tmp_path / "photos")
    assert open_gallery(extractor, tmp_path / "photos", skip_broken=True).names.tolist() == NAMES


def test_a_large_gallery_is_that_of_the_small_index_in_half_precision(trained_run, photos, tmp_path, monkeypatch):
    extractor = FeatureExtractor.from_run(trained_run)
    small = open_gallery(extractor, tmp_path / "photos")
    monkeypatch.setattr("tools.search.index.LARGE_FROM", 1)
    large = open_gallery(extractor, tmp_path / "photos")
    assert large.names.tolist() == small.names.tolist() and large.cameras.tolist() == small.cameras.tolist()
    np.testing.assert_array_equal(large.feat, small.feat.astype(np.float16).astype(np.float32))
