"""One experiment of a launch: a YAML with its overrides, the folders of its seeds, and what they have to show."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from yacs.config import CfgNode

from configs import find_notices, load_cfg
from configs.compare import find_differences, flatten, result_settings, shapes_training
from configs.keys import affects
from configs.phases import PhasePlan
from configs.stages import solver_of, stages_of
from configs.titles import dataset_title, names_of_tests
from tools.study.ablation import describe_stages
from tools.study.names import config_label, default_prefix, experiment_name
from tools.study.trials import trial_words
from utils.ap_rules import marked
from utils.errors import ConfigError
from utils.run_folder import RunFolder
from utils.run_record import read_record
from utils.test_folder import TestFolder, epoch_folder
from utils.yaml_text import plain_tree

TESTED_ALONE = ("DATASETS.TESTS",)  # keys of what is tested that held-out identities do not see


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

    def test_folder(self, seed: int, epoch: int, stage: str = "") -> TestFolder:
        """Return the folder of the test of a checkpoint, `stage` as in `RunFolder.checkpoint`."""
        return epoch_folder(self.tests_of(seed) / stage, epoch)


def make_experiment(
    args: argparse.Namespace, config: str, opts: list[str], cfg: CfgNode, point: Sequence[str] = ()
) -> Experiment:
    """Return the experiment of one config of the command line; `cfg` is that YAML with `opts`.

    `point` are the words of a point of a sweep. Raises ConfigError for a name that cannot be a folder.
    """
    words, label, solver = args.switches.words(), config_label(config), solver_of(cfg)
    own = (*trial_words(cfg), *point)
    prefix = args.ds_prefix if args.ds_prefix is not None else default_prefix(cfg.DATASETS.NAMES[0])
    stamp = os.environ.get("RUN_TAG_TS") or None
    if args.tag is None:
        name = experiment_name(prefix, stamp, None, label, (*words, *own))
    else:  # the tag stands for the switches, and for the label of a config that is alone
        name = experiment_name(prefix, stamp, args.tag, label if len(args.configs) > 1 else None, own)
    facts = {
        "epochs": solver.MAX_EPOCHS,
        "save_every": solver.CHECKPOINT_PERIOD,
        "config": os.path.abspath(config),
        "opts": opts,
        "dataset": marked(dataset_title(names_of_tests(cfg)[0], cfg.DATASETS.VEHICLEID_TEST_SIZE), cfg.TEST.AP),
        "data_root": cfg.DATASETS.ROOT_DIR,
        "switches": args.switches._asdict(),
        "recipe": "_".join((label, *words, *own)),
        **describe_stages({stage: PhasePlan(cfg, stage) for stage in stages_of(cfg)}, cfg.LOSS.TRIPLETX.K),
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


def check_same_settings(experiment: Experiment, seed: int, held_out: bool = False) -> None:
    """Refuse a run folder that other settings made, as config.yaml, or in its place a checkpoint, or run.json tells.

    With `held_out` so is a finished run that was evaluated with other settings: its figures are not measured again.
    """
    run = experiment.run_folder(seed)
    nothing_learnt = not any(run.path.glob("*.pth")) and not experiment.tests_of(seed).exists()
    if nothing_learnt:  # a run that ended over a mistake may be put right
        return
    if run.config.exists():
        saved = _settings_in(run.config)
        if saved is None:
            raise ConfigError(
                f"'{run.config}' is damaged; move '{run.path}' away, or give this experiment its own --tag"
            )
    else:
        saved = _settings_of_a_checkpoint(run)
    record = read_record(run)
    of_record = _sections(record.config) if record is not None else None  # it proves checkpoints that were copied here
    known = [settings for settings in (saved, of_record) if settings is not None]
    if not known:  # no checkpoint of this code: train.py says what it makes of the folder
        return
    now = plain_tree(load_cfg(experiment.config, [*experiment.opts, "SOLVER.SEED", str(seed)]).dump())
    checks = [("trained", shapes_training, known)]
    if held_out and run.checkpoint(experiment.last_epoch).exists():
        checks.append(("evaluated", shapes_held_out, known[:1]))  # config.yaml is that of the last start
    for what, counts, told in checks:
        differing = next(filter(None, (find_differences(settings, now, counts) for settings in told)), [])
        if differing:
            raise ConfigError(
                f"'{run.path}' was {what} with other settings: {'; '.join(differing)}; set them back, or give this "
                "experiment its own --tag"
            )


def shapes_held_out(key: str) -> bool:
    """Return whether what a trained model reaches on held-out identities depends on a key."""
    own = affects(key, "embedding") or affects(key, "ranking")
    return own and not affects(key, "place") and key not in TESTED_ALONE


def _settings_in(path: Path) -> dict[str, Any] | None:
    """Return the sections of a configuration that a run kept; None where the file is damaged or cannot be read."""
    try:
        return _sections(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None


def _sections(text: str) -> dict[str, Any] | None:
    """Return the sections of a configuration in YAML; None for any other text."""
    content = plain_tree(text)
    is_config = content is not None and all(isinstance(name, str) for name in content)
    return content if is_config and isinstance(content.get("SOLVER"), dict) else None


def _settings_of_a_checkpoint(run: RunFolder) -> dict[str, Any] | None:
    from utils.checkpoint import read_provenance

    for weight in reversed(run.checkpoints().values()):
        config = (read_provenance(weight) or {}).get("config")
        if isinstance(config, str) and (saved := _sections(config)) is not None:
            return saved
    return None
