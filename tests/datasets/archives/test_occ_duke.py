import pytest

from datasets.archives.dukemtmcreid import load_dukemtmc
from datasets.archives.occ_duke import FOLDERS, load_occ_duke
from tests.datasets.archives.test_dukemtmcreid import LAYOUT
from tests.datasets.trees import write_person_archive
from utils.errors import DataError


@pytest.mark.parametrize("folder", FOLDERS)
def test_occluded_duke_is_read_from_its_own_folder(tmp_path, folder):
    write_person_archive(tmp_path / folder, LAYOUT)
    data = load_occ_duke(tmp_path)
    assert data.name == "occ_duke"
    assert [sample.camid for sample in data.gallery] == [4, 0]
    assert f"/{folder}/" in data.train[0].path


def test_occluded_duke_and_duke_are_not_mistaken_for_each_other(tmp_path):
    write_person_archive(tmp_path / "Occluded_Duke", LAYOUT)
    with pytest.raises(DataError, match="found in .*: Occluded_Duke"):
        load_dukemtmc(tmp_path)
