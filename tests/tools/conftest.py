"""What the tests of the commands share."""

from pathlib import Path

import pytest

from tests.tools.photos import write_photos


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    """The paths of some photographs below tmp_path / "photos"."""
    return write_photos(tmp_path / "photos")
