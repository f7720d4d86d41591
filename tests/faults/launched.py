"""Where a launch of the FakeRunner leaves what, and what of it counts."""

from pathlib import Path

from tests.fake_runner import write_config
from tools.launch.arguments import parse_args
from tools.launch.plan import plan_launch
from tools.study.experiment import Experiment
from utils.run_folder import RunFolder
from utils.test_folder import TestFolder, epoch_folder

NAME = "veri776_mine"


def run_of(logs: Path, seed: int = 0) -> RunFolder:
    return RunFolder(logs / f"{NAME}_seed{seed}_run", "transformer")


def test_of(logs: Path, epoch: int, seed: int = 0) -> TestFolder:
    return epoch_folder(logs / f"{NAME}_seed{seed}_test", epoch)


test_of.__test__ = False


def experiment_of(logs: Path) -> Experiment:
    """Return the experiment that `launch` runs."""
    config = write_config(logs.parent, "deit_transreid_stride_mine")
    return plan_launch(parse_args(["--config", config, "--output-root", str(logs), "--seeds", "0"]))[0]


def epochs_in(logs: Path) -> list[int]:
    """Return the epochs whose results are in the summary's table."""
    rows = (logs / f"{NAME}_summary.csv").read_text().splitlines()[1:]
    return [int(row.split(",")[1]) for row in rows]
