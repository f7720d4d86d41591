"""What the tests of the commands share."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tools.photos import write_photos
from tests.tools.search.large_galleries import NUMBER, settle, write_files
from tests.tools.search.test_index import FakeExtractor
from tools.search import index as small
from tools.search import large_index, writer
from tools.search.index import Index, choose_file, read_kept, up_to_date
from tools.search.large_index import Update
from tools.search.shards import Shards


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    """The paths of some photographs below tmp_path / "photos"."""
    return write_photos(tmp_path / "photos")


@pytest.fixture
def large_gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A gallery that counts as a large one; its index has parts of 8 rows."""
    monkeypatch.setattr(small, "LARGE_FROM", NUMBER // 2)
    monkeypatch.setattr(writer, "PART_BYTES", 8 * 2 * FakeExtractor.feat_dim)
    monkeypatch.setattr(large_index, "PART_BYTES", writer.PART_BYTES)
    monkeypatch.setattr(large_index, "MOST_PARTS", 100)
    folder = tmp_path / "photos"
    write_files(folder, 0, NUMBER)
    settle(folder)
    return folder


@pytest.fixture
def opened(large_gallery: Path, tmp_path: Path) -> Callable[..., tuple[Shards | Index, list[str]]]:
    """opened(...) -> (index, files that were embedded), as a search does with --index elsewhere/i.npz."""

    def run(
        extractor: FakeExtractor | None = None, wanted: Path | None = tmp_path / "elsewhere" / "i.npz", **how: bool
    ) -> tuple[Shards | Index, list[str]]:
        extractor = extractor or FakeExtractor(tmp_path)
        file = choose_file(large_gallery, extractor, wanted and str(wanted))
        old = read_kept(file, large_gallery, extractor)
        return up_to_date(extractor, large_gallery, file, old, Update(**how)), extractor.seen

    return run
