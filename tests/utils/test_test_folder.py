"""The folders of tests: which epochs they are of, and results that are whole or none."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.reference.slow_statistics import table_of
from utils.test_folder import (
    METRICS,
    TestFolder,
    epoch_folder,
    epoch_folders,
    epoch_of_folder,
    read_per_query,
    read_result,
)


def test_tests_of_a_run_are_found_by_epoch_in_rising_order(tmp_path):
    for name in ("epoch_10", "epoch_9", "epoch_x", "epoch_", "epoch_²", "epoch_03", "other_3"):
        (tmp_path / name).mkdir()
    found = epoch_folders(tmp_path)
    assert list(found.items()) == [(9, epoch_folder(tmp_path, 9)), (10, epoch_folder(tmp_path, 10))]
    assert [epoch_of_folder(folder) for folder in found.values()] == [9, 10]
    assert epoch_of_folder(TestFolder(tmp_path / "epoch_x")) is epoch_of_folder(TestFolder(tmp_path)) is None
    assert epoch_folders(tmp_path / "absent") == {}


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        '{"mAP": 0.5',
        "[0.5]",
        json.dumps(dict.fromkeys(METRICS, 0.5) | {"mAP": 50.0}),  # percent
        json.dumps(dict.fromkeys(METRICS, 0.5) | {"mINP": True}),
        json.dumps({"mAP": 0.5}),
    ],
)
def test_a_result_that_is_not_whole_is_none(tmp_path: Path, content: str | None):
    folder = TestFolder(tmp_path)
    if content is not None:
        folder.summary.write_text(content)
    assert read_result(folder) is None


def test_a_whole_result_is_read_as_it_was_written(tmp_path):
    folder = TestFolder(tmp_path)
    folder.summary.write_text(json.dumps(dict.fromkeys(METRICS, 0.5) | {"epoch": 3}))
    np.savez(folder.per_query, **table_of([0.5, 1.0], [1, 2]))
    assert read_result(folder) == dict.fromkeys(METRICS, 0.5) | {"epoch": 3}
    assert read_per_query(folder)["ap"].tolist() == [0.5, 1.0]
    folder.per_query.write_bytes(folder.per_query.read_bytes()[:40])
    assert read_per_query(folder) is None
