"""The result of one external test: is it whole, and does it belong to this checkpoint and these settings?"""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from yacs.config import CfgNode

from configs import get_cfg_defaults
from configs.compare import flatten

METRICS = ("mAP", "mINP", "Rank-1", "Rank-5", "Rank-10")
RESULT_NAME = "summary.json"  # what test.py writes last
PER_QUERY_NAME = "per_query.npz"
WITHOUT_EFFECT = (
    "TEST.WEIGHT",
    "TEST.IMS_PER_BATCH",
    "TEST.REFERENCE",
    "TEST.REPORT",
)  # keys of TEST that no result depends on


def read_result(folder: Path) -> dict[str, Any] | None:
    """Return the content of a test's summary.json; None when it is absent, cut short, or lacks a metric in 0..1."""
    try:
        content = json.loads((folder / RESULT_NAME).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError, json.JSONDecodeError):
        return None
    if not isinstance(content, dict) or not all(_is_fraction(content.get(name)) for name in METRICS):
        return None
    return content


def read_per_query(folder: Path) -> dict[str, np.ndarray] | None:
    """Return the arrays of a test's per_query.npz, see `processor.outcome.save_results`; None when it is not whole."""
    try:
        with np.load(folder / PER_QUERY_NAME, allow_pickle=False) as table:
            return {name: table[name] for name in table.files}
    except (FileNotFoundError, NotADirectoryError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def _is_fraction(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


def result_settings(cfg: CfgNode) -> dict[str, Any]:
    """Return the settings that a test result depends on: dotted keys of TEST and DATASETS, and the test images."""
    keys = flatten({"TEST": cfg.TEST, "DATASETS": cfg.DATASETS})
    return {key: value for key, value in keys.items() if key not in WITHOUT_EFFECT}


def why_untested(folder: Path, weight: Path, settings: dict[str, Any]) -> str | None:
    """Return why `folder` holds no valid result for `weight` under `settings`, None when it does.

    A result whose checkpoint is gone is taken as it is.
    """
    result = read_result(folder)
    if result is None:
        return "no whole result" if folder.is_dir() else "not tested yet"
    saved = result_settings(get_cfg_defaults()) | result.get("settings", {})  # a key it lacks is younger than it
    changes = [f"{key} {saved.get(key)} -> {new}" for key, new in settings.items() if saved.get(key) != new]
    if changes:
        return f"tested with other settings: {'; '.join(changes)}"
    for name in result.get("tests", {}):  # further test sets, each with a folder of its name
        if read_result(folder / name) is None:
            return f"no whole result on {name}"
    if not weight.is_file() or weight.stat().st_mtime <= (folder / RESULT_NAME).stat().st_mtime:
        return None
    from utils.checkpoint import sha256_of

    if result["weight_sha256"] != sha256_of(weight):
        return "the checkpoint changed after its test"
    return None
