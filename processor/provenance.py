"""Where a run and its checkpoints come from: configuration, environment, and the data they were trained on."""

import json
import logging
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from yacs.config import CfgNode

from configs.compare import find_changes, flatten
from configs.keys import affects, get_cfg_defaults
from configs.titles import OF_TRIALS, names_of_tests
from datasets.labels import MAX_IDS, MAX_LABEL, MAX_SIDE_ROWS
from datasets.make_dataloader import ReIDData
from utils.atomic import write_text_atomic
from utils.checkpoint import read_provenance
from utils.errors import DataError
from utils.paths import user_path
from utils.run_folder import RunFolder
from utils.yaml_text import plain_tree

logger = logging.getLogger(__name__)

PROVENANCE_SCHEMA = 1
TEXTS = ("config", "tested_on", "train_fingerprint", "test_fingerprint")  # the entries of a provenance by type
# The largest of each number; a damaged one must not ask for all memory.
NUMBERS = {"epoch": 10**7, "num_classes": MAX_IDS, "camera_num": MAX_SIDE_ROWS, "view_num": MAX_LABEL + 1}


def run_of(cfg: CfgNode) -> RunFolder:
    """Return the run folder of a configuration."""
    return RunFolder(user_path(cfg.OUTPUT_DIR, "OUTPUT_DIR"), cfg.MODEL.NAME)


def describe_folder(run: RunFolder, config: str, device: str, data_fingerprint: str) -> None:
    """Write config.yaml (the resolved configuration) and env.json: the environment, and the data's fingerprint."""
    environment = find_environment(device) | {"data_fingerprint": data_fingerprint}
    write_text_atomic(run.config, config)
    write_text_atomic(run.environment, json.dumps(environment, indent=2) + "\n")


def find_environment(device: str) -> dict[str, Any]:
    """Return what a result may depend on beside its configuration: versions, device, git commit, command, time."""
    import timm
    import torchvision

    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "timm": timm.__version__,
        "device": device,
        "device_name": torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor(),
        "threads": torch.get_num_threads(),
        "git_commit": _git_commit(),
    }


def _git_commit() -> str | None:
    """Return the commit of this code, marked when files differ from it; None outside a git checkout."""
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()


def describe_run(cfg: CfgNode, epoch: int, data: ReIDData, stage: str = "", run: str = "") -> dict[str, Any]:
    """Return what a checkpoint tells about its training on `data`: plain values alone.

    `run` is the identity of its run, see `utils.run_record`; a run of an older version has none. `stage` is named by
    the checkpoints of an earlier stage alone; "" is the last one.
    """
    return {
        "schema": PROVENANCE_SCHEMA,
        "config": cfg.dump(),
        "epoch": epoch,
        "num_classes": data.num_classes,
        "camera_num": data.camera_num,
        "view_num": data.view_num,
        "datasets": list(cfg.DATASETS.NAMES),
        "tested_on": names_of_tests(cfg)[0],
        "train_fingerprint": data.fingerprint,
        "test_fingerprint": data.test.fingerprint,
        **({"stage": stage} if stage else {}),
        **({"run": run} if run else {}),
    }


def read_run(weight: Path) -> dict[str, Any] | None:
    """Return what a checkpoint tells about its training, see `describe_run`; None for a checkpoint of other code.

    Raises DataError where an entry is missing or cannot be true.
    """
    provenance = read_provenance(weight)
    if provenance is None:
        return None
    if provenance.get("schema") != PROVENANCE_SCHEMA:
        raise DataError(
            f"'{weight}' describes its training by schema {provenance.get('schema')!r}, this version reads "
            f"{PROVENANCE_SCHEMA}; use the version that wrote it"
        )
    wrong = [key for key in TEXTS if not isinstance(provenance.get(key), str)]
    wrong += [key for key in ("stage", "run") if not isinstance(provenance.get(key, ""), str)]
    wrong += ["config"] if "config" not in wrong and plain_tree(provenance["config"]) is None else []
    wrong += [
        key for key, most in NUMBERS.items() if type(provenance.get(key)) is not int or not 0 <= provenance[key] <= most
    ]
    names = provenance.get("datasets")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        wrong.append("datasets")
    if wrong:
        raise DataError(f"'{weight}': what it tells about its training is damaged ({', '.join(wrong)}); copy it again")
    return provenance


def setting_differences(provenance: dict[str, Any], cfg: CfgNode) -> str:
    """Return `KEY at training -> here` for the keys on which the embedding of an image depends; "" = none differ."""
    now = flatten(cfg)
    before = flatten(get_cfg_defaults()) | flatten(plain_tree(provenance["config"]) or {})
    known = {key: value for key, value in before.items() if key in now}
    changes = [change for change in find_changes(known, now) if affects(change.key, "embedding")]
    return "; ".join(f"{change.key} {change.old} -> {change.new}" for change in changes)


def warn_of_other_settings(provenance: dict[str, Any], cfg: CfgNode, weight: Path) -> None:
    """Warn where a checkpoint is embedded with by other settings than it was trained with."""
    differing = setting_differences(provenance, cfg)
    if differing:
        logger.warning(
            "'%s' was trained with other settings, so its embedding is another here: %s; set them back where that is "
            "not what you want",
            *(weight, differing),
        )


def data_differences(
    provenance: dict[str, Any], cfg: CfgNode, train_fingerprint: str, test_fingerprint: str
) -> list[str]:
    """Return a line for each data set of this configuration that has other images or labels than at training.

    Another test set than then is no difference, a set of the same name with another fingerprint is, nor that there are
    no training images here (fingerprint '').
    """
    differences = []
    settings = flatten(plain_tree(provenance["config"]) or {})
    names, before = list(cfg.DATASETS.NAMES), provenance["datasets"]
    if train_fingerprint and (names, train_fingerprint) != (before, provenance["train_fingerprint"]):
        line = (
            f"the checkpoint was trained on {', '.join(before)} (fingerprint {provenance['train_fingerprint']}), the "
            f"training set here is {', '.join(names)} (fingerprint {train_fingerprint})"
        )
        held_out = settings.get("DATASETS.VAL_IDS", 0)
        if held_out != cfg.DATASETS.VAL_IDS:
            line += f"; DATASETS.VAL_IDS was {held_out} then and is {cfg.DATASETS.VAL_IDS} here"
        differences.append(line)
    trial = settings.get("DATASETS.TRIAL", cfg.DATASETS.TRIAL)
    if trial != cfg.DATASETS.TRIAL and {*before} & {*names_of_tests(cfg)} & {*OF_TRIALS}:
        differences.append(
            f"the checkpoint was trained on trial {trial} (DATASETS.TRIAL) and tested on trial {cfg.DATASETS.TRIAL}: "
            "it has learnt persons that are searched for here, so the scores are too high"
        )
    same_test = names_of_tests(cfg)[0] == provenance["tested_on"]
    if same_test and test_fingerprint != provenance["test_fingerprint"]:
        differences.append(
            f"{provenance['tested_on']}: its test images had the fingerprint {provenance['test_fingerprint']} at "
            f"training, here they have {test_fingerprint}; the scores do not compare"
        )
    return differences
