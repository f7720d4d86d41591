"""The result of one external test: is it whole, and does it belong to this checkpoint and these settings?"""

import json
from pathlib import Path
from typing import Any

from utils.run_folder import write_text_atomic

METRICS = ("mAP", "mINP", "Rank-1", "Rank-5", "Rank-10")
RESULT_NAME = "summary.json"  # what test.py writes last
SETTINGS_NAME = "test_settings.json"  # beside it: the settings that the result depends on


def read_result(folder: Path) -> dict[str, Any] | None:
    """Return the content of a test's summary.json; None when it is absent, cut short, or lacks a metric in 0..1."""
    try:
        content = json.loads((folder / RESULT_NAME).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError, json.JSONDecodeError):
        return None
    if not isinstance(content, dict) or not all(_is_fraction(content.get(name)) for name in METRICS):
        return None
    return content


def _is_fraction(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


def start_test(folder: Path, settings: dict[str, Any]) -> None:
    """Remove an older result from an existing folder and record the settings of the test that is about to start."""
    (folder / RESULT_NAME).unlink(missing_ok=True)
    write_text_atomic(folder / SETTINGS_NAME, json.dumps(settings, indent=2) + "\n")


def why_untested(folder: Path, weight: Path, settings: dict[str, Any]) -> str | None:
    """Return why `folder` holds no valid result for `weight` under `settings`, None when it does.

    A result without recorded settings, or whose checkpoint is gone, is taken as it is.
    """
    result = read_result(folder)
    if result is None:
        return "no whole result" if folder.is_dir() else "not tested yet"
    recorded = folder / SETTINGS_NAME
    if recorded.is_file():
        saved = json.loads(recorded.read_text(encoding="utf-8"))
        changes = [f"{key} {saved.get(key)} -> {new}" for key, new in settings.items() if saved.get(key) != new]
        if changes:
            return f"tested with other settings: {'; '.join(changes)}"
    if not weight.is_file() or weight.stat().st_mtime <= (folder / RESULT_NAME).stat().st_mtime:
        return None
    from utils.checkpoint import sha256_of

    if "weight_sha256" in result and sha256_of(weight) != result["weight_sha256"]:
        return "the checkpoint changed after its test"
    return None
