"""The parts of a report that show what modalities are worth: sets of queries, gains, and what their lack costs."""

from collections.abc import Sequence

import numpy as np

from configs.modalities import MODALITIES, set_name
from tools import set_charts
from tools.report.files import Tested
from tools.report.page import details, join, missing, paragraph, pictures, table
from tools.report.result import percent
from utils.ap_rules import marked, marked_metric
from utils.ranking.set_scores import SET, Gain, MissingScore, SetScore
from utils.statistics.paired import SIGNIFICANCE
from utils.test_folder import ap_rule_of

MOST_NAMED = 5  # sets that a sentence lists
SINGLE = tuple(set_name((name,)) for name in MODALITIES)


def modalities_part(tested: Tested) -> str:
    """Return bars of all sets, what each modality adds, the weakest one, and the curve of missing ones."""
    folder, rule = tested.folder, ap_rule_of(tested.summary)
    parts = [missing(tested.absent[name]) for name in (folder.sets.name, folder.gains.name) if name in tested.absent]
    drawn = []
    if tested.sets:
        drawn.append(set_charts.set_chart(tested.sets, marked("mAP of each set of queries", rule)))
    if tested.gains:
        drawn.append(set_charts.gain_chart(tested.gains, marked("Points of mAP that a modality adds to a set", rule)))
    if tested.missing:
        title = f"{tested.missing[0].set} with items missing at random"
        drawn.append(set_charts.missing_chart(tested.missing, marked(title, rule)))
    parts += [pictures(drawn, packed=True)] if drawn else []
    parts += [paragraph(line) for line in verdicts(tested.sets or [], tested.gains or [])]
    metric = marked_metric("mAP", rule)
    if tested.sets:
        parts.append(details("All sets with their intervals", set_table(tested.sets, metric)))
    if tested.gains:
        parts.append(details("All gains with their intervals", gain_table(tested.gains, metric)))
    if tested.missing:
        parts.append(missing_table(tested.missing, metric))
    elif folder.missing.name in tested.absent:
        parts.append(missing(tested.absent[folder.missing.name]))
    return join(parts)


def verdicts(sets: Sequence[SetScore], gains: Sequence[Gain]) -> list[str]:
    """Return in sentences which modality is the weakest alone, which adds least, and where one more does harm."""
    lines = []
    alone = [one for one in sets if one.kind == SET and one.name in SINGLE]  # not: of directions or galleries
    if len(alone) > 1:
        weakest, best = min(alone, key=lambda one: one.mAP), max(alone, key=lambda one: one.mAP)
        lines.append(
            f"Alone, {weakest.name} is the weakest (mAP {percent(weakest.mAP)} %, 95 %: {percent(weakest.low)} to "
            f"{percent(weakest.high)}), {best.name} the strongest ({percent(best.mAP)} %)."
        )
    means = {
        modality: float(np.mean([one.difference for one in gains if one.modality == modality]))
        for modality in dict.fromkeys(one.modality for one in gains)
    }
    if means:
        order = sorted(means, key=means.get)
        told = ", ".join(f"{name} {_points(means[name])}" for name in reversed(order))
        lines.append(
            f"The weakest modality in company is {order[0]}: to the same queries each adds, as a mean over its sets, "
            f"{told} points of mAP."
        )
        harm = [one for one in gains if one.difference < 0 and one.p < SIGNIFICANCE]
        named = "; ".join(f"{one.modality} in {one.set} ({_points(one.difference)})" for one in harm[:MOST_NAMED])
        more = f"; and {len(harm) - MOST_NAMED} more" if len(harm) > MOST_NAMED else ""
        lines.append(
            f"More is not always better. Without this modality the queries find significantly more: {named}{more}."
            if harm
            else "No modality makes the queries of a set significantly worse."
        )
    return lines


def set_table(scores: Sequence[SetScore], metric: str) -> str:
    """Return the table of groups and sets."""
    rows = [("set", "group", "modalities", "queries", "identities", metric, "95 %", "Rank-1")]
    for one in scores:
        numbers = (one.size, one.num_query, one.num_id)
        figures = (percent(one.mAP), _range(one.low, one.high), percent(one.R1))
        rows.append((one.name, one.group or "-", *map(str, numbers), *figures))
    return table(
        rows, "Sets of queries and their groups, in percent; intervals over identities", left=(0, 1), lead=(0, 5)
    )


def gain_table(gains: Sequence[Gain], metric: str) -> str:
    """Return the table of what each modality adds to each set."""
    rows = [("set", "modality", "queries", metric, f"{metric} without it", "difference", "95 %", "p")]
    for one in gains:
        change = _points(one.difference), f"{_points(one.low)} to {_points(one.high)}"
        rows.append(
            (one.set, one.modality, str(one.num_query), percent(one.mAP), percent(one.without), *change, f"{one.p:.4f}")
        )
    note = "the same queries with and without it, p of a paired permutation test over identities, by Holm for all rows"
    return table(rows, f"What a modality adds, in percent: {note}", left=(0, 1), lead=(0, 1, 5))


def missing_table(scores: Sequence[MissingScore], metric: str) -> str:
    """Return the table of what missing items cost."""
    rows = [("missing with probability", "items of a query", metric, "95 %")]
    rows += [
        (f"{100 * one.removed:g} %", f"{one.items:.2f}", percent(one.mAP), _range(one.low, one.high)) for one in scores
    ]
    return table(rows, f"{scores[0].set} with items missing at random, one stays; in percent")


def _points(fraction: float) -> str:
    return f"{round(100 * fraction, 2) + 0.0:+.2f}"  # + 0.0: no -0.00


def _range(low: float, high: float) -> str:
    return f"{percent(low)} to {percent(high)}"
