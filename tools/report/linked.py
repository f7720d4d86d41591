"""The pages of the single tests, linked from that of their launch."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from tools.report.page import missing, text
from utils.test_folder import TestFolder

if TYPE_CHECKING:
    from tools.report.launched import Launched


def test_pages(launched: Sequence["Launched"]) -> str:
    """Return a list of links to the report of each tested epoch of each seed, as far as they are there.

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
    tested = [(own.seed, epoch) for own in one.results for epoch in sorted(own.epochs)]
    for seed, epoch in tested:
        folder = one.experiment.test_folder(seed, epoch)
        further = [TestFolder(path) for path in sorted(folder.path.iterdir()) if path.is_dir()]
        for own in (folder, *further):
            if own.report.is_file():
                of = "" if own is folder else f", {own.path.name}"
                yield f"{one.name}, seed {seed}, epoch {epoch}{of}", own.report
