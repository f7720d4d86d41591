"""VERI-Wild: its lists, the cameras of vehicle_info.txt, and its three sizes."""

from pathlib import Path

import pytest

from datasets.archives.veri_wild import load_veri_wild
from datasets.bases import match_findings, published_findings
from datasets.test_set import same_camera
from tests.datasets.trees import labels, write_text
from tests.datasets.vis_nir_trees import touch
from utils.errors import DataError

HEADER = "id/image;Camera ID;Time;Model;Type;Color"
CAMERAS = {"00001/000001": 3, "00001/000002": 174, "00002/000003": 1, "00007/000011": 5, "00007/000012": 5}
CAMERAS |= {"00007/000013": 9}
LISTS = {
    "train_list.txt": ["00001/000001.jpg", "00001/000002", "00002/000003.jpg"],
    "test_3000_query.txt": ["00007/000011"],
    "test_3000.txt": ["00007/000012", "00007/000013"],
}


def write_veri_wild(folder: Path, header: tuple[str, ...] = (HEADER,)) -> Path:
    """Write the lists of 3,000 vehicles, few of them, and empty images."""
    lists = folder / "train_test_split"
    info = [f"{image};{camera};2018-03-11 10:14:12;a;SUV;white" for image, camera in CAMERAS.items()]
    write_text(lists / "vehicle_info.txt", *header, *info)
    for name, lines in LISTS.items():
        write_text(lists / name, *lines)
    for image in CAMERAS:
        vehicle, name = image.split("/")
        touch(folder / "images" / vehicle, [f"{name}.jpg"])
    return folder


@pytest.mark.parametrize("header", [(HEADER,), ()])
def test_vehicles_come_from_folders_and_cameras_from_the_table(tmp_path, header):
    write_veri_wild(tmp_path / "VERI-Wild", header)
    data = load_veri_wild(tmp_path, 3_000)
    assert labels(data.train) == [("000001.jpg", 1, 2, 0), ("000002.jpg", 1, 173, 0), ("000003.jpg", 2, 0, 0)]
    assert labels(data.query) == [("000011.jpg", 7, 4, 0)]
    assert labels(data.gallery) == [("000012.jpg", 7, 4, 0), ("000013.jpg", 7, 8, 0)]
    assert data.junk is same_camera and match_findings(data) == []
    assert "veri_wild_3000 query: expected 3,000 images" in published_findings(data)[2]


def test_another_size_needs_its_own_lists(tmp_path):
    write_veri_wild(tmp_path / "VERI-Wild")
    with pytest.raises(DataError, match="test_10000_query.txt' does not exist"):
        load_veri_wild(tmp_path, 10_000)


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("test_3000.txt", ["000012"], "test_3000.txt:1: expected '<vehicle>/<image>'"),
        ("test_3000.txt", ["00007/../../secret"], "expected '<vehicle>/<image>'"),
        ("test_3000.txt", ["00007/000099"], "test_3000.txt:1: image '00007/000099' has no line in"),
        ("vehicle_info.txt", [HEADER, "00001/000001,3"], "vehicle_info.txt:2: expected '<vehicle>/<image>;<camera>"),
        ("vehicle_info.txt", ["00001/000001;0;a"], "camera"),
        ("vehicle_info.txt", ["00001/000001;3;a", "00001/000001.jpg;4;a"], "vehicle_info.txt:2: .* another camera"),
        ("test_3000.txt", ["00007/000012.jpg 0 5"], "take the list of the archive itself"),
    ],
)
def test_a_line_that_does_not_fit_is_named(tmp_path, name, lines, message):
    folder = write_veri_wild(tmp_path / "VERI-Wild")
    write_text(folder / "train_test_split" / name, *lines)
    with pytest.raises(DataError, match=message):
        load_veri_wild(tmp_path, 3_000)


def test_without_the_training_list_it_serves_tests(tmp_path):
    folder = write_veri_wild(tmp_path / "VERI-Wild")
    (folder / "train_test_split" / "train_list.txt").unlink()
    data = load_veri_wild(tmp_path, 3_000)
    assert data.train == [] and "train_list.txt' does not exist" in data.no_train
