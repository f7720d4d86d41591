"""How long each command takes to print its help, against `import torch` alone: wall time of whole processes, in turns.

python benchmarks/startup.py [--repeats N]     (no data, a minute)
"""

import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import Bar, alternate, keep, make_parser, summary
from utils.commands import whole_number
from utils.errors import run_command

ROOT = Path(__file__).resolve().parents[1]
BASELINE = "import torch"
REPEATS = 5
BAR = Bar("slowest --help", 1, 0.5, "s")
TOOLS = ("tools",)  # packages whose modules may be commands
ENTRY = "sys.exit(run_command("  # how every command ends


def find_commands() -> dict[str, list[str]]:
    """Return the arguments of Python for each command: scripts in the root, then modules and packages of TOOLS."""
    scripts = [path for path in sorted(ROOT.glob("*.py")) if ENTRY in path.read_text(encoding="utf-8")]
    commands = {path.name: [path.name] for path in scripts}
    for package in TOOLS:
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.name == "__main__.py" or ENTRY in path.read_text(encoding="utf-8"):
                parts = path.relative_to(ROOT).with_suffix("").parts
                module = ".".join(part for part in parts if part != "__main__")
                commands[f"-m {module}"] = ["-m", module]
    return commands


def run_python(arguments: list[str]) -> None:
    """Run this Python in the root and wait for its end; raises CalledProcessError when it fails."""
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def main(argv: list[str] | None = None) -> None:
    parser = make_parser("benchmarks/startup.py", __doc__)
    parser.add_argument(
        "--repeats", type=whole_number, default=REPEATS, metavar="N", help=f"of each (default: {REPEATS})"
    )
    args = parser.parse_args(argv)
    functions = {BASELINE: partial(run_python, ["-c", BASELINE])}
    functions |= {name: partial(run_python, [*call, "--help"]) for name, call in find_commands().items()}
    times = alternate(functions, args.repeats, threads=None, clock=time.perf_counter)
    rows = [
        {"command": name, **summary(seconds), "times import torch": median(seconds) / median(times[BASELINE])}
        for name, seconds in times.items()
    ]
    slowest = max(row["seconds"] for row in rows if row["command"] != BASELINE)
    print(BAR.judge(slowest))
    facts = {"rows": rows, "bars": [BAR.facts(slowest)]}
    keep("startup", facts, "" if args.repeats == REPEATS else f"repeats{args.repeats}")


if __name__ == "__main__":
    sys.exit(run_command(main))
