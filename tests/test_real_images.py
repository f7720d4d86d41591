"""Training on images that nobody here drew, through the ordinary loaders and the shipped recipes."""

from pathlib import Path

import pytest

import train
from tests.datasets.trees import EMOJI, needs_emoji
from utils.run_folder import read_metrics


def scores_of(config: str, folder: Path, *opts: object) -> dict[str, float]:
    """Train a recipe and return {"raw_pixels": mAP, "untrained": mAP, "trained": mAP}."""
    at_the_end = ["SOLVER.EVAL_PERIOD", "1000"]
    argv = ["--config_file", f"configs/{config}.yml", "OUTPUT_DIR", str(folder), *at_the_end, *map(str, opts)]
    assert train.main(argv) == 0
    records = read_metrics(folder / "metrics.jsonl")
    scores = {record["name"]: record["mAP"] for record in records if record["kind"] == "reference"}
    return scores | {"trained": [record["mAP"] for record in records if record["kind"] == "eval"][-1]}


@needs_emoji
@pytest.mark.parametrize("config", ["VeRi/tiny_scratch", pytest.param("Market/tiny_scratch", marks=pytest.mark.slow)])
def test_a_few_epochs_on_real_images_beat_the_untrained_model(config, tmp_path):
    short = ["SOLVER.MAX_EPOCHS", 3, "SOLVER.WARMUP_EPOCHS", 1, "MODEL.VIT.DEPTH", 2]
    scores = scores_of(config, tmp_path / "run", "DATASETS.ROOT_DIR", EMOJI, *short)
    assert scores["trained"] > 1.3 * scores["untrained"]


@pytest.mark.slow
@needs_emoji
@pytest.mark.parametrize(("config", "lowest"), [("VeRi/tiny_scratch", 0.25), ("Market/tiny_scratch", 0.14)])
def test_the_recipes_for_small_sets_reach_their_figure_on_real_images(config, lowest, tmp_path):
    assert scores_of(config, tmp_path / "run", "DATASETS.ROOT_DIR", EMOJI)["trained"] >= lowest


@pytest.mark.slow
def test_the_synthetic_baseline_is_far_above_raw_pixels_and_not_saturated(tmp_path):
    scores = scores_of("Synthetic/baseline", tmp_path / "run", "DATASETS.ROOT_DIR", tmp_path / "data")
    assert 3 * scores["raw_pixels"] <= scores["trained"] <= 0.85
    assert scores["trained"] > 3 * scores["untrained"]
