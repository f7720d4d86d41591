"""Parts of a test: every figure against a loop that restricts, sorts and averages by hand; and the CSV."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reference import slow_slices
from utils.errors import DataError
from utils.ranking.camera_pairs import camera_pair_slices
from utils.ranking.distance import Distances, matrix_distances
from utils.ranking.protocol import Protocol
from utils.ranking.rank import rank_distances
from utils.ranking.slices import (
    Slice,
    brightness_ranges,
    mean_slices,
    query_slices,
    read_slices,
    write_slices,
)

NAN = float("nan")
TAU = 0.35


class Drawn(NamedTuple):
    """A small test set with ties, junk and queries without a match."""

    distmat: np.ndarray
    q_pids: np.ndarray
    g_pids: np.ndarray
    q_camids: np.ndarray
    g_camids: np.ndarray
    viewids: np.ndarray
    brightness: np.ndarray

    @property
    def per_query(self) -> dict[str, np.ndarray]:
        ranking = rank_distances(*self[:5])
        names = ("ap", "first_hit", "num_pos")
        scores = {name: getattr(ranking, name) for name in names}
        return scores | {"pid": self.q_pids, "viewid": self.viewids, "brightness": self.brightness}


def draw(seed: int, num_query: int = 14, num_gallery: int = 40, cameras: int = 4) -> Drawn:
    rng = np.random.default_rng(seed)
    gallery = (rng.integers(0, 6, num_gallery), rng.integers(0, cameras, num_gallery))
    query = (rng.integers(0, 7, num_query), rng.integers(0, cameras, num_query))
    query[0][0], query[1][0] = gallery[0][0], (gallery[1][0] + 1) % cameras  # a query with a match
    distmat = rng.integers(0, 5, (num_query, num_gallery)).astype(np.float32)  # few values: many ties
    brightness = rng.choice([0.0, 0.1, 0.2, 0.6, 0.9, 1.0], num_query).astype(np.float32)
    return Drawn(distmat, query[0], gallery[0], query[1], gallery[1], rng.integers(-1, 3, num_query), brightness)


def assert_figures(part: Slice, expected: tuple[int, int, float, float]) -> None:
    assert part[3:5] == expected[:2], part
    np.testing.assert_allclose(part[5:], expected[2:], rtol=1e-12, err_msg=str(part))


@given(st.integers(0, 10**6))
def test_camera_pairs_equal_the_slow_loop(seed):
    drawn = draw(seed)
    labels = drawn[1:5]
    slices = camera_pair_slices(matrix_distances(drawn.distmat), Protocol(*labels))
    pairs = [(a, b) for a in sorted(set(drawn.q_camids)) for b in sorted(set(drawn.g_camids))]
    assert [part[:3] for part in slices] == [("camera_pair", str(a), str(b)) for a, b in pairs]
    for part, (a, b) in zip(slices, pairs, strict=True):
        queries, columns = np.flatnonzero(drawn.q_camids == a), np.flatnonzero(drawn.g_camids == b)
        assert_figures(part, slow_slices.score(queries, *drawn[:5], columns))


def test_camera_pairs_are_the_same_for_any_size_of_the_blocks(monkeypatch):
    drawn = draw(3)
    whole = camera_pair_slices(matrix_distances(drawn.distmat), Protocol(*drawn[1:5]))
    monkeypatch.setattr("utils.ranking.distance.BLOCK_BYTES", 3 * 2 * 4 * drawn.distmat.shape[1])  # blocks of 3 queries
    np.testing.assert_equal(camera_pair_slices(matrix_distances(drawn.distmat), Protocol(*drawn[1:5])), whole)


def test_each_distance_is_made_once_for_all_cameras(monkeypatch):
    drawn, made = draw(0), []
    monkeypatch.setattr("utils.ranking.distance.BLOCK_BYTES", 4 * 2 * 4 * drawn.distmat.shape[1])

    def rows(start: int, stop: int) -> np.ndarray:
        made.extend(range(start, stop))
        return drawn.distmat[start:stop]

    camera_pair_slices(Distances(drawn.distmat.shape, rows), Protocol(*drawn[1:5]))
    assert made == list(range(len(drawn.q_pids)))


def test_a_pair_by_hand():
    distmat = np.array([[1.0, 2.0, 3.0, 0.0], [3.0, 2.0, 1.0, 0.0]], dtype=np.float32)
    labels = (np.array([7, 7]), np.array([7, 8, 7, 7]), np.array([0, 0]), np.array([1, 1, 1, 0]))
    own, other = camera_pair_slices(matrix_distances(distmat), Protocol(*labels))
    # right, wrong, right: AP (1 + 2/3) / 2, whichever of the two right images comes first; camera 0 is junk
    assert own[:5] == ("camera_pair", "0", "0", 0, 0) and np.isnan(own[5:]).all()
    assert other == Slice("camera_pair", "0", "1", 2, 1, pytest.approx(5 / 6), 1.0)


def test_a_tie_between_right_and_wrong_is_ranked_by_the_gallery_index():
    labels = (np.array([7]), np.array([9, 7, 7]), np.array([0]), np.array([1, 2, 1]))
    slices = camera_pair_slices(matrix_distances(np.zeros((1, 3), dtype=np.float32)), Protocol(*labels))
    assert [part.mAP for part in slices] == [0.5, 1.0]  # camera 1: the wrong image 0 before the right image 2


@pytest.mark.parametrize("g_camera", [0, 1], ids=["one camera", "a protocol without cameras"])
def test_a_single_pair_is_left_out(g_camera):
    labels = (np.array([1, 2]), np.array([1, 2, 2]), np.zeros(2, dtype=int), np.full(3, g_camera))
    assert camera_pair_slices(matrix_distances(np.ones((2, 3))), Protocol(*labels)) == []


def test_a_distance_that_is_not_finite_is_refused():
    labels = (np.array([1]), np.array([1, 1]), np.array([0]), np.array([1, 2]))
    with pytest.raises(DataError, match="hold NaN or infinity"):
        camera_pair_slices(matrix_distances(np.array([[1.0, NAN]])), Protocol(*labels))


def by_kind(slices: list[Slice], kind: str) -> list[Slice]:
    return [part for part in slices if part.kind == kind]


@given(st.integers(0, 10**6))
def test_viewpoints_brightness_and_matches_equal_the_slow_loop(seed):
    drawn = draw(seed)
    per_query = drawn.per_query
    slices = query_slices(per_query, TAU)
    members = {
        **{("viewpoint", str(view)): drawn.viewids == view for view in range(3)},
        ("viewpoint", "unknown"): drawn.viewids == -1,
        ("brightness", "dark 0-0.35"): drawn.brightness < TAU,
        ("brightness", "bright 0.35-1"): drawn.brightness >= TAU,
        ("brightness", "0-0.175"): drawn.brightness < 0.175,
        ("brightness", "0.175-0.35"): (drawn.brightness >= 0.175) & (drawn.brightness < TAU),
        ("brightness", "0.35-0.675"): (drawn.brightness >= TAU) & (drawn.brightness < 0.675),
        ("brightness", "0.675-1"): drawn.brightness >= 0.675,
    }
    for low, high in ((1, 1), (2, 3), (4, 7), (8, 15), (16, 31)):
        name = "1" if low == 1 else f"{low}-{high}"
        members["matches", name] = [low <= count <= high for count in per_query["num_pos"]]
    for part in slices:
        assert part.gallery == ""
        assert_figures(part, slow_slices.score(np.flatnonzero(members[part.kind, part.query]), *drawn[:5]))
    assert len(by_kind(slices, "brightness")) == 6
    assert len(by_kind(slices, "viewpoint")) == len(set(drawn.viewids))


@given(st.integers(0, 10**6), st.sampled_from(["viewpoint", "halves", "sides", "matches"]))
def test_the_weighted_mean_over_a_division_of_the_queries_is_the_figure_of_the_whole_test(seed, division):
    drawn = draw(seed)
    ranking = rank_distances(*drawn[:5])
    slices = query_slices(drawn.per_query, TAU)
    if division in ("halves", "sides"):
        parts = [part for part in by_kind(slices, "brightness") if (" " in part.query) == (division == "sides")]
    else:
        parts = by_kind(slices, division)
    parts = [part for part in parts if part.num_query]
    weights = [part.num_query for part in parts]
    assert sum(weights) == (ranking.first_hit >= 0).sum()
    assert np.average([part.mAP for part in parts], weights=weights) == pytest.approx(ranking.mAP)
    assert np.average([part.R1 for part in parts], weights=weights) == pytest.approx(ranking.cmc[0])


def test_empty_slices_have_no_figures_and_unknown_views_come_last():
    per_query = {
        "ap": np.array([0.5, NAN, 1.0]),
        "first_hit": np.array([1, -1, 0]),
        "num_pos": np.array([1, 0, 4]),
        "pid": np.array([3, 4, 3]),
        "viewid": np.array([2, 5, -1]),
        "brightness": np.array([0.2, 0.9, 0.2], dtype=np.float32),
    }
    slices = query_slices(per_query, 0.5)
    assert [part.query for part in by_kind(slices, "viewpoint")] == ["2", "5", "unknown"]
    assert [part.num_query for part in by_kind(slices, "viewpoint")] == [1, 0, 1]
    bright = by_kind(slices, "brightness")[3]
    assert bright[:5] == ("brightness", "bright 0.5-1", "", 0, 0) and np.isnan([bright.mAP, bright.R1]).all()
    assert by_kind(slices, "brightness")[0] == Slice("brightness", "dark 0-0.5", "", 2, 1, 0.75, 0.5)
    assert [(part.query, part.num_query) for part in by_kind(slices, "matches")] == [("1", 1), ("2-3", 0), ("4-7", 1)]


def test_one_viewpoint_is_no_division():
    drawn = draw(1)
    per_query = drawn.per_query | {"viewid": np.full(len(drawn.q_pids), -1)}
    assert not by_kind(query_slices(per_query, TAU), "viewpoint")


@pytest.mark.parametrize(("threshold", "names"), [(0.0, ["bright 0-1", "0-0.5", "0.5-1"]), (1.0, ["dark 0-1"])])
def test_a_side_without_width_is_left_out(threshold, names):
    assert [name for name, _, _ in brightness_ranges(threshold)][: len(names)] == names
    assert len(brightness_ranges(threshold)) == 3


def test_an_image_at_the_threshold_is_bright_as_for_the_router():
    drawn = draw(2)
    at_threshold = np.full(len(drawn.q_pids), TAU, dtype=np.float32)
    dark, *_, last = by_kind(query_slices(drawn.per_query | {"brightness": at_threshold}, TAU), "brightness")
    assert (dark.num_query, last.num_query) == (0, 0)
    white = query_slices(drawn.per_query | {"brightness": np.ones_like(at_threshold)}, TAU)
    assert by_kind(white, "brightness")[-1].num_query == (drawn.per_query["first_hit"] >= 0).sum()


def test_the_csv_gives_the_slices_back(tmp_path):
    slices = [
        Slice("camera_pair", "0", "12", 3, 2, 0.123456, 1.0),
        Slice("camera_pair", "0", "0", 0, 0, NAN, NAN),
        Slice("brightness", "dark 0-0.35", "", 9, 9, 1 / 3, 0.0),
    ]
    write_slices(tmp_path / "slices.csv", slices)
    assert (tmp_path / "slices.csv").read_text().splitlines() == [
        "kind,query,gallery,num_query,num_id,mAP,R1",
        "camera_pair,0,12,3,2,0.123456,1.000000",
        "camera_pair,0,0,0,0,,",
        "brightness,dark 0-0.35,,9,9,0.333333,0.000000",
    ]
    slices[2] = slices[2]._replace(mAP=0.333333)
    np.testing.assert_equal(read_slices(tmp_path / "slices.csv"), slices)
    assert [path.name for path in tmp_path.iterdir()] == ["slices.csv"]


@pytest.mark.parametrize("text", ["", "kind,query\n", "some text"])
def test_a_file_that_is_no_table_of_slices_is_named(tmp_path, text):
    path = tmp_path / "slices.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=r"slices.csv' is no table of slices: its first line is not kind,query,.*again"):
        read_slices(path)


@pytest.mark.parametrize("line", ["viewpoint,1,,3,2,0.5", "viewpoint,1,,x,2,0.5,0.5", "viewpoint,1,,3,2,0.5,high"])
def test_a_broken_line_is_named(tmp_path, line):
    path = tmp_path / "slices.csv"
    path.write_text(f"kind,query,gallery,num_query,num_id,mAP,R1\nviewpoint,0,,1,1,1.0,1.0\n{line}\n")
    with pytest.raises(DataError, match=f"slices.csv' line 3 is no slice: {line}; test again"):
        read_slices(path)


def test_the_mean_over_seeds_leaves_empty_slices_out():
    first = [Slice("viewpoint", "0", "", 4, 3, 0.2, 0.5), Slice("viewpoint", "1", "", 0, 0, NAN, NAN)]
    second = [Slice("viewpoint", "0", "", 4, 3, 0.6, 1.0), Slice("viewpoint", "1", "", 2, 2, 0.4, 0.0)]
    third = [Slice("matches", "1", "", 5, 5, NAN, NAN)]
    means = mean_slices([first, second, third])
    assert means[0] == Slice("viewpoint", "0", "", 4, 3, pytest.approx(0.4), 0.75)
    assert means[1] == Slice("viewpoint", "1", "", 1, 1, 0.4, 0.0)
    assert means[2].num_query == 5 and np.isnan(means[2].mAP)
    assert mean_slices([]) == []


def test_occluded_and_clean_queries_have_slices_where_that_is_known():
    drawn = draw(3)
    occluded = np.random.default_rng(0).integers(0, 2, len(drawn.q_pids)).astype(np.int8)
    per_query = drawn.per_query
    assert "occlusion" not in {part.kind for part in query_slices(per_query, TAU)}
    slices = [part for part in query_slices({**per_query, "occluded": occluded}, TAU) if part.kind == "occlusion"]
    assert [part.query for part in slices] == ["occluded", "clean"]
    for part, value in zip(slices, (1, 0), strict=True):
        assert_figures(part, slow_slices.score(np.flatnonzero(occluded == value).tolist(), *drawn[:5]))


def test_camera_pairs_follow_the_rule_of_ap():
    drawn = draw(4)
    slices = {
        rule: camera_pair_slices(matrix_distances(drawn.distmat), Protocol(*drawn[1:5]), rule)
        for rule in ("standard", "trapezoid")
    }
    known = [pair for pair in zip(*slices.values(), strict=True) if pair[0].num_query]
    assert all(lower.mAP <= part.mAP and lower[:5] == part[:5] and lower.R1 == part.R1 for part, lower in known)
    assert any(lower.mAP < part.mAP for part, lower in known)
