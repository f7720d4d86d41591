"""The two screens of a launch: what will run and what it needs, and at its end what came of it."""

import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs import load_cfg
from tools.launch.needs import find_needs
from tools.launch.queue import Progress
from tools.launch.screen import say
from tools.study.ablation import format_ablation
from tools.study.experiment import Experiment
from tools.study.summary import SeedResults, format_table
from tools.study.verdict import verdict_on_launch
from utils.errors import ConfigError, printable, shown
from utils.text_files import read_text

MOST_HEAD_LINES = 4  # of a recipe's own words
RUN_LINE = re.compile(r"#\s*Run:")


def print_start(experiment: Experiment, seeds: Sequence[int], heading: str = "") -> None:
    """Print what will run, what it draws and downloads, where its log is, each override, and the notices."""
    facts, runs = experiment.facts, [experiment.run_folder(seed) for seed in seeds]
    cfg = load_cfg(experiment.config, experiment.opts)
    kind = cfg.MODEL.TRANSFORMER_TYPE if cfg.MODEL.NAME == "transformer" else cfg.MODEL.NAME
    say(f"{heading}{experiment.name}")
    for line in recipe_words(experiment.config):
        say(f"  {line}")
    say(f"  seeds {' '.join(map(str, seeds))}, to epoch {experiment.last_epoch}, folders in '{experiment.root}'")
    say(f"  model {kind}; losses {facts['losses']}; batches {facts['pxk']}")
    for line in find_needs(cfg, first_weights=not all(run.state.is_file() for run in runs)):
        say(f"  {line}")
    say(f"  log of each training: {runs[0].log}{', ...' if len(runs) > 1 else ''}")
    for line in (*experiment.overrides, *(f"note: {notice}" for notice in experiment.notices)):
        say(f"  {line}")


def recipe_words(config: str) -> list[str]:
    """Return the comment at the top of a YAML, which says what it trains and what to expect; not how to run it."""
    try:
        lines = read_text(Path(config)).splitlines()
    except (ConfigError, ValueError):
        return []
    count = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    words = [line.lstrip("# ").rstrip() for line in lines[:count] if not RUN_LINE.match(line)]
    return [printable(shown(line)) for line in words if line][:MOST_HEAD_LINES]


def print_seeds(experiment: Experiment, summary: dict[str, Any], written: Sequence[Path]) -> None:
    """Print the seeds' table of an experiment and its files."""
    say(f"\n{experiment.name}: external tests, in percent\n{format_table(summary)}")
    for path in written:
        say(f"written: {path}")


def print_problems(summary: dict[str, Any], results: Sequence[SeedResults]) -> None:
    """Print which tests of an experiment failed, and which results in its folders do not count."""
    if len(summary["data_fingerprints"]) > 1:
        say("warning: the tests saw different data; delete the epoch_* folders of the older ones to test them again")
    for test in summary["failed_tests"]:
        say(
            f"failed: seed {test['seed']}, epoch {test['epoch']}, exit code {test['exit_code']}, see "
            f"'{test['folder']}'; the same command tests it again"
        )
    for one in results:
        for epoch, why in one.left_out.items():
            say(f"left out: seed {one.seed}, epoch {epoch}: {why}")


def print_lacking(experiment: Experiment, results: Sequence[SeedResults]) -> None:
    """Print which seeds have no result at the last epoch."""
    seeds = [str(one.seed) for one in results if experiment.last_epoch not in one.epochs]
    if seeds:
        say(f"{experiment.name}: no result at epoch {experiment.last_epoch} yet: seed {', '.join(seeds)}")


def print_results(experiments: Sequence[Experiment], summaries: Sequence[dict[str, Any]], verbose: bool) -> None:
    """Print the figures of a launch and what they mean: the seeds of one experiment, or the table of several."""
    if len(summaries) > 1 or verbose:
        say(f"\n{format_ablation(summaries)}")
    else:
        say(f"\n{summaries[0]['name']}, in percent\n{format_table(summaries[0])}\n{summaries[0]['note']}")
    say(f"\n{result_sentence(experiments, summaries)}")


def result_sentence(experiments: Sequence[Experiment], summaries: Sequence[dict[str, Any]]) -> str:
    """Return what experiments have shown, or that the last epoch has no result."""
    said = verdict_on_launch(experiments, summaries)
    return said.text if said else f"no result at epoch {summaries[0]['epochs']} on {summaries[0]['dataset']}"


def print_ways_on(report: Path | None, files: Sequence[Path], progress: Sequence[Progress]) -> None:
    """Print the one report to open, where the figures are, and a command to try next."""
    if report is not None:
        say(f"\nopen   {short(report)}")
    if files:
        endings = ", ".join(path.suffix for path in files)
        say(f"files  {short(files[0].with_suffix(''))}{{{endings}}}")
    trained = [(one.experiment, seed) for one in progress for seed, ended in one.ended.items() if not ended.exit_code]
    if trained:
        say(f"next   {next_command(*trained[0])}")


def next_command(experiment: Experiment, seed: int) -> str:
    """Return a command that shows what a trained model finds."""
    run, out = experiment.run_folder(seed).path, experiment.root / f"{experiment.name}_ranks"
    return shlex.join(["python", "-m", "tools.visualize", "ranks", "--run", short(run), "--out", short(out)])


def short(path: Path) -> str:
    """Return a path as it is typed from the current folder, where it lies below that."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith(os.pardir) else relative


def print_errors(progress: Sequence[Progress]) -> None:
    """Print the errors of what failed, each once, as the last thing."""
    for error in dict.fromkeys(error for one in progress for error in one.errors):
        say(error, stream=sys.stderr)
