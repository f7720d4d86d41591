"""What many tests share: a tiny learnable archive, a tiny experiment on it, and the rule that real data is used."""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

import train
from tests import fake_runner
from tests.datasets.trees import REID_DATA, view_line, write_text
from tests.faults.tally import pytest_terminal_summary  # noqa: F401 - a hook
from tests.model import clips
from utils.logger import HANDLER_MARK

NUM_CAMERAS, NUM_VIEWS = 3, 2
TINY_YAML = """\
# a tiny experiment for tests
MODEL:
  NAME: transformer
  TRANSFORMER_TYPE: deit_tiny_patch16_224_TransReID
  PRETRAIN_CHOICE: none
  STRIDE_SIZE: [6, 6]
  VIT: {{EMBED_DIM: 32, DEPTH: 2, NUM_HEADS: 2, PATCH_SIZE: 8}}
  SIE_CAMERA: True
  SIE_VIEW: True
  SIE_COE: 0.1
  JPM: True
  NO_MARGIN: True
  IF_LABELSMOOTH: 'off'
  DEVICE: cpu
INPUT:
  SIZE_TRAIN: [32, 32]
  SIZE_TEST: [32, 32]
  PADDING: 2
DATASETS:
  NAMES: veri
  ROOT_DIR: {root}
DATALOADER:
  SAMPLER: softmax_triplet
  NUM_INSTANCE: 2
  NUM_WORKERS: 0
SOLVER:
  OPTIMIZER_NAME: AdamW
  MAX_EPOCHS: 3
  BASE_LR: 0.002
  WARMUP_EPOCHS: 1
  IMS_PER_BATCH: 16
  CHECKPOINT_PERIOD: 1
  EVAL_PERIOD: 0
  LOG_PERIOD: 2
  AMP: 'off'
TEST:
  AMP: 'off'
  NECK_FEAT: before
  IMS_PER_BATCH: 32
OUTPUT_DIR: {output}
"""


def write_tiny_veri(root: Path, train_ids: int = 8, test_ids: int = 12) -> Path:
    """Write <root>/VeRi: every identity has its own colour and pattern, seen by 3 cameras from 2 viewpoints."""
    rng = np.random.default_rng(0)
    lines = {"train": [], "test": []}
    for pid in range(1, train_ids + test_ids + 1):
        pattern = rng.integers(0, 256, (4, 4, 3))
        for camera in range(1, NUM_CAMERAS + 1):
            for shot in range(2):
                noisy = np.kron(pattern, np.ones((6, 6, 1))) * (1 - 0.1 * camera) + rng.normal(0, 8, (24, 24, 3))
                image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
                name = f"{pid:04d}_c{camera:03d}_{shot:08d}_0.jpg"
                split = "train" if pid <= train_ids else "test"
                folders = [f"image_{split}"] + (["image_query"] if split == "test" and shot == 0 else [])
                for folder in folders:
                    (root / "VeRi" / folder).mkdir(parents=True, exist_ok=True)
                    image.save(root / "VeRi" / folder / name, quality=95)
                lines[split].append(view_line(f"image_{split}", name, shot % NUM_VIEWS))
    for split, text in lines.items():
        write_text(root / "VeRi" / f"keypoint_{split}.txt", *text)
    return root


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root folder (DATASETS.ROOT_DIR) of the tiny VeRi archive; read only."""
    return write_tiny_veri(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def no_log_outlives_its_test() -> Iterator[None]:
    """Take the handlers of a command's log away: their stream is gone with the test that captured it."""
    yield
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if handler.name == HANDLER_MARK]:
        root.removeHandler(handler)
        handler.close()


@pytest.fixture
def tiny_config(tiny_root: Path, tmp_path: Path) -> Path:
    """The YAML of a tiny experiment; its OUTPUT_DIR is tmp_path / "run"."""
    path = tmp_path / "tiny.yml"
    path.write_text(TINY_YAML.format(root=tiny_root, output=tmp_path / "run"))
    return path


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """The OUTPUT_DIR of `tiny_config`."""
    return tmp_path / "run"


@pytest.fixture(scope="session")
def trained_run(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The OUTPUT_DIR of two epochs on the tiny archive, with JPM and sides of 3 cameras x 2 views; read only.

    Its configuration lies beside it, as tiny.yml.
    """
    folder = tmp_path_factory.mktemp("trained")
    config = folder / "tiny.yml"
    config.write_text(TINY_YAML.format(root=tiny_root, output=folder / "run"))
    train.main(["--config_file", str(config), "SOLVER.MAX_EPOCHS", "2"])
    return folder / "run"


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> fake_runner.FakeRunner:
    """The launcher's commands are played by a FakeRunner."""
    return fake_runner.install(monkeypatch)


@pytest.fixture
def launch(runner: fake_runner.FakeRunner, tmp_path: Path) -> Callable[..., int]:
    """launch(*words, seeds) runs the launcher on a small config with that runner."""
    return fake_runner.make_launch(tmp_path)


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """The output root of `launch`."""
    return tmp_path / "logs"


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> clips.Sources:
    """Tiny CLIP towers on disk; read only."""
    return clips.write_sources(tmp_path_factory.mktemp("clip"))


class RealDataRule:
    """Fails a run that skipped tests on the real images although REID_DATA tells where they are."""

    def __init__(self) -> None:
        self.skipped = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and "real_data" in report.keywords:
            self.skipped.append(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if REID_DATA and self.skipped and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
            print(f"\nREID_DATA is {REID_DATA}, but tests on it were skipped: {', '.join(self.skipped)}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """Escape file names that are no UTF-8 in what a test printed: pytest-xdist cannot send them on."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode("utf-8")) for name, text in report.sections
    ]
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each process of -n tests that follow each other, so that what a module shares is rarely made twice."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(RealDataRule())
    if hasattr(config, "workerinput"):  # one of several processes that share the cores, with their children
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        torch.set_num_threads(1)
    settings.register_profile("any machine", deadline=None)  # a loaded machine is no failure
    settings.load_profile("any machine")
