"""From the command line to experiments, each checked before anything runs: one a YAML, or one a point of a sweep."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from yacs.config import CfgNode

from configs.compare import flatten
from configs.keys import affects
from configs.keys.irra import NAME as IRRA
from configs.picking import picked_by
from configs.stages import solver_key, solver_of
from tools.launch.arguments import OWN_KEYS
from tools.launch.places import check_gpus
from tools.launch.points import (
    Axis,
    Point,
    Span,
    count_points,
    name_words,
    points_of,
    read_axes,
    read_spans,
    short_name,
    told,
)
from tools.launch.switched import load_with_switches
from tools.study.experiment import TESTED_ALONE, Experiment, check_names, check_same_settings, make_experiment
from utils.errors import ConfigError
from utils.run_folder import make_folder

POINT = "point"  # with its number, from 1 as in tables, the word of a point of a search in names
MOST_RUNS = 50  # that a sweep starts without --yes
MOST_POINTS = 1000
COMPARED_BY = ("TEST.AP", "TEST.QUERY_SETS", "TEST.GALLERY_SET")  # with DATASETS: what points are compared on


class Sweep(NamedTuple):
    """What a sweep varies: every combination of `axes`, or, with a `count`, so many points within `spans` as well."""

    axes: tuple[Axis, ...]
    spans: tuple[Span, ...] = ()
    count: int = 0  # of --search, 0 = a grid

    @property
    def keys(self) -> list[str]:
        return [one.key for one in (*self.axes, *self.spans)]

    @property
    def names(self) -> dict[str, str]:
        """What each key is called in tables and in the names of files."""
        return {key: short_name(key) for key in self.keys}

    @property
    def kind(self) -> str:
        return "search" if self.count else "grid"


def plan_launch(args: argparse.Namespace) -> list[Experiment]:
    """Return the experiments of a launch, one a config, all of them checked before anything runs.

    Raises ConfigError for a config, a switch, a name, a device or an output root that cannot work, and for finished
    runs of other settings.
    """
    experiments = [plan_one(args, config)[0] for config in args.configs]
    _check_folders(args, experiments, swept=False)
    return experiments


def read_sweep(args: argparse.Namespace) -> Sweep | None:
    """Return what the command line sweeps; None for a launch of recipes as they are.

    Raises ConfigError for flags that do not fit together, for keys that say on what points are compared, for more than
    MOST_POINTS, and for more runs than MOST_RUNS without --yes.
    """
    if not args.grid and not args.range and args.search is None:
        return None
    axes = read_axes(args.grid)
    spans = read_spans(args.range, axes)
    sweep = Sweep(tuple(axes), tuple(spans), args.search or 0)
    if spans and not sweep.count:
        raise ConfigError(f"--range {spans[0].key}: give --search N, the number of points to try")
    if sweep.count and not sweep.keys:
        raise ConfigError(f"--search {sweep.count}: names nothing to search; add --range KEY LOW HIGH or --grid")
    _check_keys(args, sweep)
    distinct = count_points([*axes, *spans]) * len(args.configs)
    if sweep.count > distinct:
        raise ConfigError(f"--search {sweep.count}: there are only {distinct:.0f} points; --grid tries them all")
    points = sweep.count or distinct
    if points > MOST_POINTS:
        raise ConfigError(f"--{sweep.kind} asks for {points:,} points, at most {MOST_POINTS:,}; name fewer")
    runs = points * len(args.seeds)
    if runs > MOST_RUNS and not args.yes:
        raise ConfigError(
            f"--{sweep.kind} asks for {runs:,} runs ({points:,} points x {len(args.seeds)} seeds), more than "
            f"{MOST_RUNS}; add --yes where you mean it, or name fewer values or seeds"
        )
    return sweep


def _check_keys(args: argparse.Namespace, sweep: Sweep) -> None:
    """Raise ConfigError for a key that is also given, that the launcher sets, or that points are compared by."""
    given = {key: f"{key} {value}" for key, value in zip(args.opts[::2], args.opts[1::2], strict=True)}
    given |= {key: switch for key, (switch, _) in args.switches.settings().items()}
    for key in sweep.keys:
        if key in OWN_KEYS:
            raise ConfigError(f"{key} is set by the launcher itself, so it cannot be swept; {OWN_KEYS[key]}")
        if key.startswith("DATASETS.") or key in COMPARED_BY:
            raise ConfigError(f"{key} says on what points are compared, so it cannot be swept; launch each value apart")
        if key in given:
            raise _contradiction(given[key], key)


def _contradiction(given: str, key: str) -> ConfigError:
    return ConfigError(f"{given} contradicts the sweep over {key} on the same command line; drop one")


def plan_grid(args: argparse.Namespace, sweep: Sweep) -> tuple[list[Experiment], list[Point]]:
    """Return the experiments of a grid, config by config, each with its point, checked as `plan_launch` does.

    Raises ConfigError also where nothing is held out to choose by, or not the same for all.
    """
    planned = []
    for config in args.configs:
        planned += [(point, *plan_one(args, config, sweep, point)) for point in points_of(sweep.axes)]
    check_choice([(experiment, cfg) for _, experiment, cfg in planned])
    experiments = [experiment for _, experiment, _ in planned]
    _check_folders(args, experiments, swept=True)
    return experiments, [point for point, *_ in planned]


def plan_one(
    args: argparse.Namespace, config: str, sweep: Sweep | None = None, point: Point | None = None, number: int = 1
) -> tuple[Experiment, CfgNode]:
    """Return the experiment of a config at a point of a sweep, and its configuration; not yet its folders' state.

    A point of a search has its `number` in its name, one of a grid its values.
    """
    point = point or {}
    where = f"point {told(point, sweep.names)}: " if sweep and point else ""
    words = _words_of(sweep, point, number) if sweep else ()
    pairs = [word for pair in point.items() for word in pair]
    try:
        cfg, opts = load_with_switches(config, args.switches, [*args.opts, *pairs], args.solver)
        if args.epochs is not None and solver_key(cfg, "MAX_EPOCHS") in point:
            raise _contradiction(f"--epochs {args.epochs}", solver_key(cfg, "MAX_EPOCHS"))
        check_gpus(cfg, opts, args.gpus)
        return make_experiment(args, config, opts, cfg, words), cfg
    except ConfigError as error:
        named = "" if len(args.configs) == 1 or config in str(error) else f"{config}: "
        if not where and not named:
            raise
        raise ConfigError(f"{named}{where}{error}") from error


def _check_folders(args: argparse.Namespace, experiments: Sequence[Experiment], swept: bool) -> None:
    """Raise ConfigError where folders would be shared, hold finished runs of other settings, or cannot be made."""
    check_names(experiments)
    for experiment in experiments:
        for seed in args.seeds:
            check_same_settings(experiment, seed, held_out=swept)
    make_folder(args.output_root, "--output-root")


def check_choice(planned: Sequence[tuple[Experiment, CfgNode]]) -> None:
    """Raise ConfigError where the experiments could not be chosen among without looking at the test set."""
    first, reference = planned[0][0], _choosing(planned[0][1])
    for experiment, cfg in planned:
        by_split = cfg.MODEL.NAME == IRRA and cfg.DATASETS.EVAL_SPLIT == "val"
        if not cfg.DATASETS.VAL_IDS and not by_split:
            raise ConfigError(
                f"{experiment.name}: a sweep is chosen on identities held out of training, but DATASETS.VAL_IDS is 0; "
                "set it, e.g. --opts DATASETS.VAL_IDS 0.1"
            )
        if not solver_of(cfg).EVAL_PERIOD:
            raise ConfigError(
                f"{experiment.name}: a sweep is chosen on what training evaluates, but SOLVER.EVAL_PERIOD is 0; set it"
            )
        other = _choosing(cfg)
        differing = [f"{key} {reference[key]} / {value}" for key, value in other.items() if value != reference[key]]
        if differing:
            raise ConfigError(
                f"'{first.name}' and '{experiment.name}' cannot be chosen among on the same held-out identities: "
                f"{'; '.join(differing)}; sweep them apart"
            )


def _choosing(cfg: CfgNode) -> dict[str, Any]:
    """Return what has to be equal for figures on held-out identities to compare."""
    data: Mapping[str, Any] = flatten({"DATASETS": cfg.DATASETS})
    kept = {key: value for key, value in data.items() if affects(key, "training") or affects(key, "ranking")}
    kept = {key: value for key, value in kept.items() if key not in TESTED_ALONE}
    kept |= {key: value for key, value in flatten({"TEST": cfg.TEST}).items() if key in COMPARED_BY}
    return kept | {"the metric that decides": picked_by(cfg.MODEL.NAME)[0]}


def _words_of(sweep: Sweep, point: Point, number: int) -> tuple[str, ...]:
    return (f"{POINT}{number:03d}",) if sweep.count else name_words(point)


def files_start(args: argparse.Namespace, sweep: Sweep, experiment: Experiment, point: Point) -> Path:
    """Return what the paths of a sweep's files begin with, e.g. logs/veri776_baseline_grid_BASE_LR.

    `experiment` is its first point, `point` that one's values; several configs have the --tag in place of its name.
    """
    words = _words_of(sweep, point, 1)
    own = experiment.name.removesuffix(f"_{'_'.join(words)}") if len(args.configs) == 1 else args.tag
    return experiment.root / "_".join(filter(None, (own, sweep.kind, *sweep.names.values())))
