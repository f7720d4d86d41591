"""The figures of a checkpoint's tests, as they may be published: without the images and folders that they come from."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tools.publish.origin import without_paths
from utils.digest import sha256_of
from utils.errors import ConfigError, DataError
from utils.test_folder import METRICS, TestFolder, read_result

KEPT = (  # of a summary.json, beside METRICS; all are fractions, counts or plain words
    *("interval", "trial_sd", "num_query", "num_valid_query", "num_trials", "cmc", "sets", "groups", "missing"),
    *("ranking", "precision", "data_fingerprint", "damaged_images", "notes", "cautions"),
)
RUN_END = re.compile(r"_run$")  # of a folder of run_phased_loss.py, whose tests lie in ..._test
DEEPEST = 4  # levels of a launcher's tests: averaged weights, epoch, further test set


def find_tests(weight: Path, named: Sequence[str]) -> list[dict[str, Any]]:
    """Return the figures of all tests of a checkpoint, by data set: dataset, METRICS, and of KEPT what they have.

    They are looked for in the folders `named`, else in the run folder and in that of the launcher's tests beside it.
    Raises ConfigError where a folder of `named` holds no test of these very weights.
    """
    digest = sha256_of(weight)
    if named:
        found = [test for name in named for test in _named_tests(name, digest, weight)]
    else:
        run = weight.absolute().parent
        places = (run, run.with_name(RUN_END.sub("_test", run.name)))
        found = [test for place in dict.fromkeys(places) for test in _tests_in(place, digest)]
    tests = {f"{test['dataset']} {test.get('ranking', {})}": test for test in found}
    return [tests[name] for name in sorted(tests)]


def _named_tests(name: str, digest: str, weight: Path) -> list[dict[str, Any]]:
    found = list(_tests_in(Path(name), digest))
    if not found:
        raise ConfigError(f"--tests '{name}' holds no whole test of '{weight}'; name the OUTPUT_DIR of its test.py")
    return found


def _tests_in(place: Path, digest: str) -> Iterable[dict[str, Any]]:
    """Yield the figures of the tests in a folder and below it."""
    name = TestFolder(place).summary.name
    for depth in range(DEEPEST):
        for path in sorted(place.glob("/".join(["*"] * depth + [name]))):
            summary = read_result(TestFolder(path.parent))
            if summary is not None and summary.get("weight_sha256") == digest:
                yield figures_of(summary)


def figures_of(summary: dict[str, Any]) -> dict[str, Any]:
    """Return what may be published of a summary.json; DataError for one that names no data set."""
    if not isinstance(summary.get("dataset"), str):
        raise DataError("a summary.json of an older version names no data set; run that test again")
    figures = {"dataset": summary["dataset"], **{name: summary[name] for name in METRICS}}
    figures |= {name: summary[name] for name in KEPT if summary.get(name) not in (None, [], {})}
    return without_paths(figures)
