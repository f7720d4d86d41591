"""What a comparison reads: the tests of an experiment, one a seed and trial, and whether two sides fit together."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from configs.titles import dataset_title
from tools.study.trials import WORD, shared_trials, trial_of
from utils.errors import ConfigError, DataError
from utils.paths import check_readable, user_path
from utils.run_folder import RunFolder, epoch_of
from utils.run_record import read_record
from utils.statistics.bootstrap import PerQuery
from utils.statistics.paired import pair_queries
from utils.test_folder import TestFolder, ap_rule_of, epoch_folders, epoch_of_folder, read_per_query, read_result


class Run(NamedTuple):
    """What RUN_A or RUN_B names: the tests of one experiment, one a seed, and a trial where the data set has some."""

    name: str
    folders: list[TestFolder]
    tables: list[PerQuery]
    results: list[dict[str, Any]]  # contents of summary.json
    datasets: list[str | None]  # of the tests, as tables name them; None in a folder that does not say it
    fingerprints: list[str | None]  # of the test images, likewise
    settings: list[dict[str, Any]]  # keys of TEST by which the tests were run
    ap_rules: list[str]  # of AP_RULES, by which their figures were made
    trials: list[int | None]  # of a data set that has some (RegDB), else None

    def of_trial(self, trial: int | None) -> "Run":
        """Return the tests of one trial alone."""
        places = [place for place, own in enumerate(self.trials) if own == trial]
        return Run(self.name, *([values[place] for place in places] for values in self[1:]))


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
    datasets = [dataset_of(result) for result in results]
    trials = [trial_of(result, dataset) for result, dataset in zip(results, datasets, strict=True)]
    return Run(words, folders, tables, results, datasets, fingerprints, settings, rules, trials)


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
    """Return the folder of an epoch (None: the last tested) in `words`, or in each <words>[_trial<t>]_seed<s>_test.

    Raises ConfigError, saying what was looked for, where there is none or the seeds have no epoch in common.
    """
    start = user_path(words, "RUN")
    pattern = re.compile(re.escape(start.name) + rf"(_{WORD}\d+)?_seed\d+_test")
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


def pair_runs(runs: Sequence[Run]) -> list[dict[int | None, list[PerQuery]]]:
    """Return the tables of both sides by trial, one a seed, with the queries of a trial in one order.

    Raises DataError, naming both, where the sides have other trials, or two tests of one trial other images or queries.
    """
    check_same(runs, "data sets", "datasets")
    sides: list[dict[int | None, list[PerQuery]]] = [{}, {}]
    for trial in shared_trials([run.name for run in runs], [run.trials for run in runs]):
        first, second = (run.of_trial(trial) for run in runs)
        check_same([first, second], "data fingerprints", "fingerprints")
        tests = [pair for run in (first, second) for pair in zip(run.folders, run.tables, strict=True)]
        tables, count = pair_queries([(str(folder), table) for folder, table in tests]), len(first.folders)
        sides[0][trial], sides[1][trial] = tables[:count], tables[count:]
    return sides


def check_same(runs: Sequence[Run], what: str, field: str) -> None:
    """Raise DataError, naming both, when two tests differ in `field`, of Run, where they tell it: other images.

    The files of MSMT17 V1 and V2 have the same names and labels, so only the name of the data set tells these apart.
    """
    tests = [pair for run in runs for pair in zip(getattr(run, field), run.folders, strict=True)]
    known = [(name, folder) for name, folder in tests if name is not None]
    for name, folder in known[1:]:
        if name != known[0][0]:
            raise DataError(
                f"'{known[0][1].path}' and '{folder.path}' were tested on other images ({what} {known[0][0]} and "
                f"{name}), so their figures do not compare; test both on one data set"
            )


def check_same_ap(runs: Sequence[Run]) -> None:
    """Raise DataError, naming both, when the figures of two tests were made by different rules of AP."""
    tests = [pair for run in runs for pair in zip(run.ap_rules, run.folders, strict=True)]
    rule, first = tests[0]
    for other, folder in tests[1:]:
        if other != rule:
            raise DataError(
                f"'{first.path}' was tested with TEST.AP {rule}, '{folder.path}' with {other}; their figures do not "
                "compare: test both by one rule"
            )
