from pathlib import Path

import pytest

from datasets.archives.veri import load_veri, load_veri_folder, read_views
from datasets.bases import match_findings
from tests.datasets.trees import EMOJI, VERI, labels, needs_emoji, view_line, write_text, write_veri
from utils.errors import DataError


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, so that ./datasets is the test's own."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_labels_come_from_names_and_view_files(tmp_path, workdir):
    write_veri(tmp_path / "VeRi")
    data = load_veri(tmp_path)
    assert labels(data.train) == [
        ("0005_c001_00000003_0.jpg", 5, 0, 2),
        ("0005_c012_00000002_0.jpg", 5, 11, 1),
        ("0030_c002_00000001_0.jpg", 30, 1, 0),
    ]
    assert labels(data.query) == [("0002_c002_00030600_0.jpg", 2, 1, 1)]
    assert [sample[1:] for sample in data.gallery] == [(2, 0, 0), (2, 1, 1), (100, 19, 2)]
    assert (data.name, data.notes) == ("veri", ())
    assert match_findings(data) == []


@pytest.mark.parametrize("place", ["VeRi", ".", "cwd/datasets", "views"])
def test_view_files_are_found_in_every_place(tmp_path, workdir, place):
    write_veri(tmp_path / "VeRi", view_folder=tmp_path / place)
    names = ("keypoint_train.txt", "keypoint_test.txt")
    for view_files in ((str(tmp_path / "views"),), tuple(str(tmp_path / "views" / name) for name in names)):
        data = load_veri(tmp_path, view_files if place == "views" else ())
        assert [sample.viewid for sample in data.train] == [2, 1, 0]


def test_the_training_lines_win_over_the_test_lines(tmp_path, workdir):
    root = write_veri(tmp_path / "VeRi")
    train = (root / "keypoint_train.txt").read_text()
    (root / "keypoint_train.txt").write_text(f"{train}\n{view_line('image_test', VERI['image_test'][0], 6)}")
    assert load_veri(tmp_path).gallery[0].viewid == 6


def test_of_duplicate_lines_the_last_one_counts(tmp_path):
    path = write_text(tmp_path / "views.txt", view_line("a", "x.jpg", 3), view_line("b", "x.jpg", 4), "")
    assert read_views(path) == {"x.jpg": 4}


def test_missing_view_files_are_refused_with_the_ways_out(tmp_path, workdir):
    root = write_veri(tmp_path / "VeRi")
    (root / "keypoint_test.txt").unlink()
    with pytest.raises(DataError) as error:
        load_veri(tmp_path)
    text = str(error.value)
    assert "\n" not in text and "keypoint_test.txt not found" in text and "keypoint_train.txt" not in text
    for place in (root, tmp_path, workdir / "datasets"):
        assert f"'{place}'" in text
    assert "github.com/Zhongdao/VehicleReIDKeyPointData" in text and text.endswith("MODEL.SIE_VIEW False")


def test_missing_view_files_that_nobody_needs_make_a_note_and_view_zero(tmp_path, workdir):
    root = write_veri(tmp_path / "VeRi")
    (root / "keypoint_train.txt").unlink()
    data = load_veri(tmp_path, require_views=False)
    assert {sample.viewid for sample in data.train + data.query + data.gallery} == {0}
    assert len(data.train) == 3
    (note,) = data.notes
    assert "keypoint_train.txt not found" in note


@pytest.mark.parametrize(
    ("unlabelled_view", "viewids", "said"),
    [("drop", [2, 0], "were dropped"), ("neutral", [2, -1, 0], "keep viewid -1")],
)
def test_images_without_a_line_are_dropped_or_neutral_and_counted(tmp_path, workdir, unlabelled_view, viewids, said):
    root = write_veri(tmp_path / "VeRi")
    lines = (root / "keypoint_train.txt").read_text().splitlines()
    write_text(root / "keypoint_train.txt", *(line for line in lines if "c012" not in line))
    data = load_veri(tmp_path, unlabelled_view=unlabelled_view)
    assert [sample.viewid for sample in data.train] == viewids
    (note,) = data.notes
    assert note.startswith("veri train: 1 of 3 images have no viewpoint line") and said in note


def test_view_files_of_other_images_are_refused_before_everything_is_dropped(tmp_path, workdir):
    root = write_veri(tmp_path / "VeRi")
    write_text(root / "keypoint_train.txt", view_line("image_train", "other.jpg", 0))
    with pytest.raises(DataError, match="veri train: no image has a line"):
        load_veri(tmp_path)


@pytest.mark.parametrize("line", ["0002_c001.jpg", "0002_c001.jpg 1 2 -1", "0002_c001.jpg 1 2 front"])
def test_a_bad_view_line_is_named(tmp_path, line):
    with pytest.raises(DataError, match=r"views.txt:2: expected '<image> x1 y1"):
        read_views(write_text(tmp_path / "views.txt", view_line("a", "x.jpg", 3), line))


@pytest.mark.parametrize(("name", "message"), [("absent.txt", "does not exist"), ("other.txt", "is not called")])
def test_a_wrong_entry_of_view_files_is_named(tmp_path, workdir, name, message):
    write_veri(tmp_path / "VeRi")
    write_text(tmp_path / "other.txt")
    with pytest.raises(DataError, match=f"DATASETS.VIEW_FILES: .*{name}' {message}"):
        load_veri(tmp_path, (str(tmp_path / name),))


def test_any_folder_in_this_layout_loads_under_its_own_name(tmp_path, workdir):
    data = load_veri_folder(write_veri(tmp_path / "drawn"), name="synthetic")
    assert (data.name, len(data.train), data.published) == ("synthetic", 3, {})


def test_an_unknown_treatment_of_unlabelled_images_is_refused(tmp_path):
    with pytest.raises(ValueError, match="keep"):
        load_veri_folder(tmp_path, unlabelled_view="keep")


def test_a_root_that_is_the_veri_folder_is_recognised(tmp_path):
    write_veri(tmp_path / "VeRi")
    with pytest.raises(DataError, match=f"set DATASETS.ROOT_DIR to its parent '{tmp_path}'$"):
        load_veri(tmp_path / "VeRi")


@needs_emoji
def test_the_real_veri_layout_has_its_known_counts():
    data = load_veri(EMOJI)
    parts = (data.train, data.query, data.gallery)
    assert [(len(part), len({sample.pid for sample in part})) for part in parts] == [
        (5385, 576),
        (800, 200),
        (1849, 200),
    ]
    for part in parts:
        assert {sample.camid for sample in part} == set(range(12))
        assert {sample.viewid for sample in part} == set(range(8))
    assert data.notes == ()
    assert match_findings(data) == []
