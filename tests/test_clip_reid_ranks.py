"""Two processes train CLIP-ReID's stages as one does: the same features, batches, losses and weights."""

import os
from pathlib import Path

import pytest
import torch

import train
from configs import load_cfg
from datasets import make_dataloader
from model import make_model
from processor import make_stage
from tests.clip_reid_runs import CALM, STEPS1, STEPS2, TEXT_SIDE, records, weights_of, words, write_yaml
from tests.conftest import write_tiny_veri
from tests.rank_trainings import TERMS, assert_same_weights, train_runs
from tests.ranks import free_port, run_in_group, run_on_ranks
from tests.tolerance import bounds, rounding

IMAGES = 48
# plain SGD: Adam would blow the rounding noise of vanishing gradients up to whole steps
SGD = (
    *("SOLVER.STAGE1.OPTIMIZER_NAME", "SGD", "SOLVER.STAGE1.BASE_LR", 0.3, "SOLVER.STAGE1.WARMUP_LR_INIT", 0.1),
    *("SOLVER.STAGE2.OPTIMIZER_NAME", "SGD", "SOLVER.STAGE2.BASE_LR", 0.01, "SOLVER.STAGE2.EVAL_PERIOD", 0),
)
BATCHES = {"whole": 16, "short": 20, "two": 46}  # of stage 1: three whole ones, a last one of 8 rows, and of 2
SHARED = ("i2t", "t2i", "id", "triplet", "loss", "acc")


def keep_stage_one(config: Path, folder: Path) -> None:
    """Write what a process of two has of stage 1: its features, its identities, and the rows of its batches."""
    cfg = load_cfg(config, ["MODEL.DIST_TRAIN", "True"])
    data = make_dataloader(cfg)
    torch.manual_seed(0)
    stage = make_stage(cfg, "stage1", make_model(cfg, data.num_classes, data.camera_num, data.view_num), data)
    stage.sampler.set_epoch(1)
    kept = {"features": stage.loader.dataset.features, "pids": stage.loader.dataset.pids}
    torch.save(kept | {"rows": torch.tensor(list(stage.sampler))}, folder / f"rank{os.environ['RANK']}.pth")


@pytest.fixture(scope="module")
def folders(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The run folders <name>_1 and <name>_2 of BATCHES, trained by one process and by two; and odd_2 of 47 images."""
    work = tmp_path_factory.mktemp("clip_reid_ranks")
    config = write_yaml(work, tiny_root)

    def command(name: str, batch: int, *opts: object) -> list[str]:
        return words(config, work / name, *CALM, *SGD, "SOLVER.STAGE1.IMS_PER_BATCH", batch, *opts)

    for name, batch in BATCHES.items():
        train.main(command(f"{name}_1", batch))
    both = ("MODEL.DIST_TRAIN", True)
    together = [command(f"{name}_2", batch, *both) for name, batch in BATCHES.items()]
    odd = write_tiny_veri(work / "odd_data")
    next((odd / "VeRi" / "image_train").glob("0008_*")).unlink()
    together.append(command("odd_2", 16, *both, "DATASETS.ROOT_DIR", odd))
    run_on_ranks(train_runs, together, [free_port() for _ in together])
    return {path.name: path for path in work.iterdir()}


def readings(folder: Path) -> list[dict[str, float]]:
    return [{name: record[name] for name in SHARED if name in record} for record in records(folder, "train")]


@pytest.mark.parametrize("name", BATCHES)
def test_each_step_of_two_processes_has_the_losses_of_one(folders, name):
    one, two = (readings(folders[f"{name}_{count}"]) for count in (1, 2))
    steps = -(-IMAGES // BATCHES[name])
    assert len(one) == len(two) == 2 * steps + 2 * STEPS2
    for expected, got in zip(one, two, strict=True):
        assert got == pytest.approx(expected, rel=rounding(TERMS), abs=rounding(TERMS))
    assert {"i2t", "t2i"} <= one[0].keys() and {"id", "triplet", "i2t"} <= one[-1].keys()


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("file", ["clip_reid_stage1_2.pth", "clip_reid_2.pth"])
def test_two_processes_learn_the_weights_of_one(folders, name, file):
    assert_same_weights(*(folders[f"{name}_{count}"] / file for count in (1, 2)))


def test_they_learn_at_all(folders):
    first, last, final = (
        weights_of(folders["short_1"] / f"clip_reid_{name}.pth") for name in ("stage1_1", "stage1_2", "2")
    )
    least = 1000 * rounding(TERMS) * 0.02  # of prompts that start with a deviation of 0.02
    name = "prompt_learner.cls_ctx"
    assert (last[name] - first[name]).abs().max() > least
    moved = {key for key in last if not torch.equal(last[key], final[key])}
    assert "image_encoder.proj" in moved and not any(key.startswith(TEXT_SIDE) for key in moved)


@pytest.mark.parametrize("name", BATCHES)
def test_all_processes_measure_the_same_fit(folders, name):
    one, two = (records(folders[f"{name}_{count}"], "fit") for count in (1, 2))
    assert len(one) == 3 and len(one) == len(two)
    for expected, got in zip(one, two, strict=True):
        numbers = {key: value for key, value in expected.items() if isinstance(value, float)}
        assert {key: got[key] for key in numbers} == pytest.approx(numbers, abs=1 / IMAGES + 1e-6)  # of a near-tie


def test_images_that_do_not_divide_leave_no_process_waiting(folders):
    trained = records(folders["odd_2"], "train")
    steps = [sum(record["stage"] == stage for record in trained) for stage in ("stage1", "stage2")]
    assert steps == [2 * STEPS1, 2 * (STEPS2 - 1)]  # 47 rows: 16, 16 and 14; of identity 8, blocks for two batches
    assert all(torch.isfinite(value).all() for value in weights_of(folders["odd_2"] / "clip_reid_2.pth").values())


@pytest.mark.parametrize("batch", [16, 20])
def test_processes_share_all_features_and_the_batches_of_one(batch, tiny_root, tmp_path):
    config = write_yaml(tmp_path, tiny_root)
    config.write_text(config.read_text().replace("IMS_PER_BATCH: 20", f"IMS_PER_BATCH: {batch}"))
    run_in_group(keep_stage_one, config, tmp_path)
    first, second = (torch.load(tmp_path / f"rank{rank}.pth", weights_only=True) for rank in range(2))
    cfg = load_cfg(config)
    data = make_dataloader(cfg)
    torch.manual_seed(0)
    alone = make_stage(cfg, "stage1", make_model(cfg, data.num_classes, data.camera_num, data.view_num), data)
    expected = alone.loader.dataset
    for rank in (first, second):
        assert torch.equal(rank["pids"], expected.pids)
        torch.testing.assert_close(rank["features"], expected.features, **bounds(1000, 1.0))
    assert torch.equal(first["features"], second["features"])
    alone.sampler.set_epoch(1)
    rows, share = list(alone.sampler), batch // 2
    assert sorted(rows) == list(range(IMAGES))
    for step, start in enumerate(range(0, IMAGES, batch)):
        together = [rank["rows"][step * share : (step + 1) * share].tolist() for rank in (first, second)]
        assert sorted(together[0] + together[1]) == sorted(rows[start : start + batch])
        assert len(together[0]) == len(together[1]) > 0
