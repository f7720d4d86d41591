"""What the files of one test hold, as far as they are there."""

import csv
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tools.report.places import data_folders
from utils.errors import DataError
from utils.paths import check_readable
from utils.ranking.branches import BranchScore, read_branches
from utils.ranking.set_scores import Gain, MissingScore, SetScore
from utils.ranking.slices import Slice, read_slices
from utils.test_folder import ANALYSIS_SCHEMA, TestFolder, is_as_written, read_result
from utils.typed_csv import read_rows


class Tested(NamedTuple):
    """The files of one test; `absent` says by file name why one of them is None."""

    folder: TestFolder
    summary: dict[str, Any]
    analysis: dict[str, Any] | None
    slices: list[Slice] | None
    branches: list[BranchScore] | None  # None also where TEST.BRANCHES was off; `absent` says nothing of it then
    sets: list[SetScore] | None  # None also where the test has no modalities, as `gains` and `missing`
    gains: list[Gain] | None
    missing: list[MissingScore] | None
    absent: dict[str, str]
    pictures: tuple[Path, ...]  # the folders whose images may be shown


def read_tested(folder: TestFolder, pictures: Sequence[Path] | None = None) -> Tested:
    """Return the files of a test's folder. Images below `pictures` may be shown, None = below its data folders.

    Raises DataError where there is no whole summary.json: without it there is no result to report; ConfigError where
    it may not be read.
    """
    summary = read_result(folder)
    if summary is None:
        check_readable(folder.summary)
        state = f"holds no whole {folder.summary.name}" if folder.path.is_dir() else "is not a folder"
        raise DataError(
            f"'{folder.path}' {state}; name the folder of a finished test: OUTPUT_DIR of test.py, or the launcher's "
            "<name>_test/epoch_<e>"
        )
    absent: dict[str, str] = {}
    analysis = _read(folder.analysis, read_analysis, summary, absent)
    slices = _read(folder.slices, read_slices, summary, absent)
    wanted = summary.get("config", {}).get("TEST", {}).get("BRANCHES", False)
    branches = _read(folder.branches, read_branches, summary, absent) if wanted else None
    kinds = {folder.sets: SetScore, folder.gains: Gain, folder.missing: MissingScore}
    scores = [
        _read(path, partial(read_rows, kind=kind, what="scores"), summary, absent)
        if _was_written(path, summary)
        else None
        for path, kind in kinds.items()
    ]
    shown = data_folders(summary) if pictures is None else tuple(pictures)
    return Tested(folder, summary, analysis, slices, branches, *scores, absent, shown)


def _was_written(path: Path, summary: dict[str, Any]) -> bool:
    """Return whether a test left a file that only some tests leave."""
    return path.name in summary.get("files", {})


def read_analysis(path: Path) -> dict[str, Any]:
    """Return the content of an analysis.json; ValueError where it is damaged or of another schema."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or content.get("schema") != ANALYSIS_SCHEMA:
        raise ValueError(f"not of schema {ANALYSIS_SCHEMA}")
    return content


def _read(path: Path, reader: Callable[[Path], Any], summary: dict[str, Any], absent: dict[str, str]) -> Any:
    try:
        if is_as_written(path, summary):
            return reader(path)
        absent[path.name] = f"{path.name} is not what this test wrote: it is damaged. A new test writes it afresh."
    except FileNotFoundError:
        absent[path.name] = f"This test left no {path.name}: TEST.REPORT was False, or an older version ran it."
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        absent[path.name] = f"{path.name} cannot be read ({error}). A new test writes it afresh."
    return None
