"""Mistakes that users make: each is one clear line on stderr, exit code 2, no traceback."""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

import test as test_command
import train
from tests.commands import run
from tests.conftest import write_tiny_veri

TRAIN = ["SOLVER.MAX_EPOCHS", "1"]


def message_of(main: Callable, argv: Sequence[object], capsys: pytest.CaptureFixture[str]) -> str:
    assert run(main, *argv) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and "Traceback" not in error
    return error


@pytest.fixture
def trained(tiny_config: Path, tmp_path: Path) -> Path:
    train.main(["--config_file", str(tiny_config), *TRAIN])
    return tmp_path / "run" / "transformer_1.pth"


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (["SOLVER.MAX_EPOCH", "3"], "unknown key SOLVER.MAX_EPOCH; did you mean SOLVER.MAX_EPOCHS?"),
        (["SOLVER.BASE_LR", "fast"], "SOLVER.BASE_LR got 'fast', expected a number"),
        (["DATASETS.NAMES", "verri"], "did you mean veri?"),
        (["SOLVER.IMS_PER_BATCH", "17"], "17 is not a multiple of DATALOADER.NUM_INSTANCE 2"),
        (["DATASETS.ROOT_DIR", "/nowhere"], "/nowhere"),
        (
            ["MODEL.PRETRAIN_CHOICE", "imagenet", "MODEL.PRETRAIN_PATH", "no.pth"],
            "MODEL.PRETRAIN_PATH: no file 'no.pth'",
        ),
        (["SOLVER.IMS_PER_BATCH", "64"], "needs 32 identities, the training set has 8"),
        (["OUTPUT_DIR", ""], "OUTPUT_DIR is empty"),
        (["OUTPUT_DIR", "/proc/run"], "cannot write there"),
        (["SOLVER.AMP", "fp16"], "fp16 needs a CUDA device"),
        (["MODEL.DIST_TRAIN", "True"], "torchrun --nproc_per_node"),
    ],
)
def test_a_mistake_in_training_options(tiny_config, capsys, opts, words):
    assert words in message_of(train.main, ["--config_file", tiny_config, *TRAIN, *opts], capsys)


def test_a_config_that_does_not_exist(capsys):
    assert "no config file" in message_of(train.main, ["--config_file", "configs/VeRi/vit_bas.yml"], capsys)


def test_a_missing_weight_file(tiny_config, capsys):
    assert "TEST.WEIGHT is empty" in message_of(test_command.main, ["--config_file", tiny_config], capsys)
    argv = ["--config_file", tiny_config, "TEST.WEIGHT", "logs/none.pth"]
    assert "TEST.WEIGHT: no file 'logs/none.pth'" in message_of(test_command.main, argv, capsys)


def test_several_processes_of_one_test(tiny_config, tmp_path, monkeypatch, capsys):
    for name, value in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    weight = tmp_path / "some.pth"
    weight.touch()
    error = message_of(test_command.main, ["--config_file", tiny_config, "TEST.WEIGHT", weight], capsys)
    assert "start one process without torchrun (train.py alone works in several" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["text", "other model", "state"])
def test_a_wrong_weight_file(tiny_config, trained, tmp_path, capsys, kind):
    wrong = tmp_path / "wrong.pth"
    if kind == "text":
        wrong.write_text("not weights")
    elif kind == "other model":
        torch.save({"layer1.0.conv1.weight": torch.zeros(3)}, wrong)
    else:
        shutil.copy(trained.with_name("state_last.pth"), wrong)
        argv = ["--config_file", tiny_config, "TEST.WEIGHT", wrong, "MODEL.VIT.EMBED_DIM", 64]
        assert "wrong.pth" in message_of(test_command.main, argv, capsys)
        return
    argv = ["--config_file", tiny_config, "TEST.WEIGHT", wrong]
    assert "wrong.pth" in message_of(test_command.main, argv, capsys)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_does_not_decode(tiny_config, tmp_path, capsys, workers):
    root = write_tiny_veri(tmp_path / "broken")
    (root / "VeRi" / "image_train" / "0003_c002_00000001_0.jpg").write_bytes(b"not a picture")
    argv = ["--config_file", tiny_config, *TRAIN, "DATASETS.ROOT_DIR", root, "DATALOADER.NUM_WORKERS", workers]
    message = message_of(train.main, argv, capsys)
    assert "0003_c002_00000001_0.jpg' does not decode" in message and "tools.check" in message


def test_missing_viewpoint_files(tiny_config, tmp_path, capsys):
    root = write_tiny_veri(tmp_path / "views")
    (root / "VeRi" / "keypoint_test.txt").unlink()
    argv = ["--config_file", tiny_config, *TRAIN, "DATASETS.ROOT_DIR", root]
    assert "MODEL.SIE_VIEW False" in message_of(train.main, argv, capsys)
    assert run(train.main, *argv, "MODEL.SIE_VIEW", "False") == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_write_permission(tiny_config, tmp_path, capsys):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    argv = ["--config_file", tiny_config, *TRAIN, "OUTPUT_DIR", locked / "run"]
    assert "cannot write there" in message_of(train.main, argv, capsys)


def test_a_test_that_lacks_its_data_leaves_an_older_result_alone(tiny_config, tmp_path, capsys):
    weight, folder = tmp_path / "run" / "transformer_1.pth", tmp_path / "tested"
    train.main(["--config_file", str(tiny_config), "SOLVER.MAX_EPOCHS", "1"])
    argv = ["--config_file", tiny_config, "TEST.WEIGHT", weight, "OUTPUT_DIR", folder]
    assert test_command.main([str(word) for word in argv]) == 0
    before = (folder / "summary.json").read_bytes()
    message_of(test_command.main, [*argv, "DATASETS.ROOT_DIR", tmp_path / "nowhere"], capsys)
    assert (folder / "summary.json").read_bytes() == before
