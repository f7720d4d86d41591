"""Reports: one self-contained HTML page of a test, of a launch, or of several systems side by side.

The pages need no other file, no network and no script. Equal files give equal bytes. What is absent or damaged beside
the result itself is one line on the page.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.test_folder import TestFolder

if TYPE_CHECKING:
    from tools.study.experiment import Experiment
    from tools.study.response import Response
    from tools.study.summary import SeedResults


def write_test_report(folder: TestFolder, pictures: Sequence[Path] | None = None) -> Path:
    """Write report.html and slices.png of a test from its summary.json, analysis.json and slices.csv.

    It shows images below the folders `pictures`, None = below the data folders that the test's configuration names.
    Raises DataError where there is no whole summary.json, the errors of `replacing` where the page
    cannot be written.
    """
    from tools.charts import save_png, slices_chart
    from tools.report.files import read_tested
    from tools.report.tested import make_test_page
    from utils.atomic import write_text_atomic

    tested = read_tested(folder, pictures)
    if tested.slices is not None:
        save_png(slices_chart(tested.slices, "mAP and Rank-1 of parts of the test"), folder.picture)
    write_text_atomic(folder.report, make_test_page(tested))
    return folder.report


def write_launch_report(
    path: Path,
    experiments: Sequence["Experiment"],
    summaries: Sequence[dict[str, Any]],
    results: Sequence[Sequence["SeedResults"]],
    command: str,
) -> Path:
    """Write the report of a launch to `path`, from the folders of its seeds; returns the path.

    `summaries` and `results` are those of `summarise` for the first experiments, as far as the launch
    has come; `command` is the launch's own command line. Raises the errors of `replacing` where the page cannot be
    written.
    """
    from tools.report.launched import gather, make_launch_page
    from utils.atomic import write_text_atomic

    write_text_atomic(path, make_launch_page(gather(experiments, summaries, results), command))
    return path


def write_sweep_report(
    path: Path,
    response: "Response",
    tested: tuple["Experiment", dict[str, Any], Sequence["SeedResults"]] | None,
    also_tested: Sequence[str],
    command: str,
) -> Path:
    """Write the report of a sweep to `path`; returns the path.

    `tested` are the chosen point's experiment, its summary and its results on the test set, None while there are none;
    `also_tested` names other points with results there. Raises the errors of `replacing` where the page cannot be
    written.
    """
    from tools.report.swept import make_sweep_page
    from utils.atomic import write_text_atomic

    write_text_atomic(path, make_sweep_page(response, tested, also_tested, command))
    return path


def write_comparison(path: Path, runs: Sequence[str], command: str, pictures: Sequence[Path] | None = None) -> Path:
    """Write the report of runs of one test set side by side to `path`; returns the path. `pictures` as above.

    Raises the errors of `tools.study.tested_runs` where they do not compare, and those of `replacing`.
    """
    from tools.report.compared import load_systems, make_comparison_page
    from utils.atomic import write_text_atomic

    write_text_atomic(path, make_comparison_page(load_systems(runs, pictures), command))
    return path
