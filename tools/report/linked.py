"""The pages of the single tests, linked from that of their launch."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from tools.report.page import missing, text
from utils.run_folder import EMA
from utils.test_folder import TestFolder

if TYPE_CHECKING:
    from tools.report.launched import Launched


def test_pages(launched: Sequence["Launched"]) -> str:
    """Return links to the report of each test of each seed, of averaged weights too, as far as they are there.

    The links are relative to the folder of the launch's page: where it is moved alone, they lead nowhere.
    """
    root = launched[0].experiment.root
    items = [
        f'<li><a href="{quote(page.relative_to(root).as_posix())}">{text(title)}</a></li>'
        for one in launched
        for title, page in _pages(one)
    ]
    if not items:
        return missing("No test left a page (TEST.REPORT).")
    return "<ul>\n" + "\n".join(items) + "\n</ul>"


def _pages(one: "Launched") -> Iterator[tuple[str, Path]]:
    last = one.experiment.last_epoch
    for own in one.results:
        tested = [(epoch, "") for epoch in sorted(own.epochs)] + ([(last, EMA)] if EMA in own.further else [])
        for epoch, stage in tested:
            which = f"{one.name}, seed {own.seed}, epoch {epoch}{', averaged weights' if stage else ''}"
            yield from _pages_in(one.experiment.test_folder(own.seed, epoch, stage), which)


def _pages_in(folder: TestFolder, which: str) -> Iterator[tuple[str, Path]]:
    further = [TestFolder(path) for path in sorted(folder.path.iterdir()) if path.is_dir()]
    for one in (folder, *further):
        if one.report.is_file():
            yield which + ("" if one is folder else f", {one.path.name}"), one.report
