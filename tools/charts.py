"""The figures of slices.png and of the report, drawn without pyplot, so that no state is shared between them.

Each function takes plain arrays and returns a matplotlib Figure; fractions in 0..1 are shown in percent. The title of a
figure is its label: a page sets it above the drawing in its own letters (`tools.report.page`).
"""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import MaxNLocator, PercentFormatter

from tools.svg import CARD, DARK_LETTERS, EMPTY, GRID, LIGHT_LETTERS, PALETTE, SOFT
from utils.atomic import replacing
from utils.ranking.slices import Slice

LINE_STYLES = ("-", "--", ":")  # the next one where the palette begins again
WIDTH, WIDE = 4.2, 8.68  # inches: of a card of a row of two, of one that fills a row and has letters of the same size
HEIGHT, HEAT_HEIGHT = 3.0, 4.65  # inches of a chart of lines, of a heat map with its bar
LABEL_COLUMNS = 22  # characters of a name within a figure
FONT = 9  # points, of all letters
MAX_COUNTED, MAX_ANNOTATED, MAX_NAMED = 6, 12, 14  # cameras a side: their cells have room for n, for mAP; their names
MAX_MARKED = 40  # points of a line that get a dot each
PNG_DPI = 150
SLICE_TITLES = {
    "viewpoint": "Viewpoint of the query",
    "brightness": "Brightness of the query (mean luma, 0..1)",
    "occlusion": "Occlusion of the query",
    "side": "Side that the drawing shows",
    "words": "Words of the caption",
    "matches": "Gallery images that match the query",
}


def camera_pair_chart(slices: Sequence[Slice], title: str = "mAP per camera pair") -> Figure:
    """Return the heat map of mAP of the slices of kind camera_pair; pairs without a valid query are hatched."""
    figure = new_figure(title, HEAT_HEIGHT)
    axes = figure.subplots()
    _draw_camera_pairs(axes, slices)
    axes.set_aspect("equal")
    return figure


def slice_chart(slices: Sequence[Slice], kind: str, title: str | None = None) -> Figure:
    """Return bars of mAP with dots of Rank-1, and the number of valid queries, for the slices of one `kind`.

    The axis is that of all kinds, so that the charts beside each other compare.
    """
    rows = one_level([part for part in slices if part.kind == kind])
    figure = new_figure(title or SLICE_TITLES[kind], 0.8 + 0.25 * max(len(rows), 1))
    axes = figure.subplots()
    _draw_slices(axes, rows, top_of(slices))
    legend_below(figure, axes)
    return figure


def one_level(rows: Sequence[Slice]) -> list[Slice]:
    """Return the halves of the dark and the bright side in place of sides and halves; other slices as they are."""
    halves, side = [], ""
    for part in rows:
        first, _, span = part.query.partition(" ")
        if part.kind == "brightness" and span:
            side = first
        elif part.kind == "brightness":
            halves.append(part._replace(query=f"{side} {first}".strip()))
    return halves or list(rows)


def top_of(slices: Sequence[Slice]) -> float:
    """Return where the axis of bars ends: the tens of percent at or above all mAP and Rank-1, camera pairs left out."""
    values = [value for part in slices if part.kind in SLICE_TITLES for value in (part.mAP, part.R1)]
    return end_of_axis(values)


def end_of_axis(fractions: Sequence[float]) -> float:
    """Return the first multiple of 0.1 at or above the fractions, within 0.1..1; NaN does not count."""
    highest = np.max(fractions, initial=0, where=~np.isnan(fractions))
    return float(np.clip(np.ceil(round(10 * highest, 6)) / 10, 0.1, 1))


def slices_chart(slices: Sequence[Slice], title: str) -> Figure:
    """Return one picture of all kinds of slices: the camera pairs, if any, beside the bars of the other kinds."""
    kinds = [kind for kind in SLICE_TITLES if any(part.kind == kind for part in slices)]
    has_pairs = any(part.kind == "camera_pair" for part in slices)
    shown = {kind: one_level([part for part in slices if part.kind == kind]) for kind in kinds}
    counts = [len(rows) for rows in shown.values()]
    figure = new_figure(
        title, max(1.5 + sum(0.8 + 0.27 * count for count in counts), HEAT_HEIGHT if has_pairs else 0.0)
    )
    figure.set_figwidth(2.2 * WIDTH if has_pairs else WIDTH)
    figure.suptitle(plain_text(title), fontsize=FONT + 1)
    areas = figure.subfigures(1, 2) if has_pairs else [figure]
    if has_pairs:
        axes = areas[0].subplots()
        axes.set_title("mAP per camera pair", fontsize=FONT)
        _draw_camera_pairs(axes, slices)
    if kinds:
        panels = areas[-1].subplots(len(kinds), 1, squeeze=False, height_ratios=[2 + count for count in counts])[:, 0]
        for axes, kind in zip(panels, kinds, strict=True):
            axes.set_title(SLICE_TITLES[kind], fontsize=FONT)
            _draw_slices(axes, shown[kind], top_of(slices))
        legend_below(areas[-1], panels[0])
    return figure


def cmc_chart(curves: Mapping[str, np.ndarray], title: str = "CMC curve") -> Figure:
    """Return the CMC of one or more runs: name -> [max_rank] of shares of queries with a match at rank <= r."""
    series = {name: (np.arange(1, len(curve) + 1), np.asarray(curve)) for name, curve in curves.items()}
    figure = line_chart(series, title, "rank", "queries with a match so far", percent=True)
    figure.axes[0].set_ylim(top=1.01)
    return figure


def distance_chart(
    edges: np.ndarray, positive: np.ndarray, negative: np.ndarray, title: str = "Distances of query-gallery pairs"
) -> Figure:
    """Return the histograms of positive and negative pairs (counts [n] between `edges` [n + 1]), each as shares.

    Each histogram sums to 1, so that the few positive pairs are as visible as the many negative ones.
    """
    figure = new_figure(title, HEIGHT)
    axes = figure.subplots()
    sides = (("same identity", positive, PALETTE[0]), ("other identity", negative, PALETTE[1]))
    for name, counts, color in sides:
        total = np.sum(counts)
        share = np.asarray(counts) / max(total, 1)
        axes.stairs(share, edges, color=color, fill=True, alpha=0.3)
        axes.stairs(share, edges, color=color, linewidth=1.5, label=f"{name} ({total:,} pairs)")
    axes.set(xlabel="distance", ylabel="share of the pairs", xlim=(edges[0], edges[-1]))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    light_grid(axes)
    legend_below(figure, axes)
    return figure


def roc_chart(
    fpr: np.ndarray, tpr: np.ndarray, points: Mapping[float, float], title: str = "ROC of query-gallery pairs"
) -> Figure:
    """Return the ROC curve (fpr, tpr: rising, [n]) on a logarithmic axis, with `points` {fpr: tpr} as dots.

    Their numbers stand in the legend: beside dots near 0 or 1 they would cover each other or an axis.
    """
    fpr, tpr = np.asarray(fpr), np.asarray(tpr)
    figure = new_figure(title, HEIGHT)
    axes = figure.subplots()
    left = min([rate for rate in (*fpr, *points) if rate > 0], default=0.1)
    begin = max(np.searchsorted(fpr, left, "right") - 1, 0)  # the last point at or before the left edge
    axes.plot(np.maximum(fpr[begin:], left), tpr[begin:], color=PALETTE[0], linewidth=1.5)
    for number, (rate, value) in enumerate(points.items(), start=1):
        style = {"color": PALETTE[number % len(PALETTE)], "markersize": 5, "clip_on": False, "zorder": 3}
        axes.plot(max(rate, left), value, "o", label=f"{value:.1%} at {rate:g}", **style)
    axes.set(xscale="log", xlim=(left, 1), ylim=(0, 1.02), xlabel="false positive rate", ylabel="true positive rate")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    light_grid(axes)
    if points:
        legend_below(figure, axes)
    return figure


def line_chart(
    series: Mapping[str, tuple[np.ndarray, np.ndarray]],
    title: str,
    x_label: str,
    y_label: str,
    boundaries: Sequence[tuple[float, str]] = (),
    percent: bool = False,
) -> Figure:
    """Return lines name -> (x [n] whole numbers, y [n]); NaN leaves a gap.

    `boundaries` are (x, name of the phase that begins there). `percent`: y holds fractions.
    """
    figure = new_figure(title, HEIGHT)
    axes = figure.subplots()
    for index, (name, (x, y)) in enumerate(series.items()):
        style = LINE_STYLES[index // len(PALETTE) % len(LINE_STYLES)]
        marker = "o" if len(x) <= MAX_MARKED else None
        color = PALETTE[index % len(PALETTE)]
        axes.plot(x, y, style, color=color, linewidth=1.5, marker=marker, markersize=3, label=plain_text(name))
    if not series:
        axes.text(0.5, 0.5, "nothing recorded", transform=axes.transAxes, ha="center", color=SOFT)
    for x, name in boundaries:
        axes.axvline(x, color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        box = {"facecolor": CARD, "alpha": 0.75, "edgecolor": "none", "pad": 0.8}
        name = textwrap.shorten(name, LABEL_COLUMNS, placeholder="...")
        text = axes.text(x, 0.98, plain_text(name), transform=axes.get_xaxis_transform(), rotation=90, bbox=box)
        text.set(ha="left", va="top", fontsize=FONT, color=SOFT)
    axes.set(xlabel=plain_text(x_label), ylabel=plain_text(y_label))
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    if percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    light_grid(axes)
    if len(series) > 1:
        legend_below(figure, axes)
    return figure


def save_png(figure: Figure, path: Path) -> None:
    """Write the figure as a PNG of 150 dots per inch; the file is never half-written."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=PNG_DPI, metadata={"Software": None})


def new_figure(title: str, height: float) -> Figure:
    """Return an empty figure, `height` inches high, with its title as its label."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor=CARD, label=title)
    figure.get_layout_engine().set(w_pad=0.04, h_pad=0.04)
    return figure


def plain_text(text: str) -> str:
    """Return `text` such that matplotlib takes no part of it for a formula or for a line to leave out."""
    text = text.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def light_grid(axes: Axes) -> None:
    """Give axes the looks of all figures: a pale grid behind, no frame above and at the right."""
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[:].set_color(SOFT)
    axes.tick_params(labelsize=FONT, color=SOFT)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_size(FONT)


def legend_below(figure: FigureBase, axes: Axes) -> None:
    """Put the legend of axes below the whole figure."""
    handles, labels = axes.get_legend_handles_labels()
    columns = max(1, min(len(labels), 52 // (6 + max(map(len, labels)))))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=FONT)


def _draw_camera_pairs(axes: Axes, slices: Sequence[Slice]) -> None:
    """Draw mAP of the camera pairs as coloured cells, queries down, gallery across, and the colour bar."""
    pairs = [part for part in slices if part.kind == "camera_pair"]
    queries, galleries = (list(dict.fromkeys(part[side] for part in pairs)) for side in (1, 2))
    row_of, column_of = ({name: place for place, name in enumerate(names)} for names in (queries, galleries))
    values = np.full((len(queries), len(galleries)), np.nan)
    for part in pairs:
        values[row_of[part.query], column_of[part.gallery]] = part.mAP
    axes.patch.set(facecolor=EMPTY, hatch="////", edgecolor=GRID)  # seen through the empty cells
    drawn = ~np.isnan(values)
    colours = matplotlib.colormaps["cividis"].resampled(20)  # few enough to stay vectors in an SVG
    low = min(np.floor(10 * np.min(values, initial=1, where=drawn)) / 10, 0.9)  # tens of percent around the values
    high = max(np.ceil(10 * np.max(values, initial=0, where=drawn)) / 10, low + 0.1)
    mesh = axes.pcolormesh(values, vmin=low, vmax=high, cmap=colours, edgecolors=CARD, linewidth=0.5)
    style = {"location": "bottom", "shrink": 0.8, "aspect": 30, "format": PercentFormatter(1, decimals=0)}
    bar = axes.figure.colorbar(mesh, ax=axes, ticks=MaxNLocator(5, steps=[1, 2, 5, 10]), **style)
    bar.ax.tick_params(labelsize=FONT, color=SOFT)
    bar.outline.set_visible(False)
    size = max(values.shape)
    for part in pairs if size <= MAX_ANNOTATED else ():
        if np.isnan(part.mAP):
            continue
        words = f"{100 * part.mAP:.0f}" + (f"\nn {part.num_query:,}" if size <= MAX_COUNTED else "")
        color = DARK_LETTERS if mesh.norm(part.mAP) > 0.5 else LIGHT_LETTERS
        text = axes.text(column_of[part.gallery] + 0.5, row_of[part.query] + 0.5, words, color=color)
        text.set(ha="center", va="center", fontsize=FONT)
    for axis, names in ((axes.xaxis, galleries), (axes.yaxis, queries)):
        step = -(-len(names) // MAX_NAMED)
        axis.set_ticks(np.arange(0, len(names), step) + 0.5, [plain_text(name) for name in names[::step]])
    axes.invert_yaxis()
    axes.set_xlabel("gallery camera", fontsize=FONT)
    axes.set_ylabel("query camera", fontsize=FONT)
    axes.tick_params(length=0, labelsize=FONT)
    axes.spines[:].set_visible(False)


def _draw_slices(axes: Axes, rows: Sequence[Slice], top: float) -> None:
    """Draw a bar of mAP and a dot of Rank-1 per slice, its first above; mAP and the number of queries at the right."""
    places = np.arange(len(rows))
    bars = axes.barh(places, [np.nan_to_num(part.mAP) for part in rows], 0.7, color=PALETTE[5])
    for bar in bars[:1]:
        bar.set_label("mAP")  # on a bar, not on all of them, it comes before Rank-1 in the legend
    axes.plot([part.R1 for part in rows], places, "D", color=PALETTE[1], markersize=4, label="Rank-1", clip_on=False)
    names = [f"{100 * part.mAP:.1f}" if part.num_query else "" for part in rows]
    write_beside(axes, places, names, [f"n = {part.num_query:,}" if part.num_query else "no query" for part in rows])
    axes.set_yticks(places, [plain_text(part.query) for part in rows])
    axes.set(xlim=(0, top), ylim=(len(rows) - 0.4, -0.6))
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    light_grid(axes)
    axes.grid(visible=False, axis="y")


def write_beside(axes: Axes, places: Sequence[float], *columns: Sequence[str]) -> None:
    """Write columns of words at the right of horizontal bars, each row at the height of its bar."""
    left = 9.0  # points from the axes, beyond a dot at their edge
    for words in columns:
        for place, word in zip(places, words, strict=True):
            where = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points", "va": "center"}
            axes.annotate(plain_text(word), (1, place), (left, 0), fontsize=FONT, annotation_clip=False, **where)
        left += 0.62 * FONT * max(map(len, words), default=0) + 5
