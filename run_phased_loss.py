"""Train, test and summarise over seeds: python run_phased_loss.py --config configs/VeRi/vit_base.yml --seeds 0 1 2"""

import argparse
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from utils.ablation import compare_to_first, format_ablation, format_markdown, write_ablation
from utils.errors import USER_ERROR_CODE, ConfigError, run_command
from utils.experiment import Experiment, check_names, check_same_settings, make_experiment, summarise
from utils.launch_args import parse_args
from utils.launch_switches import load_with_switches
from utils.report import REPORT_NAME, write_launch_report
from utils.results import RESULT_NAME, read_result, why_untested
from utils.run_folder import make_folder, write_text_atomic
from utils.summary import CSV_HEADER, SeedResults, csv_rows, format_table, seed_rows, write_files
from utils.tables import markdown

ROOT = Path(__file__).resolve().parent
SHARED_SUMMARY = "phased_loss_best_summary.json"  # copy of the latest summary under the name that Model B's users know
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=auto")  # one process per GPU
CTRL_C_CODES = (130, -signal.SIGINT)
CHILD_GRACE_S = 30


class Outcome(NamedTuple):
    """How one experiment ended."""

    summary: dict[str, Any]
    results: list[SeedResults]
    exit_code: int  # of the training that ended it, 1 when a test failed


def main(argv: list[str] | None = None) -> int:
    """Train and test every seed of every config, write and print the summaries and one table.

    The same command again resumes training and tests what has no whole result. A failed training ends its experiment,
    the others still run. Returns 0, or the exit code of the first experiment that failed (1: one of its tests).
    """
    args = parse_args(argv)
    experiments = plan_launch(args)
    command = shlex.join(["python", *(sys.argv if argv is None else ["run_phased_loss.py", *argv])])
    several = len(experiments) > 1
    outcomes: list[Outcome] = []
    summaries: list[dict[str, Any]] = []
    written: list[Path] = []
    for number, experiment in enumerate(experiments, start=1):
        print_start(experiment, args.seeds, f"\nexperiment {number} of {len(experiments)}: " if several else "")
        outcomes.append(run_experiment(experiment, args))
        results = [one.results for one in outcomes]
        summaries = compare_to_first([one.summary for one in outcomes], results)
        # also where the launch is stopped later on
        written = save_launch(experiments, args.tag, summaries, results, command)
    print_end(experiments, outcomes, summaries, written)
    return next((outcome.exit_code for outcome in outcomes if outcome.exit_code), 0)


def plan_launch(args: argparse.Namespace) -> list[Experiment]:
    """Return the experiments of a launch, one a config, all of them checked before anything runs.

    Raises ConfigError for a config, a switch, a name or an output root that cannot work, and for finished runs of other
    settings.
    """
    from processor import PhasePlan  # loads torch, which --help does without

    experiments = []
    for config in args.configs:
        try:
            cfg, opts = load_with_switches(config, args.switches, args.opts)
            experiments.append(make_experiment(args, config, opts, cfg, PhasePlan(cfg)))
        except ConfigError as error:
            if len(args.configs) == 1 or config in str(error):
                raise
            raise ConfigError(f"{config}: {error}") from error
    check_names(experiments)
    for experiment in experiments:
        for seed in args.seeds:
            check_same_settings(experiment, seed)
    make_folder(args.output_root, "--output-root")
    return experiments


def run_experiment(experiment: Experiment, args: argparse.Namespace) -> Outcome:
    """Train and test seed after seed up to the first training that fails; the files grow with every seed."""
    failed: list[dict[str, Any]] = []
    exit_code, written = 0, []
    for seed in args.seeds:
        exit_code = train_seed(experiment, seed)
        if exit_code:
            break
        if args.test:
            failed += run_tests(experiment, seed)
        summary, results = summarise(experiment, args.seeds, failed)
        written = save_summary(experiment, summary, results)
    if not written:  # no seed got through: only the table of this launch shows what earlier ones left
        summary, results = summarise(experiment, args.seeds, failed)
    else:
        print_summary(experiment, summary, written)
    return Outcome(summary, results, exit_code or int(bool(failed)))


def run_child(command: list[str]) -> int:
    """Run a command in the repository, its output going to the terminal; returns its exit code (-n: signal n)."""
    process = subprocess.Popen(command, cwd=ROOT)

    def end_both(number: int, _frame: object) -> NoReturn:
        process.terminate()  # or it would go on alone
        raise SystemExit(128 + number)

    previous = signal.signal(signal.SIGTERM, end_both)
    try:
        return process.wait()
    except KeyboardInterrupt:
        try:
            process.wait(CHILD_GRACE_S)  # the terminal's Ctrl-C reached it too; let it say where it stopped
        except subprocess.TimeoutExpired:
            process.kill()
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)


def _run(script: str, experiment: Experiment, *own_opts: str, launcher: Sequence[str] = ()) -> int:
    command = [sys.executable, *launcher, script, "--config_file", experiment.config, *experiment.opts, *own_opts]
    _say(f"$ {shlex.join(command)}")
    return run_child(command)


def train_seed(experiment: Experiment, seed: int) -> int:
    """Train one seed to the last epoch, unless that is done; returns the exit code that ends the experiment, 0 = go on.

    Ctrl-C in train.py ends the launch.
    """
    folder, last = experiment.run_folder(seed), experiment.checkpoint(seed, experiment.last_epoch)
    if last.is_file():
        _say(f"seed {seed}: already trained to epoch {experiment.last_epoch} in '{folder}'")
        return 0
    launcher = TORCHRUN if experiment.distributed else ()
    own_opts = ("SOLVER.SEED", str(seed), "OUTPUT_DIR", str(folder))
    exit_code = _run("train.py", experiment, *own_opts, launcher=launcher)
    if exit_code in CTRL_C_CODES:
        raise KeyboardInterrupt
    if exit_code < 0:
        _complain(f"{experiment.name}, seed {seed}: train.py was killed by signal {-exit_code}")
        return 128 - exit_code
    if not exit_code and not last.is_file():
        _complain(f"{experiment.name}, seed {seed}: train.py ended without writing '{last}'")
        return 1
    return exit_code


def run_tests(experiment: Experiment, seed: int) -> list[dict[str, Any]]:
    """Test each checkpoint up to the last epoch that has no whole result of its own; returns the failed tests."""
    failed = []
    pattern = re.compile(rf"{re.escape(experiment.model_name)}_(\d+)\.pth")
    found = [pattern.fullmatch(path.name) for path in experiment.run_folder(seed).glob("*.pth")]
    epochs = sorted(int(match[1]) for match in found if match)
    for epoch in [epoch for epoch in epochs if epoch <= experiment.last_epoch]:
        folder, weight = experiment.test_folder(seed) / f"epoch_{epoch}", experiment.checkpoint(seed, epoch)
        reason = why_untested(folder, weight, experiment.test_settings)
        if reason is None:
            _say(f"seed {seed}, epoch {epoch}: already tested in '{folder}'")
            continue
        _say(f"seed {seed}, epoch {epoch}: {reason}")
        make_folder(str(folder), "--output-root")
        (folder / RESULT_NAME).unlink(missing_ok=True)  # what stands there is not a result of this test
        exit_code = _run("test.py", experiment, "TEST.WEIGHT", str(weight), "OUTPUT_DIR", str(folder))
        if exit_code in CTRL_C_CODES:
            raise KeyboardInterrupt
        if exit_code or read_result(folder) is None:
            failed.append({"seed": seed, "epoch": epoch, "exit_code": exit_code, "folder": str(folder)})
    return failed


def save_summary(experiment: Experiment, summary: dict[str, Any], results: list[SeedResults]) -> list[Path]:
    """Write the summary files of an experiment, and the copy under the shared name; returns the paths."""
    text = f"{format_markdown(experiment.name, [summary])}\n{markdown(seed_rows(summary))}\n"
    start = experiment.root / f"{experiment.name}_summary"
    paths = write_files(start, summary, [CSV_HEADER, *csv_rows(results, summary["dataset"])], text)
    shared = experiment.root / SHARED_SUMMARY
    write_text_atomic(shared, json.dumps(summary, indent=2) + "\n")
    return [*paths, shared]


def save_launch(
    experiments: Sequence[Experiment],
    tag: str | None,
    summaries: Sequence[dict[str, Any]],
    results: Sequence[Sequence[SeedResults]],
    command: str,
) -> list[Path]:
    """Write the files of the whole launch as far as it has come: report, and table of several; returns the paths."""
    root, several = experiments[0].root, len(experiments) > 1
    start = (f"{tag}_ablation" if tag else "ablation") if several else experiments[0].name
    written = write_ablation(root / start, summaries, results) if several else []
    try:
        report = write_launch_report(root / f"{start}_report.html", experiments, summaries, results, command)
        shutil.copyfile(report, root / REPORT_NAME)
    except OSError as error:  # the results stand, only their page is missing
        _say(f"warning: no report ({error}); the same command writes it")
        return written
    return [*written, report, root / REPORT_NAME]


def print_start(experiment: Experiment, seeds: Sequence[int], heading: str) -> None:
    """Print what will run, each override as `KEY old -> new`, and the notices about the configuration."""
    facts = experiment.facts
    _say(f"{heading}{experiment.name}")
    _say(f"  seeds {' '.join(map(str, seeds))}, to epoch {experiment.last_epoch}, folders in '{experiment.root}'")
    _say(f"  losses {facts['losses']}; batches {facts['pxk']}")
    for line in (*experiment.overrides, *(f"note: {notice}" for notice in experiment.notices)):
        _say(f"  {line}")


def print_summary(experiment: Experiment, summary: dict[str, Any], written: Sequence[Path]) -> None:
    """Print the seeds' table, what failed, and where the files are."""
    _say(f"\n{experiment.name}: external tests, in percent\n{format_table(summary)}")
    if len(summary["data_fingerprints"]) > 1:
        _say("warning: the tests saw different data; delete the epoch_* folders of the older ones to test them again")
    for test in summary["failed_tests"]:
        _say(
            f"failed: seed {test['seed']}, epoch {test['epoch']}, exit code {test['exit_code']}, see "
            f"'{test['folder']}'; the same command tests it again"
        )
    _say("\n".join(f"written: {path}" for path in written))


def print_end(
    experiments: Sequence[Experiment],
    outcomes: Sequence[Outcome],
    summaries: Sequence[dict[str, Any]],
    written: Sequence[Path],
) -> None:
    """Print the table of the launch, the experiments that failed, and where the files are."""
    _say(f"\n{format_ablation(summaries)}")
    for number, (experiment, outcome) in enumerate(zip(experiments, outcomes, strict=True), start=1):
        if outcome.exit_code:
            way_on = "see its error above" if outcome.exit_code == USER_ERROR_CODE else "the same command continues"
            _say(f"failed: ID {number}, {experiment.name}, exit code {outcome.exit_code}; {way_on}")
    if written:
        _say("\n".join(f"written: {path}" for path in written))


def _say(text: str) -> None:
    print(text, flush=True)  # the children write to the same stream, so nothing may wait in a buffer


def _complain(text: str) -> None:
    print(f"error: {text}; the same command continues", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(run_command(main))
