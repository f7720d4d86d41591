"""The report of a sweep: its choice, the response to one key, two and more, and the test of the chosen point."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tools.report.report_files import Page, make_launch
from tools import response_charts
from tools.report import write_sweep_report
from tools.report.swept import one_key
from tools.response_charts import places_of
from tools.study.response import PointResult, Response
from utils.test_folder import METRICS

COMMAND = "python run_phased_loss.py --config a.yml --grid SOLVER.BASE_LR 1 2"
LR, MARGIN, GAMMA = "SOLVER.BASE_LR", "SOLVER.MARGIN", "SOLVER.GAMMA"
NAMES = {LR: "BASE_LR", MARGIN: "MARGIN", GAMMA: "GAMMA"}
REST = ["settings", "schedule", "training", "progress", "cmc", "last-1", "data", "reproduce"]


def point(values: dict[str, str], figure: float, recipe: str = "", failed: bool = False) -> PointResult:
    metrics = {seed: dict.fromkeys(METRICS, figure + 0.01 * seed) for seed in (0, 1)}
    interval = dict.fromkeys(METRICS, [figure - 0.05, figure + 0.06])
    name = "_".join([recipe, *values.values()])
    return PointResult(name, recipe, values, 3, {} if failed else metrics, {} if failed else interval, "x" * failed)


def response(points: list[PointResult], kind: str = "grid", logarithmic: tuple[str, ...] = ()) -> Response:
    names = {key: NAMES[key] for key in points[0].values}
    return Response(kind, names, ("mAP", "Rank-1"), "synthetic VeRi", (0, 1), tuple(points), logarithmic)


def page(path: Path, shown: Response, tested: tuple | None = None, also_tested: tuple[str, ...] = ()) -> Page:
    made = Page(write_sweep_report(path / "r.html", shown, tested, also_tested, COMMAND).read_text(encoding="utf-8"))
    made.check()
    assert "cannot be shown" not in made.text
    return made


def grid(*sizes: int) -> list[PointResult]:
    """Points of keys with these numbers of values; the figure of each is its own."""
    keys = [LR, MARGIN, GAMMA][: len(sizes)]
    return [
        point({key: f"{0.1 * (1 + place):g}" for key, place in zip(keys, where, strict=True)}, 0.2 + 0.01 * number)
        for number, where in enumerate(np.ndindex(*sizes))
    ]


def test_a_tested_sweep_has_the_sections_of_a_launch_below_its_own(tmp_path):
    launch = make_launch(tmp_path / "logs", ["configs/Synthetic/baseline.yml"], [0, 1], ["SOLVER.MAX_EPOCHS", "10"])
    tested = tuple(part[0] for part in launch)
    made = page(tmp_path, response(grid(2, 2)), tested)
    assert [section["id"] for section in made.find("section")] == ["result", "response", "points", "test", *REST]
    figure = tested[1]["mean"]["last"]["mAP"]
    assert f"{100 * figure:.1f} mAP on the test set" in made.text
    assert "BASE_LR 0.2, MARGIN 0.2 chosen by mAP: 23.5 on held-out identities (95 %: 18.0 to 29.0)" in made.text
    assert COMMAND in made.text and "The test set was looked at once" in made.text


@pytest.mark.parametrize(
    ("sizes", "kind", "titles"),
    [
        ((3,), "grid", ["Response to SOLVER.BASE_LR"]),
        ((2, 3), "grid", ["Response to SOLVER.MARGIN and SOLVER.BASE_LR"]),
        ((7, 7), "grid", ["Response to SOLVER.BASE_LR and SOLVER.MARGIN: mAP on held-out identities, in percent"]),
        ((2, 2, 2), "grid", [f"Response to {key}" for key in NAMES]),
        ((3,), "search", ["Points in the order of the search", "Response to SOLVER.BASE_LR"]),
    ],
)
def test_the_response_is_drawn_as_its_keys_ask_for(tmp_path, sizes, kind, titles):
    made = page(tmp_path, response(grid(*sizes), kind, (LR,)))
    assert all(title in made.text for title in titles) and "was not tested" in made.text


def test_recipes_have_a_line_each_over_one_key_and_a_chart_each_over_two(tmp_path):
    both = [point({LR: value}, 0.2, recipe) for recipe in ("a", "b") for value in ("1", "2")]
    labels = one_key(response(both)).axes[0].get_legend_handles_labels()[1]
    assert labels == ["a", "b"]
    made = page(tmp_path, response([point({LR: v, MARGIN: v}, 0.2, r) for r in ("a", "b") for v in ("1", "2")]))
    assert made.text.count("Response to SOLVER.BASE_LR and SOLVER.MARGIN") >= 2


def test_a_line_has_the_means_the_intervals_and_the_seeds():
    axes = one_key(response(grid(3))).axes[0]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [0.205, 0.215, 0.225])
    (bars,) = axes.collections
    spans = [(segment[0][1], segment[1][1]) for segment in bars.get_segments()]
    np.testing.assert_allclose(spans, [(0.15, 0.26), (0.16, 0.27), (0.17, 0.28)])
    np.testing.assert_allclose(sorted(axes.lines[1].get_ydata()), [0.2, 0.21, 0.21, 0.22, 0.22, 0.23])


def test_failed_points_and_points_that_were_tested_before_are_said(tmp_path):
    points = [*grid(2), point({LR: "9"}, 0.0, failed=True)]
    made = page(tmp_path, response(points), None, ("other_point",))
    assert "Caution: other points have been tested before: other_point." in made.text
    assert "1 more are not whole" in made.text
    nothing = page(tmp_path, response([point({LR: "9"}, 0.0, failed=True)]))
    assert "Nothing chosen" in nothing.text and "No point has a figure yet." in nothing.text


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=8, unique=True))
def test_numbers_stand_in_their_order_and_fill_the_axis(values):
    places = places_of([repr(value) for value in values])
    assert np.argsort(places).tolist() == np.argsort(values).tolist()
    assert places.min() == 0 and places.max() == pytest.approx(len(values) - 1)


def test_places_are_by_size_by_orders_of_magnitude_or_even():
    np.testing.assert_allclose(places_of(["0", "1", "4"]), [0, 0.5, 2])
    np.testing.assert_allclose(places_of(["0.1", "0.001", "0.01"]), [2, 0, 1])
    np.testing.assert_allclose(places_of(["1", "1.01", "2"]), [0, 1, 2])  # the first two would touch
    np.testing.assert_allclose(places_of(["SGD", "Adam", "1"]), [0, 1, 2])


def test_the_best_so_far_of_a_search_never_falls_and_passes_over_failures():
    figure = response_charts.progress_chart([0.2, float("nan"), 0.1, 0.3], "t", "mAP")
    np.testing.assert_allclose(figure.axes[0].lines[1].get_ydata(), [0.2, 0.2, 0.2, 0.3])
