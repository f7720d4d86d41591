"""A small synthetic VeRi that several test files read."""

from pathlib import Path

import pytest

from datasets.synthetic.load import draw_synthetic_veri
from tests.datasets.synthetic.drawn import NUM_TEST_IDS, NUM_TRAIN_IDS


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "set"
    draw_synthetic_veri(folder, 0, NUM_TRAIN_IDS, NUM_TEST_IDS)
    return folder
