"""The figures of a checkpoint's tests, as they may be published: without the images and folders that they come from."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from configs.publishing import embedding_changes
from processor.trained import Trained
from tools.publish.origin import without_paths
from utils.ap_rules import STANDARD
from utils.digest import sha256_of
from utils.errors import ConfigError, DataError
from utils.test_folder import METRICS, TestFolder, read_result

KEPT = (  # of a summary.json, beside METRICS; all are fractions, counts or plain words
    *("interval", "trial_sd", "num_query", "num_valid_query", "num_trials", "cmc", "sets", "groups", "missing"),
    *("ranking", "precision", "data_fingerprint", "damaged_images", "notes", "cautions"),
)
RUN_END = re.compile(r"_run$")  # of a folder of run_phased_loss.py, whose tests lie in ..._test
DEEPEST = 4  # levels of a launcher's tests: averaged weights, epoch, further test set


def find_tests(trained: Trained, named: Sequence[str]) -> list[dict[str, Any]]:
    """Return the figures of all tests of a checkpoint, by title: dataset, METRICS, and of KEPT what they have.

    They are looked for in the folders `named`, else in the run folder and in that of the launcher's tests beside it.
    Raises ConfigError where a folder of `named` holds no test of these very weights.
    """
    weight = trained.weight
    digest = sha256_of(weight)
    if named:
        found = [summary for name in named for summary in _named_tests(name, digest, weight)]
    else:
        run = weight.absolute().parent
        places = (run, run.with_name(RUN_END.sub("_test", run.name)))
        found = [summary for place in dict.fromkeys(places) for summary in _tests_in(place, digest)]
    tests = {title_of(test): test for test in (figures_of(summary, trained.cfg) for summary in found)}
    return [tests[title] for title in sorted(tests)]


def _named_tests(name: str, digest: str, weight: Path) -> list[dict[str, Any]]:
    found = list(_tests_in(Path(name), digest))
    if not found:
        raise ConfigError(f"--tests '{name}' holds no whole test of '{weight}'; name the OUTPUT_DIR of its test.py")
    return found


def _tests_in(place: Path, digest: str) -> Iterable[dict[str, Any]]:
    """Yield what summary.json of the tests in a folder and below it holds."""
    name = TestFolder(place).summary.name
    for depth in range(DEEPEST):
        for path in sorted(place.glob("/".join(["*"] * depth + [name]))):
            summary = read_result(TestFolder(path.parent))
            if summary is not None and summary.get("weight_sha256") == digest:
                yield summary


def figures_of(summary: dict[str, Any], cfg: CfgNode) -> dict[str, Any]:
    """Return what may be published of a summary.json; DataError for one that names no data set.

    `other_settings` has the keys on which an embedding depends and which are not in the test what they are in `cfg`,
    that of the published model. Of TEST.AMP the entry `precision` tells.
    """
    if not isinstance(summary.get("dataset"), str):
        raise DataError("a summary.json of an older version names no data set; run that test again")
    figures = {"dataset": summary["dataset"], **{name: summary[name] for name in METRICS}}
    figures |= {name: summary[name] for name in KEPT if summary.get(name) not in (None, [], {})}
    tested = summary.get("config")
    changes = embedding_changes(cfg, tested) if isinstance(tested, dict) else []
    others = {change.key: change.new for change in changes if change.key != "TEST.AMP"}
    return without_paths(figures | ({"other_settings": others} if others else {}))


def title_of(test: dict[str, Any]) -> str:
    """Return the data set of a test and, in brackets, in what its figures are not those of the plain model."""
    ways = {name: value for name, value in test.get("ranking", {}).items() if (name, value) != ("ap", STANDARD)}
    told = [f"{name} {_words(value)}" for name, value in {**ways, **test.get("other_settings", {})}.items()]
    return f"{test['dataset']} ({'; '.join(told)})" if told else test["dataset"]


def _words(value: Any) -> str:
    return " ".join(f"{name} {one}" for name, one in value.items()) if isinstance(value, dict) else str(value)
