"""What a launch does for one seed: train to the last epoch, then test each checkpoint without a valid result."""

import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from tools.launch.children import Children, Interrupted, say
from tools.launch.places import VISIBLE, Place
from tools.launch.queue import Ended
from tools.study.experiment import Experiment
from tools.study.results import checkpoint_problem, why_untested
from utils.run_folder import make_folder
from utils.run_record import read_record

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=auto")  # one process per GPU
CTRL_C_CODES = (130, -signal.SIGINT)


class SeedRun(NamedTuple):
    """One seed of an experiment in the place where it runs."""

    experiment: Experiment
    seed: int
    place: Place
    children: Children
    scripts: Mapping[str, str]  # what trains and what tests, by `train` and `test`

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
    """Train to the last epoch, unless that is done; returns the exit code that ends the experiment, 0 = go on.

    Done is what the checkpoint of the last epoch proves; where its file is anything else, train.py writes it anew.
    """
    experiment, seed = run.experiment, run.seed
    folder = experiment.run_folder(seed)
    last = folder.checkpoint(experiment.last_epoch)
    problem = checkpoint_problem(folder, experiment.last_epoch, read_record(folder))
    if problem is None:
        run.say(f"seed {seed}: already trained to epoch {experiment.last_epoch} in '{folder.path}'")
        return 0
    if last.exists():
        run.say(f"seed {seed}: '{last}' {problem}")
    launcher = TORCHRUN if experiment.distributed else ()
    opts = ("SOLVER.SEED", str(seed), "OUTPUT_DIR", str(folder.path))
    exit_code = run.call(run.scripts["train"], *opts, launcher=launcher)
    if exit_code < 0:
        run.complain(f"{run.scripts['train']} was killed by signal {-exit_code}")
        return 128 - exit_code
    problem = checkpoint_problem(folder, experiment.last_epoch, read_record(folder))
    if not exit_code and problem is not None:
        why = f"; what lies there {problem}" if last.exists() else ""
        run.complain(f"{run.scripts['train']} ended without writing '{last}'{why}")
        return 1
    return exit_code


def run_tests(run: SeedRun) -> list[dict[str, Any]]:
    """Test each checkpoint of the run up to the last epoch that has no valid result; returns the failed tests."""
    experiment, seed, failed = run.experiment, run.seed, []
    run_folder = experiment.run_folder(seed)
    for epoch, weight in run_folder.checkpoints().items():
        if epoch > experiment.last_epoch:
            continue
        problem = checkpoint_problem(run_folder, epoch, read_record(run_folder))
        if problem is not None:
            run.say(f"seed {seed}, epoch {epoch}: not tested: '{weight}' {problem}")
            continue
        folder = experiment.test_folder(seed, epoch)
        reason = why_untested(experiment, seed, epoch)
        if reason is None:
            run.say(f"seed {seed}, epoch {epoch}: already tested in '{folder.path}'")
            continue
        run.say(f"seed {seed}, epoch {epoch}: {reason}")
        make_folder(str(folder.path), "--output-root")
        with suppress(OSError):  # test.py says what stands in its way
            folder.summary.unlink(missing_ok=True)  # what stands there is not a result of this test
        exit_code = run.call(run.scripts["test"], "TEST.WEIGHT", str(weight), "OUTPUT_DIR", str(folder.path))
        if exit_code or why_untested(experiment, seed, epoch) is not None:
            failed.append({"seed": seed, "epoch": epoch, "exit_code": exit_code, "folder": str(folder.path)})
    return failed
