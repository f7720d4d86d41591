import os

import pytest

from datasets.archives.dukemtmcreid import FOLDERS, load_dukemtmc
from tests.datasets.trees import write_person_archive
from utils.errors import DataError

LAYOUT = {
    "bounding_box_train": ["7140_c8_f0046182.jpg", "0001_c2_f0046182.jpg"],
    "query": ["0005_c2_f0046985.jpg"],
    "bounding_box_test": ["0005_c5_f0051461.jpg", "3035_c1_f0000001.jpg"],
}


@pytest.mark.parametrize("folder", FOLDERS)
def test_duke_reads_identity_and_camera_from_the_name(tmp_path, folder):
    write_person_archive(tmp_path / folder, LAYOUT)
    data = load_dukemtmc(tmp_path)
    parts = {"train": data.train, "query": data.query, "gallery": data.gallery}
    assert {split: [tuple(sample[1:]) for sample in part] for split, part in parts.items()} == {
        "train": [(1, 1, 0), (7140, 7, 0)],
        "query": [(5, 1, 0)],
        "gallery": [(5, 4, 0), (3035, 0, 0)],
    }
    assert os.path.isfile(data.query[0].path)
    assert (data.name, data.notes) == ("dukemtmc", ())


def test_duke_in_a_wrong_root_names_its_folder(tmp_path):
    with pytest.raises(DataError, match="dukemtmcreid' with bounding_box_train, query, bounding_box_test"):
        load_dukemtmc(tmp_path)
