"""The parts of the pictures: what is drawn where, and which queries, points and colours are chosen."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.bases import Sample
from tools.visualize import grid
from tools.visualize.attention import heat_map, overlay
from tools.visualize.embedding import choose_ids, coordinates, palette, project, scatter
from tools.visualize.grid import Tile, draw_grid
from tools.visualize.pictures import Picture
from tools.visualize.ranks import SHEET_QUERIES, check_pids, choose, draw_sheet, file_name, query_tile, result_tiles
from utils.errors import ConfigError, DataError
from utils.ranking.rank_list import RankList

GREEN, RED, GREY = (26, 127, 55), (207, 34, 46), (110, 119, 129)
BLUE, WHITE = (9, 105, 218), (255, 255, 255)


def write_image(
    folder: Path, name: str, size: tuple[int, int] = (60, 120), colour: tuple[int, int, int] = (200, 150, 0)
) -> str:
    path = folder / name
    Image.new("RGB", size, colour).save(path)
    return str(path)


def columns_of(picture: Image.Image, colour: tuple[int, int, int]) -> list[tuple[int, int]]:
    """Return the first and last column of each stretch that holds `colour` in the middle row of the first images."""
    row = np.asarray(picture)[grid.GAP + grid.LINE + grid.BORDER + 60]
    hits = np.flatnonzero((row == colour).all(1))
    return [(part[0], part[-1]) for part in np.split(hits, np.flatnonzero(np.diff(hits) > 1) + 1)]


def test_each_status_has_its_own_border(tmp_path):
    image = Image.new("RGB", (60, 120), WHITE)
    results = [Tile(image, status=status) for status in ("wrong", "junk", "right", None)]
    draw_grid(Tile(image, "query"), results, tmp_path / "a.png", height=120)
    picture = Image.open(tmp_path / "a.png")
    order = [columns_of(picture, colour) for colour in (BLUE, RED, GREY, GREEN, grid.NEUTRAL)]
    assert [len(stretches) for stretches in order] == [2] * 5  # a border at the left and at the right of its image
    starts = [stretches[0][0] for stretches in order]
    assert starts == sorted(starts)
    for (_, inner_left), (inner_right, _) in order:
        assert inner_right - inner_left - 1 == 60


def test_junk_takes_no_rank_and_every_status_is_also_a_word():
    gallery = [Sample(f"/x/{row}.jpg", 7, camera, -1) for row, camera in enumerate((4, 1, 2, 3))]
    found = RankList(np.array([2, 0, 3, 1]), np.array([2, 0, 2, 1]), np.array([-1e-9, 0.25, 0.5, 1.0]))
    tiles = result_tiles(found, gallery)
    assert [(tile.label, tile.status) for tile in tiles] == [("", "junk"), ("1", "right"), ("", "junk"), ("2", "wrong")]
    assert tiles[0].caption == ("distance 0.000", "pid 7 cam 2", "2.jpg")
    assert tiles[1].caption == ("distance 0.250", "pid 7 cam 4", "0.jpg")


def test_the_word_of_the_status_is_drawn_in_its_colour():
    image = Image.new("RGB", (100, 100), WHITE)
    for status, colour in (("right", GREEN), ("wrong", RED), ("junk", GREY)):
        picture = np.asarray(grid.grid_image(Tile(image), [Tile(image, "3", status=status)], 5, 100))
        assert (picture[grid.GAP : grid.GAP + grid.LINE] == colour).all(2).any()


@pytest.mark.parametrize("size", [(60, 120), (300, 100), (7, 3), (1, 500)])
def test_images_keep_their_aspect_ratio(size):
    fitted = grid._fitted(Image.new("RGB", size), 192)
    assert fitted.height <= 192 and fitted.width <= 2 * 192
    assert max(1, round(fitted.height * size[0] / size[1])) == pytest.approx(fitted.width, abs=1)


def test_results_stand_in_lines_of_equal_length_with_the_query_at_the_left():
    image = Image.new("RGB", (100, 100), WHITE)

    def size(count: int) -> tuple[int, int]:
        return grid.grid_image(Tile(image), [Tile(image, status="right")] * count, 10, 100).size

    assert size(11)[0] == size(6)[0] and size(11)[1] == 2 * size(6)[1] - grid.GAP
    assert size(10)[1] == size(1)[1] and size(0)[0] < size(1)[0]


def test_a_picture_without_results_shows_the_query(tmp_path):
    draw_grid(Tile(Image.new("RGB", (60, 120), (1, 2, 3)), "query"), [], tmp_path / "a.png")
    assert (np.asarray(Image.open(tmp_path / "a.png")) == (1, 2, 3)).all(2).any()


@pytest.mark.parametrize("text", ["short", "x" * 200, "学校" * 40])
def test_a_long_name_keeps_both_ends_and_fits(text):
    short = grid._shortened(text, 100, grid.font_of())
    assert grid.font_of().getlength(short) <= 100
    assert short[0] == text[0] and short[-1] == text[-1]
    assert short == text or grid.ELLIPSIS in short


def test_an_image_that_cannot_be_read_is_named_and_leaves_no_picture(tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    good = write_image(tmp_path, "good.png")
    with pytest.raises(DataError, match=r"image '.*broken.jpg' does not decode .*; copy it again or remove it"):
        draw_grid(Tile(good), [Tile(str(broken))], tmp_path / "out.png")
    with pytest.raises(DataError, match=r"image '.*absent.jpg' is missing"):
        draw_grid(Tile(good), [Tile(tmp_path / "absent.jpg")], tmp_path / "out.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.jpg", "good.png"]


def test_the_overview_holds_the_first_queries_only(tmp_path):
    tile = Tile(Image.new("RGB", (10, 10)), "query", ("AP 1.0%", "pid 1 cam 0", "name"))
    heights = []
    for count in (1, SHEET_QUERIES, SHEET_QUERIES + 3):
        draw_sheet([Picture("", tile, [tile, tile])] * count, tmp_path / "sheet.png")
        heights.append(Image.open(tmp_path / "sheet.png").height)
    assert heights[1] == heights[2] == SHEET_QUERIES * heights[0]


AP = np.array([0.5, np.nan, 0.1, 0.9, 0.1])
PIDS = np.array([4, 4, 2, 3, 9])


@pytest.mark.parametrize(
    ("order", "expected"), [("worst", [2, 4, 0, 3, 1]), ("best", [3, 0, 2, 4, 1]), ("pid", [2, 3, 0, 1, 4])]
)
def test_queries_come_in_the_order_asked_for(order, expected):
    assert choose(AP, PIDS, order, 9).tolist() == expected
    assert choose(AP, PIDS, order, 2).tolist() == expected[:2]


def test_a_random_choice_depends_on_the_seed_alone():
    drawn = [choose(AP, PIDS, "random", 5, seed=seed).tolist() for seed in range(9)]
    assert drawn == [choose(AP, PIDS, "random", 5, seed=seed).tolist() for seed in range(9)]
    assert len({tuple(rows) for rows in drawn}) > 1 and all(sorted(rows) == [0, 1, 2, 3, 4] for rows in drawn)


def test_only_queries_of_the_wanted_identities_are_chosen():
    assert choose(AP, PIDS, "worst", 9, [9, 4]).tolist() == [4, 0, 1]
    with pytest.raises(DataError, match=r"--pids 5: no query shows this identity; the 4 of the test set begin 2, 3, 4"):
        check_pids([4, 5], PIDS)
    check_pids([4, 9], PIDS)


def test_file_names_sort_by_rank_and_say_what_is_shown():
    sample = Sample("/data/query/0012_c003_7.jpg", 12, 2, -1)
    assert file_name(1, sample, 0.031) == "001_ap0.03_pid12_c2_0012_c003_7.png"
    assert file_name(22, sample, float("nan")) == "022_apnone_pid12_c2_0012_c003_7.png"
    assert query_tile(sample, 0.031).caption == ("AP 3.1%", "pid 12 cam 2", "0012_c003_7.jpg")
    assert query_tile(sample, float("nan")).caption[0] == "no match"
    assert len(file_name(1, Sample("x" * 250 + ".jpg", 1, 1, 1), 0.5)) < 100


def naive_heat(
    values: np.ndarray,
    patch: tuple[int, int],
    stride: tuple[int, int],
    input_size: tuple[int, int],
    picture_size: tuple[int, int],
) -> np.ndarray:
    """The heat map pixel by pixel: bilinear between the four nearest patch centres."""
    heat = np.full(picture_size, np.nan)
    for y in range(picture_size[0]):
        for x in range(picture_size[1]):
            spot = [(y + 0.5) * input_size[0] / picture_size[0], (x + 0.5) * input_size[1] / picture_size[1]]
            if any(spot[d] > (values.shape[d] - 1) * stride[d] + patch[d] for d in (0, 1)):
                continue
            place = [(spot[d] - patch[d] / 2) / stride[d] for d in (0, 1)]
            place = [min(max(place[d], 0), values.shape[d] - 1) for d in (0, 1)]
            i, j = (min(int(place[d]), max(values.shape[d] - 2, 0)) for d in (0, 1))
            a, b = place[0] - i, place[1] - j
            down, right = min(i + 1, values.shape[0] - 1), min(j + 1, values.shape[1] - 1)
            top = (1 - b) * values[i, j] + b * values[i, right]
            low = (1 - b) * values[down, j] + b * values[down, right]
            heat[y, x] = (1 - a) * top + a * low
    return heat


@pytest.mark.parametrize(
    ("grid_size", "patch", "stride", "input_size", "picture_size"),
    [
        ((4, 3), (8, 8), (8, 8), (32, 24), (32, 24)),
        ((5, 3), (8, 8), (5, 6), (32, 24), (61, 40)),  # overlapping, and a margin that no patch sees
        ((21, 10), (16, 16), (12, 12), (256, 128), (50, 90)),  # shown wider than the model saw it
        ((1, 4), (16, 16), (12, 12), (20, 52), (9, 31)),
    ],
)
def test_the_heat_map_is_that_of_a_loop_over_pixels(grid_size, patch, stride, input_size, picture_size):
    values = np.random.default_rng(0).random(grid_size)
    heat = heat_map(values, patch, stride, input_size, picture_size)
    np.testing.assert_allclose(heat, naive_heat(values, patch, stride, input_size, picture_size), atol=1e-12)


def test_a_hot_patch_is_hot_at_its_own_place_and_the_unseen_margin_is_empty():
    values = np.zeros((21, 10))
    values[20, 9] = 1  # rows 240-255, columns 108-123 of 256 x 128 pixels
    heat = heat_map(values, (16, 16), (12, 12), (256, 128), (512, 256))
    y, x = np.unravel_index(np.nanargmax(heat), heat.shape)
    assert 2 * 240 <= y < 2 * 256 and 2 * 108 <= x < 2 * 124
    assert np.isnan(heat[:, 2 * 124 :]).all() and not np.isnan(heat[:, : 2 * 124]).any()


def test_the_overlay_leaves_unseen_parts_alone_and_a_flat_map_is_flat():
    image = Image.new("RGB", (6, 4), (10, 200, 30))
    heat = np.linspace(0, 1, 24).reshape(4, 6)
    heat[:, 5] = np.nan
    mixed = np.asarray(overlay(image, heat)).astype(int)
    assert (mixed[:, 5] == (10, 200, 30)).all()
    change = np.abs(mixed - (10, 200, 30)).sum(2)
    assert change[3, 4] == change.max() > 2 * change[0, 0]
    assert len(np.unique(np.asarray(overlay(image, np.full((4, 6), 0.3))).reshape(-1, 3), axis=0)) == 1


def features(count: int = 30, width: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


def test_pca_is_the_projection_on_the_two_longest_axes():
    feat = features()
    centred = (feat - feat.mean(0)).astype(np.float64)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs(project(feat, "pca", 0)), np.abs(centred @ axes[:2].T), atol=1e-4)


def test_t_sne_keeps_clusters_apart_and_is_the_same_each_time():
    feat = features()
    feat[:15] += 20
    points = project(feat, "tsne", 3)
    np.testing.assert_array_equal(points, project(feat, "tsne", 3))
    middles = [points[:15].mean(0), points[15:].mean(0)]
    for row, point in enumerate(points):
        own, other = (np.linalg.norm(point - middles[side]) for side in ((0, 1) if row < 15 else (1, 0)))
        assert own < other


def test_few_images_lower_the_perplexity_and_too_few_are_refused():
    assert project(features(4), "tsne", 0).shape == (4, 2)
    for method in ("tsne", "pca"):
        with pytest.raises(DataError, match="3 images of the chosen identities; 4 are needed: raise --num-ids"):
            project(features(3), method, 0)


@pytest.mark.parametrize("perplexity", [30, 0, -1, float("nan")])
def test_a_perplexity_that_does_not_fit_is_named(perplexity):
    with pytest.raises(ConfigError, match=f"--perplexity got {perplexity}, allowed: above 0 and below 30"):
        project(features(30), "tsne", 0, perplexity)


def test_the_coordinates_name_each_image():
    samples = [Sample("a, b.jpg", 3, 0, -1), Sample("c.jpg", 4, 1, -1)]
    text = coordinates(samples, np.array([True, False]), np.array([[1.5, -2], [0.25, 1e-9]]))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert rows[0] == {"path": "a, b.jpg", "pid": "3", "camid": "0", "x": "1.5", "y": "-2", "split": "query"}
    assert rows[1]["split"] == "gallery" and float(rows[1]["y"]) == 1e-9


def test_identities_are_drawn_once_each_and_all_where_they_are_few():
    pids = np.repeat([5, 1, 9, 7], 3)
    assert choose_ids(pids, 9, 0).tolist() == choose_ids(pids, 4, 0).tolist() == [1, 5, 7, 9]
    drawn = choose_ids(pids, 2, 1).tolist()
    assert drawn == choose_ids(pids, 2, 1).tolist() == sorted(set(drawn)) and set(drawn) < {1, 5, 7, 9}
    assert len({tuple(choose_ids(pids, 2, seed)) for seed in range(9)}) > 1


@pytest.mark.parametrize("number", [1, 20, 21, 60])
def test_no_two_labels_share_a_colour(number):
    colours = np.array(palette(number))[:, :3]
    apart = np.linalg.norm(colours[:, None] - colours, axis=2) + 9 * np.eye(number)
    assert len(colours) == number
    assert number == 1 or apart.min() > (0.15 if number <= 20 else 0.03)


@pytest.mark.parametrize("number", [3, 20, 70])
def test_the_legend_lies_within_the_picture_and_points_have_their_colours(number):
    labels = np.repeat(np.arange(number), 2)
    is_query = np.tile([True, False], number)
    points = np.random.default_rng(0).random((2 * number, 2))
    figure = scatter(points, labels, is_query, "identity", "title")
    figure.draw_without_rendering()
    assert len(figure.legends) == 2
    for box in [legend.get_window_extent() for legend in figure.legends]:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
    gallery, query = figure.axes[0].collections
    np.testing.assert_array_equal(query.get_offsets(), points[is_query])
    np.testing.assert_allclose(query.get_facecolors(), palette(number))
    np.testing.assert_allclose(gallery.get_facecolors(), palette(number))
