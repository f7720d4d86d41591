"""The report of a sweep: how held-out identities respond to its keys, which point they choose, and its one test."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from tools import response_charts as charts
from tools.report import result
from tools.report.launched import Launched, figure_bars, gather, launch_sections, tables
from tools.report.page import (
    join,
    make_page,
    make_section,
    missing,
    paragraph,
    part,
    pictures,
    table,
    try_part,
    verdict,
)
from tools.response_charts import Figures
from tools.study.experiment import Experiment
from tools.study.response import PointResult, Response, response_note, response_rows, text_columns
from tools.study.summary import SeedResults
from tools.study.verdict import deciding_metric, verdict_on_sweep

Tested = tuple[Experiment, dict[str, Any], Sequence[SeedResults]]
MOST_LINES = 6  # of a chart of two keys; beyond, it is a heat map
HONEST = (
    "The points were compared on identities held out of training alone. The test set was looked at once, with the "
    "point that they chose, at its last epoch."
)


def make_sweep_page(response: Response, tested: Tested | None, also_tested: Sequence[str], command: str) -> str:
    """Return the page of a sweep; `tested` is the chosen point's test, None while there is none."""
    summary = tested[1] if tested else {}
    sections = [
        make_section("result", "Result", result_part, response, summary, also_tested),
        make_section("response", "Response", response_part, response),
        make_section("points", "All points", points_part, response),
    ]
    if tested:
        launched = gather([tested[0]], [tested[1]], [tested[2]])
        sections.append(make_section("test", "Chosen point on the test set", test_part, launched))
        sections += launch_sections(launched, command)
    else:
        sections.append(make_section("reproduce", "Reproduce", result.command_part, command))
    seeds = " ".join(map(str, response.seeds))
    subtitle = [f"{len(response.points)} points, seeds {seeds}, {response.dataset}"]
    return make_page(f"Report of a {response.kind} over {_listed(response)}", subtitle, sections, response.count)


def _listed(response: Response) -> str:
    return ", ".join(response.names.values())


def test_part(launched: Sequence[Launched]) -> str:
    """Return the chosen point's figure beside what it has to beat, and its seeds."""
    bars = try_part("Figures", figure_bars, launched, deciding_metric([launched[0].experiment]))
    return join([bars, try_part("Tables", tables, launched)])


def result_part(response: Response, summary: dict[str, Any], also_tested: Sequence[str]) -> str:
    """Return the verdict, and what the figures have and have not seen."""
    seen = ""
    if also_tested:
        names = ", ".join(also_tested)
        seen = paragraph(f"Caution: other points have been tested before: {names}.", "caution")
    absent = "" if summary else missing("The chosen point was not tested.")
    return join([verdict(*verdict_on_sweep(response, summary, also_tested)), paragraph(HONEST), seen, absent])


def points_part(response: Response) -> str:
    """Return the table of all points."""
    rows = response_rows(response)
    lead = (0, rows[0].index(response.metrics[0]))
    shown = table(rows, "Held-out identities, in percent", left=text_columns(response), lead=lead)
    return join([shown, paragraph(response_note(response), "note")])


def response_part(response: Response) -> str:
    """Return the charts of a sweep: lines over one key or two, dots over each of more, and how a search came on."""
    if not response.count:
        return missing("No point has a figure yet.")
    keys = list(response.names)
    if response.kind == "search" or len(keys) > 2:
        drawn = [dots(response, key) for key in keys]
        if response.kind == "search":
            name = f"{response.metrics[0]} on held-out identities"
            reached = [one.mean.get(response.metrics[0], math.nan) for one in response.points]
            drawn.insert(0, charts.progress_chart(reached, "Points in the order of the search", name))
        note = "A dot is a point, the mean over its seeds, whatever its other keys are."
        return pictures(drawn, note=note)
    if len(keys) == 1:
        return join([pictures([one_key(response)]), paragraph(_line_note(response), "note")])
    recipes = dict.fromkeys(point.recipe for point in response.points)
    shown = [part(recipe, two_keys(response, recipe)) if recipe else two_keys(response, recipe) for recipe in recipes]
    return join([*shown, paragraph(_line_note(response), "note")])


def _line_note(response: Response) -> str:
    spread = ", pale dots are the seeds" if len(response.seeds) > 1 else ""
    return f"Lines are means over the seeds{spread}; bars are 95 % intervals over the held-out identities."


def figures_of(point: PointResult, metric: str) -> Figures:
    """Return the figures of a point by `metric`."""
    low, high = point.interval.get(metric, (math.nan, math.nan))
    return Figures(point.mean[metric], low, high, tuple(one[metric] for one in point.held_out.values()))


def values_of(response: Response, key: str) -> list[str]:
    """Return the values of a key in the order of the sweep, of the points that have a figure."""
    return list(dict.fromkeys(point.values[key] for point in response.points if point.held_out))


def one_key(response: Response) -> Figure:
    """Return the response to a grid's only key, with a line for each recipe."""
    (key,), metric = response.names, response.metrics[0]
    curves: dict[str, dict[str, Figures]] = {}
    for point in response.points:
        if point.held_out:
            curves.setdefault(point.recipe or metric, {})[point.values[key]] = figures_of(point, metric)
    names = (response.names[key], f"{metric} on held-out identities")
    return charts.curve_chart(curves, values_of(response, key), f"Response to {key}", names)


def two_keys(response: Response, recipe: str) -> str:
    """Return the response of a recipe to two keys: a line for each value of the one with fewer, or a heat map."""
    metric = response.metrics[0]
    lines, x = sorted(response.names, key=lambda key: len(values_of(response, key)))
    if len(values_of(response, lines)) == len(values_of(response, x)):
        x, lines = response.names  # in the order of the command line
    own = [point for point in response.points if point.recipe == recipe and point.held_out]
    title = ", ".join(filter(None, (f"Response to {x} and {lines}", recipe)))
    figure = f"{metric} on held-out identities"
    if len(values_of(response, lines)) > MOST_LINES:
        place = response.chosen
        chosen = None if place is None or response.points[place].recipe != recipe else response.points[place].values
        cells = {(point.values[x], point.values[lines]): point.mean[metric] for point in own}
        drawn = charts.heat_chart(
            cells,
            (values_of(response, x), values_of(response, lines)),
            f"{title}: {figure}, in percent",
            (response.names[x], response.names[lines]),
            (chosen[x], chosen[lines]) if chosen else None,
        )
        return pictures([drawn])
    curves: dict[str, dict[str, Figures]] = {}
    for point in own:
        name = f"{response.names[lines]} {point.values[lines] or repr('')}"
        curves.setdefault(name, {})[point.values[x]] = figures_of(point, metric)
    return pictures([charts.curve_chart(curves, values_of(response, x), title, (response.names[x], figure))])


def dots(response: Response, key: str) -> Figure:
    """Return all points over their values of a key."""
    metric = response.metrics[0]
    known = [place for place, point in enumerate(response.points) if point.held_out]
    chosen = known.index(response.chosen) if response.chosen is not None else None
    shown = [(response.points[place].values[key], response.points[place].mean[metric]) for place in known]
    names = (response.names[key], f"{metric} on held-out identities")
    return charts.dots_chart(shown, chosen, f"Response to {key}", names, key in response.logarithmic)
