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
from configs.stages import solver_of
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
    short_names,
    told,
)
from tools.launch.switched import load_with_switches
from tools.study.experiment import Experiment, check_names, check_same_settings, make_experiment
from utils.errors import ConfigError
from utils.run_folder import make_folder

TRIAL = "trial"  # with its number, the word of a point of a search in names
MOST_RUNS = 50  # that a sweep starts without --yes
NOT_HELD_OUT = ("DATASETS.TESTS",)  # of the keys of data sets: says what is tested alone


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
        return short_names(self.keys)

    @property
    def kind(self) -> str:
        return "search" if self.count else "grid"


def plan_launch(args: argparse.Namespace) -> list[Experiment]:
    """Return the experiments of a launch, one a config, all of them checked before anything runs.

    Raises ConfigError for a config, a switch, a name, a device or an output root that cannot work, and for finished
    runs of other settings.
    """
    experiments = [plan_one(args, config)[0] for config in args.configs]
    _check_folders(args, experiments)
    return experiments


def read_sweep(args: argparse.Namespace) -> Sweep | None:
    """Return what the command line sweeps; None for a launch of recipes as they are.

    Raises ConfigError for flags that do not fit together, and for more runs than MOST_RUNS without --yes.
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
    _check_overridden(args, sweep)
    points = sweep.count or count_points(axes) * len(args.configs)
    runs = points * len(args.seeds)
    if runs > MOST_RUNS and not args.yes:
        raise ConfigError(
            f"--{sweep.kind} asks for {runs:,} runs ({points:,} points x {len(args.seeds)} seeds), more than "
            f"{MOST_RUNS}; add --yes where you mean it, or name fewer values or seeds"
        )
    return sweep


def _check_overridden(args: argparse.Namespace, sweep: Sweep) -> None:
    """Raise ConfigError for a key that is swept and also given, or is the launcher's own."""
    given = {key: f"{key} {value}" for key, value in zip(args.opts[::2], args.opts[1::2], strict=True)}
    given |= {key: switch for key, (switch, _) in args.switches.settings().items()}
    given |= {f"SOLVER.{name}": f"--epochs {value}" for name, value in args.solver.items() if name == "MAX_EPOCHS"}
    for key in sweep.keys:
        if key in OWN_KEYS:
            raise ConfigError(f"{key} is set by the launcher itself, so it cannot be swept; {OWN_KEYS[key]}")
        if key in given:
            raise ConfigError(f"{given[key]} contradicts the sweep over {key} on the same command line; drop one")


def plan_grid(args: argparse.Namespace, sweep: Sweep) -> tuple[list[Experiment], list[Point]]:
    """Return the experiments of a grid, config by config, each with its point, checked as `plan_launch` does.

    Raises ConfigError also where nothing is held out to choose by, or not the same for all.
    """
    planned = []
    for config in args.configs:
        planned += [(point, *plan_one(args, config, sweep, point)) for point in points_of(sweep.axes)]
    check_choice([(experiment, cfg) for _, experiment, cfg in planned])
    experiments = [experiment for _, experiment, _ in planned]
    _check_folders(args, experiments)
    return experiments, [point for point, *_ in planned]


def plan_one(
    args: argparse.Namespace, config: str, sweep: Sweep | None = None, point: Point | None = None, number: int = 0
) -> tuple[Experiment, CfgNode]:
    """Return the experiment of a config at a point of a sweep, and its configuration; not yet its folders' state.

    A point of a search has its `number` in its name, one of a grid its values.
    """
    point = point or {}
    where = f"point {told(point, sweep.names)}: " if sweep and point else ""
    words: tuple[str, ...] = ()
    if sweep and point:
        words = (f"{TRIAL}{number:03d}",) if sweep.count else name_words(point, sweep.axes)
    pairs = [word for pair in point.items() for word in pair]
    try:
        cfg, opts = load_with_switches(config, args.switches, [*args.opts, *pairs], args.solver)
        check_gpus(cfg, opts, args.gpus)
        return make_experiment(args, config, opts, cfg, words), cfg
    except ConfigError as error:
        named = "" if len(args.configs) == 1 or config in str(error) else f"{config}: "
        if not where and not named:
            raise
        raise ConfigError(f"{named}{where}{error}") from error


def _check_folders(args: argparse.Namespace, experiments: Sequence[Experiment]) -> None:
    """Raise ConfigError where folders would be shared, hold finished runs of other settings, or cannot be made."""
    check_names(experiments)
    for experiment in experiments:
        check_resumable(experiment, args.seeds)
    make_folder(args.output_root, "--output-root")


def check_resumable(experiment: Experiment, seeds: Sequence[int]) -> None:
    """Raise ConfigError where a seed's folder holds a finished run of other settings."""
    for seed in seeds:
        check_same_settings(experiment, seed)


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
    kept = {key: value for key, value in kept.items() if key not in NOT_HELD_OUT}
    return kept | {"TEST.AP": cfg.TEST.AP, "the metric that decides": picked_by(cfg.MODEL.NAME)[0]}


def files_start(args: argparse.Namespace, sweep: Sweep, experiment: Experiment, point: Point) -> Path:
    """Return what the paths of a sweep's files begin with, e.g. logs/veri776_baseline_grid_BASE_LR.

    `experiment` is any of its points, `point` that one's values; several configs have the --tag in place of its name.
    """
    words = (f"{TRIAL}{0:03d}",) if sweep.count else name_words(point, sweep.axes)
    own = experiment.name.removesuffix(f"_{'_'.join(words)}") if len(args.configs) == 1 else args.tag
    return experiment.root / "_".join(filter(None, (own, sweep.kind, *sweep.names.values())))
