"""Compare two experiments on one test set: python -m tools.compare logs/veri776_a logs/veri776_b --metric mAP"""

from utils.interrupts import take_over

if __name__ == "__main__":
    take_over()  # Ctrl-C, before the imports that take time

import json
import re
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from configs import get_cfg_defaults
from configs.compare import find_changes, flatten
from configs.keys import affects
from configs.titles import dataset_title
from utils.ap_rules import marked_metric
from utils.atomic import write_text_atomic
from utils.commands import OneLineParser, path_flag
from utils.errors import ConfigError, DataError, run_command
from utils.paths import check_readable, user_path
from utils.run_folder import RunFolder, epoch_of, make_place
from utils.run_record import read_record
from utils.statistics.bootstrap import UNITS, PerQuery
from utils.statistics.paired import SIGNIFICANCE, Comparison, compare_tables, pair_queries
from utils.tables import align, percent
from utils.test_folder import (
    METRICS,
    TestFolder,
    ap_rule_of,
    epoch_folders,
    epoch_of_folder,
    read_per_query,
    read_result,
)

UNIT_NAMES = {"identity": "identities", "query": "queries"}


class Run(NamedTuple):
    """What RUN_A or RUN_B names: the tests of one experiment, one a seed."""

    name: str
    folders: list[TestFolder]
    tables: list[PerQuery]
    datasets: list[str | None]  # of the tests, as tables name them; None in a folder that does not say it
    fingerprints: list[str | None]  # of the test images, likewise
    settings: list[dict[str, Any]]  # keys of TEST by which the tests were run
    ap_rules: list[str]  # of AP_RULES, by which their figures were made


def main(argv: list[str] | None = None) -> int:
    """Print how RUN_B differs from RUN_A and whether chance explains it; returns the exit code 0."""
    args = make_parser().parse_args(argv)
    if args.json:
        make_place(args.json, "--json")
    runs = [load_run(words, args.epoch) for words in (args.run_a, args.run_b)]
    check_same_test_set(runs)
    check_same_ap(runs)
    tables = pair_queries(
        [(str(folder), table) for run in runs for folder, table in zip(run.folders, run.tables, strict=True)]
    )
    count = len(runs[0].folders)
    comparison = compare_tables(tables[:count], tables[count:], args.metric, args.unit)
    print(describe(runs, comparison, args))
    if args.json:
        write_json(Path(args.json), runs, comparison, args)
    return 0


def make_parser() -> OneLineParser:
    """Return the parser of the command."""
    parser = OneLineParser(
        prog="python -m tools.compare",
        description="Compare two experiments query by query: the difference B - A with its 95 % bootstrap "
        "interval, a paired permutation test over identities, and Welch's t-test over seeds.",
        epilog="A RUN is a test folder with per_query.npz, a ..._test folder of run_phased_loss.py (its last epoch), "
        "or the start of such folders, e.g. logs/veri776_baseline for logs/veri776_baseline_seed*_test (all seeds).",
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


def load_run(words: str, epoch: int | None) -> Run:
    """Return the tests that RUN_A or RUN_B names.

    Raises ConfigError where it has none of `epoch`, and DataError for one whose results are not whole, or of another
    run than the folders around it.
    """
    own = TestFolder(user_path(words, "RUN"))
    is_one = own.per_query.is_file() or own.summary.is_file()
    folders = [own] if is_one else find_tests(words, epoch)
    results = [read_result(folder) for folder in folders]
    tables = [read_per_query(folder, result) for folder, result in zip(folders, results, strict=True)]
    for folder, table, result in zip(folders, tables, results, strict=True):
        if table is None or result is None:  # summary.json is the mark of a finished test
            file = folder.per_query if table is None else folder.summary
            check_readable(file)
            raise DataError(f"'{file}' is absent or damaged; run that test again")
        check_own_epoch(folder, result, epoch)
        check_own_run(folder, result)
    fingerprints = [result.get("data_fingerprint") for result in results]
    settings = [
        {key: value for key, value in result.get("settings", {}).items() if key.startswith("TEST.")}
        for result in results
    ]
    rules = [ap_rule_of(result) for result in results]
    return Run(words, folders, tables, [dataset_of(result) for result in results], fingerprints, settings, rules)


def check_own_epoch(folder: TestFolder, result: Mapping[str, Any], wanted: int | None) -> None:
    """Raise where a result is of another epoch than --epoch (ConfigError) or than its folder says (DataError)."""
    named, tested = epoch_of_folder(folder), result.get("epoch")
    if None not in (named, tested) and named != tested:
        raise DataError(f"'{folder.path}' holds the result of epoch {tested}; delete that folder and test again")
    found = tested if named is None else named
    if wanted is not None and found != wanted:
        which = "no epoch" if found is None else f"epoch {found}"
        raise ConfigError(f"'{folder.path}' is the test of {which}, not of --epoch {wanted}; correct one of them")


def check_own_run(folder: TestFolder, result: Mapping[str, Any]) -> None:
    """Raise DataError where a launcher's test folder holds the result of another run than its ..._run folder."""
    place, epoch = folder.path.absolute().parent, epoch_of_folder(folder)
    start = place.name.removesuffix("_test")
    record = read_record(RunFolder(place.with_name(f"{start}_run"), ""))
    if epoch is None or start == place.name or record is None:
        return
    written = [digest for name, digest in record.checkpoints.items() if epoch_of(Path(name)) == epoch]
    if result.get("run") not in (None, record.run) or result.get("weight_sha256") not in written:
        raise DataError(
            f"'{folder.path}' holds the result of another run than that of '{start}_run'; launch that experiment "
            "again, which tests anew what is not its own"
        )


def dataset_of(result: Mapping[str, Any]) -> str | None:
    """Return the data set of a test as tables name it, by its settings where it does not say it, None without both."""
    settings = result.get("settings", {})
    if "dataset" in result or "DATASETS.NAMES" not in settings:
        return result.get("dataset")
    return dataset_title(settings["DATASETS.NAMES"][0], settings["DATASETS.VEHICLEID_TEST_SIZE"])


def find_tests(words: str, epoch: int | None) -> list[TestFolder]:
    """Return the folder of an epoch (None: the last tested) in `words`, or in each <words>_seed<s>_test.

    Raises ConfigError, saying what was looked for, where there is none or the seeds have no epoch in common.
    """
    start = user_path(words, "RUN")
    pattern = re.compile(re.escape(start.name) + r"_seed\d+_test")
    beside = sorted(start.parent.iterdir()) if start.parent.is_dir() else []
    tests = [folder for folder in beside if pattern.fullmatch(folder.name)] or [start]
    found = [tested_epoch(folder, epoch) for folder in tests]
    if not any(found):
        which = f" of epoch {epoch}" if epoch is not None else ""
        others = sorted({last.path.name for folder in tests if (last := tested_epoch(folder, None))})
        if others:
            raise ConfigError(f"'{words}': no test{which} found there, but {', '.join(others)}; correct --epoch")
        raise ConfigError(
            f"'{words}': no test{which} found there; name a folder with {TestFolder(start).per_query.name}, a "
            f"..._test folder of run_phased_loss.py, or the start of several: '{words}_seed<s>_test' was looked for"
        )
    epochs = [folder.path.name if folder else "none" for folder in found]
    if len(set(epochs)) > 1:
        each = ", ".join(f"{test.name}: {name}" for test, name in zip(tests, epochs, strict=True))
        raise ConfigError(f"'{words}': the seeds were tested at other epochs ({each}); choose one with --epoch N")
    return found


def tested_epoch(folder: Path, epoch: int | None) -> TestFolder | None:
    """Return the folder of an epoch (None: the last) in a ..._test folder, None where there is none."""
    tests = epoch_folders(folder)
    return tests.get(max(tests, default=None) if epoch is None else epoch)


def check_same_test_set(runs: list[Run]) -> None:
    """Raise DataError, naming both, when two tests saw other query or gallery images.

    The files of MSMT17 V1 and V2 have the same names and labels, so only the name of the data set tells these apart.
    """
    for what, field in (("data sets", "datasets"), ("data fingerprints", "fingerprints")):
        tests = [pair for run in runs for pair in zip(getattr(run, field), run.folders, strict=True)]
        known = [(name, folder) for name, folder in tests if name is not None]
        for name, folder in known[1:]:
            if name != known[0][0]:
                raise DataError(
                    f"'{known[0][1].path}' and '{folder.path}' were tested on other images ({what} "
                    f"{known[0][0]} and {name}), so their figures do not compare; test both on one data set"
                )


def check_same_ap(runs: list[Run]) -> None:
    """Raise DataError, naming both, when the figures of two tests were made by different rules of AP."""
    tests = [pair for run in runs for pair in zip(run.ap_rules, run.folders, strict=True)]
    rule, first = tests[0]
    for other, folder in tests[1:]:
        if other != rule:
            raise DataError(
                f"'{first.path}' was tested with TEST.AP {rule}, '{folder.path}' with {other}; their figures do not "
                "compare: test both by one rule"
            )


def describe(runs: list[Run], comparison: Comparison, args: Namespace) -> str:
    """Return the table and the verdict; percent."""
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
    needed = "- (needs two seeds on each side)"
    p_seeds = f"{comparison.p_seeds:.4f} (Welch's t-test)" if comparison.p_seeds is not None else needed
    facts = [
        ["B - A", f"{100 * comparison.difference:+.2f} (95 % interval over {unit}: {low:+.2f} to {high:+.2f})"],
        [f"p over {unit}", f"{comparison.p_units:.4f} (paired permutation test, {comparison.num_units} {unit})"],
        ["p over seeds", p_seeds],
    ]
    parts = [align(rows, (0, 1)), align(facts, (0, 1)), *other_settings(runs), verdict(comparison, metric, unit)]
    return "\n\n".join(parts)


def other_settings(runs: list[Run]) -> list[str]:
    """Return a line where the tests of the two sides were run by other keys of TEST; nothing where they agree."""
    defaults = flatten({"TEST": get_cfg_defaults().TEST})
    sides = [defaults | run.settings[0] for run in runs]
    changes = [f"{one.key} {one.old} / {one.new}" for one in find_changes(*sides) if affects(one.key, "ranking")]
    return [f"The tests were run by other settings (A / B): {'; '.join(changes)}."] if changes else []


def verdict(comparison: Comparison, metric: str, unit: str) -> str:
    """Return in one sentence what the two tests say together."""
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
        return f"No significant difference: {better} for these trained models, but other seeds could turn it round."
    return f"{better}, significant over test {unit} and over seeds (both p < {SIGNIFICANCE})."


def write_json(path: Path, runs: list[Run], comparison: Comparison, args: Namespace) -> None:
    """Write the numbers as fractions. Errors as `write_text_atomic`."""
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
        "p_seeds": comparison.p_seeds,
        "num_units": comparison.num_units,
        "verdict": verdict(comparison, marked_metric(args.metric, runs[0].ap_rules[0]), UNIT_NAMES[args.unit]),
    }
    write_text_atomic(path, json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(run_command(main))
