"""One table over the experiments of a launch: recipe, losses, P x K, and what the last epoch reached."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from configs.schedule import LOSS_TITLES
from utils.results import METRICS
from utils.summary import CSV_HEADER, NOTE, SeedResults, csv_rows, percents, write_files
from utils.tables import align, markdown

HEADER = ("ID", "recipe", "losses", "PxK", "k", "epochs", "mAP / R1", "R5", "R10")
TEXT_COLUMNS = (1, 2, 3)  # recipe, losses, PxK
METRIC_NAMES = ("triplet", "tripletx")

Summary = dict[str, Any]


def describe_plan(plan, k: int) -> dict[str, Any]:
    """Return the table's facts about a processor.phases.PhasePlan: losses, pxk, and tripletx_k.

    tripletx_k is `k` (LOSS.TRIPLETX.K), None when TripletX never has a weight.
    """
    phases = [phase for run in plan.segments() for phase in run]
    by_tag: dict[str, list] = {}
    for phase in phases:
        by_tag.setdefault(phase.tag, []).append(phase)
    parts = [f"{tag}: {_losses_of(run)}" if tag != "static" else _losses_of(run) for tag, run in by_tag.items()]
    return {
        "losses": ", ".join(parts),
        "pxk": " / ".join(dict.fromkeys(plan.batch_shape(phase) for phase in phases)),
        "tripletx_k": k if any(phase.weights["tripletx"] > 0 for phase in phases) else None,
    }


def _losses_of(phases: Sequence) -> str:
    """Return the losses with weight in one phase, e.g. CE+Triplet|TripletX+SupCon, or CE+TripletX->Triplet."""
    active = {name for phase in phases for name, weight in phase.weights.items() if weight > 0}
    metrics = ["|".join(LOSS_TITLES[name] for name in METRIC_NAMES if phase.weights[name] > 0) for phase in phases]
    parts = (
        LOSS_TITLES["id"] if "id" in active else "",
        "->".join(dict.fromkeys(metric for metric in metrics if metric)),
        LOSS_TITLES["supcon"] if "supcon" in active else "",
    )
    return "+".join(part for part in parts if part) or "none"


def table_rows(summaries: Sequence[Summary]) -> list[list[str]]:
    """Return the rows of the table, the head first.

    The last epoch's metrics in percent, with sd over several seeds. An experiment whose best epoch on the test set is
    another one for any seed has a second row.
    """
    rows = [list(HEADER)]
    for number, (recipe, summary) in enumerate(zip(recipe_names(summaries), summaries, strict=True), start=1):
        facts = [summary["losses"], summary["pxk"], str(summary["tripletx_k"] or "-")]
        rows.append([str(number), recipe, *facts, str(summary["epochs"]), *_cells(summary, "last")])
        best = [entry["best"]["epoch"] for entry in summary["seeds"].values() if entry["best"]]
        if any(epoch != summary["epochs"] for epoch in best):
            epochs = ", ".join(map(str, best))
            rows.append([str(number), f"{recipe}, best on test", *facts, epochs, *_cells(summary, "best")])
    return rows


def recipe_names(summaries: Sequence[Summary]) -> list[str]:
    """Return what tells the experiments apart: their recipes, or where two share one the names of their folders."""
    recipes = [summary["recipe"] for summary in summaries]
    return recipes if len(set(recipes)) == len(recipes) else [summary["name"] for summary in summaries]


def _cells(summary: Summary, kind: str) -> list[str]:
    several = summary["num_seeds"][kind] > 1
    cells = percents(summary["mean"][kind], summary["std"][kind] if several else None)
    by_name = dict(zip(METRICS, cells, strict=True))
    return [f"{by_name['mAP']} / {by_name['Rank-1']}", by_name["Rank-5"], by_name["Rank-10"]]


def table_note(summaries: Sequence[Summary]) -> str:
    """Return two lines: what the figures are and over how many seeds; how `best` was chosen."""
    counts = [summary["num_seeds"]["last"] for summary in summaries]
    if max(counts) < 2:
        seeds = "one seed" if max(counts) else "no result yet"
    elif len(set(counts)) == 1:
        seeds = f"mean +- sd over {counts[0]} seeds"
    else:
        each = ", ".join(f"ID {number}: {count}" for number, count in enumerate(counts, start=1))
        seeds = f"mean +- sd over the seeds with a result ({each})"
    return f"Percent at the last epoch (other rows say so), {seeds}.\n{NOTE}."


def format_ablation(summaries: Sequence[Summary]) -> str:
    """Return the table and its note as aligned text."""
    return f"{align(table_rows(summaries), TEXT_COLUMNS)}\n{table_note(summaries)}"


def format_markdown(title: str, summaries: Sequence[Summary]) -> str:
    """Return the table and its note as Markdown."""
    return f"# {title}\n\n{markdown(table_rows(summaries))}\n\n{table_note(summaries)}\n"


def write_ablation(start: Path, summaries: Sequence[Summary], results: Iterable[Sequence[SeedResults]]) -> list[Path]:
    """Write <start>.json (all summaries), .csv (a row per recipe, seed and epoch) and .md; returns the paths."""
    rows = [("recipe", *CSV_HEADER)]
    for recipe, own in zip(recipe_names(summaries), results, strict=True):
        rows += [(recipe, *row) for row in csv_rows(own)]
    return write_files(start, list(summaries), rows, format_markdown("Ablation", summaries))
