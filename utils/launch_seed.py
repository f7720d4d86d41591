"""What a launch does for one seed: train.py to the last epoch, then test.py for each checkpoint without a result."""

import re
import shlex
import signal
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from utils.experiment import Experiment
from utils.launch_children import Children, Interrupted, say
from utils.launch_gpus import VISIBLE, Place
from utils.launch_queue import Ended
from utils.results import RESULT_NAME, read_result, why_untested
from utils.run_folder import make_folder

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=auto")  # one process per GPU
CTRL_C_CODES = (130, -signal.SIGINT)


class SeedRun(NamedTuple):
    """One seed of an experiment in the place where it runs."""

    experiment: Experiment
    seed: int
    place: Place
    children: Children

    @property
    def name(self) -> str:
        return f"{self.experiment.name}, seed {self.seed}"

    @property
    def prefix(self) -> str:
        return self.place.prefix(self.name)

    def say(self, text: str) -> None:
        say(text, self.prefix)

    def complain(self, text: str) -> None:
        say(f"error: {self.name}: {text}; the same command continues", stream=sys.stderr)

    def call(self, script: str, *own_opts: str, launcher: Sequence[str] = ()) -> int:
        """Run a script on the experiment's configuration; returns its exit code (-n: signal n).

        Raises Interrupted after Ctrl-C.
        """
        experiment, opts = self.experiment, (*self.place.opts(), *own_opts)
        command = [sys.executable, *launcher, script, "--config_file", experiment.config, *experiment.opts, *opts]
        on_device = "" if self.place.gpu is None else f"{VISIBLE}={self.place.visible} "
        self.say(f"$ {on_device}{shlex.join(command)}")
        exit_code = self.children.run(command, self.place, self.prefix)
        if exit_code in CTRL_C_CODES:
            raise Interrupted
        return exit_code


def run_seed(run: SeedRun, test: bool) -> Ended:
    """Train the seed and, if `test`, test its checkpoints. Raises Interrupted after Ctrl-C."""
    exit_code = train_seed(run)
    return Ended(exit_code, run_tests(run) if test and not exit_code else ())


def train_seed(run: SeedRun) -> int:
    """Train to the last epoch, unless that is done; returns the exit code that ends the experiment, 0 = go on."""
    experiment, seed = run.experiment, run.seed
    folder, last = experiment.run_folder(seed), experiment.checkpoint(seed, experiment.last_epoch)
    if last.is_file():
        run.say(f"seed {seed}: already trained to epoch {experiment.last_epoch} in '{folder}'")
        return 0
    launcher = TORCHRUN if experiment.distributed else ()
    exit_code = run.call("train.py", "SOLVER.SEED", str(seed), "OUTPUT_DIR", str(folder), launcher=launcher)
    if exit_code < 0:
        run.complain(f"train.py was killed by signal {-exit_code}")
        return 128 - exit_code
    if not exit_code and not last.is_file():
        run.complain(f"train.py ended without writing '{last}'")
        return 1
    return exit_code


def run_tests(run: SeedRun) -> list[dict[str, Any]]:
    """Test each checkpoint up to the last epoch that has no whole result of its own; returns the failed tests."""
    experiment, seed, failed = run.experiment, run.seed, []
    pattern = re.compile(rf"{re.escape(experiment.model_name)}_(\d+)\.pth")
    found = [pattern.fullmatch(path.name) for path in experiment.run_folder(seed).glob("*.pth")]
    epochs = sorted(int(match[1]) for match in found if match)
    for epoch in [epoch for epoch in epochs if epoch <= experiment.last_epoch]:
        folder, weight = experiment.test_folder(seed) / f"epoch_{epoch}", experiment.checkpoint(seed, epoch)
        reason = why_untested(folder, weight, experiment.test_settings)
        if reason is None:
            run.say(f"seed {seed}, epoch {epoch}: already tested in '{folder}'")
            continue
        run.say(f"seed {seed}, epoch {epoch}: {reason}")
        make_folder(str(folder), "--output-root")
        (folder / RESULT_NAME).unlink(missing_ok=True)  # what stands there is not a result of this test
        exit_code = run.call("test.py", "TEST.WEIGHT", str(weight), "OUTPUT_DIR", str(folder))
        if exit_code or read_result(folder) is None:
            failed.append({"seed": seed, "epoch": epoch, "exit_code": exit_code, "folder": str(folder)})
    return failed
