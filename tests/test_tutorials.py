"""The tutorials that add code: copied block by block into a copy of the project they train, and the records show it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from datasets.synthetic.load import VERSION
from datasets.synthetic.once import VERSION_FILE
from tests.conftest import write_tiny_veri
from tests.pages import CODE_TUTORIALS, ROOT, TUTORIALS, blocks_of
from tests.tutorials import apply_code
from utils.progress import SHOWS

NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "data", "logs", "build", "*.png", "*.jpg")


COPIED = [page for page in TUTORIALS if page not in CODE_TUTORIALS]
NOT_HERE = ("needs network", "needs data")
SEEDS = "--seeds 0 1 2"
FEWER = {  # of the drawn sets' identities, in the copy: the lines of the pages stay as they are
    "datasets/synthetic/plan.py": (
        "    return sorted(identities)\n",
        """\
    most = {"train": 20, "val": 4, "test": 10}
    chosen = sorted(identities)
    return [one for one in chosen if [o for o in chosen if o.split == one.split].index(one) < most[one.split]]
""",
    ),
    "datasets/synthetic/persons/plan.py": (
        "NUM_TRAIN_IDS, NUM_TEST_IDS = 150, 75\n",
        "NUM_TRAIN_IDS, NUM_TEST_IDS = 18, 9\n",
    ),
}


class Done(NamedTuple):
    """A copy of the project after both pages, and what their commands printed."""

    folder: Path
    printed: str


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Both pages in one copy and one process; the set that they train on is tiny. Read only."""
    folder = tmp_path_factory.mktemp("tutorial") / "project"
    shutil.copytree(ROOT, folder, ignore=NOT_COPIED)
    tiny = write_tiny_veri(folder / "tiny", train_ids=16, test_ids=2) / "VeRi"
    (folder / "data").mkdir()
    tiny.rename(folder / "data" / "synthetic_veri")
    (folder / "data" / "synthetic_veri" / VERSION_FILE).write_text(VERSION)
    for page in CODE_TUTORIALS:
        apply_code(page, folder)
    command = [sys.executable, "-m", "tests.tutorials", *map(str, CODE_TUTORIALS)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return Done(folder, ran.stdout)


def records_of(folder: Path) -> list[dict]:
    """Return the records of a run."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_new_loss_is_in_the_schedule_the_log_and_the_records(done):
    schedule = done.printed.partition("--show-schedule")[2]
    assert "Uniformity 0.5" in schedule.splitlines()[2]
    run = done.folder / "logs" / "uniformity"
    assert ", uniformity: -" in (run / "train_log.txt").read_text()
    trained = [record for record in records_of(run) if record["kind"] == "train"]
    assert trained and all(record["uniformity"] < 0 for record in trained)


def test_the_new_data_set_is_checked_and_trained_under_its_title(done):
    assert "garage" in done.printed.partition("tools.check")[2]
    assert (done.folder / "logs" / "garage" / "transformer_1.pth").exists()
    log = (done.folder / "logs" / "garage" / "train_log.txt").read_text()
    assert "garage" in log and any(line.split()[:2] == ["garage", "train"] for line in log.splitlines())


def test_their_own_tests_ran(done):
    assert done.printed.count("2 passed") == len(CODE_TUTORIALS) == 2


def test_code_of_the_tutorials_is_in_the_style_of_the_project(done):
    files = [block.mark.partition(": ")[2] for page in CODE_TUTORIALS for block in blocks_of(page) if block.mark]
    for command in (["check"], ["format", "--check"]):
        ran = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *files], cwd=done.folder, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr


def test_files_and_edits_stand_in_the_tutorials_that_add_code_alone():
    marked = {page for page in TUTORIALS for block in blocks_of(page) if block.mark.startswith(("file: ", "edit: "))}
    assert marked == set(CODE_TUTORIALS)


@pytest.mark.slow
@pytest.mark.parametrize("page", COPIED, ids=lambda page: page.stem)
def test_a_tutorial_works_when_it_is_copied_line_by_line(page, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(ROOT, folder, ignore=NOT_COPIED)
    for name, (old, new) in FEWER.items():
        text = (folder / name).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{name} has {text.count(old)} times: {old}"
        (folder / name).write_text(text.replace(old, new), encoding="utf-8")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment = {name: value for name, value in environment.items() if name not in (SHOWS, "PYTEST_ADDOPTS")}
    first = [sys.executable, "-m", "tools.synthetic", "--root_dir", "data"]  # what the first run leaves for the others
    subprocess.run(first, cwd=folder, env=environment, check=True)
    for block in blocks_of(page):
        shell = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}.get(block.language)
        if shell is not None and block.mark not in NOT_HERE:
            subprocess.run([*shell, block.text.replace(SEEDS, "--seeds 0 1")], cwd=folder, env=environment, check=True)
