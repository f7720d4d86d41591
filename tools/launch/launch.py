"""A launch: which experiments it has, how far each has come, and the files and tables that grow with them."""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.launch.children import say
from tools.launch.older import count_results, kept_line, may_replace
from tools.launch.places import check_gpus
from tools.launch.queue import Ended, Progress, Unit
from tools.launch.switched import load_with_switches
from tools.report import write_launch_report
from tools.study.ablation import compare_to_first, format_ablation, format_markdown, write_ablation
from tools.study.experiment import Experiment, check_names, check_same_settings, make_experiment
from tools.study.results import summarise
from tools.study.summary import CSV_HEADER, SeedResults, csv_rows, format_table, seed_rows, write_files
from utils.atomic import replacing, write_text_atomic
from utils.errors import USER_ERROR_CODE, ConfigError, RunError
from utils.run_folder import make_folder
from utils.tables import markdown
from utils.test_folder import TestFolder

SHARED_SUMMARY = "phased_loss_best_summary.json"  # copy of the latest summary under the name that Model B's users know


def plan_launch(args: argparse.Namespace) -> list[Experiment]:
    """Return the experiments of a launch, one a config, all of them checked before anything runs.

    Raises ConfigError for a config, a switch, a name, a device or an output root that cannot work, and for finished
    runs of other settings.
    """
    experiments = []
    for config in args.configs:
        try:
            cfg, opts = load_with_switches(config, args.switches, args.opts, args.solver)
            check_gpus(cfg, opts, args.gpus)
            experiments.append(make_experiment(args, config, opts, cfg))
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


@dataclass
class Files:
    """What the files of an experiment say, and their paths; empty until one of its seeds has ended."""

    summary: dict[str, Any] = field(default_factory=dict)
    results: list[SeedResults] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)


class Launch:
    """The experiments of a launch and the files that grow with them; the main thread alone writes here."""

    def __init__(self, experiments: Sequence[Experiment], args: argparse.Namespace, command: str) -> None:
        self.experiments, self.seeds, self.tag, self.command = experiments, args.seeds, args.tag, command
        self.progress = [Progress(experiment, args.seeds) for experiment in experiments]
        self.files = [Files() for _ in experiments]
        self.summaries: list[dict[str, Any]] = []
        self.written: list[Path] = []
        self.kept: list[Path] = []  # of earlier launches, which have more results

    def take(self) -> Unit | None:
        """Return the next seed, config by config; an experiment's first one prints what will run."""
        for number, progress in enumerate(self.progress, start=1):
            first, seed = not progress.started, progress.take()
            if seed is None:
                continue
            if first:
                heading = f"\nexperiment {number} of {len(self.progress)}: " if len(self.progress) > 1 else ""
                print_start(progress.experiment, self.seeds, heading)
            return progress, seed
        return None

    def end(self, progress: Progress, seed: int, ended: Ended) -> None:
        """Write what this seed adds: to its experiment's files, and once that is over to those of the launch."""
        progress.end(seed, ended)
        experiment, number = progress.experiment, self.progress.index(progress)
        files = self.files[number]
        if not ended.exit_code or (progress.over and not files.summary):
            files.summary, files.results = summarise(experiment, self.seeds, progress.failed_tests)
        if not ended.exit_code:
            self._save_summary(number)
        if progress.over:
            # where no seed got through, only the table of this launch shows what earlier ones left
            if any(not one.exit_code for one in progress.ended.values()):
                print_summary(experiment, files.summary, files.written)
            print_left_out(files.results)
            self.save()

    def _save_summary(self, number: int) -> None:
        """Write the summary of an experiment, and its copy under the name that all share, as far as it has come."""
        progress, files = self.progress[number], self.files[number]
        count, is_complete = count_results([files.summary]), progress.over and not progress.exit_code
        start = summary_start(progress.experiment)
        files.written = []
        if not may_replace(start.with_name(f"{start.name}.json"), count, is_complete):
            return
        files.written = save_summary(progress.experiment, files.summary, files.results)
        shared = progress.experiment.root / SHARED_SUMMARY
        # on several devices an earlier experiment may end last
        is_latest = not any(one.written for one in self.files[number + 1 :])
        if is_latest and may_replace(shared, count, is_complete and count > 0):
            write_text_atomic(shared, json.dumps(files.summary, indent=2) + "\n")
            files.written.append(shared)

    def save(self) -> None:
        """Write the tables and the report of the experiments that are over, up to the first that is not."""
        count = next((i for i, one in enumerate(self.progress) if not one.over), len(self.progress))
        if count:  # also where the launch is stopped later on
            results = [one.results for one in self.files[:count]]
            self.summaries = compare_to_first([one.summary for one in self.files[:count]], results)
            is_complete = all(one.over and not one.exit_code for one in self.progress)
            self.written, self.kept = self._save_launch(results, is_complete)

    def _save_launch(
        self, results: Sequence[Sequence[SeedResults]], is_complete: bool
    ) -> tuple[list[Path], list[Path]]:
        """Write the files of the whole launch, report and table of several; returns those written, and older ones kept.

        A launch that failed, or has more to come, replaces nothing that has more results.
        """
        root, several, count = self.experiments[0].root, len(self.experiments) > 1, count_results(self.summaries)
        start = root / ((f"{self.tag}_ablation" if self.tag else "ablation") if several else self.experiments[0].name)
        table, report, shared = start.with_name(f"{start.name}.json"), report_of(start), TestFolder(root).report
        written, kept = [], []
        if several and may_replace(table, count, is_complete):
            written += write_ablation(start, self.summaries, results)
        elif several:
            kept.append(table)
        if not may_replace(report, count, is_complete):
            return written, [*kept, report]
        try:
            write_launch_report(report, self.experiments, self.summaries, results, self.command)
            written.append(report)
            if not may_replace(shared, count, is_complete and count > 0):
                return written, [*kept, shared]
            with replacing(shared) as temporary:
                shutil.copyfile(report, temporary)
        except (OSError, ConfigError, RunError) as error:  # the results stand, only their page is missing
            say(f"warning: no report: {error}")
            return written, kept
        return [*written, shared], kept

    def print_stop(self) -> None:
        """Print which seeds a signal ended, and how many had been done."""
        running = [f"{one.experiment.name}, seed {seed}" for one in self.progress for seed in sorted(one.running)]
        done, total = sum(len(one.ended) for one in self.progress), len(self.progress) * len(self.seeds)
        where = "; ".join(running) or "between two seeds"
        say(f"stopped: {where}; {done} of {total} seeds are done", stream=sys.stderr)

    def print_end(self) -> None:
        """Print the table of the launch, the experiments that failed, and where the files are."""
        say(f"\n{format_ablation(self.summaries)}")
        for number, one in enumerate(self.progress, start=1):
            if one.exit_code:
                way_on = "see its error above" if one.exit_code == USER_ERROR_CODE else "the same command continues"
                say(f"failed: ID {number}, {one.experiment.name}, exit code {one.exit_code}; {way_on}")
        if self.written:
            say("\n".join(f"written: {path}" for path in self.written))
        for path in self.kept:
            say(kept_line(path))


def summary_start(experiment: Experiment) -> Path:
    """Return what the paths of an experiment's summary files begin with."""
    return experiment.root / f"{experiment.name}_summary"


def report_of(start: Path) -> Path:
    """Return the path of the report of a launch whose files begin with `start`."""
    return start.with_name(f"{start.name}_report.html")


def save_summary(experiment: Experiment, summary: dict[str, Any], results: list[SeedResults]) -> list[Path]:
    """Write the summary files of an experiment; returns the paths."""
    text = f"{format_markdown(experiment.name, [summary])}\n{markdown(seed_rows(summary))}\n"
    return write_files(summary_start(experiment), summary, [CSV_HEADER, *csv_rows(results, summary["dataset"])], text)


def print_start(experiment: Experiment, seeds: Sequence[int], heading: str) -> None:
    """Print what will run, each override as `KEY old -> new`, and the notices about the configuration."""
    facts = experiment.facts
    say(f"{heading}{experiment.name}")
    say(f"  seeds {' '.join(map(str, seeds))}, to epoch {experiment.last_epoch}, folders in '{experiment.root}'")
    say(f"  losses {facts['losses']}; batches {facts['pxk']}")
    for line in (*experiment.overrides, *(f"note: {notice}" for notice in experiment.notices)):
        say(f"  {line}")


def print_summary(experiment: Experiment, summary: dict[str, Any], written: Sequence[Path]) -> None:
    """Print the seeds' table, what failed, and where the files are."""
    say(f"\n{experiment.name}: external tests, in percent\n{format_table(summary)}")
    if len(summary["data_fingerprints"]) > 1:
        say("warning: the tests saw different data; delete the epoch_* folders of the older ones to test them again")
    for test in summary["failed_tests"]:
        say(
            f"failed: seed {test['seed']}, epoch {test['epoch']}, exit code {test['exit_code']}, see "
            f"'{test['folder']}'; the same command tests it again"
        )
    for path in written:
        say(f"written: {path}")
    if not written:
        say(kept_line(summary_start(experiment)))


def print_left_out(results: Sequence[SeedResults]) -> None:
    """Print a line for each result in the folders of an experiment that does not count."""
    for one in results:
        for epoch, why in one.left_out.items():
            say(f"left out: seed {one.seed}, epoch {epoch}: {why}")
