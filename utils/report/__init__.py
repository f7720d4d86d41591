"""Reports: one self-contained HTML page of a test, and one of a launch.

The pages need no other file, no network and no script. Equal files give equal bytes. What is absent or damaged beside
the result itself is one line on the page.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from utils.experiment import Experiment
    from utils.summary import SeedResults

REPORT_NAME = "report.html"


def write_test_report(folder: Path) -> Path:
    """Write report.html from the files of a test (summary.json, analysis.json, slices.csv) into its folder.

    Raises DataError where there is no whole summary.json, OSError where the page cannot be written.
    """
    from utils.report.files import read_tested
    from utils.report.tested import make_test_page
    from utils.run_folder import write_text_atomic

    page = make_test_page(read_tested(folder))
    path = folder / REPORT_NAME
    write_text_atomic(path, page)
    return path


def write_launch_report(
    path: Path,
    experiments: Sequence["Experiment"],
    summaries: Sequence[dict[str, Any]],
    results: Sequence[Sequence["SeedResults"]],
    command: str,
) -> Path:
    """Write the report of a launch to `path`, from the folders of its seeds; returns the path.

    `summaries` and `results` are those of `utils.experiment.summarise` for the first experiments, as far as the launch
    has come; `command` is the launch's own command line. Raises OSError where the page cannot be written.
    """
    from utils.report.launched import gather, make_launch_page
    from utils.run_folder import write_text_atomic

    write_text_atomic(path, make_launch_page(gather(experiments, summaries, results), command))
    return path
