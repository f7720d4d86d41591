"""Where published weights come from, in words that tell nothing of the machine they were made on."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from yacs.config import CfgNode

from configs.keys import KEYS
from configs.publishing import AS_DEFAULT, PATH_KEYS
from configs.values import value_of
from processor.trained import Trained
from utils.clean_text import without_secrets
from utils.digest import sha256_of
from utils.errors import printable
from utils.run_folder import open_run, read_environment

RECIPES = "configs"  # the folder of this repository
TOLD = ("epoch", "stage", "num_classes", "camera_num", "view_num", "datasets", "tested_on")
TOLD += ("train_fingerprint", "test_fingerprint", "run")
ENVIRONMENT = ("time", "python", "torch", "torchvision", "timm", "device", "device_name", "threads", "git_commit")
HIDDEN = "<path>"
QUOTED = re.compile(r"(?<!\w)'[^'\n]*[/\\]([^'/\\\n]+)'(?!\w)")  # as messages name files
PATHS = re.compile(  # absolute, or of a home folder, of any system; what is no word before a / is no path: mAP / Rank-1
    r"(?<![\w.:/<~-])(?:~[\w.-]*)?/[\w.@+%-][^\s'\",;)\]]*|(?<!\w)[A-Za-z]:[\\/][^\s'\",;)\]]*|\\\\[\w.-]+\\[^\s'\",;)\]]*"
)


def describe_origin(trained: Trained, public: CfgNode) -> dict[str, Any]:
    """Return what a checkpoint and its run folder tell of its training; `command` is '' where they do not tell it.

    `public` is its configuration without places.
    """
    told = trained.provenance or {}
    environment = read_environment(open_run(trained.weight.parent).environment)
    command = environment.get("command")
    origin = {
        "schema": 1,
        **{name: told[name] for name in TOLD if name in told},
        "checkpoint": trained.weight.name,
        "checkpoint_sha256": sha256_of(trained.weight),
        "command": public_command(command, public) if _is_command(command) else "",
        "environment": {name: environment[name] for name in ENVIRONMENT if name in environment},
    }
    return without_paths(origin)


def public_command(words: Sequence[str], public: CfgNode) -> str:
    """Return a command of train.py as one line without places: those of `public`, see `without_places`, stand for them.

    A recipe keeps its path in this repository.
    """
    program, *rest = words
    kept = [_last(program)]
    rest = iter(rest)
    for word in rest:
        if word in PATH_KEYS or (word in KEYS and "place" in KEYS[word].affects):
            next(rest, None)
            kept += [] if word in AS_DEFAULT else [word, str(value_of(public, word))]
            continue
        flag, joined, value = word.partition("=")
        kept.append(f"{flag}={_shown(value)}" if joined and flag.startswith("--") else _shown(word))
    return without_secrets(printable(f"python {shlex.join(kept)}").replace("\n", "\\n"))


def without_paths(value: Any) -> Any:
    """Return plain values without the paths in their texts: of a quoted one its last part stays, of others HIDDEN."""
    if isinstance(value, str):
        return without_secrets(PATHS.sub(HIDDEN, QUOTED.sub(r"'\1'", value)))
    if isinstance(value, dict):
        return {name: without_paths(one) for name, one in value.items()}
    return [without_paths(one) for one in value] if isinstance(value, (list, tuple)) else value


def _is_command(command: Any) -> bool:
    return isinstance(command, list) and bool(command) and all(isinstance(word, str) for word in command)


def _shown(word: str) -> str:
    """Return a word of a command; of a path its last part, of a recipe all from configs/ on."""
    parts = PureWindowsPath(word).parts  # of / and \\ alike
    is_recipe = word.endswith((".yml", ".yaml"))
    if is_recipe and RECIPES in parts:
        return "/".join(parts[parts.index(RECIPES) :])
    is_path = PureWindowsPath(word).anchor or Path(word).is_absolute() or word.startswith("~") or ".." in parts
    return _last(word) if is_path or is_recipe else word


def _last(word: str) -> str:
    return PureWindowsPath(PurePosixPath(word).name).name
