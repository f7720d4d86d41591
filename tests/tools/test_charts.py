"""Figures: they show the numbers given, nothing is cut off or overlaps, and as SVG they can stand in any page."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from functools import cache
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from tools import charts, set_charts, svg
from utils.ranking.set_scores import Gain, MissingScore, SetScore
from utils.ranking.slices import Slice, brightness_ranges

NAN = float("nan")
SVG = "{http://www.w3.org/2000/svg}"
ROOT = Path(__file__).parents[2]


def pairs(cameras: int) -> list[Slice]:
    rng = np.random.default_rng(cameras)
    values = np.where(np.eye(cameras, dtype=bool), NAN, rng.uniform(0.2, 0.9, (cameras, cameras)))
    return [Slice("camera_pair", str(a), str(b), 5, 3, values[a, b], 1.0) for a, b in np.ndindex(values.shape)]


QUERY_SLICES = [
    *(Slice("viewpoint", name, "", 1000 * place, 9, 0.1 * place, 1.0) for place, name in enumerate("01234567", 1)),
    Slice("viewpoint", "unknown", "", 0, 0, NAN, NAN),
    Slice("brightness", "dark 0-0.35", "", 1200, 30, 0.0, 0.0),
    Slice("brightness", "0.175-0.35", "", 1200, 30, 0.0, 0.0),
    Slice("matches", "256-511", "", 12345, 30, 1.0, 1.0),
]
EDGES = np.linspace(0, 2, 41)
POSITIVE, NEGATIVE = np.arange(40)[::-1], 100 * np.arange(40)
FPR, TPR = np.array([0.0, 0.0, 0.001, 0.1, 1.0]), np.array([0.0, 0.2, 0.5, 0.9, 1.0])
EPOCHS = np.arange(1, 121)
LONG = "the experiment with a name that is far too long for one line of a legend"
LINES = {name: (EPOCHS, 1 / EPOCHS + index) for index, name in enumerate(["id", "triplet", "tripletx", "supcon"])}
NAMES = ["+".join(names) for size in range(1, 5) for names in combinations(("NIR", "SK", "CP", "TEXT"), size)]
SIZES = {name: 1 + name.count("+") for name in NAMES}
SETS = [
    SetScore("group", f"MM-{size}", "", size, 99, 9, 0.2 * size, 0.1 * size, 0.24 * size, 1.0) for size in (1, 2, 3, 4)
]
SETS += [SetScore("set", name, f"MM-{size}", size, 99, 9, 0.2 * size, 0.0, 1.0, 0.0) for name, size in SIZES.items()]
GAINS = [
    Gain(name, modality.lower(), 99, 0.5, 0.4, 0.1 - 0.1 * place, -0.1, 0.3, 0.04 + place)
    for name in NAMES[4:]
    for place, modality in enumerate(name.split("+"))
]
MISSING = [MissingScore(NAMES[-1], share, 4 * (1 - share), 1 - share, 0.2, 1.0) for share in (0, 0.25, 0.5, 0.75)]
PHASES = [(1, "A: id + triplet"), (40, "B: id + tripletx + supcon"), (120, "C: id + triplet + supcon")]

FIGURES = {
    "one camera pair": lambda: charts.camera_pair_chart(pairs(2)),
    "camera pairs": lambda: charts.camera_pair_chart(pairs(12)),
    "many camera pairs": lambda: charts.camera_pair_chart(pairs(30)),
    "viewpoints": lambda: charts.slice_chart(QUERY_SLICES, "viewpoint"),
    "brightness": lambda: charts.slice_chart(QUERY_SLICES, "brightness", "A title of one's own <&> $x$"),
    "matches": lambda: charts.slice_chart(QUERY_SLICES, "matches"),
    "all slices": lambda: charts.slices_chart(pairs(6) + QUERY_SLICES, "All slices"),
    "no camera pairs": lambda: charts.slices_chart(QUERY_SLICES, "No cameras"),
    "CMC": lambda: charts.cmc_chart({f"seed {seed}": np.linspace(0.5 + seed / 10, 1, 50) for seed in range(3)}),
    "distances": lambda: charts.distance_chart(EDGES, POSITIVE, NEGATIVE),
    "ROC": lambda: charts.roc_chart(FPR, TPR, {0.0001: 0.31, 0.001: 0.5, 0.01: 0.66, 0.1: 0.9}),
    "ROC of a model that guesses": lambda: charts.roc_chart(FPR, FPR, {0.0001: 0.0001, 0.001: 0.001, 0.01: 0.01}),
    "lines": lambda: charts.line_chart(LINES, f"Loss of {LONG}", "epoch", "loss", PHASES),
    "one line": lambda: charts.line_chart({"total": LINES["id"]}, "Loss", "epoch", "loss", PHASES),
    "sets of queries": lambda: set_charts.set_chart(SETS, "mAP of each set of queries"),
    "one set of queries": lambda: set_charts.set_chart(SETS[-1:], "One set without a group"),
    "gains": lambda: set_charts.gain_chart(GAINS, "Points of mAP that a modality adds to a set"),
    "one gain": lambda: set_charts.gain_chart(GAINS[:1], "One gain"),
    "missing items": lambda: set_charts.missing_chart(MISSING, f"{NAMES[-1]} with items missing at random"),
    "nothing": lambda: charts.line_chart({}, "Loss", "epoch", "loss"),
}
every_figure = pytest.mark.parametrize("name", FIGURES)


def drawn(figure: Figure) -> Figure:
    figure.draw_without_rendering()
    return figure


@cache
def figure_of(name: str) -> Figure:
    return drawn(FIGURES[name]())


@cache
def svg_of(name: str) -> str:
    return svg.to_svg(FIGURES[name]())


@every_figure
def test_nothing_is_cut_off(name):
    figure = figure_of(name)
    box = figure.get_tightbbox()  # inches, of everything that is drawn
    width, height = figure.get_size_inches()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height


@every_figure
def test_names_along_an_axis_and_titles_do_not_overlap(name):
    figure = figure_of(name)
    for axes in figure.axes:
        texts = [axes.title, axes.xaxis.label, axes.yaxis.label]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            texts += [label for tick in ticks for label in (tick.label1, tick.label2) if label.get_visible()]
        boxes = {text.get_text(): text.get_window_extent() for text in texts if text.get_text()}
        assert not [(a, b) for a, b in combinations(boxes, 2) if boxes[a].overlaps(boxes[b])]


@every_figure
def test_the_svg_is_sound_xml_that_a_page_can_scale_and_read_aloud(name):
    figure, root = figure_of(name), ElementTree.fromstring(svg_of(name))
    assert root.tag == f"{SVG}svg" and "width" not in root.attrib and "height" not in root.attrib
    assert [float(value) for value in root.get("viewBox").split()[2:]] == pytest.approx(72 * figure.get_size_inches())
    assert root[0].tag == f"{SVG}title" and root[0].text == root.get("aria-label") == figure.get_label()
    assert {text.text for text in root.iter(f"{SVG}text")} - {None}, "text must stay text"


@every_figure
def test_the_svg_needs_nothing_from_outside_and_leaves_the_page_alone(name):
    markup = svg_of(name)
    assert re.findall(r"https?:[^\"]*", markup) == ["http://www.w3.org/2000/svg"]
    assert not re.search(r"<(style|script|image|metadata|\?xml|!DOCTYPE|!--)", markup)


@every_figure
def test_letters_and_colours_are_those_of_the_page(name):
    markup = svg_of(name)
    assert "font-family" not in markup
    sizes = set(re.findall(r"font-size: ?([^;\"]*)", markup)) | set(re.findall(r"font: [^;\"]*", markup))
    titles = {"10px"} if name in ("all slices", "no camera pairs", "nothing") else set()
    exponents = {"6.3px"} if name.startswith("ROC") else set()  # of 10^-3 on its axis
    assert {size.strip() for size in sizes} == {"9px"} | titles | exponents
    plain = set(re.findall(r"(?<![(,-])#[0-9a-f]{6}", markup.split(">", 1)[1])) & svg.COLOURS.keys()
    assert not plain, "a colour that a dark page cannot change"


def ids(markup: str) -> list[str]:
    return [element.get("id") for element in ElementTree.fromstring(markup).iter() if element.get("id")]


def test_ids_are_unique_over_the_figures_of_a_page_and_references_stay_inside():
    markups = [svg_of(name) for name in FIGURES]
    every_id = [name for markup in markups for name in ids(markup)]
    assert len(every_id) == len(set(every_id)) > 50
    for markup in markups:
        assert set(re.findall(r'(?:href="|url\()#([^")]*)', markup)) <= set(ids(markup))


@pytest.mark.parametrize("name", ["all slices", "distances", "lines"])
def test_the_same_numbers_give_the_same_svg(name):
    assert svg.to_svg(FIGURES[name]()) == svg_of(name)


def texts_of(markup: str) -> str:
    return " ".join("".join(text.itertext()) for text in ElementTree.fromstring(markup).iter(f"{SVG}text"))


def test_markup_formulas_and_leading_underscores_are_shown_as_written():
    series = {"<b>&": ([1, 2], [0, 1]), "$x$": ([1, 2], [1, 0]), "_hidden": ([1, 2], [0, 0])}
    shown = texts_of(svg.to_svg(charts.line_chart(series, "a $5 & $6 <i>", "epoch", "y", [(1, "$p$")])))
    for words in ("<b>&", "$x$", "_hidden", "$p$"):
        assert words in shown


def test_the_library_is_left_as_it_was():
    before = dict(matplotlib.rcParams)
    svg.to_svg(FIGURES["lines"]())
    assert dict(matplotlib.rcParams) == before
    code = "import sys; from tools import charts, svg; svg.to_svg(charts.cmc_chart({'a': [1.0]})); "
    code += "sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_png_is_written_whole_and_always_the_same(tmp_path):
    for name in ("a.png", "b.png"):
        charts.save_png(FIGURES["camera pairs"](), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]
    with Image.open(tmp_path / "a.png") as image:
        size = charts.WIDTH * charts.PNG_DPI, charts.HEAT_HEIGHT * charts.PNG_DPI
        assert image.size == pytest.approx(size, abs=1)


def cells(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_the_heat_map_shows_the_pairs_and_leaves_empty_ones_out():
    slices = pairs(3)
    axes = charts.camera_pair_chart(slices).axes[0]
    np.testing.assert_equal(axes.collections[0].get_array().filled(NAN).ravel(), [part.mAP for part in slices])
    expected = [f"{100 * part.mAP:.0f}\nn {part.num_query}" for part in slices if part.query != part.gallery]
    assert cells(axes.figure) == expected
    assert [axes.get_xlabel(), axes.get_ylabel()] == ["gallery camera", "query camera"]
    assert axes.yaxis_inverted(), "the first query camera is above"
    assert "n" not in "".join(cells(charts.camera_pair_chart(pairs(7)))), "the note and the table tell it"
    assert len(cells(charts.camera_pair_chart(pairs(12)))) == 132 and not cells(charts.camera_pair_chart(pairs(13)))


def test_a_heat_map_without_any_valid_query_is_drawn_empty():
    empty = [part._replace(mAP=NAN, num_query=0) for part in pairs(3)]
    assert not cells(drawn(charts.camera_pair_chart(empty)))


@pytest.mark.parametrize(("value", "scale"), [(0.0, (0, 0.1)), (0.5, (0.5, 0.6)), (0.55, (0.5, 0.6)), (1.0, (0.9, 1))])
def test_the_colours_span_the_tens_of_percent_around_the_values(value, scale):
    equal = [part._replace(mAP=value) for part in pairs(2)]
    figure = drawn(charts.camera_pair_chart(equal))
    assert figure.axes[0].collections[0].get_clim() == pytest.approx(scale)


def test_bars_show_map_rank1_and_the_number_of_queries():
    slices = [Slice("matches", "1", "", 1234, 9, 0.25, 0.5), Slice("matches", "2-3", "", 0, 0, NAN, NAN)]
    axes = charts.slice_chart(slices, "matches").axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.25, 0.0]
    np.testing.assert_equal(axes.lines[0].get_xdata(), [0.5, NAN])
    assert cells(axes.figure) == ["25.0", "", "n = 1,234", "no query"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1", "2-3"]


def test_both_histograms_sum_to_one_and_no_positive_pair_is_no_error():
    axes = charts.distance_chart(EDGES, POSITIVE, NEGATIVE).axes[0]
    for patch in axes.patches:
        assert patch.get_data().values.sum() == pytest.approx(1)
    figure = charts.distance_chart(EDGES, np.zeros(40, dtype=int), NEGATIVE)
    assert figure.axes[0].patches[0].get_data().values.sum() == 0
    assert "same identity (0 pairs)" in texts_of(svg.to_svg(figure))


def test_the_roc_starts_at_the_smallest_rate_that_a_logarithmic_axis_can_show():
    axes = charts.roc_chart(FPR, TPR, {0.0001: 0.31, 0.1: 0.9}).axes[0]
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[0.0001, 0.2], [0.001, 0.5], [0.1, 0.9], [1, 1]])
    assert axes.get_xlim() == (0.0001, 1)
    assert axes.get_legend_handles_labels()[1] == ["31.0% at 0.0001", "90.0% at 0.1"]
    drawn(charts.roc_chart(np.array([0.0, 0.0]), np.array([0.0, 1.0]), {}))  # no negative pair passes any threshold


def test_lines_keep_gaps_and_phases_stand_where_they_begin():
    axes = charts.line_chart({"a": ([1, 2, 3], [1.0, NAN, 2.0])}, "Loss", "epoch", "loss", PHASES).axes[0]
    np.testing.assert_equal(axes.lines[0].get_ydata(), [1.0, NAN, 2.0])
    assert [line.get_xdata()[0] for line in axes.lines[1:]] == [1, 40, 120]
    assert [text.get_text() for text in axes.texts][:2] == ["A: id + triplet", "B: id + tripletx +..."]


@pytest.mark.parametrize("epochs", [1, 2, 3, 5, 15, 120])
def test_epochs_have_whole_numbers_as_ticks(epochs):
    x = np.arange(1, epochs + 1)
    axes = drawn(charts.line_chart({"a": (x, 1 / x)}, "Loss", "epoch", "loss")).axes[0]
    low, high = axes.get_xlim()
    shown = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert shown and all(tick == round(tick) for tick in shown)


def test_every_series_looks_different_as_long_as_there_are_colours_and_styles():
    series = {f"seed {number}": ([0, 1], [number, number]) for number in range(15)}
    axes = charts.line_chart(series, "mAP", "epoch", "mAP").axes[0]
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 15


@pytest.mark.parametrize(("highest", "end"), [(0.0, 0.1), (0.034, 0.1), (0.3, 0.3), (0.301, 0.4), (1.0, 1.0)])
def test_the_axis_of_bars_ends_at_the_tens_of_percent_above_all_of_them(highest, end):
    slices = [Slice("viewpoint", "0", "", 5, 3, highest / 2, highest), Slice("matches", "1", "", 0, 0, NAN, NAN)]
    slices.append(Slice("camera_pair", "0", "1", 5, 3, 1.0, 1.0))  # the heat map has an axis of its own
    for kind in ("viewpoint", "matches"):
        assert charts.slice_chart(slices, kind).axes[0].get_xlim() == pytest.approx((0, end))


def test_bars_of_brightness_are_of_one_level():
    names = [name for name, *_ in brightness_ranges(0.35)]
    slices = [Slice("brightness", name, "", 10 * place, 3, 0.5, 0.5) for place, name in enumerate(names)]
    labels = [label.get_text() for label in charts.slice_chart(slices, "brightness").axes[0].get_yticklabels()]
    assert labels == ["dark 0-0.175", "dark 0.175-0.35", "bright 0.35-0.675", "bright 0.675-1"]
    assert [part.num_query for part in charts.one_level(slices)] == [10, 20, 40, 50]
    assert charts.one_level(slices[::3]) == slices[::3], "sides alone stay"
