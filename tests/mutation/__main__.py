"""`python -m tests.mutation`: put small faults into the code, count those that its tests notice, list the others.

Needs requirements-mutation.txt. A sample is drawn from each module, its order from the seed alone. All happens in a
copy, so the working tree stays as it is.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

from tests.mutation.mutants import Mutable, Mutant
from tests.mutation.plan import PLAN
from tests.mutation.workshop import SURVIVED, Workshop

ROOT = Path(__file__).parents[2]


def main(argv: list[str] | None = None) -> int:
    """Try the mutants; the exit code is 1 where less than the share asked for was noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("modules", nargs="*", default=[], metavar="MODULE", help=f"of {', '.join(PLAN)}; default: all")
    parser.add_argument("--each", type=int, default=40, help="mutants of each module (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default: %(default)s)")
    parser.add_argument("--at-least", type=float, default=0.85, help="share to notice over all (default: %(default)s)")
    args = parser.parse_args(argv)
    unknown = set(args.modules) - set(PLAN)
    if unknown:
        parser.error(f"there is no module {', '.join(sorted(unknown))}; there are {', '.join(PLAN)}")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    samples = {module: draw(module, args.each, args.seed) for module in args.modules or PLAN}
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        survivors = try_all(samples, Workshop(ROOT, Path(place)))
    minutes = (time.monotonic() - start) / 60
    print(table({module: (len(sample), len(survivors[module])) for module, sample in samples.items()}))
    print(f"\nseed {args.seed}, {args.each} mutants of each module, {minutes:.0f} minutes")
    for mutant in (mutant for found in survivors.values() for mutant in found):
        print(f"\n{mutant.file}:{mutant.line}\n{mutant.diff}")
    tried, survived = sum(map(len, samples.values())), sum(map(len, survivors.values()))
    return int(tried - survived < args.at_least * tried)


def draw(module: str, each: int, seed: int) -> list[Mutant]:
    """Return the first `each` mutants of a module in the order of the seed; all faults are alike likely."""
    files = [Mutable(ROOT, file) for file in PLAN[module]]
    possible = [(file, mutation) for file in files for mutation in file.mutations]
    random.Random(f"{seed} {module}").shuffle(possible)
    made = (file.mutant(mutation) for file, mutation in possible)
    return list(islice((mutant for mutant in made if mutant), each))


def try_all(samples: dict[str, list[Mutant]], workshop: Workshop) -> dict[str, list[Mutant]]:
    """Return the mutants of each module that no test noticed; each result is told at once."""
    survivors: dict[str, list[Mutant]] = {}
    for module, sample in samples.items():
        survivors[module] = []
        for number, mutant in enumerate(sample, start=1):
            start = time.monotonic()
            fate = workshop.try_text(mutant.file, mutant.text, PLAN[module][mutant.file])
            if fate == SURVIVED:
                survivors[module].append(mutant)
            seconds = time.monotonic() - start
            print(f"{number}/{len(sample)} {mutant.file}:{mutant.line} {fate}, {seconds:.0f} s", file=sys.stderr)
    return survivors


def table(counts: dict[str, tuple[int, int]]) -> str:
    """Return the Markdown table of {module: (tried, survived)}, the sum last."""
    total = tuple(map(sum, zip(*counts.values(), strict=True)))
    lines = ["| module | tried | killed | survived | score |", "|---|---|---|---|---|"]
    for module, (tried, survived) in [*counts.items(), ("all", total)]:
        killed = tried - survived
        lines.append(f"| {module} | {tried} | {killed} | {survived} | {killed / max(tried, 1):.0%} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
