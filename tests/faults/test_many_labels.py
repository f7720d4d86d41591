"""Tests of thousands of cameras, viewpoints and identities: every table and picture stays small, and says so."""

import csv
import logging
import time

import numpy as np
import pytest
import torch

from configs import get_cfg_defaults
from datasets.test_set import Trial, same_camera
from processor.evaluation.analysis import Analysis, Analyst, save_analysis
from processor.evaluation.embed import Embedded
from processor.evaluation.evaluate import RankOptions, evaluate
from tests.faults.mistakes import refusal
from tests.processor.evaluation.sets import make_labels, make_test_set
from tools import charts
from tools.report import figures
from tools.visualize.embedding import MAX_LEGEND, scatter
from tools.visualize.ranks import main as ranks
from utils.ranking.camera_pairs import camera_pair_slices
from utils.ranking.protocol import Protocol
from utils.ranking.rank import make_distances
from utils.ranking.rank_list import MAX_JUNK, RIGHT, rank_lists
from utils.ranking.slices import (
    LEFT_OUT,
    MOST,
    Slice,
    mean_slices,
    query_slices,
    read_slices,
    write_slices,
)
from utils.test_folder import TestFolder

pytestmark = pytest.mark.fault("many labels")

MANY = 2500  # images, each seen by its own camera
NAN = float("nan")


@pytest.fixture(scope="module")
def many() -> list[Slice]:
    """The slices of a test of MANY queries and as many gallery images, all of different cameras, within seconds."""
    feat = torch.from_numpy(np.random.default_rng(0).normal(size=(2 * MANY, 8)).astype(np.float32))
    pids, cameras = np.arange(MANY) // 5, np.arange(2 * MANY)
    protocol = Protocol(pids, pids, cameras[:MANY], cameras[MANY:])
    started = time.process_time()
    slices = camera_pair_slices(make_distances(feat[:MANY], feat[MANY:]), protocol)
    assert time.process_time() - started < 10
    return slices


def test_a_camera_for_each_image_gives_as_many_rows_as_a_table_can_show(many):
    assert sum(part.kind == "camera_pair" for part in many) == MOST**2
    assert [part.query for part in many if part.kind == LEFT_OUT] == [
        f"query cameras: {MANY - MOST} of {MANY}",
        f"gallery cameras: {MANY - MOST} of {MANY}",
    ]


def test_the_report_of_them_is_small_and_says_what_is_left_out(many, tmp_path):
    folder = TestFolder(tmp_path)
    save_analysis(Analysis(many, None, [], []), folder)
    assert folder.slices.stat().st_size < 100_000
    rows = read_slices(folder.slices)
    assert str(rows) == str(many)  # as text: NaN is not equal to itself
    page = figures.slices(rows)
    assert len(page) < 2_000_000
    assert f"Left out are query cameras: {MANY - MOST} of {MANY}; gallery cameras: {MANY - MOST} of {MANY}." in page
    assert LEFT_OUT not in page and f"All {MOST**2} slices as a table" in page
    assert charts.slices_chart(rows, "title").get_figheight() < 10
    assert str(mean_slices([rows, rows])) == str(rows)


def test_the_cameras_that_are_shown_are_those_of_the_most_images_with_their_true_figures():
    rng = np.random.default_rng(1)
    number = MOST + 8
    cameras = np.concatenate([np.repeat(np.arange(number), 2), np.repeat(np.arange(8, number), 3)])  # 0..7 are rare
    pids = rng.integers(0, 6, len(cameras))
    feat = torch.from_numpy(rng.normal(size=(2 * len(cameras), 4)).astype(np.float32))
    distances = make_distances(feat[: len(cameras)], feat[len(cameras) :])
    shown = camera_pair_slices(distances, Protocol(pids, pids, cameras, cameras))
    pairs = {part[:3]: part for part in shown if part.kind == "camera_pair"}
    assert {int(part.query) for part in pairs.values()} == set(range(8, number))
    kept = np.flatnonzero(np.isin(cameras, (9, 20)))
    few = make_distances(feat[kept], feat[len(cameras) + kept])
    alone = camera_pair_slices(few, Protocol(pids[kept], pids[kept], cameras[kept], cameras[kept]))
    assert len(alone) == 4 and all(str(pairs[part[:3]]) == str(part) for part in alone)


def test_up_to_the_bound_nothing_is_left_out():
    cameras = np.arange(MOST)
    feat = torch.from_numpy(np.random.default_rng(2).normal(size=(MOST, 4)).astype(np.float32))
    pids = np.zeros(MOST, dtype=int)
    slices = camera_pair_slices(make_distances(feat, feat), Protocol(pids, pids, cameras, cameras))
    assert len(slices) == MOST**2 and not any(part.kind == LEFT_OUT for part in slices)


def test_a_viewpoint_for_each_query_is_bounded_too():
    number = 10_000
    table = {"viewid": np.arange(number) // 2, "brightness": np.full(number, 0.5), "num_pos": np.ones(number, int)}
    table |= {"ap": np.ones(number), "first_hit": np.zeros(number, int), "pid": np.arange(number)}
    table["viewid"][-5:] = 7  # so 7 and the next ones are those of the most queries
    slices = query_slices(table, 0.35)
    views = [part.query for part in slices if part.kind == "viewpoint"]
    assert len(views) == MOST and "7" in views
    assert [part.query for part in slices if part.kind == LEFT_OUT] == [f"viewpoints: {4998 - MOST} of 4998"]


def test_a_table_of_an_older_test_is_read_as_far_as_a_report_can_show_it(tmp_path):
    path = tmp_path / "slices.csv"
    pairs = [Slice("camera_pair", str(a), str(b), 1, 1, 0.5, 0.5) for a in range(200) for b in range(200)]
    write_slices(path, pairs)
    slices = read_slices(path)
    assert len(slices) == MOST**2 + 1
    assert slices[-1].query == f"rows of kind camera_pair: {40_000 - MOST**2} of 40000"
    with open(path, newline="") as stream:
        assert sum(1 for _ in csv.reader(stream)) == 40_001


def test_junk_before_the_first_match_does_not_fill_a_rank_list():
    number = 3000  # images of the query's identity and camera, nearer than all others
    pids, cameras = np.array([1] * number + [1, 2]), np.array([0] * number + [1, 1])
    feat = torch.linspace(0, 1, number + 2)[:, None] * torch.ones(1, 2)
    distances = make_distances(torch.zeros(1, 2), feat)
    (listed,) = rank_lists(distances, [0], 2, Protocol(np.array([1]), pids, np.array([0]), cameras))
    assert len(listed.gallery) == len(listed.status) == len(listed.distance) == MAX_JUNK + 2
    assert listed.gallery.tolist() == [*range(MAX_JUNK), number, number + 1] and listed.status[-2] == RIGHT
    assert (np.diff(listed.distance) >= 0).all()


def test_the_legend_of_thousands_of_labels_fits_beside_the_picture(tmp_path):
    labels = np.arange(MANY)
    points = np.random.default_rng(0).normal(size=(MANY, 2))
    figure = scatter(points, labels, labels % 2 == 0, "camera", "title")
    legend = figure.legends[-1]
    names = [text.get_text() for text in legend.get_texts()]
    assert len(names) == MAX_LEGEND and names[0] == "0" and names[-1] == str(MANY - 1)
    assert legend.get_title().get_text() == f"camera: {MAX_LEGEND} of {MANY}"
    few = scatter(points, labels % 5, labels % 2 == 0, "camera", "title").legends[-1]
    assert [text.get_text() for text in few.get_texts()] == list("01234")
    assert few.get_title().get_text() == "camera"


def test_a_picture_has_room_for_some_ranks_only(tmp_path, capsys):
    words = ("--run", tmp_path, "--out", tmp_path / "out", "--topk", 100_000)
    assert "--topk got 100000, a picture has room for 100" in refusal(ranks, *words, capsys=capsys)


def test_what_is_left_out_of_the_slices_is_logged(caplog):
    rows = np.arange(MOST + 1)  # queries, each of its own camera, and one image of each identity
    labels = make_labels(np.concatenate((rows, rows)), np.concatenate((rows, rows * 0 + 99)), np.zeros(2 * len(rows)))
    test = make_test_set(labels, (Trial("", 0, rows, rows + len(rows)),), same_camera)
    feat = torch.from_numpy(np.random.default_rng(0).normal(size=(2 * len(rows), 4)).astype(np.float32))
    embedded = Embedded(feat, np.full(len(feat), np.nan, dtype=np.float32), "float32")
    analyst = Analyst(get_cfg_defaults(), test)
    analyst.analyse(evaluate(test, embedded, RankOptions(max_rank=5), analyst.watch))
    told = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert ["left out are query cameras: 1 of 33" in record.getMessage() for record in told] == [True]
