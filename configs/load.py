"""From a YAML file and KEY VALUE pairs to one validated, frozen configuration."""

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from configs.guess import did_you_mean
from configs.keys import KEYS, get_cfg_defaults
from configs.keys.clip_reid import NAMES as CLIP_REID
from configs.own_values import fill_in
from configs.phases import Problem
from configs.rules.loggers import find_absent_loggers
from configs.rules.problems import find_problems
from configs.values import parse_value, set_value
from configs.yaml_settings import Null, Setting, parse_settings, read_settings
from utils.errors import ConfigError
from utils.paths import existing_file, user_path

BASE_KEY = "_BASE_"
COMMAND_LINE = "command line"
MAX_BASES = 20  # files below each other
MAX_PROBLEMS = 20  # that one error lists


def load_cfg(config_file: str | Path, opts: Sequence[Any] = ()) -> CfgNode:
    """Return the frozen configuration of a YAML file, its `_BASE_` files and KEY VALUE pairs (which win).

    Reads nothing but the YAMLs. Raises ConfigError that lists every problem found, each with its place.
    """
    return _resolve(_read_chain(Path(config_file), ()), opts, str(config_file), (find_problems, find_absent_loggers))


def restore_cfg(text: str, where: str, opts: Sequence[Any] = ()) -> CfgNode:
    """Return the frozen configuration in the YAML `text` that a run has kept, with KEY VALUE pairs (which win).

    The text is what `CfgNode.dump` wrote. A key that it lacks is younger than the run and has its default. `where`
    tells errors whose text it is. Raises ConfigError as `load_cfg`.
    """
    return _resolve(parse_settings(text, where, dumped=True), opts, where)


def _resolve(
    settings: list[Setting],
    opts: Sequence[Any],
    config_file: str,
    checks: Sequence[Callable[[CfgNode], list[Problem]]] = (find_problems,),
) -> CfgNode:
    """Return the defaults with `settings` and then `opts` applied, checked and frozen."""
    cfg = get_cfg_defaults()
    has_model = any(setting.key in (BASE_KEY, "MODEL.NAME") for setting in settings)
    settings = [setting for setting in settings if setting.key != BASE_KEY] + _read_opts(opts)

    settings = [setting for setting in settings if not _is_left_empty(setting, settings)]
    problems = []
    places = {}
    for setting in settings:
        places[setting.key] = setting.where
        problems += _apply(cfg, setting, hint=len(problems) < MAX_PROBLEMS)
    fill_in(cfg, places)
    if not has_model:
        problems.append(
            f"{config_file}: sets neither _BASE_ nor MODEL.NAME, so it would train TransReID's default ResNet-50; "
            "add '_BASE_: <recipe>.yml' (for Model B: configs/VeRi/_model_b.yml) or a MODEL section"
        )
    problems += [f"{_place(places, keys)}{text}" for check in checks for keys, text in check(cfg)]
    if problems:
        raise ConfigError(_listed(problems))
    cfg.freeze()
    return cfg


def _listed(problems: list[str]) -> str:
    """Return the problems below each other, the first MAX_PROBLEMS of them."""
    if len(problems) == 1:
        return problems[0]
    more = len(problems) - MAX_PROBLEMS
    rest = [f"... and {more} more"] if more > 0 else []
    return "\n  ".join([f"{len(problems)} problems:", *problems[:MAX_PROBLEMS], *rest])


def _is_left_empty(setting: Setting, settings: Sequence[Setting]) -> bool:
    """Return whether a setting is the section DATASETS of CLIP-ReID's YAMLs, below which comments alone stand."""
    empty = setting.key == "DATASETS" and (setting.value is None or isinstance(setting.value, Null))
    return empty and any(other.key == "MODEL.NAME" and str(other.value) in CLIP_REID for other in settings)


def _apply(cfg: CfgNode, setting: Setting, hint: bool) -> list[str]:
    """Set one key; return the problem, if any, as a list of at most one line, with a `hint` to the nearest key."""
    name, value, where = setting
    key, is_empty = KEYS.get(name), value is None or isinstance(value, Null)
    if key is None:
        if not any(known.startswith(f"{name}.") for known in KEYS):
            return [f"{where}: unknown key {name}{did_you_mean(name) if hint else ''}"]
        if is_empty:
            return [f"{where}: section {name} is empty; indent the lines below it, or remove it"]
        return [f"{where}: {name} is a section, got {value!r}; give its keys below it"]
    if is_empty and not isinstance(key.default, str):
        return [f"{where}: {name} has no value; give one or remove the line"]
    if isinstance(value, Null):
        return [f"{where}: {name} got {value}, which means nothing in YAML; write '' for none, or '{value}' in quotes"]
    if is_empty:
        set_value(cfg, name, "")
        return []
    try:
        set_value(cfg, name, parse_setting(name, value))
    except ValueError as error:
        return [f"{where}: {name} {error}"]
    return []


def parse_setting(name: str, value: Any) -> Any:
    """Return the value of a known key, as a YAML or the command line has it, in its type; ValueError as `parse_value`.

    Choices and bounds are not looked at.
    """
    key = KEYS[name]
    parsed = parse_value(value, key.default, key.choices, key.length if key.fills else 1, key.item)
    if key.joined_by:
        parsed = type(parsed)(part.strip() for item in parsed for part in item.split(key.joined_by))
    return parsed


def _read_chain(path: Path, below: tuple[Path, ...]) -> list[Setting]:
    """Return the settings of a file after those of its `_BASE_`."""
    if path.suffix not in (".yml", ".yaml"):
        raise ConfigError(f"config file '{path}' is not a .yml file; configurations are YAML, never code")
    path = user_path(path, "config file")
    if not path.exists():
        raise ConfigError(f"no config file '{path}'{_nearest_file(path)}")
    if path.resolve() in below:
        raise ConfigError(f"{path}: _BASE_ leads back to this file; break the circle")
    if len(below) == MAX_BASES:
        raise ConfigError(f"{path}: is reached by {MAX_BASES} _BASE_ lines; no recipe needs that many")
    settings = read_settings(path)
    base = base_file(path, settings)
    return settings if base is None else _read_chain(base, (*below, path.resolve())) + settings


def base_file(path: Path, settings: Sequence[Setting]) -> Path | None:
    """Return the file that the `_BASE_` of a YAML names, None where its `settings` have none; ConfigError if absent."""
    for setting in settings:
        if setting.key == BASE_KEY:
            if not isinstance(setting.value, str) or isinstance(setting.value, Null) or not setting.value:
                raise ConfigError(f"{setting.where}: _BASE_ got {setting.value!r}, expected the path of one YAML file")
            base = path.parent / user_path(setting.value, f"{setting.where}: _BASE_")
            if not base.exists():
                raise ConfigError(f"{setting.where}: _BASE_ names '{setting.value}', but there is no '{base}'")
            return existing_file(base, f"{setting.where}: _BASE_")
    return None


def _read_opts(opts: Sequence[Any]) -> list[Setting]:
    if len(opts) % 2:
        words = [str(word) for word in opts]
        joined = next((word for word in words[::2] if word.partition("=")[0] in KEYS and "=" in word), "")
        hint = f"; write '{joined.replace('=', ' ', 1)}', without '='" if joined else ""
        raise ConfigError(f"{COMMAND_LINE}: expected KEY VALUE pairs, got {len(opts)} words: {' '.join(words)}{hint}")
    return [Setting(str(key), value, COMMAND_LINE) for key, value in zip(opts[::2], opts[1::2], strict=True)]


def _nearest_file(path: Path) -> str:
    """Return the recipe that may be meant: one beside `path` or in configs/, of those that are recipes themselves."""
    beside = path.parent.glob("*.yml") if path.parent.is_dir() else ()
    pool = {
        str(file)
        for files in (beside, Path("configs").glob("*/*.yml"), Path("configs").glob("*.yml"))
        for file in files
        if not file.name.startswith("_")
    }
    near = difflib.get_close_matches(str(path), sorted(pool), n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""


def _place(places: dict[str, str], keys: Sequence[str]) -> str:
    """Return where a problem between keys comes from: what was typed last, else the last of the keys that is set."""
    where = [places[key] for key in keys if key in places]
    if not where:
        return ""
    return f"{COMMAND_LINE if COMMAND_LINE in where else where[-1]}: "
