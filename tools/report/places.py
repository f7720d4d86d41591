"""Which image files a report may show: those below some folders, whatever paths stand in the files of a test.

A page embeds what it shows, and a test's files may come from somebody else.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ANYWHERE = (Path(os.sep),)  # of tests that this process, or a launch of its own, ran
LISTS = ("TABLE", "WILDLIFE")  # of DATASETS: files beside whose images they may lie
HINT = "python -m tools.report RUN --pictures FOLDER shows those below a folder that you name"


def data_folders(summary: Mapping[str, Any]) -> tuple[Path, ...]:
    """Return the data folders that the configuration of a test names: DATASETS.ROOT_DIR, and those of its lists.

    One that holds a home folder is none: it would hold all that somebody has.
    """
    data = summary.get("config", {}).get("DATASETS", {})
    lists = [data[key] for key in LISTS if data.get(key)]
    named = [data.get("ROOT_DIR", ""), *(os.path.dirname(file) or os.curdir for file in lists)]
    places = [Path(os.path.realpath(os.path.expanduser(name))) for name in named if name]
    return tuple(place for place in dict.fromkeys(places) if not is_below(str(Path.home()), (place,)))


def is_below(path: str, folders: Iterable[Path]) -> bool:
    """Return whether a path lies in one of `folders`, or is one, all links resolved."""
    try:
        place = Path(os.path.realpath(path))
        return any(place.is_relative_to(os.path.realpath(folder)) for folder in folders)
    except (OSError, ValueError):  # no path of this system
        return False


def outside_note(paths: Iterable[str], folders: Sequence[Path]) -> str:
    """Return what a page says of images that lie elsewhere, '' where none does."""
    count = sum(not is_below(path, folders) for path in paths)
    return f"{count} images lie outside of the data folders and are not shown; {HINT}." if count else ""
