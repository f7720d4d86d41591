"""Train, test and summarise over seeds: python run_phased_loss.py --config configs/VeRi/vit_base.yml --seeds 0 1 2"""

from utils.interrupts import deferred, take_over

if __name__ == "__main__":
    take_over()  # Ctrl-C, before the imports that take time

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from tools.launch.arguments import parse_args
from utils.errors import run_command

ROOT = Path(__file__).resolve().parent
SCRIPTS = {"train": "train.py", "test": "test.py"}


def main(argv: list[str] | None = None, scripts: Mapping[str, str] = MappingProxyType(SCRIPTS)) -> int:
    """Train and test every seed of every config, write and print the summaries and one table.

    With --grid or --search those are points of a sweep, of which one is chosen and tested. With --summarise nothing is
    trained or tested, and what lies there is summed up.
    Seed after seed, or one at a time on each device of --gpus. The same command again resumes training and tests what
    has no whole result. A failed training ends its experiment, the others still run. Returns 0, or the exit code of
    the first experiment that failed (1: one of its tests). `scripts` are what trains and what tests, from this folder.
    """
    args = parse_args(argv)
    from concurrent.futures import Future, ThreadPoolExecutor

    from tools.launch.children import Children
    from tools.launch.claims import claimed
    from tools.launch.made import make_launch
    from tools.launch.places import Place, find_places
    from tools.launch.queue import Ended, Unit, run_units
    from tools.launch.screen import Screen
    from tools.launch.seed import SeedRun, run_seed

    places = find_places(args.gpus)
    command = shlex.join(["python", *(sys.argv if argv is None else ["run_phased_loss.py", *argv])])
    launch, screen = make_launch(args, command), Screen(args.verbose)
    try:
        # the children end first, or the pool would wait for their threads
        with (
            claimed(launch.claims),
            ThreadPoolExecutor(len(places)) as pool,
            deferred(),
            Children(ROOT, launch.name) as children,
        ):

            def start(unit: Unit, place: Place) -> Future:
                if args.summarise:
                    return pool.submit(Ended, 0)
                run = SeedRun(unit[0].experiment, unit[1], place, children, scripts, screen)
                return pool.submit(run_seed, run, unit[0].tests)

            launch.begin()
            for (progress, seed), ended in run_units(launch.take, places, start):
                launch.end(progress, seed, ended)
    except (KeyboardInterrupt, SystemExit):
        launch.print_stop()
        raise
    launch.print_end()
    return launch.exit_code


if __name__ == "__main__":
    sys.exit(run_command(main))
