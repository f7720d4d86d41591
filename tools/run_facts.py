"""What a run folder tells of its run, as Markdown: commit, versions, checkpoints, settings, the end of its log."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from configs.base import DEFAULTS_NAME, Base, base_of
from configs.compare import find_changes, flatten
from configs.keys import get_cfg_defaults
from configs.own_values import with_own_values
from utils.errors import ConfigError, shown
from utils.paths import user_path
from utils.run_folder import RunFolder, open_run, read_environment
from utils.tables import markdown
from utils.yaml_text import plain_tree

ROOT = Path(__file__).resolve().parents[1]
CACHE = "DATALOADER.CACHE"
CONFIG_FLAGS = ("--config_file", "--config")  # of the command that a run keeps
FACTS = ("python", "platform", "torch", "torchvision", "timm", "device", "device_name", "threads")
TAIL_BYTES, TAIL_LINES = 64 * 1024, 25  # of the log
TROUBLE = re.compile(r" (?:WARNING|ERROR|CRITICAL): ")  # of utils.logger's lines
MOST_TROUBLE = 10  # lines of it


class Run(NamedTuple):
    """What the files of a run folder say; a damaged or absent one says nothing."""

    folder: RunFolder
    settings: dict[str, Any]  # of config.yaml, value by dotted key
    environment: dict[str, Any]  # of env.json
    log: list[str]  # the last lines of train_log.txt, without their ends

    @property
    def cache(self) -> str:
        """DATALOADER.CACHE of the run, '' = none."""
        return str(self.settings.get(CACHE, ""))


def find_run(path: str) -> Run:
    """Read a run folder. Raises ConfigError where there is no such folder, or nothing of a run in it."""
    folder = user_path(path, "--run")
    if not path or not folder.is_dir():
        raise ConfigError(f"--run '{path}': no such folder; give the OUTPUT_DIR of a training")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise ConfigError(f"--run '{path}' cannot be read; check its permissions")
    run = open_run(folder)
    if not any(file.is_file() for file in (run.config, run.environment, run.log)):
        names = ", ".join(file.name for file in (run.config, run.environment, run.log))
        raise ConfigError(f"--run '{path}' holds none of {names}; give the OUTPUT_DIR of a training")
    settings = flatten(plain_tree(_text_of(run.config)) or {})
    return Run(run, settings, read_environment(run.environment), last_lines(run.log))


def describe_run(run: Run) -> str:
    """Return the run's facts, the settings that differ from its recipe's base, and the end of its log."""
    parts = [markdown([("run", ""), *run_rows(run)]), "", settings_part(run)]
    trouble = [line for line in run.log if TROUBLE.search(line)][-MOST_TROUBLE:]
    for title, lines in (("Warnings and errors in the end of the log", trouble), ("Last lines of the log", run.log)):
        parts += ["", f"{title}:", "", fenced(lines[-TAIL_LINES:])] if lines else ["", f"{title}: none"]
    return "\n".join(parts) + "\n"


def run_rows(run: Run) -> list[tuple[str, str]]:
    """Return folder, command, commit, versions and checkpoints of a run."""
    told = run.environment
    command = told.get("command")
    words = " ".join(map(str, command)) if isinstance(command, list) else "unknown"
    rows = [("folder", str(run.folder.path)), ("command", words), ("commit", str(told.get("git_commit") or "unknown"))]
    rows += [(name.replace("_", " "), str(told[name])) for name in FACTS if told.get(name) not in (None, "")]
    kept = sorted(run.folder.checkpoints())
    rows.append(("epochs kept", ", ".join(map(str, kept)) or "none"))
    rows.append(("state to continue from", "there" if run.folder.state.is_file() else "none"))
    return [(name, shown(value)) for name, value in rows]


def settings_part(run: Run) -> str:
    """Return `KEY base -> here` for each key in which a run differs from the base of its recipe, or why not."""
    if not run.settings:
        return "Settings: no config.yaml that can be read"
    defaults = flatten(get_cfg_defaults())
    family = str(run.settings.get("MODEL.NAME", defaults["MODEL.NAME"]))
    base = _base_of(run) or Base(DEFAULTS_NAME, with_own_values(defaults, family))
    here = with_own_values(defaults | run.settings, family)  # a key younger than the run counts with its default
    lines = [shown(f"{one.key} {one.old} -> {one.new}") for one in find_changes(base.settings, here)]
    return "\n".join([f"Settings, {shown(base.name)} -> run:", "", fenced(lines) if lines else "none differ"])


def _base_of(run: Run) -> Base | None:
    """Return the base of the run's recipe, None where the recipe is not to be found."""
    recipe = recipe_of(run.environment.get("command"))
    for path in (recipe, ROOT / recipe) if recipe else ():
        try:
            if Path(path).is_file():
                return base_of(path)
        except ConfigError:  # the file is another one by now
            continue
    return None


def recipe_of(command: Any) -> str:
    """Return the YAML that the command of a run names, '' for none."""
    if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
        return ""
    for number, word in enumerate(command):
        flag, _, value = word.partition("=")
        if flag in CONFIG_FLAGS:
            return value or "".join(command[number + 1 : number + 2])
    return ""


def last_lines(path: Path) -> list[str]:
    """Return the lines in the last TAIL_BYTES of a text file, the first of them whole; [] where it cannot be read."""
    try:
        with open(path, "rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(size - TAIL_BYTES, 0))
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return [shown(line) for line in text.splitlines()[size > TAIL_BYTES :]]


def fenced(lines: Sequence[str]) -> str:
    """Return lines as a Markdown block whose fence is longer than any in them."""
    longest = max((len(ticks) for line in lines for ticks in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([f"{fence}text", *lines, fence])


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
