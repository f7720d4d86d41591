"""Make the report of a test again from its files: python -m tools.report logs/x_test/epoch_120"""

from utils.interrupts import take_over

if __name__ == "__main__":
    take_over()  # Ctrl-C, before the imports that take time

import sys
from pathlib import Path

from tools.report import write_test_report
from utils.commands import OneLineParser, need_packages, path_flag
from utils.errors import run_command
from utils.test_folder import TestFolder


def main(argv: list[str] | None = None) -> int:
    """Write report.html into the folder of a test. Returns the exit code 0."""
    parser = OneLineParser(
        prog="python -m tools.report",
        description="Make report.html again from the files of a test.",
    )
    parser.add_argument(
        "folder", metavar="FOLDER", type=path_flag, help="OUTPUT_DIR of test.py, or <name>_test/epoch_<e>"
    )
    args = parser.parse_args(argv)
    need_packages("matplotlib")
    print(f"written: {write_test_report(TestFolder(Path(args.folder)))}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
