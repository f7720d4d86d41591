"""A sweep: its points are trained, one is chosen on held-out identities, and that one alone is tested."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.picking import picked_by
from tools.launch.claims import Claim, seed_claims
from tools.launch.launch import report_of, save_summary
from tools.launch.older import kept_line, may_replace
from tools.launch.plan import Sweep, files_start
from tools.launch.points import Point
from tools.launch.queue import Ended, Progress, ToTest, Unit
from tools.launch.screen import say
from tools.launch.shown import print_errors, print_problems, print_start, print_ways_on
from tools.report import write_sweep_report
from tools.study.experiment import Experiment
from tools.study.names import config_label
from tools.study.response import (
    PointResult,
    Response,
    format_response,
    on_same_images,
    read_point,
    write_response,
)
from tools.study.results import summarise
from tools.study.summary import SeedResults
from tools.study.verdict import percent, verdict_on_sweep
from utils.errors import USER_ERROR_CODE, ConfigError, RunError

if TYPE_CHECKING:
    from tools.launch.search import Search


class SweepLaunch:
    """The points of a sweep and the files that grow with them; the main thread alone writes here.

    Of a grid all points are there from the start, a `search` is asked for one after the other.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        sweep: Sweep,
        planned: tuple[Sequence[Experiment], Sequence[Point]],
        command: str,
        search: "Search | None" = None,
    ) -> None:
        experiments, points = planned
        self.seeds, self.command, self.test_wanted = args.seeds, command, args.test
        self.several, self.sweep, self.search = len(args.configs) > 1, sweep, search
        self.start = files_start(args, sweep, experiments[0], points[0])
        self.reference = experiments[0]  # what all points share is asked of it
        self.progress: list[Progress] = []
        self.points: list[Point] = []
        self.results: list[PointResult] = []
        self.testing: Progress | None = None  # of the chosen point
        self.summary: dict[str, Any] = {}  # of its test
        self.seed_results: list[SeedResults] = []
        self.written: list[Path] = []
        self.report: Path | None = None
        self.kept: list[Path] = []  # of earlier launches, which have more results
        if search is None:
            for experiment, point in zip(experiments, points, strict=True):
                self._add(experiment, point)

    @property
    def name(self) -> str:
        return self.start.name

    @property
    def claims(self) -> list[Claim]:
        own = seed_claims([one.experiment for one in self.progress], self.seeds)
        return [*own, Claim(self.start.parent, self.name, f"the {self.sweep.kind} '{self.start}'")]

    def begin(self) -> None:
        """Take up what a search has tried before; its storage belongs to this launch by now."""
        for experiment, point in self.search.open() if self.search else ():
            self._add(experiment, point)

    def _add(self, experiment: Experiment, point: Point) -> None:
        self.progress.append(Progress(experiment, self.seeds, ToTest.NONE))
        self.points.append(point)
        self.results.append(self._read(len(self.points) - 1))

    def _read(self, place: int) -> PointResult:
        progress = self.progress[place]
        ended = {seed: end.exit_code for seed, end in progress.ended.items()}
        recipe = config_label(progress.experiment.config) if self.several else ""
        return read_point(progress.experiment, recipe, self.points[place], self.seeds, ended)

    @property
    def response(self) -> Response:
        """What all points have shown so far."""
        return Response(
            self.sweep.kind,
            self.sweep.names,
            picked_by(self.reference.model_name),
            self.reference.facts["dataset"],
            tuple(self.seeds),
            on_same_images(self.results),
            tuple(span.key for span in self.sweep.spans if span.log),
        )

    def take(self) -> Unit | None:
        """Return the next seed to train, point by point; once all are trained those of the chosen point, to test."""
        unit = self._next_training()
        if unit is not None or any(one.running for one in self.progress):
            return unit
        if self.testing is None:
            self._choose()
        seed = self.testing.take() if self.testing and self.test_wanted else None
        return None if seed is None else (self.testing, seed)

    def _next_training(self) -> Unit | None:
        for place, progress in enumerate(self.progress):
            first, seed = not progress.started, progress.take()
            if seed is not None:
                if first:
                    self._print_point(place)
                return progress, seed
        asked = self.search.ask() if self.search else None
        if asked is None:
            return None
        self._add(*asked)
        return self._next_training()

    @property
    def _all(self) -> list[Progress]:
        """All that runs: the trainings of the points, and the tests of the chosen one."""
        return [*self.progress, *([self.testing] if self.testing else [])]

    @property
    def _total(self) -> int:
        """Points of the whole sweep."""
        return max(self.sweep.count, len(self.points))

    def _print_point(self, place: int) -> None:
        """Print which point begins; before the first one what a launch prints."""
        heading = f"\npoint {place + 1} of {self._total}: "
        if any(one.started for number, one in enumerate(self.progress) if number != place):
            say(f"{heading}{self.response.title(place)}")
        else:
            print_start(self.progress[place].experiment, self.seeds, heading)

    def _choose(self) -> None:
        """Choose the point whose seeds are then tested, and say which; none before a search has come to its end."""
        place = self.response.chosen
        if place is None or (self.search and self.search.ended):
            why = "no point is whole" if place is None else "the search has not come to its end"
            say(f"\n{why}, so none is tested and the test set stays unseen")
            return
        self.testing = Progress(self.progress[place].experiment, self.seeds, ToTest.LAST)
        metric = self.response.metrics[0]
        figure = percent(self.results[place].mean[metric])
        say(f"\nchosen on held-out identities: {self.response.title(place)}, {figure} {metric}")
        if not self.test_wanted:
            say("not tested (--no-test)")

    def end(self, progress: Progress, seed: int, ended: Ended) -> None:
        """Write what this seed adds to the files of the sweep."""
        progress.end(seed, ended)
        if progress is self.testing:
            if progress.over:
                self.summary, self.seed_results = summarise(progress.experiment, self.seeds, progress.failed_tests)
                print_problems(self.summary, self.seed_results)
                if self._is_whole():
                    save_summary(progress.experiment, self.summary, self.seed_results)
                self.save()
            return
        place = self.progress.index(progress)
        self.results[place] = self._read(place)
        if ended.exit_code:
            what = f"{progress.experiment.name} ({self.response.title(place)}), seed {seed}"
            say(f"failed: {what}, exit code {ended.exit_code}; its error follows")
        if progress.over:
            if self.search:
                self.search.tell(progress.experiment.name, self.results[place], progress.exit_code)
            self._print_over(place)
            self.save()

    def _print_over(self, place: int) -> None:
        """Print what a point reached, or why it has nothing to show."""
        result, metric = self.results[place], self.response.metrics[0]
        if result.why_not:
            say(f"{self.response.title(place)}: {result.why_not}")
        elif result.held_out:
            spread = f" +- {percent(result.sd[metric])}" if len(result.held_out) > 1 else ""
            say(f"{self.response.title(place)}: {percent(result.mean[metric])}{spread} {metric} on held-out identities")

    def _is_whole(self) -> bool:
        return all(one.over and not one.exit_code for one in self.progress)

    def save(self) -> None:
        """Write the table and the report as far as the sweep has come; what has more results is left as it is."""
        response, table, page = self.response, self.start.with_name(f"{self.name}.json"), report_of(self.start)
        self.kept = []
        if may_replace(table, response.count, self._is_whole()):
            self.written = write_response(self.start, response, self.summary, self._also_tested())
        else:
            self.kept.append(table)
        if not may_replace(page, response.count, self._is_whole()):
            self.kept.append(page)
            return
        try:
            write_sweep_report(page, response, self._tested(), self._also_tested(), self.command)
            self.report = page
        except (OSError, ConfigError, RunError) as error:  # the results stand, only their page is missing
            say(f"warning: no report: {error}")

    def _tested(self) -> tuple[Experiment, dict[str, Any], Sequence[SeedResults]] | None:
        return (self.testing.experiment, self.summary, self.seed_results) if self.testing and self.summary else None

    def _also_tested(self) -> list[str]:
        """Return the names of points other than the chosen one that have been tested, by whatever launch."""
        chosen = self.response.chosen
        others = [one.experiment for place, one in enumerate(self.progress) if place != chosen]
        return [
            one.name
            for one in others
            if any(one.test_folder(seed, one.last_epoch).summary.exists() for seed in self.seeds)
        ]

    def print_stop(self) -> None:
        """Print which seeds a signal ended, how many had been done, and the errors of those that failed before."""
        running = [f"{one.experiment.name}, seed {seed}" for one in self._all for seed in sorted(one.running)]
        done = sum(len(one.ended) for one in self.progress)
        total = self._total * len(self.seeds)
        where = "; ".join(running) or "between two seeds"
        print_errors(self._all)
        say(f"stopped: {where}; {done} of {total} seeds are trained", stream=sys.stderr)

    def print_end(self) -> None:
        """Print the table, what was chosen and what it reached, where the files are, and last what failed."""
        response = self.response
        if response.count:
            say(f"\n{format_response(response)}")
            said = verdict_on_sweep(response, self.summary, self._also_tested())
            say(f"\n{said.text}")
            tested = [self.testing] if self.testing else []
            print_ways_on(self.report, self.written, tested)
        for path in self.kept:
            say(kept_line(path))
        for one in self._all:
            if one.exit_code:
                way_on = "see its error" if one.exit_code == USER_ERROR_CODE else "the same command continues"
                say(f"failed: {one.experiment.name}, exit code {one.exit_code}; {way_on}")
        print_errors(self._all)

    @property
    def exit_code(self) -> int:
        """That of the first point that failed, or of the tests of the chosen one; 1 where none could be chosen."""
        return next((one.exit_code for one in self._all if one.exit_code), int(self.response.chosen is None))
