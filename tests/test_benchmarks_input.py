"""The benchmarks of the input at a tiny size: both sides do the same work, and the arguments are checked."""

import numpy as np
import pytest
import torch

from benchmarks import input_pipeline, phase_rebuild
from datasets.bases import Sample
from tests.tolerance import bounds
from utils.errors import ConfigError


def test_input_pipeline_prints_both_ratios_of_each_case(capsys):
    input_pipeline.main(["--images", "8", "--repeats", "1"])
    text = capsys.readouterr().out
    assert text.count("bar: without the cache") == text.count("bar: with the cache") == 2
    assert "kept in" not in text  # figures of another size than the default


def test_the_lineage_chain_gives_normalised_floats_of_the_same_image(tmp_path, monkeypatch):
    for name in ("FLIP", "PADDING", "ERASE"):
        monkeypatch.setattr(input_pipeline, name, 0)
    paths = input_pipeline.write_images(tmp_path, 1, (40, 30))
    theirs = input_pipeline.LineageImages(paths, (48, 40))[0]
    ours = input_pipeline.ImageDataset([Sample(paths[0], 0, 0, 0)], (48, 40), "bicubic", "pillow").__getitems__([0])
    transform = input_pipeline.BatchTransform(input_pipeline.MEAN, input_pipeline.STD)
    torch.testing.assert_close(transform(ours["images"])[0], theirs, **bounds(9))


def test_phase_rebuild_prints_its_bars(capsys):
    phase_rebuild.main(["--images", "300", "--ids", "20", "--workers", "1"])
    text = capsys.readouterr().out
    assert text.count("bar:") == 2 and "faster" in text and "kept in" not in text


def test_counts_are_those_of_a_skewed_data_set():
    counts = phase_rebuild.draw_counts(37778, 576)
    assert counts.sum() == 37778 and len(counts) == 576 and counts.min() >= 2
    assert counts.max() > 3 * np.median(counts)


def test_the_list_walk_draws_whole_batches_of_p_identities_with_k_images():
    samples = [Sample("a", pid, 0, 0) for pid, count in enumerate([9, 3, 12, 7, 8, 30]) for _ in range(count)]
    rows = np.array(list(phase_rebuild.ListWalkSampler(samples, 16, 4))).reshape(-1, 4, 4)
    pids = np.array([sample.pid for sample in samples])[rows]
    assert (pids == pids[..., :1]).all() and all(len({*batch[:, 0]}) == 4 for batch in pids)
    assert len(rows) >= 2


def test_too_few_images_are_refused():
    with pytest.raises(ConfigError, match="--images 50 --ids 20"):
        phase_rebuild.main(["--images", "50", "--ids", "20"])
