"""CLIP-ReID's two stages for real: files, killing and continuing, stage 2 alone, and foreign checkpoints."""

import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import test as test_command
import train
from processor.trained import load_trained
from tests.clip_reid_runs import (
    CALM,
    STEPS1,
    STEPS2,
    TEXT_SIDE,
    as_foreign,
    differing,
    records,
    weights_of,
    words,
    write_yaml,
)
from tests.commands import KILLED_AT_A_STEP
from tests.conftest import write_tiny_veri
from tests.tools.photos import write_photos
from tools.feature_extractor import FeatureExtractor
from utils.checkpoint import load_file
from utils.errors import ConfigError, DataError
from utils.run_folder import RunFolder, epoch_of, open_run
from utils.test_folder import METRICS, TestFolder, read_result

ROOT = Path(__file__).parents[1]
FILES = ("clip_reid_stage1_1.pth", "clip_reid_stage1_2.pth", "clip_reid_1.pth", "clip_reid_2.pth")
CTX = "prompt_learner.cls_ctx"
STAGE2_ALONE = ("SOLVER.STAGES", "['stage2']", "MODEL.PRETRAIN_CHOICE", "finetune", "MODEL.PRETRAIN_PATH")
UNVERIFIED = "that its prompts number the 8 identities as this training set does, .* cannot be verified"


@pytest.fixture(scope="module")
def config(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_yaml(tmp_path_factory.mktemp("clip_reid"), tiny_root)


@pytest.fixture(scope="module")
def unbroken(config: Path) -> Path:
    """The run folder of a training that nothing stopped; read only."""
    train.main(words(config, config.parent / "unbroken"))
    return config.parent / "unbroken"


@pytest.fixture(scope="module")
def calm(config: Path) -> Path:
    """The same without augmentation; read only."""
    train.main(words(config, config.parent / "calm", *CALM))
    return config.parent / "calm"


def kill_at(step: int, arguments: list[str]) -> None:
    command = [sys.executable, "-c", KILLED_AT_A_STEP.format(before=""), str(step), *arguments]
    killed = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]


def state_of(folder: Path) -> tuple[str, int]:
    state = load_file(folder / "state_last.pth", "test")
    return state["stage"], state["epoch"]


def test_the_files_of_stage_one_carry_its_name(unbroken):
    assert {path.name for path in unbroken.glob("*.pth")} == {*FILES, "state_last.pth"}
    assert state_of(unbroken) == ("stage2", 2)


def test_each_stage_learns_what_is_its_own(unbroken):
    first, last, one, two = (unbroken / name for name in FILES)
    assert differing(first, last) == [CTX]
    moved = differing(last, one)
    assert moved and differing(one, two) and not any(name.startswith(TEXT_SIDE) for name in moved)
    assert {name.split(".")[0] for name in moved} >= {"image_encoder", "classifier", "classifier_proj", "cv_embed"}


def test_records_name_their_stage_and_how_well_texts_fit(unbroken):
    fits = records(unbroken, "fit")
    assert [(record["stage"], record["epoch"]) for record in fits] == [("stage1", 0), ("stage1", 1), ("stage1", 2)]
    assert [record["iteration"] for record in fits] == [0, STEPS1, 2 * STEPS1]
    for record in fits:
        (share,) = (value for name, value in record.items() if "accuracy" in name)
        assert 0 <= share <= 1 and abs(48 * share - round(48 * share)) < 1e-9
    trained = records(unbroken, "train")
    assert all({"i2t", "t2i"} <= record.keys() for record in trained if record["stage"] == "stage1")
    assert all({"id", "triplet", "i2t"} <= record.keys() for record in trained if record["stage"] == "stage2")
    assert [record["iteration"] for record in trained] == list(range(1, 2 * (STEPS1 + STEPS2) + 1))


def test_a_run_killed_in_both_stages_ends_bit_equal(unbroken, config, tmp_path):
    command = words(config, tmp_path / "run")
    kill_at(STEPS1 + 2, command)
    assert state_of(tmp_path / "run") == ("stage1", 1)
    kill_at(STEPS1 + STEPS2 + 2, command)  # counted from the second epoch of stage 1 on
    assert state_of(tmp_path / "run") == ("stage2", 1)
    train.main(command)
    assert [differing(tmp_path / "run" / name, unbroken / name) for name in FILES] == [[], [], [], []]
    assert records(tmp_path / "run") == records(unbroken)


@pytest.mark.slow
def test_a_run_killed_between_the_stages_ends_bit_equal(unbroken, config, tmp_path):
    command = words(config, tmp_path / "run")
    kill_at(2 * STEPS1 + 1, command)
    assert state_of(tmp_path / "run") == ("stage1", 2)
    train.main(command)
    assert [differing(tmp_path / "run" / name, unbroken / name) for name in FILES] == [[], [], [], []]
    assert records(tmp_path / "run") == records(unbroken)


def test_files_of_the_original_s_names_are_found(tmp_path):
    run = RunFolder(tmp_path, "ViT-B-16")
    assert run.checkpoint(120, "stage1").name == "ViT-B-16_stage1_120.pth"
    assert run.checkpoint(60).name == "ViT-B-16_60.pth"
    for path in (run.checkpoint(120, "stage1"), run.checkpoint(60)):
        path.touch()
    assert list(run.checkpoints()) == [60] and list(run.checkpoints("stage1")) == [120]
    assert open_run(tmp_path).prefix == "ViT-B-16"
    assert epoch_of(tmp_path / "Market1501_clipreid_ViT-B-16_60.pth") == 60


def test_stage_two_alone_from_a_kept_file_is_that_of_the_whole_run(calm, config, tmp_path, caplog):
    """But for the draws of augmentation, which follow the stage's number; the order of the images does not."""
    train.main(words(config, tmp_path / "run", *CALM, *STAGE2_ALONE, calm / "clip_reid_stage1_2.pth"))
    for name in ("clip_reid_1.pth", "clip_reid_2.pth"):
        assert differing(tmp_path / "run" / name, calm / name) == [], name
    prototypes = [load_trained(folder / "clip_reid_2.pth").model.prototypes() for folder in (tmp_path / "run", calm)]
    assert torch.equal(*prototypes)
    assert "cannot be verified" not in caplog.text


def test_stage_two_alone_from_another_epoch_is_another(calm, config, tmp_path):
    train.main(words(config, tmp_path / "run", *CALM, *STAGE2_ALONE, calm / "clip_reid_stage1_1.pth"))
    assert CTX in differing(tmp_path / "run" / "clip_reid_2.pth", calm / "clip_reid_2.pth")


@pytest.mark.slow
def test_a_killed_stage_two_alone_goes_on(calm, config, tmp_path):
    command = words(config, tmp_path / "run", *CALM, *STAGE2_ALONE, calm / "clip_reid_stage1_2.pth")
    kill_at(STEPS2 + 2, command)
    train.main(command)
    assert differing(tmp_path / "run" / "clip_reid_2.pth", calm / "clip_reid_2.pth") == []


@pytest.mark.parametrize("home", [False, True])
def test_prompts_of_other_images_are_refused_by_their_fingerprint(home, calm, config, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(calm))
    root = write_tiny_veri(tmp_path / "data")
    next((root / "VeRi" / "image_train").glob("0008_*")).unlink()
    opts = ("DATASETS.ROOT_DIR", root, *STAGE2_ALONE, f"{'~' if home else calm}/clip_reid_stage1_2.pth")
    with pytest.raises(DataError, match="MODEL.PRETRAIN_PATH .* was trained on veri with the fingerprint .* of other"):
        train.main(words(config, tmp_path / "run", *opts))


def test_prompts_of_another_number_of_identities_are_refused(calm, config, tmp_path):
    opts = ("DATASETS.ROOT_DIR", write_tiny_veri(tmp_path / "data", train_ids=9), *STAGE2_ALONE)
    with pytest.raises(DataError, match=r"has prompts \[8, 4, 16\], .* needs those of this training set, \[9, 4, 16\]"):
        train.main(words(config, tmp_path / "run", *opts, calm / "clip_reid_stage1_2.pth"))


def test_prompts_of_unknown_origin_are_taken_with_a_warning(calm, config, tmp_path):
    foreign = as_foreign(calm / "clip_reid_stage1_2.pth", tmp_path / "ViT-B-16_stage1_120.pth")
    train.main(words(config, tmp_path / "run", *CALM, *STAGE2_ALONE, foreign))
    log = (tmp_path / "run" / "train_log.txt").read_text()
    assert re.search(UNVERIFIED, log)
    assert differing(tmp_path / "run" / "clip_reid_2.pth", calm / "clip_reid_2.pth") == []


def figures_of(config: Path, folder: Path, weight: Path, *opts: object) -> dict[str, float]:
    """Return the figures that test.py finds for a weight file."""
    assert test_command.main(words(config, folder, "TEST.WEIGHT", weight, *opts)) == 0
    result = read_result(TestFolder(folder))
    assert result is not None
    return {name: result[name] for name in METRICS}


def test_a_published_file_of_other_identities_is_tested_as_it_is(unbroken, config, tmp_path):
    own = unbroken / "clip_reid_2.pth"
    foreign = as_foreign(own, tmp_path / "ViT-B-16_60.pth", identities=11, prefix="module.")
    assert figures_of(config, tmp_path / "foreign", foreign) == figures_of(config, tmp_path / "own", own)
    log = (tmp_path / "foreign" / "test_log.txt").read_text()
    assert "prompt_learner.cls_ctx [11, 4, 16] for [8, 4, 16]" in log and "classifier.weight [11, 32] for" in log


@pytest.mark.parametrize("stages", ["['main']", "['stage2']"])
def test_a_file_of_two_stages_is_tested_by_any_configuration(stages, unbroken, config, tmp_path):
    own = unbroken / "clip_reid_2.pth"
    expected = figures_of(config, tmp_path / "own", own)
    assert figures_of(config, tmp_path / "other", own, "SOLVER.STAGES", stages, "SOLVER.IMS_PER_BATCH", 16) == expected


def test_a_foreign_file_needs_a_yaml_and_then_embeds_as_ours(unbroken, config, tmp_path):
    foreign = as_foreign(unbroken / "clip_reid_2.pth", tmp_path / "published.pth", identities=11)
    with pytest.raises(ConfigError, match="holds no configuration and no config.yaml lies beside it; name its YAML"):
        FeatureExtractor.from_checkpoint(foreign)
    photos = write_photos(tmp_path / "photos")
    got = FeatureExtractor.from_checkpoint(foreign, config)(photos)
    assert got.shape == (len(photos), 32 + 24)
    assert torch.equal(got, FeatureExtractor.from_run(unbroken)(photos))
    (tmp_path / "beside").mkdir()
    shutil.copy(unbroken / "config.yaml", tmp_path / "beside")
    beside = as_foreign(foreign, tmp_path / "beside" / "clip_reid_2.pth")
    assert torch.equal(FeatureExtractor.from_checkpoint(beside)(photos), got)


def test_rows_of_cameras_and_viewpoints_that_nobody_divides_count_as_their_mean(unbroken, config, tmp_path, caplog):
    state = weights_of(as_foreign(unbroken / "clip_reid_2.pth", tmp_path / "bare.pth"))
    state["cv_embed"] = torch.randn(6, 32, generator=torch.Generator().manual_seed(2))
    torch.save(state, tmp_path / "undivided.pth")
    both = ("MODEL.SIE_CAMERA", "True", "MODEL.SIE_VIEW", "True", "MODEL.SIE_COE", "0.5")
    with caplog.at_level(logging.WARNING):
        found = load_trained(tmp_path / "undivided.pth", config, both)
    assert "does not tell how the 6 rows of its side information divide into cameras and views" in caplog.text
    state["image_encoder.class_embedding"] = state["image_encoder.class_embedding"] + 0.5 * state["cv_embed"].mean(0)
    del state["cv_embed"]
    torch.save(state, tmp_path / "shifted.pth")
    shifted = load_trained(tmp_path / "shifted.pth", config, ("MODEL.SIE_CAMERA", "False"))
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        got, expected = (
            found.model(images, torch.arange(4), torch.arange(4) % 2),
            shifted.model(images),
        )
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
