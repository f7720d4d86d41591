"""Make the report of a test again, or one of several runs: python -m tools.report logs/a logs/b --out logs/a_b.html"""

from utils.interrupts import take_over

if __name__ == "__main__":
    take_over()  # Ctrl-C, before the imports that take time

import shlex
import sys
from pathlib import Path

from tools.report import write_comparison, write_test_report
from utils.commands import OneLineParser, need_packages, path_flag
from utils.errors import run_command
from utils.run_folder import make_place
from utils.test_folder import TestFolder


def main(argv: list[str] | None = None) -> int:
    """Write report.html into the folder of a test, or the page of several runs to --out. Returns the exit code 0."""
    parser = OneLineParser(
        prog="python -m tools.report",
        description="Make report.html of a test again from its files; or, of several runs on one test set, a page that "
        "shows them side by side: figures with intervals, paired differences, and queries where they differ.",
        epilog="One RUN is the OUTPUT_DIR of test.py, or <name>_test/epoch_<e>. Several are named as for "
        "tools.compare, e.g. logs/veri776_baseline for all seeds; the first is what the others are compared with.",
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", type=path_flag, help="the folder of a test, or several runs")
    parser.add_argument("--out", metavar="FILE", type=path_flag, help="the page to write of several runs")
    what = "show images below these folders alone (default: the data folders that the test's configuration names)"
    parser.add_argument("--pictures", metavar="FOLDER", nargs="+", type=path_flag, help=what)
    args = parser.parse_args(argv)
    pictures = None if args.pictures is None else [*map(Path, args.pictures)]
    if (len(args.runs) > 1) != bool(args.out):
        parser.error("several runs need --out FILE" if not args.out else "--out is for several runs, got one")
    need_packages("matplotlib")
    if args.out:
        command = shlex.join(["python", "-m", "tools.report", *args.runs, "--out", args.out])
        written = write_comparison(make_place(args.out, "--out"), args.runs, command, pictures)
    else:
        written = write_test_report(TestFolder(Path(args.runs[0])), pictures)
    print(f"written: {written}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
