"""The parts of a report that show the figures of one test, or the means over the tests of several seeds."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from configs.titles import dataset_title
from tools.report.page import Bar, bars, code, missing, paragraph, table, text
from utils.ap_rules import STANDARD, marked_metric
from utils.ranking.branches import BranchScore
from utils.test_folder import METRICS, ap_rule_of

Summary = Mapping[str, Any]
REFERENCE_TITLES = {"raw_pixels": "raw pixels", "untrained": "before training"}
CMC_RANKS = (1, 2, 3, 5, 10, 20, 50)
RANKED_BY = {"expansion": "query expansion", "re_ranking": "k-reciprocal re-ranking", "spectral": "spectral re-ranking"}
SET_TITLES = {"t2i": "captions that search images (t2i)", "i2t": "images that search captions (i2t)"}


def percent(fraction: float) -> str:
    """Return a fraction in percent as the other tables show it, e.g. 36.04."""
    return f"{100 * fraction:.2f}"


def metric_cards(summary: Summary, intervals: Mapping[str, Sequence[float]]) -> str:
    """Return the metrics as cards, each with its 95 % interval where there is one, and the valid queries."""
    spread, rule = summary.get("trial_sd", {}), ap_rule_of(summary)
    cards = []
    for name in METRICS:
        notes = []
        if name in intervals:
            low, high = intervals[name]
            notes.append(f"95 %: {percent(low)} to {percent(high)}")
        if name in spread:
            notes.append(f"sd {percent(spread[name])} over {summary['num_trials']} trials")
        cards.append(_card(marked_metric(name, rule), percent(summary[name]), notes))
    valid, total = summary.get("num_valid_query"), summary.get("num_query")
    if valid is not None:
        others = "" if valid == total else "; the others have no match"
        cards.append(_card("Valid queries", str(valid), [f"of {total}{others}"]))
    unit = "Metrics in percent" + ("; 95 % intervals from a bootstrap over the identities." if intervals else ".")
    return "\n".join(['<dl class="figures">', *cards, "</dl>", paragraph(unit, "note")])


def remarks(summary: Summary) -> str:
    """Return what has to be known about the figures: rule of AP, ways of ranking, cautions and notes."""
    lines, rule = [], ap_rule_of(summary)
    if rule != STANDARD:
        said = f"Each AP on this page is the {rule} one, which does not compare with the standard AP."
        lines.append(paragraph(said, "caution"))
    lines += [paragraph(line, "note") for line in ranked_by(summary)]
    lines += [paragraph(f"Caution: {line}", "caution") for line in summary.get("cautions", ())]
    lines += [paragraph(note, "note") for note in summary.get("notes", ())]
    return "\n".join(lines)


def reference_bars(name: str, value: float, interval: Sequence[float] | None, references: Mapping[str, float]) -> str:
    """Return bars of a figure and of what it has to beat, by name (REFERENCE_TITLES); nothing without that."""
    if not references:
        return ""
    rows = [Bar(name, value, interval)]
    rows += [Bar(REFERENCE_TITLES[key], one, None, "reference") for key, one in references.items()]
    return bars(rows)


def ranked_by(summary: Summary) -> list[str]:
    """Return a line for each way in which ranks were made other than by the distances of the embeddings."""
    how = summary.get("ranking", {})
    return [
        f"With {title}: {', '.join(f'{key.upper()} {value:g}' for key, value in how[name].items())}."
        for name, title in RANKED_BY.items()
        if name in how
    ]


def branch_table(scores: Sequence[BranchScore], summary: Summary) -> str:
    """Return the table of what each branch finds alone and what is found without it, below the whole embedding."""
    metric = marked_metric("mAP", ap_rule_of(summary))
    head = ("branch", "values", f"{metric} alone", "Rank-1 alone", f"{metric} without it", "Rank-1 without it")
    whole = ("all branches", sum(one.width for one in scores), percent(summary["mAP"]), percent(summary["Rank-1"]))
    rows = [[one.branch, str(one.width), *map(_known_percent, one[2:])] for one in scores]
    caption = "Each branch alone, and the embedding without it, in percent"
    return table([head, [*map(str, whole), "-", "-"], *rows], caption, lead=(0, 2))


def _known_percent(fraction: float) -> str:
    return "-" if math.isnan(fraction) else percent(fraction)


def _card(name: str, value: str, notes: Sequence[str]) -> str:
    below = "".join(f'<dd class="range">{text(note)}</dd>' for note in notes)
    return f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd>{below}</div>"


def query_sets(summary: Summary) -> str:
    """Return the table of the sets of queries, each with figures of its own; nothing where there is one."""
    sets, groups = summary.get("sets"), summary.get("groups") or {}
    if not sets:
        return ""
    near = [name for name in next(iter(sets.values())) if name.startswith("mAP@")]
    metrics = [*METRICS, *near]
    rows = [["set", *(marked_metric(name, ap_rule_of(summary)) for name in metrics), "queries"]]
    if len(groups) > 1:
        rows += [[name, *(percent(one[metric]) for metric in metrics), "-"] for name, one in groups.items()]
    for name, figures in sets.items():
        title = SET_TITLES.get(name, name)
        rows.append([title, *(percent(figures[metric]) for metric in metrics), str(figures["num_query"])])
    counted = [SET_TITLES.get(name, name) for name in groups or sets]
    which = f"those of {counted[0]}" if len(counted) == 1 else f"means over {', '.join(counted)}"
    note = f"The figures of the whole test, above and in all charts, are {which}."
    return table(rows, "Sets of queries, in percent", lead=(0, 1)) + paragraph(note, "note")


def _metrics_of(summary: Summary) -> list[str]:
    return [marked_metric(name, ap_rule_of(summary)) for name in METRICS]


def further_tests(summary: Summary) -> str:
    """Return the table of the test sets in DATASETS.TESTS behind the first; nothing where there is none."""
    tests = summary.get("tests")
    if not tests:
        return ""
    size = summary["settings"]["DATASETS.VEHICLEID_TEST_SIZE"]
    named = {summary["dataset"]: summary} | {dataset_title(name, size): result for name, result in tests.items()}
    rows = [["test set", *_metrics_of(summary)]]
    rows += [[title, *(percent(result[metric]) for metric in METRICS)] for title, result in named.items()]
    note = f"Each of them has a folder of its own beside this page, with a report: {', '.join(tests)}."
    return table(rows, "The same checkpoint on every test set, in percent", lead=(0, 1)) + paragraph(note, "note")


def tpr_table(rates: Mapping[str, float], thresholds: Mapping[str, float | None]) -> str:
    """Return the table of the true positive rates and thresholds at the false positive rates of TEST.ROC_FPR.

    A threshold of None accepts all pairs; one that is not there was not recorded.
    """
    if not rates:
        return ""
    rows = [("false positive rate", "true positive rate, %", "largest distance accepted")]
    for rate, value in rates.items():
        limit = thresholds.get(rate)
        rows.append((rate, percent(value), "-" if limit is None else f"{limit:.4g}"))
    return table(rows, "TPR@FPR: pairs accepted up to a distance")


def cmc_table(curves: Mapping[str, Sequence[float]]) -> str:
    """Return the CMC of one or more runs at the ranks in CMC_RANKS, as far as they reach."""
    ranks = [rank for rank in CMC_RANKS if any(rank <= len(curve) for curve in curves.values())]
    rows = [["", *(f"Rank-{rank}" for rank in ranks)]]
    for name, curve in curves.items():
        rows.append([name, *(percent(curve[rank - 1]) if rank <= len(curve) else "-" for rank in ranks)])
    return table(rows, "Queries with a match among the first, in percent", lead=(0,))


def facts(rows: Sequence[tuple[str, Any]], caption: str) -> str:
    """Return a table of names and values; those without a value are left out."""
    known = [(name, _plain(value)) for name, value in rows if value not in (None, "", [])]
    return table([("what", "value"), *known], caption, left=range(2)) if known else missing(f"{caption}: not recorded.")


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def command_part(command: str) -> str:
    """Return the command that makes a result again, ready to copy."""
    return paragraph("In the root of the repository, with the versions and the data above:", "note") + code(
        command, wraps=True
    )
