"""The benchmark of extraction at a tiny size: what it prints, and that its batches are embedded as any loader's."""

import pytest
import torch

from benchmarks import extraction
from benchmarks.extraction import SIZES, Batches


def test_extraction_prints_both_precisions_with_and_without_local_branches(capsys, monkeypatch):
    monkeypatch.setattr(extraction, "resolve_device", lambda *_: torch.device("cpu"))
    monkeypatch.setattr(extraction, "keep", lambda *_: pytest.fail("the tiny size is no result"))
    extraction.main(["--size", "tiny"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("2 batches of 2 images on cpu, where TEST.AMP auto is ")
    assert [line.split(":")[0] for line in lines if "x float32" in line] == [
        *("global branch, float32", "global branch, bfloat16"),
        *("with local branches, float32", "with local branches, bfloat16"),
    ]
    name, cosine = lines[-1].split(": ")
    assert name == "smallest cosine to float32" and 0.999 < float(cosine) < 1


def test_batches_are_as_many_as_they_say():
    batches = Batches(SIZES["tiny"], (32, 16))
    shapes = [tuple(batch["images"].shape) for batch in batches]
    assert shapes == [(2, 3, 32, 16)] * 2 and len(batches.dataset) == len(batches.sampler) == 4
