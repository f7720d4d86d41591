"""What a launch does for one seed: train to the last epoch, then test each checkpoint without a valid result."""

import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from tools.launch.children import Children, Interrupted
from tools.launch.places import VISIBLE, Place
from tools.launch.queue import Ended, FailedTest, ToTest
from tools.launch.screen import Screen, say
from tools.study.experiment import Experiment
from tools.study.results import UNTESTED, checkpoint_problem, why_untested
from utils.run_folder import EMA, make_folder
from utils.run_record import read_record
from utils.tables import percent
from utils.test_folder import read_result

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=auto")  # one process per GPU
CTRL_C_CODES = (130, -signal.SIGINT)


class Called(NamedTuple):
    """How a script ended, and its error; "" where it has none."""

    exit_code: int  # -n: signal n
    error: str


class SeedRun(NamedTuple):
    """One seed of an experiment in the place where it runs."""

    experiment: Experiment
    seed: int
    place: Place
    children: Children
    scripts: Mapping[str, str]  # what trains and what tests, by `train` and `test`
    screen: Screen

    @property
    def name(self) -> str:
        return f"{self.experiment.name}, seed {self.seed}"

    @property
    def prefix(self) -> str:
        return self.place.prefix(self.name)

    def say(self, text: str) -> None:
        say(text, self.prefix)

    def detail(self, text: str) -> None:
        """Say what is of interest where all is shown."""
        if self.screen.verbose:
            self.say(text)

    def complaint(self, text: str) -> str:
        """Return an error of this seed that no child has told."""
        return f"error: {self.name}: {text}; the same command continues"

    def call(self, script: str, work: str, log: Path, *own_opts: str, launcher: Sequence[str] = ()) -> Called:
        """Run a script on the experiment's configuration; what it says on stderr goes to the end of its log as well.

        `work` stands before its progress. Raises Interrupted after Ctrl-C.
        """
        experiment, opts = self.experiment, (*self.place.opts(), *own_opts)
        command = [sys.executable, *launcher, script, "--config_file", experiment.config, *experiment.opts, *opts]
        on_device = "" if self.place.gpu is None else f"{VISIBLE}={self.place.visible} "
        self.detail(f"$ {on_device}{shlex.join(command)}")
        listener = self.screen.listen(f"{self.prefix}{work}", self.prefix)
        try:
            exit_code = self.children.run(command, self.place, listener)
        finally:
            listener.close()
        if listener.said:
            with suppress(OSError), open(log, "a", encoding="utf-8", errors="backslashreplace") as stream:
                stream.write(f"{listener.said}\n")
        if exit_code in CTRL_C_CODES:
            raise Interrupted
        return Called(exit_code, error_in(listener.said) if exit_code else "")


def error_in(said: str) -> str:
    """Return the error among what a child said on stderr: its own of one kind, or else everything, a traceback.

    Ours begin with `error: `, their further lines are indented; around those of torchrun's children it prints more.
    """
    lines, errors = said.split("\n"), []
    for number, line in enumerate(lines):
        if line.startswith("error: "):
            rest = lines[number + 1 :]
            more = next((count for count, after in enumerate(rest) if not after.startswith("  ")), len(rest))
            errors.append("\n".join([line, *rest[:more]]))
    return "\n".join(dict.fromkeys(errors)) or said.strip()


def run_seed(run: SeedRun, tests: ToTest) -> Ended:
    """Train the seed and test the checkpoints that `tests` names. Raises Interrupted after Ctrl-C."""
    trained = train_seed(run)
    if trained.exit_code or tests is ToTest.NONE:
        return Ended(trained.exit_code, (), tuple(filter(None, (trained.error,))))
    failed = run_tests(run, tests)
    return Ended(0, [facts for facts, _ in failed], tuple(filter(None, (error for _, error in failed))))


def train_seed(run: SeedRun) -> Called:
    """Train to the last epoch, unless that is done; returns the exit code that ends the experiment, 0 = go on.

    Done is what the checkpoint of the last epoch proves; where its file is anything else, train.py writes it anew.
    """
    experiment, seed, script = run.experiment, run.seed, run.scripts["train"]
    folder = experiment.run_folder(seed)
    last = folder.checkpoint(experiment.last_epoch)
    problem = checkpoint_problem(folder, experiment.last_epoch, read_record(folder))
    if problem is None:
        run.say(f"seed {seed}: already trained to epoch {experiment.last_epoch} in '{folder.path}'")
        return Called(0, "")
    if last.exists():
        run.say(f"seed {seed}: '{last}' {problem}")
    launcher = TORCHRUN if experiment.distributed else ()
    opts = ("SOLVER.SEED", str(seed), "OUTPUT_DIR", str(folder.path))
    started = monotonic()
    called = run.call(script, f"seed {seed}", folder.log, *opts, launcher=launcher)
    if called.exit_code < 0:
        return Called(128 - called.exit_code, run.complaint(f"{script} was killed by signal {-called.exit_code}"))
    if called.exit_code:
        return called._replace(error=called.error or _silent_error(run, script, called, folder.log))
    problem = checkpoint_problem(folder, experiment.last_epoch, read_record(folder))
    if problem is not None:
        why = f"; what lies there {problem}" if last.exists() else ""
        return Called(1, run.complaint(f"{script} ended without writing '{last}'{why}"))
    seconds = timedelta(seconds=round(monotonic() - started))
    run.say(f"seed {seed}: trained to epoch {experiment.last_epoch} in {seconds}")
    return called


def run_tests(run: SeedRun, tests: ToTest) -> list[tuple[FailedTest, str]]:
    """Test each checkpoint of the run up to the last epoch that has no valid result; returns what failed, and why.

    `tests` may leave those before the last epoch out.
    """
    experiment, seed, failed = run.experiment, run.seed, []
    run_folder = experiment.run_folder(seed)
    first = experiment.last_epoch if tests is ToTest.LAST else 0
    found = [(epoch, "") for epoch in run_folder.checkpoints() if first <= epoch <= experiment.last_epoch]
    found += [(experiment.last_epoch, EMA)] if run_folder.ema(experiment.last_epoch).exists() else []
    for epoch, stage in found:
        weight, which = run_folder.checkpoint(epoch, stage), f"epoch {epoch}{', averaged' if stage else ''}"
        problem = checkpoint_problem(run_folder, epoch, read_record(run_folder), stage)
        if problem is not None:
            run.say(f"seed {seed}, {which}: not tested: '{weight}' {problem}")
            continue
        folder = experiment.test_folder(seed, epoch, stage)
        reason = why_untested(experiment, seed, epoch, stage)
        if reason is None:
            run.say(f"seed {seed}, {which}: already tested in '{folder.path}'")
            continue
        (run.detail if reason == UNTESTED else run.say)(f"seed {seed}, {which}: {reason}")
        make_folder(str(folder.path), "--output-root")
        with suppress(OSError):  # test.py says what stands in its way
            folder.summary.unlink(missing_ok=True)  # what stands there is not a result of this test
        own = ("TEST.WEIGHT", str(weight), "OUTPUT_DIR", str(folder.path))
        called = run.call(run.scripts["test"], f"seed {seed}, test of {which}", folder.log, *own)
        if called.exit_code or why_untested(experiment, seed, epoch, stage) is not None:
            facts = {"seed": seed, "epoch": epoch, "exit_code": called.exit_code, "folder": str(folder.path)}
            failed.append((facts, called.error or _silent_error(run, run.scripts["test"], called, folder.log)))
        elif (result := read_result(folder)) is not None:
            run.say(f"seed {seed}, {which}: mAP {percent(result['mAP'])}, Rank-1 {percent(result['Rank-1'])}")
    return failed


def _silent_error(run: SeedRun, script: str, called: Called, log: Path) -> str:
    how = f"ended with exit code {called.exit_code} and no error" if called.exit_code else "left no result"
    return run.complaint(f"{script} {how}, see '{log}'")
