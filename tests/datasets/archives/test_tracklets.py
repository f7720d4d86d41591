"""MARS and iLIDS-VID: lists, ranges, splits, and scores against their protocols walked through one query at a time."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy.io import savemat

from configs import find_notices, get_cfg_defaults, load_cfg
from datasets.archives.ilids_vid import load_ilids_vid, read_splits
from datasets.archives.mars import load_mars
from datasets.archives.matlab import read_whole_numbers
from datasets.bases import ReIDDataset, match_findings, published_findings
from datasets.batch import Batch
from datasets.loaders import make_test_set
from datasets.read import Tested
from datasets.test_set import TestSet
from processor.evaluation.embed import Embedded, embed_test, make_embedding, pool_images
from processor.evaluation.evaluate import RankOptions, evaluate
from tests.configs.recipes import ROOT
from tests.datasets.tracklet_trees import ILIDS_PERSONS, MARS_TEST, MARS_TRAIN, write_ilids, write_mars
from tests.datasets.trees import labels, write_image, write_text
from tests.reference.slow_tracklets import ilids_scores, mars_scores
from utils.errors import DataError
from utils.test_folder import METRICS, TestResult

POOLS = ("mean", "max")


class Ilids(NamedTuple):
    """A tree of iLIDS-VID: its root and its splits."""

    root: Path
    order: np.ndarray


@pytest.fixture(scope="module")
def ilids(tmp_path_factory: pytest.TempPathFactory) -> Ilids:
    root = tmp_path_factory.mktemp("ilids")
    return Ilids(root, write_ilids(root / "ilids-vid"))


def set_to_test(data: ReIDDataset, frames: int = 0) -> TestSet:
    cfg = get_cfg_defaults()
    cfg.TEST.TRACKLET_FRAMES = frames
    return make_test_set(cfg, data.name, "Title", Tested(data, None), 1)


def result_of_frames(data: ReIDDataset, pool: str, seed: int) -> tuple[TestResult, Callable[[str], np.ndarray]]:
    """Return the result on drawn features of frames, and these by path, float64 [8]."""
    test = set_to_test(data)
    samples = test.loaders[0].dataset.samples
    rng = np.random.default_rng(seed)
    place = {pid: rng.standard_normal(8) for pid in sorted({sample.pid for sample in samples})}
    rows = {sample.path: 0.3 * place[sample.pid] + rng.standard_normal(8) for sample in samples}
    feat = torch.tensor(np.array([rows[sample.path] for sample in samples]))
    embedded = pool_images(Embedded(feat, np.zeros(len(feat), np.float32), "float32"), test.lengths, pool)
    unit = torch.nn.functional.normalize(embedded.feat, dim=1)
    return evaluate(test, embedded._replace(feat=unit), RankOptions(10)), rows.__getitem__


@pytest.mark.parametrize("pool", POOLS)
def test_mars_is_scored_as_its_official_protocol_says(tmp_path, pool):
    folder = write_mars(tmp_path / "mars")
    result, feature = result_of_frames(load_mars(tmp_path), pool, 3)

    def known(path: str) -> np.ndarray:  # junk tracklets are not embedded, and of no weight
        return np.ones(8) if "00-1" in path else feature(path)

    expected = mars_scores(folder, known, pool)
    assert (result.num_query, result.num_valid_query) == (5, expected["num_valid"]) == (5, 4)
    for metric in METRICS:
        assert result.metrics[metric] == pytest.approx(expected[metric], abs=1e-12), metric


@pytest.mark.parametrize(("pool", "trial"), [("mean", 1), ("max", 7)])
def test_ilids_vid_is_scored_as_its_protocol_says(ilids, pool, trial):
    result, feature = result_of_frames(load_ilids_vid(ilids.root, trial), pool, 4)
    expected = ilids_scores(ilids.root / "ilids-vid", ilids.order, trial, feature, pool)
    for metric in METRICS:
        assert result.metrics[metric] == pytest.approx(expected[metric], abs=1e-12), metric


def test_mars_trains_on_frames_and_tests_on_tracklets(tmp_path):
    write_mars(tmp_path / "mars")
    data = load_mars(tmp_path)
    assert len(data.train) == sum(frames for *_, frames in MARS_TRAIN)
    assert labels(data.train[:4])[2:] == [("0001C1T0001F003.jpg", 1, 0, 0), ("0001C2T0002F001.jpg", 1, 1, 0)]
    assert labels(data.query[:1]) == [("0002C1T0004F001.jpg", 2, 0, 0)]
    assert len(data.gallery) == len(data.tested) == len(MARS_TEST) - 1 and set(data.query) <= set(data.gallery)
    assert "1 of 5 queries have no match" in match_findings(data)[0]
    assert data.notes == ("mars gallery: 1 junk tracklets (pid -1) are ignored",)
    assert "mars test: expected 12,180 tracklets of 681,089 frames (published), found 13 of 36" in "".join(
        published_findings(data)
    )


def test_each_frame_is_read_once_in_order_and_few_are_spread_evenly(tmp_path):
    write_mars(tmp_path / "mars")
    data = load_mars(tmp_path)
    whole, three = set_to_test(data), set_to_test(data, 3)
    assert whole.lengths.tolist() == [len(data.frames[path]) for path in whole.labels.names]
    assert [image.path for image in whole.loaders[0].dataset.samples] == [
        path for name in whole.labels.names for path in data.frames[name]
    ]
    assert three.lengths.tolist() == [min(3, length) for length in whole.lengths.tolist()]
    longest = max(data.frames.values(), key=len)  # of six frames: the middle of each third
    assert [image.path for image in three.loaders[0].dataset.samples if image.path in longest] == [*longest[1::2]]
    assert whole.fingerprint == three.fingerprint
    assert any("mean over the embeddings of all frames" in note for note in whole.notes)
    assert any("up to 3 frames" in note for note in three.notes)


def test_a_tracklet_is_the_mean_or_the_maximum_of_its_frames():
    feat = torch.tensor([[1.0, 4.0], [3.0, 0.0], [5.0, -1.0]])
    embedded = Embedded(feat, np.array([0.2, 0.4, 0.9], dtype=np.float32), "float32")
    lengths = np.array([2, 1])
    assert pool_images(embedded, lengths, "mean").feat.tolist() == [[2.0, 2.0], [5.0, -1.0]]
    assert pool_images(embedded, lengths, "max").feat.tolist() == [[3.0, 4.0], [5.0, -1.0]]
    np.testing.assert_allclose(pool_images(embedded, lengths, "max").luma, [0.3, 0.9], rtol=1e-6)


def test_a_test_embeds_every_frame_and_normalises_the_tracklet_alone(tmp_path):
    folder = write_mars(tmp_path / "mars")
    for image in (folder / "bbox_test").glob("*/*.jpg"):
        write_image(image)
    cfg = get_cfg_defaults()
    cfg.DATALOADER.NUM_WORKERS, cfg.INPUT.SIZE_TEST, cfg.TEST.IMS_PER_BATCH, cfg.TEST.TRACKLETS = 0, [8, 6], 4, "max"
    data = load_mars(tmp_path)
    test = make_test_set(cfg, data.name, "Title", Tested(data, None), 1)
    how = make_embedding(cfg, torch.device("cpu"), exact=True)._replace(encode=colours)
    embedded = embed_test(torch.nn.Linear(1, 1), test, how)
    frames = [colours(None, how.prepare(batch)) for batch in test.loaders[0]]
    expected = [part.amax(0) for part in torch.cat(frames).double().split(test.lengths.tolist())]
    expected = torch.nn.functional.normalize(torch.stack(expected), dim=1)
    torch.testing.assert_close(embedded.feat.double(), expected, rtol=0, atol=1e-6)
    assert embedded.feat.shape == (len(test.labels.pids), 3) and embedded.luma.shape == test.labels.pids.shape
    result = evaluate(test, embedded, RankOptions(5))
    assert result.cautions == () and result.num_query == len(data.query)


def colours(_: torch.nn.Module | None, batch: Batch) -> torch.Tensor:
    """Return the mean colour of each prepared image, [B, 3]."""
    return batch["images"].mean((2, 3))


def test_places_of_ilids_vid_are_those_of_the_sorted_folders_and_no_person_is_in_both_parts(ilids):
    data = load_ilids_vid(ilids.root, 3)
    trained, tests = {sample.pid for sample in data.train}, {sample.pid for sample in data.query}
    assert trained == {ILIDS_PERSONS[place - 1] for place in ilids.order[2][150:]} and not trained & tests
    assert published_findings(data) == [line for line in published_findings(data) if "train" in line]
    assert match_findings(data) == [] and data.junk is None and len(data.gallery) == 150


def damaged(folder: Path, change: str) -> None:
    """Damage MARS in one way."""
    info = folder / "info"
    names = (info / "test_name.txt").read_text().split()
    if change == "range":
        write_text(info / "test_name.txt", *names[:-1])
    elif change == "names":
        write_text(info / "test_name.txt", *names[1:], names[0])
    elif change == "query":
        savemat(info / "query_IDX.mat", {"query_IDX": np.array([[14]])})
    elif change == "distractor":
        savemat(info / "query_IDX.mat", {"query_IDX": np.array([[4, 2]])})
    elif change == "hdf5":
        header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116)
        (info / "query_IDX.mat").write_bytes(header + bytes(8) + b"\x00\x02IM" + bytes(400))
    elif change == "list":
        (info / "test_name.txt").unlink()
    elif change == "columns":
        savemat(info / "tracks_test_info.mat", {"track_test_info": np.ones((3, 3))})
    elif change == "damaged":
        (info / "tracks_test_info.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    elif change == "absent":
        (info / "query_IDX.mat").unlink()
    else:
        next((folder / "bbox_test" / "0002").iterdir()).unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("range", "tracklet 13: frames 31 to 36 of 35 in"),
        ("names", "tracklet 1: frame '0000C3T0002F001.jpg' does not begin with 00-1C2"),
        ("query", "query_IDX.mat' names other tracklets"),
        ("distractor", r"query_IDX.mat' asks for tracklet 2, which is junk or a distractor \(pid 0\)"),
        ("hdf5", "query_IDX.mat' is a MATLAB file of version 7.3, which is not read; .* with -v7"),
        ("list", "test_name.txt' does not exist; unpack the archive again"),
        ("columns", "no matrix track_test_info of 4 columns"),
        ("damaged", "cannot be read as a MATLAB file|holds no matrix"),
        ("absent", "query_IDX.mat' does not exist"),
        ("frame", "1 of 36 images do not exist"),
    ],
)
def test_lists_and_tables_that_do_not_fit_are_one_error(tmp_path, change, message):
    damaged(write_mars(tmp_path / "mars"), change)
    with pytest.raises(DataError, match=message):
        load_mars(tmp_path)


def test_hidden_folders_are_no_persons(ilids):
    before = load_ilids_vid(ilids.root, 2)
    place = ilids.root / "ilids-vid" / "i-LIDS-VID" / "sequences" / "cam1" / ".ipynb_checkpoints"
    place.mkdir()
    try:
        assert load_ilids_vid(ilids.root, 2).query == before.query
    finally:
        place.rmdir()


def test_other_splits_of_ilids_vid_are_refused(ilids, tmp_path):
    savemat(tmp_path / "a.mat", {"ls_set": np.where(ilids.order == 1, 2, ilids.order)})
    with pytest.raises(DataError, match="is no order of 152 persons in each of 10 trials"):
        read_splits(tmp_path / "a.mat", 152)
    with pytest.raises(DataError, match="DATASETS.TRIAL got 11, ilids_vid has the trials 1 to 10"):
        load_ilids_vid(ilids.root, 11)


@pytest.mark.parametrize("value", [2.5, np.nan, np.inf, 1e300])
def test_a_matrix_of_other_than_whole_numbers_is_no_table(tmp_path, value):
    savemat(tmp_path / "a.mat", {"a": np.array([[1.0, value]])})
    with pytest.raises(DataError, match="no matrix a of whole numbers"):
        read_whole_numbers(tmp_path / "a.mat", "a")


@pytest.mark.parametrize(("recipe", "told"), [("Market", True), ("MARS", False)])
def test_what_becomes_of_tracklets_is_told_to_be_idle_where_there_are_none(recipe, told):
    cfg = load_cfg(ROOT / "configs" / recipe / "resnet50.yml", ["TEST.TRACKLETS", "max"])
    assert any("TEST.TRACKLETS max is not used" in notice for notice in find_notices(cfg)) is told
