"""What an earlier launch left under the same names: it gives way to what is at least as whole."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.report.page import RESULTS

UNTOLD = 1  # results of a page that does not tell how many: an older version's


def count_results(summaries: Sequence[Mapping[str, Any]]) -> int:
    """Return how many seeds have a result at their last epoch, over all experiments."""
    return sum(summary["num_seeds"]["last"] for summary in summaries)


def may_replace(path: Path, count: int, is_complete: bool) -> bool:
    """Return whether a launch with `count` results may replace a file: a complete one, or one with no fewer results."""
    return is_complete or count >= _stored(path)


def kept_line(path: Path) -> str:
    """Return the line that says that a file was not replaced."""
    return f"kept: '{path}' of an earlier launch, which has more results than this one so far"


def _stored(path: Path) -> int:
    """Return the results of a summary (.json), a table (.json) or a page (.html); 0 of one absent or damaged."""
    try:
        content = path.read_text(encoding="utf-8")
        if path.suffix == ".html":
            match = re.search(RESULTS.format(count="([0-9]{1,9})"), content)
            return int(match[1]) if match else UNTOLD
        summaries = json.loads(content)
        return count_results(summaries if isinstance(summaries, list) else [summaries])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return 0
