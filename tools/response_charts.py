"""Charts of a sweep: how a figure responds to one key, to two, and how a search has come on."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from tools.charts import FONT, HEIGHT, LINE_STYLES, legend_below, light_grid, new_figure, plain_text
from tools.svg import CARD, DARK_LETTERS, EMPTY, GRID, LIGHT_LETTERS, PALETTE

WIDE_RATIO = 20  # of the largest value to the smallest: beyond, they stand by orders of magnitude
LEAST_GAP = 0.35  # between two values on the axis, of their mean gap: closer ones are spaced evenly
DODGE = 0.06  # between the lines at one value, of the mean gap
MOST_LETTERS = 12  # of a value on an axis


class Figures(NamedTuple):
    """Figures at one value: their mean, its interval (NaN: not known), and those of the single seeds."""

    mean: float
    low: float
    high: float
    single: tuple[float, ...] = ()


def places_of(values: Sequence[str]) -> np.ndarray:
    """Return where values stand on an axis, float64 [n] in 0..n-1: numbers by size, all others in their order.

    Numbers far apart stand by orders of magnitude; where some would then touch, all are spaced evenly.
    """
    count = len(values)
    try:
        numbers = np.array([float(value) for value in values])
    except ValueError:
        return np.arange(count, dtype=float)
    if count < 2 or not np.isfinite(numbers).all():
        return np.arange(count, dtype=float)
    is_wide = numbers.min() > 0 and numbers.max() / numbers.min() >= WIDE_RATIO
    scaled = np.log(numbers) if is_wide else numbers
    span = scaled.max() - scaled.min()
    places = (scaled - scaled.min()) / span * (count - 1) if span else np.zeros(count)
    if np.diff(np.sort(places)).min() >= LEAST_GAP:
        return places
    return np.argsort(np.argsort(numbers, kind="stable"), kind="stable").astype(float)


def curve_chart(
    curves: Mapping[str, Mapping[str, Figures]], values: Sequence[str], title: str, names: tuple[str, str]
) -> Figure:
    """Return lines over the `values` of a key: name -> {value: figures}, with intervals and a pale dot for each seed.

    `names` are those of the key and of the figure.
    """
    figure = new_figure(title, HEIGHT)
    axes = figure.subplots()
    places = dict(zip(values, places_of(values), strict=True))
    for index, (name, curve) in enumerate(curves.items()):
        shift = DODGE * (index - (len(curves) - 1) / 2)
        own = sorted((places[value] + shift, one) for value, one in curve.items())
        x = np.array([place for place, _ in own])
        mean, low, high = (np.array([one[part] for _, one in own]) for part in range(3))
        colour = PALETTE[index % len(PALETTE)]
        style = LINE_STYLES[index // len(PALETTE) % len(LINE_STYLES)]
        axes.plot(x, mean, style, color=colour, linewidth=1.5, marker="o", markersize=4, label=plain_text(name))
        known = ~np.isnan(low)
        axes.vlines(x[known], low[known], high[known], color=colour, linewidth=1.2)
        dots = [(place, value) for place, one in own for value in (one.single if len(one.single) > 1 else ())]
        axes.plot(*(zip(*dots, strict=True) if dots else ([], [])), "o", color=colour, markersize=3, alpha=0.4)
    _name_values(axes, values, places_of(values))
    _finish(axes, names)
    if len(curves) > 1:
        legend_below(figure, axes)
    return figure


def heat_chart(
    figures: Mapping[tuple[str, str], float],
    axes_values: tuple[Sequence[str], Sequence[str]],
    title: str,
    names: tuple[str, str],
    chosen: tuple[str, str] | None,
) -> Figure:
    """Return a heat map: (value of the key across, of the key down) -> figure; the chosen one has a frame."""
    across, down = axes_values
    cells = np.full((len(down), len(across)), np.nan)
    for (x, y), value in figures.items():
        cells[down.index(y), across.index(x)] = value
    figure = new_figure(title, max(HEIGHT, 1.2 + 0.3 * len(down)))
    axes = figure.subplots()
    axes.patch.set(facecolor=EMPTY, hatch="////", edgecolor=GRID)  # seen through the empty cells
    drawn = cells[~np.isnan(cells)]
    low, high = (drawn.min(), drawn.max()) if drawn.size else (0.0, 1.0)
    colours = matplotlib.colormaps["cividis"].resampled(20)  # few enough to stay vectors in an SVG
    mesh = axes.pcolormesh(cells, vmin=low, vmax=max(high, low + 1e-3), cmap=colours, edgecolors=CARD, linewidth=0.5)
    for row, column in zip(*np.nonzero(~np.isnan(cells)), strict=True):
        colour = DARK_LETTERS if mesh.norm(cells[row, column]) > 0.5 else LIGHT_LETTERS
        text = axes.text(column + 0.5, row + 0.5, f"{100 * cells[row, column]:.1f}", color=colour)
        text.set(ha="center", va="center", fontsize=FONT)
    if chosen is not None:
        corner = (across.index(chosen[0]) + 0.03, down.index(chosen[1]) + 0.03)
        axes.add_patch(matplotlib.patches.Rectangle(corner, 0.94, 0.94, fill=False, linewidth=2, edgecolor=PALETTE[1]))
    for axis, values in ((axes.xaxis, across), (axes.yaxis, down)):
        axis.set_ticks(np.arange(len(values)) + 0.5, [_short(value) for value in values])
    axes.set_xlabel(plain_text(names[0]), fontsize=FONT)
    axes.set_ylabel(plain_text(names[1]), fontsize=FONT)
    axes.tick_params(length=0, labelsize=FONT)
    axes.spines[:].set_visible(False)
    return figure


def dots_chart(
    dots: Sequence[tuple[str, float]], chosen: int | None, title: str, names: tuple[str, str], logarithmic: bool = False
) -> Figure:
    """Return a dot for each point over its value of a key; the chosen one is marked."""
    figure = new_figure(title, HEIGHT)
    axes = figure.subplots()
    values = list(dict.fromkeys(value for value, _ in dots))
    try:
        x = np.array([float(value) for value, _ in dots])
    except ValueError:
        x = np.array([values.index(value) for value, _ in dots], dtype=float)
        _name_values(axes, values, np.arange(len(values), dtype=float))
    y = np.array([figure for _, figure in dots])
    axes.plot(x, y, "o", color=PALETTE[0], markersize=4, alpha=0.7, label="a point")
    if chosen is not None:
        axes.plot(x[chosen], y[chosen], "D", color=PALETTE[1], markersize=6, label="chosen")
    if logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    _finish(axes, names)
    legend_below(figure, axes)
    return figure


def progress_chart(figures: Sequence[float], title: str, name: str) -> Figure:
    """Return the figure of each point in the order of the search, and the best so far; NaN: the point failed."""
    figure = new_figure(title, HEIGHT)
    axes = figure.subplots()
    y, x = np.asarray(figures, dtype=float), np.arange(1, len(figures) + 1)
    best = np.fmax.accumulate(y) if len(y) else y
    axes.plot(x, y, "o", color=PALETTE[0], markersize=4, alpha=0.7, label="a point")
    axes.plot(x, best, "-", color=PALETTE[1], linewidth=1.5, drawstyle="steps-post", label="best so far")
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    _finish(axes, ("point", name))
    legend_below(figure, axes)
    return figure


def _name_values(axes: Axes, values: Sequence[str], places: np.ndarray) -> None:
    axes.set_xticks(places, [_short(value) for value in values])
    axes.set_xlim(-0.4, max(len(values) - 1, 0) + 0.4)
    if sum(len(_short(value)) for value in values) > 3 * MOST_LETTERS:
        axes.tick_params(axis="x", rotation=30)


def _short(value: str) -> str:
    try:
        return f"{float(value):g}" if not math.isnan(float(value)) else value
    except ValueError:
        pass
    text = value or repr("")
    return plain_text(text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 3]}...")


def _finish(axes: Axes, names: tuple[str, str]) -> None:
    axes.set(xlabel=plain_text(names[0]), ylabel=plain_text(names[1]))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    light_grid(axes)
