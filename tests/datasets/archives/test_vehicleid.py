from pathlib import Path

import numpy as np
import pytest

from datasets.archives.vehicleid import draw_gallery, load_vehicleid
from datasets.bases import match_findings
from tests.datasets.trees import write_vehicleid
from utils.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_vehicleid(tmp_path / "VehicleID_V1.0")
    return tmp_path


def test_lists_give_paths_and_vehicle_ids(root):
    data = load_vehicleid(root)
    folder = root / "VehicleID_V1.0" / "image"
    assert data.train == [(f"{folder}/0000001.jpg", 4, 0, 0), (f"{folder}/0000002.jpg", 9, 0, 0)]
    assert not data.has_cameras
    assert match_findings(data) == []


def test_each_trial_has_one_gallery_image_per_identity_and_the_rest_as_queries(root):
    data = load_vehicleid(root, trials=4)
    rows = data.query + data.gallery
    assert len(rows) == 9 and len(data.trials) == 4
    for _, _, query, gallery in data.trials:
        assert sorted(rows[row].pid for row in gallery) == [40, 41, 42]
        assert sorted([*query, *gallery]) == list(range(9))


def test_trial_zero_is_the_split_and_its_roles_are_its_cameras(root):
    data = load_vehicleid(root)
    _, _, query, gallery = data.trials[0]
    np.testing.assert_array_equal(query, np.arange(len(data.query)))
    np.testing.assert_array_equal(gallery, len(data.query) + np.arange(len(data.gallery)))
    assert {sample.camid for sample in data.query} == {0}
    assert {sample.camid for sample in data.gallery} == {1}


def test_trials_depend_on_seed_and_number_alone(root):
    drawn = {
        key: [sorted(gallery.tolist()) for *_, gallery in load_vehicleid(root, trials=trials, seed=seed).trials]
        for key, trials, seed in (("short", 3, 5), ("long", 6, 5), ("other", 6, 6))
    }
    assert drawn["long"][:3] == drawn["short"]
    assert drawn["long"] != drawn["other"]
    assert len({tuple(rows) for rows in drawn["long"]}) > 1


def test_every_image_of_an_identity_is_drawn_equally_often():
    pids = [8, 3, 8, 3, 3, 8, 8]
    num_trials = 4000
    share = np.mean([draw_gallery(pids, 0, trial) for trial in range(num_trials)], axis=0)
    expected = np.where(np.array(pids) == 8, 1 / 4, 1 / 3)
    np.testing.assert_allclose(share, expected, atol=4 * np.sqrt(0.25 / num_trials))


def test_a_test_list_of_another_size_is_named_when_missing(root):
    with pytest.raises(DataError, match="test_list_1600.txt' does not exist"):
        load_vehicleid(root, test_size=1600)


def test_an_unknown_test_size_is_refused(root):
    with pytest.raises(DataError, match="VEHICLEID_TEST_SIZE got 900, allowed: 800, 1600, 2400"):
        load_vehicleid(root, test_size=900)


def test_an_empty_list_is_named(root):
    (root / "VehicleID_V1.0" / "train_test_split" / "train_list.txt").write_text("\n")
    with pytest.raises(DataError, match="train_list.txt' names no image"):
        load_vehicleid(root)
