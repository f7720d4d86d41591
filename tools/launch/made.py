"""The launch that a command line asks for: recipes as they are, a grid, or a search; checked before anything runs."""

import argparse

from tools.launch.launch import Launch
from tools.launch.plan import check_choice, plan_grid, plan_launch, plan_one, read_sweep
from tools.launch.sweeping import SweepLaunch
from utils.run_folder import make_folder


def make_launch(args: argparse.Namespace, command: str) -> Launch | SweepLaunch:
    """Return the launch of a command line; ConfigError for what cannot work."""
    sweep = read_sweep(args)
    if sweep is None:
        return Launch(plan_launch(args), args, command)
    if not sweep.count:
        return SweepLaunch(args, sweep, plan_grid(args, sweep), command)
    from tools.launch.search import Search, corner_of

    point = corner_of(sweep)  # of every config one is looked at before the storage is
    planned = [plan_one(args, config, sweep, point) for config in args.configs]
    check_choice(planned)
    make_folder(args.output_root, "--output-root")
    experiments = [experiment for experiment, _ in planned]
    search = Search(args, sweep)
    launch = SweepLaunch(args, sweep, (experiments, [point] * len(planned)), command, search)
    search.place = launch.start.with_name(f"{launch.name}.db")
    return launch
