"""A launch: which experiments it has, how far each has come, and the files and tables that grow with them."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.launch.claims import Claim, seed_claims
from tools.launch.older import count_results, kept_line, may_replace
from tools.launch.queue import Ended, Progress, ToTest, Unit
from tools.launch.screen import say
from tools.launch.shown import (
    print_errors,
    print_lacking,
    print_problems,
    print_results,
    print_seeds,
    print_start,
    print_ways_on,
    result_sentence,
)
from tools.report import write_launch_report
from tools.study.ablation import compare_to_first, format_markdown, write_ablation
from tools.study.experiment import Experiment
from tools.study.results import collect_results, summarise
from tools.study.summary import CSV_HEADER, SeedResults, csv_rows, seed_rows, write_files
from utils.atomic import write_text_atomic
from utils.errors import USER_ERROR_CODE, ConfigError, RunError
from utils.tables import markdown

SHARED_SUMMARY = "phased_loss_best_summary.json"  # copy of the latest summary under the name that Model B's users know


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
        self.verbose, self.summarises = args.verbose, args.summarise
        tests = ToTest.EVERY if args.test else ToTest.NONE
        self.progress = [Progress(experiment, args.seeds, tests) for experiment in experiments]
        self.files = [Files() for _ in experiments]
        self.summaries: list[dict[str, Any]] = []
        self.tables: list[Path] = []
        self.report: Path | None = None
        self.kept: list[Path] = []  # of earlier launches, which have more results

    @property
    def name(self) -> str:
        """What the files of the launch begin with."""
        if len(self.experiments) == 1:
            return self.experiments[0].name
        return f"{self.tag}_ablation" if self.tag else "ablation"

    @property
    def claims(self) -> list[Claim]:
        return [] if self.summarises else seed_claims(self.experiments, self.seeds)

    def take(self) -> Unit | None:
        """Return the next seed, config by config; an experiment's first one prints what will run."""
        for number, progress in enumerate(self.progress, start=1):
            first, seed = not progress.started, progress.take()
            if seed is None:
                continue
            if first and not self.summarises:
                heading = f"\nexperiment {number} of {len(self.progress)}: " if len(self.progress) > 1 else ""
                print_start(progress.experiment, self.seeds, heading)
            return progress, seed
        return None

    def end(self, progress: Progress, seed: int, ended: Ended) -> None:
        """Write what this seed adds: to its experiment's files, and once that is over to those of the launch."""
        progress.end(seed, ended)
        experiment, number = progress.experiment, self.progress.index(progress)
        files = self.files[number]
        if ended.exit_code and not all(one.over for one in self.progress):
            say(f"failed: {experiment.name}, seed {seed}, exit code {ended.exit_code}; its error follows at the end")
        if not ended.exit_code or (progress.over and not files.summary):
            files.summary, files.results = summarise(experiment, self.seeds, progress.failed_tests)
        if not ended.exit_code:
            self._save_summary(number)
        if progress.over:
            self._print_over(number)
            self.save()

    def _print_over(self, number: int) -> None:
        """Print what an experiment reached, where the end of the launch does not say it all, and what went wrong."""
        progress, files = self.progress[number], self.files[number]
        # where no seed got through, only the table of this launch shows what earlier ones left
        if any(not one.exit_code for one in progress.ended.values()):
            if self.verbose:
                print_seeds(progress.experiment, files.summary, files.written)
            elif len(self.progress) > 1:
                say(f"{progress.experiment.name}: {result_sentence([progress.experiment], [files.summary])}")
        print_problems(files.summary, files.results)
        if self.summarises:
            print_lacking(progress.experiment, files.results)

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

    def save(self) -> None:
        """Write the tables and the report of the experiments that are over, up to the first that is not."""
        count = next((i for i, one in enumerate(self.progress) if not one.over), len(self.progress))
        if count:  # also where the launch is stopped later on
            results = [one.results for one in self.files[:count]]
            self.summaries = compare_to_first([one.summary for one in self.files[:count]], results)
            self._save_launch(results, all(one.over and not one.exit_code for one in self.progress))

    def _save_launch(self, results: Sequence[Sequence[SeedResults]], is_complete: bool) -> None:
        """Write the table of several experiments and the report, the one page of a launch.

        A launch that failed, or has more to come, replaces nothing that has more results.
        """
        root, several, count = self.experiments[0].root, len(self.experiments) > 1, count_results(self.summaries)
        start = root / self.name
        table, report = start.with_name(f"{start.name}.json"), report_of(start)
        self.tables, self.report, self.kept = [], None, []
        if several and may_replace(table, count, is_complete):
            self.tables = write_ablation(start, self.summaries, results)
        elif several:
            self.kept.append(table)
        if not may_replace(report, count, is_complete):
            self.kept.append(report)
            return
        try:
            write_launch_report(report, self.experiments, self.summaries, results, self.command)
            self.report = report
        except (OSError, ConfigError, RunError) as error:  # the results stand, only their page is missing
            say(f"warning: no report: {error}")

    def print_stop(self) -> None:
        """Print which seeds a signal ended, how many had been done, and the errors of those that failed before."""
        running = [f"{one.experiment.name}, seed {seed}" for one in self.progress for seed in sorted(one.running)]
        done, total = sum(len(one.ended) for one in self.progress), len(self.progress) * len(self.seeds)
        where = "; ".join(running) or "between two seeds"
        print_errors(self.progress)
        say(f"stopped: {where}; {done} of {total} seeds are done", stream=sys.stderr)

    def print_end(self) -> None:
        """Print the figures of the launch, what they mean, where the files are, and last the errors of what failed."""
        if any(mean for summary in self.summaries for mean in summary["mean"].values()):
            print_results([one.experiment for one in self.progress], self.summaries, self.verbose)
            files = self.tables if len(self.progress) > 1 else self.files[0].written
            print_ways_on(self.report, files, self.progress)
        kept = [summary_start(one.experiment) for one, files in self._got_through() if not files.written]
        for path in (*kept, *self.kept):
            say(kept_line(path))
        for number, one in enumerate(self.progress, start=1):
            if one.exit_code:
                way_on = "see its error" if one.exit_code == USER_ERROR_CODE else "the same command continues"
                say(f"failed: ID {number}, {one.experiment.name}, exit code {one.exit_code}; {way_on}")
        print_errors(self.progress)

    @property
    def exit_code(self) -> int:
        """That of the first experiment that failed (1: one of its tests)."""
        return next((one.exit_code for one in self.progress if one.exit_code), 0)

    def begin(self) -> None:
        """Raise ConfigError where an experiment is to be summed up and none of its seeds has a result."""
        for one in self.experiments if self.summarises else ():
            if not any(collect_results(one, seed).epochs for seed in self.seeds):
                raise ConfigError(
                    f"--summarise: none of the seeds {' '.join(map(str, self.seeds))} has a result in "
                    f"'{one.root / one.name}_seed..._test'; name the seeds, --output-root and --tag that they ran with"
                )

    def _got_through(self) -> list[tuple[Progress, Files]]:
        """Return the experiments of which a seed was trained."""
        pairs = zip(self.progress, self.files, strict=True)
        return [(one, files) for one, files in pairs if any(not ended.exit_code for ended in one.ended.values())]


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
