"""One experiment of a launch: a YAML with its overrides, the folders of its seeds, and what they have to show."""

import argparse
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from yacs.config import CfgNode

from configs import find_notices, get_cfg_defaults, load_cfg
from configs.compare import find_differences, flatten, result_settings
from configs.stages import solver_of, stages_of
from configs.titles import dataset_title, names_of_tests
from tools.study.ablation import describe_plan
from tools.study.names import config_label, default_prefix, experiment_name
from tools.study.summary import FurtherTest, SeedResults, best_held_out, build_summary, pick_references
from utils.errors import ConfigError
from utils.run_folder import RunFolder, of_stage, read_metrics
from utils.test_folder import METRICS, TestFolder, epoch_folder, epoch_folders, read_per_query, read_result

if TYPE_CHECKING:
    from processor.phases import PhasePlan


class Experiment(NamedTuple):
    """What all seeds of one configuration share."""

    root: Path  # absolute
    name: str
    config: str  # absolute path of the YAML
    opts: list[str]  # KEY VALUE pairs for train.py and test.py, those of the switches included
    overrides: list[str]  # each of them as `KEY old -> new`
    notices: list[str]  # about the configuration, see `configs.find_notices`
    distributed: bool  # MODEL.DIST_TRAIN: train.py needs torchrun
    model_name: str  # prefix of the checkpoint files
    stages: tuple[str, ...]  # of the training, in order
    last_epoch: int  # of the last stage
    test_settings: dict[str, Any]
    facts: dict[str, Any]  # what the summary says about the experiment

    def run_folder(self, seed: int) -> RunFolder:
        return RunFolder(self.root / f"{self.name}_seed{seed}_run", self.model_name)

    def tests_of(self, seed: int) -> Path:
        """Return the folder that holds a test folder for each epoch."""
        return self.root / f"{self.name}_seed{seed}_test"

    def test_folder(self, seed: int, epoch: int) -> TestFolder:
        return epoch_folder(self.tests_of(seed), epoch)


def make_experiment(
    args: argparse.Namespace, config: str, opts: list[str], cfg: CfgNode, plan: "PhasePlan"
) -> Experiment:
    """Return the experiment of one config of the command line; `cfg` is that YAML with `opts`, `plan` its plan.

    Raises ConfigError for a name that cannot be a folder.
    """
    words, label, solver = args.switches.words(), config_label(config), solver_of(cfg)
    prefix = args.ds_prefix if args.ds_prefix is not None else default_prefix(cfg.DATASETS.NAMES[0])
    stamp = os.environ.get("RUN_TAG_TS") or None
    if args.tag is None:
        name = experiment_name(prefix, stamp, None, label, words)
    else:  # the tag stands for the switches, and for the label of a config that is alone
        name = experiment_name(prefix, stamp, args.tag, label if len(args.configs) > 1 else None, ())
    facts = {
        "epochs": solver.MAX_EPOCHS,
        "save_every": solver.CHECKPOINT_PERIOD,
        "config": os.path.abspath(config),
        "opts": opts,
        "dataset": dataset_title(names_of_tests(cfg)[0], cfg.DATASETS.VEHICLEID_TEST_SIZE),
        "data_root": cfg.DATASETS.ROOT_DIR,
        "switches": args.switches._asdict(),
        "recipe": "_".join((label, *words)),
        **describe_plan(plan, cfg.LOSS.TRIPLETX.K),
    }
    return Experiment(
        root=Path(os.path.abspath(args.output_root)),
        name=name,
        config=os.path.abspath(config),
        opts=opts,
        overrides=describe_overrides(config, opts, cfg),
        notices=find_notices(cfg),
        distributed=cfg.MODEL.DIST_TRAIN,
        model_name=cfg.MODEL.NAME,
        stages=tuple(stages_of(cfg)),
        last_epoch=solver.MAX_EPOCHS,
        test_settings=result_settings(cfg),
        facts=facts,
    )


def describe_overrides(config: str, opts: Sequence[str], cfg: CfgNode) -> list[str]:
    """Return each of the pairs as `KEY old -> new`; `cfg` is the YAML with them."""
    try:
        before = flatten(load_cfg(config))
    except ConfigError:  # the YAML alone may be incomplete, what counts was checked with the overrides
        before = {}
    after = flatten(cfg)
    return [f"{key} {before.get(key, '?')} -> {after[key]}" for key in opts[::2]]


def check_names(experiments: Sequence[Experiment]) -> None:
    """Raise ConfigError when two experiments would share their folders."""
    configs: dict[str, str] = {}
    for experiment in experiments:
        other = configs.get(experiment.name)
        if other == experiment.config:
            raise ConfigError(f"--config names '{other}' twice")
        if other is not None:
            raise ConfigError(
                f"--config '{other}' and '{experiment.config}' would share the folders '{experiment.name}_*'; rename "
                "one of the files, or launch them apart with a --tag each"
            )
        configs[experiment.name] = experiment.config


def check_same_settings(experiment: Experiment, seed: int) -> None:
    """Refuse a run folder that other settings made: it keeps its resolved configuration in config.yaml."""
    import yaml

    recorded = experiment.run_folder(seed).config
    nothing_learnt = not any(recorded.parent.glob("*.pth")) and not experiment.tests_of(seed).exists()
    if not recorded.is_file() or nothing_learnt:  # a run that ended over a mistake may be put right
        return
    try:
        saved = yaml.safe_load(recorded.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        saved = None
    if not isinstance(saved, dict):
        raise ConfigError(
            f"'{recorded}' is damaged; move '{recorded.parent}' away, or give this experiment its own --tag"
        )
    now = yaml.safe_load(load_cfg(experiment.config, [*experiment.opts, "SOLVER.SEED", str(seed)]).dump())
    differing = find_differences(saved, now)
    if differing:
        raise ConfigError(
            f"'{recorded.parent}' was trained with other settings: {'; '.join(differing)}; set them back, or give this "
            "experiment its own --tag"
        )


def collect_results(experiment: Experiment, seed: int) -> SeedResults:
    """Return what lies in the folders of one seed: valid test results up to the last epoch, and reference figures."""
    epochs, fingerprints, last = {}, set(), {}
    run = experiment.run_folder(seed)
    for epoch, folder in epoch_folders(experiment.tests_of(seed)).items():
        if epoch > experiment.last_epoch:
            continue
        if why_untested(folder, run.checkpoint(epoch), experiment.test_settings) is None:
            result = read_result(folder)
            epochs[epoch] = {name: result[name] for name in METRICS}
            fingerprints |= {result["data_fingerprint"]} if "data_fingerprint" in result else set()
            last = result if epoch == experiment.last_epoch else last
    records = read_metrics(run.metrics)
    looked_at = of_stage(records, experiment.stages, experiment.stages[-1])
    held_out = {
        record["epoch"]: {name: record[name] for name in METRICS} for record in looked_at if record["kind"] == "val"
    }
    unseen = {experiment.last_epoch, best_held_out(epochs, held_out)} & epochs.keys()
    tables = {epoch: read_per_query(experiment.test_folder(seed, epoch)) for epoch in unseen}
    per_query = {epoch: table for epoch, table in tables.items() if table is not None}
    further = {name: _read_further(experiment, seed, name, metrics) for name, metrics in last.get("tests", {}).items()}
    return SeedResults(seed, epochs, pick_references(records), fingerprints, held_out, per_query, further)


def _read_further(experiment: Experiment, seed: int, name: str, metrics: dict[str, float]) -> FurtherTest:
    """Return the last epoch's result on another test set, which test.py leaves in a folder of that name."""
    title = dataset_title(name, experiment.test_settings["DATASETS.VEHICLEID_TEST_SIZE"])
    folder = experiment.test_folder(seed, experiment.last_epoch).further(name)
    return FurtherTest(title, metrics, read_per_query(folder))


def summarise(
    experiment: Experiment, seeds: Sequence[int], failed_tests: Sequence[dict[str, Any]]
) -> tuple[dict[str, Any], list[SeedResults]]:
    """Return the summary of these seeds as far as they have results, and the results."""
    results = [collect_results(experiment, seed) for seed in seeds]
    time = datetime.now().astimezone().isoformat(timespec="seconds")
    facts = {"name": experiment.name, "timestamp": time, **experiment.facts}
    return build_summary(results, experiment.last_epoch, facts, failed_tests), results


def why_untested(folder: TestFolder, weight: Path, settings: dict[str, Any]) -> str | None:
    """Return why `folder` holds no valid result for `weight` under `settings`, None when it does.

    A result whose checkpoint is gone is taken as it is.
    """
    result = read_result(folder)
    if result is None:
        return "no whole result" if folder.path.is_dir() else "not tested yet"
    saved = result_settings(get_cfg_defaults()) | result.get("settings", {})  # a key it lacks is younger than it
    changes = [f"{key} {saved.get(key)} -> {new}" for key, new in settings.items() if saved.get(key) != new]
    if changes:
        return f"tested with other settings: {'; '.join(changes)}"
    for name in result.get("tests", {}):  # further test sets, each with a folder of its name
        if read_result(folder.further(name)) is None:
            return f"no whole result on {name}"
    if not weight.is_file() or weight.stat().st_mtime <= folder.summary.stat().st_mtime:
        return None
    from utils.checkpoint import sha256_of

    if result["weight_sha256"] != sha256_of(weight):
        return "the checkpoint changed after its test"
    return None
