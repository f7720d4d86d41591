"""The figures of a test with several modalities, drawn as `tools.charts` does: fractions in 0..1, shown in percent."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from tools.charts import FONT, HEIGHT, end_of_axis, legend_below, light_grid, new_figure, plain_text, write_beside
from tools.svg import CARD, DARK_LETTERS, EMPTY, LIGHT_LETTERS, PALETTE, SOFT
from utils.ranking.set_scores import GROUP, Gain, MissingScore, SetScore
from utils.statistics.paired import SIGNIFICANCE

ROW, MARGIN = 0.24, 1.0  # inches of a bar or a cell, and of what stands around them
LEAST_STEP = 0.01  # of a fraction: the smallest change that has the full colour


def set_chart(scores: Sequence[SetScore], title: str) -> Figure:
    """Return bars of mAP with 95 % intervals and dots of Rank-1: each group of sets, its mean first, then its sets."""
    groups = [one for one in scores if one.kind == GROUP]
    sets = [one for one in scores if one.kind != GROUP]
    rows = [row for group in groups for row in (group, *(one for one in sets if one.group == group.name))]
    rows += [one for one in sets if one not in rows]
    figure = new_figure(title, MARGIN + ROW * len(rows))
    axes = figure.subplots()
    places, values = np.arange(len(rows)), np.array([one.mAP for one in rows])
    error = np.abs(np.array([[one.low, one.high] for one in rows]).T - values)
    colours = [PALETTE[0] if one.kind == GROUP else PALETTE[5] for one in rows]
    style = {"ecolor": SOFT, "elinewidth": 0.9, "capsize": 2}
    bars = axes.barh(places, values, 0.72, color=colours, xerr=error, error_kw=style)
    for kind, label in ((True, "mAP, mean of a group"), (False, "mAP, 95 % interval over identities")):
        for bar in [bar for bar, one in zip(bars, rows, strict=True) if (one.kind == GROUP) == kind][:1]:
            bar.set_label(label)
    axes.plot([one.R1 for one in rows], places, "D", color=PALETTE[1], markersize=3.5, label="Rank-1", clip_on=False)
    write_beside(axes, places, [f"{100 * one.mAP:.1f}" for one in rows], [f"n = {one.num_query:,}" for one in rows])
    axes.set_yticks(places, [plain_text(one.name) for one in rows])
    for label, one in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if one.kind == GROUP else "normal")
    top = end_of_axis([value for one in rows for value in (one.high, one.R1)])
    axes.set(xlim=(0, top), ylim=(len(rows) - 0.4, -0.6))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    light_grid(axes)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", labelsize=FONT)
    legend_below(figure, axes)
    return figure


def gain_chart(gains: Sequence[Gain], title: str) -> Figure:
    """Return what each modality (across) adds to each set (down), in points of mAP; bold is what is significant."""
    sets, modalities = (list(dict.fromkeys(values)) for values in zip(*(one[:2] for one in gains), strict=True))
    values = np.full((len(sets), len(modalities)), np.nan)
    for one in gains:
        values[sets.index(one.set), modalities.index(one.modality)] = one.difference
    figure = new_figure(title, MARGIN + ROW * len(sets))
    axes = figure.subplots()
    axes.patch.set(facecolor=EMPTY)  # seen through the cells of what a set does not have
    limit = max(float(np.nanmax(np.abs(values))), LEAST_STEP)
    norm = TwoSlopeNorm(0, -limit, limit)
    axes.pcolormesh(values, norm=norm, cmap="PuOr", edgecolors=CARD, linewidth=0.5)
    for one in gains:
        place = modalities.index(one.modality) + 0.5, sets.index(one.set) + 0.5
        colour = LIGHT_LETTERS if abs(one.difference) > 0.6 * limit else DARK_LETTERS
        weight = "bold" if one.p < SIGNIFICANCE else "normal"
        words = axes.text(*place, f"{round(100 * one.difference, 1) + 0.0:+.1f}", color=colour, fontweight=weight)
        words.set(ha="center", va="center", fontsize=FONT)
    axes.set_xticks(np.arange(len(modalities)) + 0.5, [plain_text(f"with {name}") for name in modalities])
    axes.set_yticks(np.arange(len(sets)) + 0.5, [plain_text(name) for name in sets])
    axes.xaxis.tick_top()
    axes.invert_yaxis()
    axes.tick_params(length=0, labelsize=FONT)
    axes.spines[:].set_visible(False)
    return figure


def missing_chart(scores: Sequence[MissingScore], title: str) -> Figure:
    """Return mAP, with its 95 % interval, by the probability with which an item of a query is missing."""
    figure = new_figure(title, HEIGHT)
    axes = figure.subplots()
    removed, values, low, high = (
        np.array([getattr(one, name) for one in scores]) for name in ("removed", "mAP", "low", "high")
    )
    axes.fill_between(removed, low, high, color=PALETTE[5], alpha=0.3, linewidth=0, label="95 % over identities")
    axes.plot(removed, values, "o-", color=PALETTE[0], linewidth=1.5, markersize=4, label="mAP")
    axes.set(xlabel="probability that an item is missing", ylabel="mAP", ylim=(0, min(1.02, 1.15 * high.max() + 0.02)))
    axes.set_xticks(removed)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    light_grid(axes)
    legend_below(figure, axes)
    return figure
