"""One table over the experiments of a launch: recipe, losses, P x K, and what the last epoch reached."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.phases import ALTERNATIVES, TITLES, TRIPLETX, Phase, PhasePlan
from tools.study.summary import (
    CSV_HEADER,
    KINDS,
    SeedResults,
    csv_rows,
    further_tables,
    pair_tables,
    percent_range,
    percents,
    tables_at,
    write_files,
)
from utils.statistics.bootstrap import PerQuery
from utils.statistics.paired import SIGNIFICANCE, Comparison, compare_tables, holm
from utils.tables import align, markdown
from utils.test_folder import METRICS

HEADER = ("ID", "recipe", "data", "losses", "PxK", "k", "epochs", "mAP", "95 %", "R1", "R5", "R10")
TEXT_COLUMNS = (1, 2, 3, 4)  # recipe, data, losses, PxK
NOT_ON_TERMINAL = ("losses", "R5", "R10")
TESTED_METRIC = "mAP"  # one metric, so that no other one is chosen afterwards
INTERVAL_NOTE = "95 %: bootstrap interval of mAP over test identities"
MARK_NOTE = "*: mAP differs from ID 1, p < 0.05 over test identities (paired permutation) and over seeds (Welch), "
ONE_SEED_NOTE = "(*): over test identities alone; with one seed on a side, training again could turn it round"

Summary = dict[str, Any]


def describe_stages(plans: Mapping[str, PhasePlan], k: int) -> dict[str, Any]:
    """Return the facts of `describe_plan` about the last of some stages, given by name, with the losses of all."""
    facts = {name: describe_plan(plan, k) for name, plan in plans.items()}
    *_, last = facts.values()
    if len(facts) == 1:
        return last
    return last | {"losses": "; ".join(f"{name}: {own['losses']}" for name, own in facts.items())}


def describe_plan(plan: PhasePlan, k: int) -> dict[str, Any]:
    """Return the table's facts about a plan: losses, pxk, and tripletx_k.

    tripletx_k is `k` (LOSS.TRIPLETX.K), None when TripletX never has a weight.
    """
    phases = [first for first, _ in plan.segments()]  # losses and K stay within a segment
    by_tag: dict[str, list[Phase]] = {}
    for phase in phases:
        by_tag.setdefault(phase.tag, []).append(phase)
    parts = [f"{tag}: {_losses_of(run)}" if tag != "static" else _losses_of(run) for tag, run in by_tag.items()]
    return {
        "losses": ", ".join(parts),
        "pxk": " / ".join(dict.fromkeys(plan.batch_shape(phase) for phase in phases)),
        "tripletx_k": k if any(phase.weights.get(TRIPLETX, 0) > 0 for phase in phases) else None,
    }


def _losses_of(phases: Sequence[Phase]) -> str:
    """Return the losses with weight in one phase, e.g. CE+Triplet|TripletX+SupCon, or CE+TripletX->Triplet."""
    acting = [[name for name in TITLES if phase.weights.get(name, 0) > 0] for phase in phases]
    metrics = ["|".join(TITLES[name] for name in names if name in ALTERNATIVES) for names in acting]
    metric = "->".join(dict.fromkeys(one for one in metrics if one))
    active = [name for name in TITLES if any(name in names for names in acting)]
    return "+".join(dict.fromkeys(metric if name in ALTERNATIVES else TITLES[name] for name in active)) or "none"


def compare_to_first(summaries: Sequence[Summary], results: Sequence[Sequence[SeedResults]]) -> list[Summary]:
    """Return the summaries with a `difference` to the first one, in mAP at the last epoch, on each shared test set.

    It stands in the summary and in each of its `tests`, as {metric, value, interval (95 %, over test identities),
    p_identities, p_seeds (null: one seed), p_holm, significant}. p_holm is the larger of the two p values, corrected
    for the number of all differences. It is absent where the test sets or their images differ.
    """
    compared = [
        summary | {"tests": {name: dict(test) for name, test in summary["tests"].items()}} for summary in summaries
    ]
    found: list[tuple[dict[str, Any], Comparison]] = []
    for summary, own in zip(compared[1:], results[1:], strict=True):
        # MSMT17 V1 and V2 share their fingerprint: files of the same names, other pixels; the name tells AP's rule, too
        if any(summary[key] != compared[0][key] for key in ("dataset", "data_fingerprints")):
            continue
        pairs = [(summary, _last_tables(compared[0], results[0]), _last_tables(summary, own))]
        for name in (name for name in summary["tests"] if name in compared[0]["tests"]):
            pairs.append((summary["tests"][name], further_tables(results[0], name), further_tables(own, name)))
        for target, first, second in pairs:
            comparison = _compare(first, second)
            if comparison is not None:
                found.append((target, comparison))
    for (target, comparison), p_holm in zip(found, holm([comparison.p for _, comparison in found]), strict=True):
        target["difference"] = {
            "metric": TESTED_METRIC,
            "value": comparison.difference,
            "interval": list(comparison.interval),
            "p_identities": comparison.p_units,
            "p_seeds": comparison.p_seeds,
            "p_holm": p_holm,
            "significant": p_holm < SIGNIFICANCE,
        }
    return compared


def _last_tables(summary: Summary, results: Sequence[SeedResults]) -> list[PerQuery]:
    return tables_at(results, [summary["epochs"]] * len(results))


def _compare(first: Sequence[PerQuery], second: Sequence[PerQuery]) -> Comparison | None:
    """Compare two experiments; None where a result is missing or the test sets differ."""
    tables = pair_tables([*first, *second]) if first and second else []
    return compare_tables(tables[: len(first)], tables[len(first) :], TESTED_METRIC) if tables else None


def table_rows(summaries: Sequence[Summary]) -> list[list[str]]:
    """Return the rows of the table, the head first.

    The last epoch's metrics in percent, with sd over several seeds and the 95 % interval over test identities. Rows of
    an experiment's best epoch follow where that is another one for any seed, and one row per further test set.
    """
    rows = [list(HEADER)]
    for number, (recipe, summary) in enumerate(zip(recipe_names(summaries), summaries, strict=True), start=1):
        facts = [summary["losses"], summary["pxk"], str(summary["tripletx_k"] or "-")]
        for kind, label in KINDS.items():
            chosen = [entry[kind]["epoch"] for entry in summary["seeds"].values() if entry.get(kind)]
            if kind != "last" and all(epoch == summary["epochs"] for epoch in chosen):
                continue
            epochs = ", ".join(map(str, chosen)) if kind != "last" else str(summary["epochs"])
            name = f"{recipe}, {label}" if kind != "last" else recipe
            cells = _cells({key: summary[key].get(kind, {}) for key in ("mean", "std", "interval", "num_seeds")})
            cells[0] += _mark(summary) if kind == "last" else ""
            rows.append([str(number), name, summary["dataset"], *facts, epochs, *cells])
        for test in summary["tests"].values():
            cells = _cells(test)
            cells[0] += _mark(test)
            rows.append([str(number), recipe, test["dataset"], *facts, str(summary["epochs"]), *cells])
    return rows


def _mark(result: dict[str, Any]) -> str:
    """Return what stands behind a mAP: nothing, or the mark of a significant difference to the first experiment."""
    difference = result.get("difference")
    if not difference or not difference["significant"]:
        return ""
    return " *" if difference["p_seeds"] is not None else " (*)"


def recipe_names(summaries: Sequence[Summary]) -> list[str]:
    """Return what tells the experiments apart: their recipes, or where two share one the names of their folders."""
    recipes = [summary["recipe"] for summary in summaries]
    return recipes if len(set(recipes)) == len(recipes) else [summary["name"] for summary in summaries]


def _cells(result: dict[str, Any]) -> list[str]:
    """Return mAP, its interval, R1, R5 and R10 of {mean, std, interval, num_seeds}."""
    several = result["num_seeds"] > 1
    cells = percents(result["mean"], result["std"] if several else None)
    by_name = dict(zip(METRICS, cells, strict=True))
    interval = percent_range(result["interval"].get("mAP"))
    return [by_name["mAP"], interval, by_name["Rank-1"], by_name["Rank-5"], by_name["Rank-10"]]


def table_note(summaries: Sequence[Summary]) -> str:
    """Return lines that say what the figures are, over how many seeds, what a mark means, how `best` was chosen."""
    counts = [summary["num_seeds"]["last"] for summary in summaries]
    if max(counts) < 2:
        seeds = "one seed" if max(counts) else "no result yet"
    elif len(set(counts)) == 1:
        seeds = f"mean +- sd over {counts[0]} seeds"
    else:
        each = ", ".join(f"ID {number}: {count}" for number, count in enumerate(counts, start=1))
        seeds = f"mean +- sd over the seeds with a result ({each})"
    lines = [f"Percent at the last epoch (other rows say so), {seeds}; {INTERVAL_NOTE}."]
    results = [result for summary in summaries for result in (summary, *summary["tests"].values())]
    differences = [result["difference"] for result in results if "difference" in result]
    if differences:
        lines.append(f"{MARK_NOTE}Holm-corrected for {len(differences)} comparison{'s' * (len(differences) > 1)}.")
    if any(difference["p_seeds"] is None for difference in differences):
        lines.append(f"{ONE_SEED_NOTE}.")
    return "\n".join([*lines, *(f"{note}." for note in _picking_notes([summary["note"] for summary in summaries]))])


def _picking_notes(notes: Sequence[str]) -> list[str]:
    """Return how epochs were chosen: the longest of the notes that begin alike; with their IDs where several differ."""
    longest = [n for n in dict.fromkeys(notes) if not any(other != n and other.startswith(n) for other in notes)]
    if len(longest) == 1:
        return longest
    of = {note: [str(number) for number, own in enumerate(notes, start=1) if note.startswith(own)] for note in longest}
    return [f"ID {', '.join(numbers)}: {note}" for note, numbers in of.items()]


def format_ablation(summaries: Sequence[Summary]) -> str:
    """Return the table and its note as aligned text, the wide losses below it; R5 and R10 stand in the files."""
    rows = table_rows(summaries)
    kept = [column for column, name in enumerate(HEADER) if name not in NOT_ON_TERMINAL]
    left = [kept.index(column) for column in TEXT_COLUMNS if column in kept]
    table = align([[row[column] for column in kept] for row in rows], left)
    losses = align([["ID", "losses"], *([str(i), one["losses"]] for i, one in enumerate(summaries, start=1))], (1,))
    return f"{table}\n\n{losses}\n\n{table_note(summaries)}"


def format_markdown(title: str, summaries: Sequence[Summary]) -> str:
    """Return the table and its note as Markdown."""
    return f"# {title}\n\n{markdown(table_rows(summaries))}\n\n{table_note(summaries)}\n"


def write_ablation(start: Path, summaries: Sequence[Summary], results: Iterable[Sequence[SeedResults]]) -> list[Path]:
    """Write <start>.json (all summaries), .csv (a row per recipe, seed and epoch) and .md; returns the paths."""
    rows = [("recipe", *CSV_HEADER)]
    for recipe, summary, own in zip(recipe_names(summaries), summaries, results, strict=True):
        rows += [(recipe, *row) for row in csv_rows(own, summary["dataset"])]
    return write_files(start, list(summaries), rows, format_markdown("Ablation", summaries))
