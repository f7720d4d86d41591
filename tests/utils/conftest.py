"""A trained tiny run for the tools that read one."""

from pathlib import Path

import pytest

import train
from tests.conftest import TINY_YAML


@pytest.fixture(scope="session")
def trained_run(tiny_root, tmp_path_factory) -> Path:
    """The OUTPUT_DIR of two epochs on the tiny archive, with JPM and side information of 3 cameras x 2 views."""
    folder = tmp_path_factory.mktemp("trained")
    config = folder / "tiny.yml"
    config.write_text(TINY_YAML.format(root=tiny_root, output=folder / "run"))
    train.main(["--config_file", str(config), "SOLVER.MAX_EPOCHS", "2"])
    return folder / "run"
