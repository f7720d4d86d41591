"""The benchmark of a large index: what it compares with, what it extrapolates, and that it measures what it says."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import large_index, measure


def test_the_exact_nearest_are_those_of_a_sort_of_all_vectors(monkeypatch):
    monkeypatch.setattr(large_index, "CHUNK", 70)
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((10, 12), dtype=np.float32)
    query = large_index.draw(centres, rng, 5)
    whole = np.concatenate([feat for _, feat in large_index.chunks(centres, 300)])
    expected = np.argsort(-(query.astype(np.float64) @ whole.T), axis=1)[:, : large_index.TOPK]
    assert [set(row) for row in large_index.exact(query, centres, 300).tolist()] == [
        set(row) for row in expected.tolist()
    ]
    assert np.linalg.norm(whole, axis=1) == pytest.approx(np.ones(300), abs=1e-5)


def test_a_power_of_the_size_is_extrapolated_exactly():
    sizes = [
        large_index.Measured(
            n, build_s=2 * n**1.5, disk_mb=3 * n, first_s=1, search_s=n**0.25, start_mb=1, peak_mb=7, recall=1
        )
        for n in (100, 400, 1600)
    ]
    larger = large_index.extrapolate(sizes, 10)
    assert larger == pytest.approx(
        {"vectors": 16_000, "build_s": 2 * 16_000**1.5, "disk_mb": 48_000, "search_s": 16_000**0.25, "peak_mb": 7}
    )


def test_three_sizes_are_measured_and_a_fourth_is_said_to_be_extrapolated(tmp_path: Path, monkeypatch, capsys):
    pytest.importorskip("faiss")
    if not Path("/proc/self/status").is_file():
        pytest.skip("the memory of a process is read where Linux tells it")
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    monkeypatch.setitem(large_index.SIZES, "small", (4800, 16, 6))
    large_index.main([])
    facts = json.loads((tmp_path / "large_index.json").read_text())["facts"]
    assert [row["vectors"] for row in facts["rows"]] == [300, 1200, 4800, 48_000]
    assert [row["what"] for row in facts["rows"]] == ["measured"] * 3 + ["extrapolated, not measured"]
    for row in facts["rows"][:3]:
        assert row["recall"] >= 0.9 and 10 < row["start_mb"] <= row["peak_mb"] < 1000 and row["search_s"] > 0
    assert "extrapolated, not measured: vectors 4.8e+04" in capsys.readouterr().out
    assert len(facts["bars"]) == 3
