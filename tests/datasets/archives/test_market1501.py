import os

import pytest

from datasets.archives.market1501 import FOLDERS, load_market1501
from datasets.bases import match_findings
from tests.datasets.trees import EMOJI, labels, needs_emoji, write_person_archive
from utils.errors import DataError


@pytest.mark.parametrize("folder", FOLDERS)
def test_market_drops_junk_and_keeps_distractors(tmp_path, folder):
    write_person_archive(tmp_path / folder)
    data = load_market1501(tmp_path)
    assert labels(data.train) == [("0002_c1s1_000451_03.jpg", 2, 0, 0), ("0007_c2s1_000451_01.jpg", 7, 1, 0)]
    assert labels(data.query) == [("0003_c1s1_000151_00.jpg", 3, 0, 0)]
    assert labels(data.gallery) == [
        ("0000_c3s1_000001_00.jpg", 0, 2, 0),
        ("0003_c1s2_000152_00.jpg", 3, 0, 0),
        ("0003_c6s2_000153_00.jpg", 3, 5, 0),
    ]
    assert all(os.path.isfile(sample.path) for sample in data.train + data.query + data.gallery)
    assert data.notes == (
        "market1501 train: 1 junk images (pid -1) are ignored",
        "market1501 gallery: 2 junk images (pid -1) are ignored",
    )


def test_an_empty_gallery_folder_is_an_error(tmp_path):
    folder = write_person_archive(tmp_path / "market1501")
    for image in (folder / "bounding_box_test").iterdir():
        image.rename(image.with_suffix(".txt"))
    with pytest.raises(DataError, match="no image .* in '.*bounding_box_test'"):
        load_market1501(tmp_path)


@needs_emoji
def test_the_real_market_layout_has_its_known_counts():
    data = load_market1501(EMOJI)
    counts = [(len(part), len({sample.pid for sample in part})) for part in (data.train, data.query, data.gallery)]
    assert counts == [(4803, 751), (829, 291), (1889 + 262, 300 + 1)]
    assert {sample.camid for sample in data.train} == set(range(6))
    assert sum(sample.pid == 0 for sample in data.gallery) == 262
    assert match_findings(data) == []
