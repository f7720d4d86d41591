"""Run a benchmark three times, each in a process of its own, and keep the middle run with what all three found.

The middle run is the one with the middle value of the first bar. The tables then show the least and the most of each
ratio and bar, and judge a bar by the worst run.

python benchmarks/thrice.py train_step
python benchmarks/thrice.py train_step --recipe irra
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import RESULTS, make_parser, write_result
from utils.errors import ConfigError, run_command

FOLDER = Path(__file__).resolve().parent
RUNS = 3
NO_BENCHMARKS = ("measure", "tables", "thrice")


def run_once(script: Path, arguments: list[str]) -> Path:
    """Run a benchmark in a process of its own and return the one file of results that it wrote."""
    before = written()
    done = subprocess.run([sys.executable, str(script), *arguments], check=False)
    if done.returncode:
        raise ConfigError(f"{script.name} ended with code {done.returncode}: nothing more is run")
    new = [path for path, time in written().items() if before.get(path) != time]
    if len(new) != 1:
        raise ConfigError(f"{script.name} kept no result with these arguments; name one of its presets")
    return new[0]


def written() -> dict[Path, int]:
    """Return when each file of results was written, in nanoseconds."""
    return {path: path.stat().st_mtime_ns for path in RESULTS.glob("*.json")}


def join(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the middle run by its first bar, the second where there is none, with the facts of all as "runs"."""
    order = list(runs)
    if all(run["facts"].get("bars") for run in runs):
        order.sort(key=lambda run: run["facts"]["bars"][0]["value"])
    return order[len(order) // 2] | {"runs": [run["facts"] for run in runs]}


def main(argv: list[str] | None = None) -> None:
    parser = make_parser("benchmarks/thrice.py", __doc__)
    names = [path.stem for path in sorted(FOLDER.glob("*.py")) if path.stem not in NO_BENCHMARKS]
    parser.add_argument("benchmark", choices=names, metavar="NAME", help="of a script of this folder, without .py")
    args, rest = parser.parse_known_args(argv)
    runs = []
    for _ in range(RUNS):
        path = run_once(FOLDER / f"{args.benchmark}.py", rest)
        runs.append(json.loads(path.read_text(encoding="utf-8")))
    write_result(path, join(runs))


if __name__ == "__main__":
    sys.exit(run_command(main))
