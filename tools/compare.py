"""Compare two experiments on one test set: python -m tools.compare logs/veri776_a logs/veri776_b --metric mAP"""

from utils.interrupts import take_over

if __name__ == "__main__":
    take_over()  # Ctrl-C, before the imports that take time

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from configs import get_cfg_defaults
from configs.compare import find_changes, flatten
from configs.keys import affects
from tools.compared_sets import compare_sets, sets_content, sets_table
from tools.study.tested_runs import Run, check_same_ap, load_run, pair_runs
from tools.study.trials import TrialMeans, compare_sides, join_trials, trial_table
from utils.ap_rules import marked_metric
from utils.atomic import write_text_atomic
from utils.commands import OneLineParser, path_flag
from utils.errors import run_command
from utils.run_folder import make_place
from utils.statistics.bootstrap import UNITS
from utils.statistics.paired import SIGNIFICANCE, Comparison
from utils.tables import align, percent
from utils.test_folder import METRICS, epoch_of_folder

UNIT_NAMES = {"identity": "identities", "query": "queries"}


def main(argv: list[str] | None = None) -> int:
    """Print how RUN_B differs from RUN_A and whether chance explains it; returns the exit code 0."""
    args = make_parser().parse_args(argv)
    if args.json:
        make_place(args.json, "--json")
    runs = [load_run(words, args.epoch) for words in (args.run_a, args.run_b)]
    sides = pair_runs(runs)
    check_same_ap(runs)
    comparison, means = compare_sides(sides, args.metric, args.unit)
    sets = compare_sets(*map(join_trials, sides), args.metric, args.unit)
    print(describe(runs, comparison, args, means, sets))
    if args.json:
        write_json(Path(args.json), runs, comparison, args, means, sets)
    return 0


def make_parser() -> OneLineParser:
    """Return the parser of the command."""
    parser = OneLineParser(
        prog="python -m tools.compare",
        description="Compare two experiments query by query: the difference B - A with its 95 % bootstrap "
        "interval, a paired permutation test over identities, and a t-test over seeds, or over trials (RegDB).",
        epilog="A RUN is a test folder with per_query.npz, a ..._test folder of run_phased_loss.py (its last epoch), "
        "or the start of such folders, e.g. logs/veri776_baseline for logs/veri776_baseline_seed*_test (all seeds), "
        "logs/regdb_vis_nir for logs/regdb_vis_nir_trial*_seed*_test (all trials).",
    )
    parser.add_argument("run_a", type=path_flag, metavar="RUN_A", help="the baseline")
    parser.add_argument("run_b", type=path_flag, metavar="RUN_B", help="what is compared with it")
    parser.add_argument("--metric", choices=METRICS, default="mAP", help="default: mAP")
    parser.add_argument("--unit", choices=UNITS, default="identity", help="what is drawn anew (default: identity)")
    parser.add_argument("--epoch", type=int, metavar="N", help="of ..._test folders (default: the last tested one)")
    parser.add_argument(
        "--json", type=path_flag, metavar="FILE", help="also write the numbers to this file, as fractions"
    )
    return parser


def describe(
    runs: Sequence[Run], comparison: Comparison, args: Namespace, means: TrialMeans, sets: dict[str, Comparison]
) -> str:
    """Return the tables and the verdict; percent."""
    metric = marked_metric(args.metric, runs[0].ap_rules[0])
    rows = [["", "data", metric, "sd", "seeds", "epoch"]]
    data = next((name for run in runs for name in run.datasets if name is not None), "-")  # all tests share it
    for label, run, value in zip("AB", runs, (comparison.first, comparison.second), strict=True):
        values = comparison.seeds[label == "B"]
        sd = percent(np.std(values, ddof=1) if len(values) > 1 else None)
        number = epoch_of_folder(run.folders[0])
        epoch = "-" if number is None else str(number)
        rows.append([f"{label}  {run.name}", data, percent(value), sd, str(len(values)), epoch])
    low, high = (100 * bound for bound in comparison.interval)
    unit = UNIT_NAMES[args.unit]
    again, how = again_over(means)
    p_again = (
        f"{comparison.p_seeds:.4f} ({how})" if comparison.p_seeds is not None else "- (needs two seeds on each side)"
    )
    facts = [
        ["B - A", f"{100 * comparison.difference:+.2f} (95 % interval over {unit}: {low:+.2f} to {high:+.2f})"],
        [f"p over {unit}", f"{comparison.p_units:.4f} (paired permutation test, {comparison.num_units} {unit})"],
        [f"p over {again}", p_again],
    ]
    more = [trial_table(means, metric)] if len(means) > 1 else []
    more += [sets_table(sets, metric)] if sets else []
    tables = [align(rows, (0, 1)), *more, align(facts, (0, 1))]
    return "\n\n".join([*tables, *other_settings(runs), verdict(comparison, metric, unit, again)])


def again_over(means: TrialMeans) -> tuple[str, str]:
    """Return what stands for training again, and the test of it: the trials of a data set where there are several."""
    return ("trials", "paired t-test") if len(means) > 1 else ("seeds", "Welch's t-test")


def other_settings(runs: Sequence[Run]) -> list[str]:
    """Return a line where the tests of the two sides were run by other keys of TEST; nothing where they agree."""
    defaults = flatten({"TEST": get_cfg_defaults().TEST})
    sides = [defaults | run.settings[0] for run in runs]
    changes = [f"{one.key} {one.old} / {one.new}" for one in find_changes(*sides) if affects(one.key, "ranking")]
    return [f"The tests were run by other settings (A / B): {'; '.join(changes)}."] if changes else []


def verdict(comparison: Comparison, metric: str, unit: str, again: str) -> str:
    """Return in one sentence what the two tests say together; `again` as in `again_over`."""
    change = 100 * comparison.difference
    if comparison.seeds[0] == comparison.seeds[1] and comparison.p_units == 1:
        return "Both have the same results."
    better = f"B is {'better' if change > 0 else 'worse'} by {abs(change):.2f} points of {metric}"
    if comparison.p_units >= SIGNIFICANCE:
        return f"No significant difference: other test {unit} could turn it round (p >= {SIGNIFICANCE})."
    if comparison.p_seeds is None:
        return (
            f"{better} for these trained models, significant over test {unit}; with one seed on a side, training "
            "again could turn it round."
        )
    if comparison.p_seeds >= SIGNIFICANCE:
        return f"No significant difference: {better} for these trained models, but other {again} could turn it round."
    return f"{better}, significant over test {unit} and over {again} (both p < {SIGNIFICANCE})."


def write_json(
    path: Path,
    runs: Sequence[Run],
    comparison: Comparison,
    args: Namespace,
    means: TrialMeans,
    of_sets: dict[str, Comparison],
) -> None:
    """Write the numbers as fractions; `trials` and `sets` have those of each where there are several.

    Errors as `write_text_atomic`.
    """
    metric, (again, _) = marked_metric(args.metric, runs[0].ap_rules[0]), again_over(means)
    sides: dict[str, Any] = {
        label: {"run": run.name, "folders": [str(folder) for folder in run.folders], "mean": value, "seeds": seeds}
        for label, run, value, seeds in zip(
            "ab", runs, (comparison.first, comparison.second), comparison.seeds, strict=True
        )
    }
    content = {
        "schema": 1,
        "metric": args.metric,
        "ap": runs[0].ap_rules[0],
        "unit": args.unit,
        **sides,
        "difference": comparison.difference,
        "interval": list(comparison.interval),
        "p_units": comparison.p_units,
        f"p_{again}": comparison.p_seeds,
        "num_units": comparison.num_units,
        **({"trials": {str(trial): list(values) for trial, values in means.items()}} if len(means) > 1 else {}),
        **({"sets": sets_content(of_sets)} if of_sets else {}),
        "verdict": verdict(comparison, metric, UNIT_NAMES[args.unit], again),
    }
    write_text_atomic(path, json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(run_command(main))
