"""From a YAML file and KEY VALUE pairs to one validated, frozen configuration."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from yacs.config import CfgNode

from configs.keys import KEYS, get_cfg_defaults
from configs.rules.problems import find_problems
from configs.values import parse_value, set_value
from utils.errors import ConfigError

BASE_KEY = "_BASE_"
COMMAND_LINE = "command line"


class Setting(NamedTuple):
    """One `KEY: value` and where it stands."""

    key: str
    value: Any
    where: str


def load_cfg(config_file: str | Path, opts: Sequence[Any] = ()) -> CfgNode:
    """Return the frozen configuration of a YAML file, its `_BASE_` files and KEY VALUE pairs (which win).

    Reads nothing but the YAMLs. Raises ConfigError that lists every problem found, each with its place.
    """
    return _resolve(_read_chain(Path(config_file), ()), opts, str(config_file))


def restore_cfg(text: str, where: str, opts: Sequence[Any] = ()) -> CfgNode:
    """Return the frozen configuration in the YAML `text` that a run has kept, with KEY VALUE pairs (which win).

    A key that it lacks is younger than the run and has its default. `where` tells errors whose text it is. Raises
    ConfigError as `load_cfg`.
    """
    return _resolve(_parse_yaml(text, where), opts, where)


def _resolve(settings: list[Setting], opts: Sequence[Any], config_file: str) -> CfgNode:
    """Return the defaults with `settings` and then `opts` applied, checked and frozen."""
    cfg = get_cfg_defaults()
    has_model = any(setting.key in (BASE_KEY, "MODEL.NAME") for setting in settings)
    settings = [setting for setting in settings if setting.key != BASE_KEY] + _read_opts(opts)

    problems = []
    places = {}
    for setting in settings:
        places[setting.key] = setting.where
        problems += _apply(cfg, setting)
    if not has_model:
        problems.append(
            f"{config_file}: sets neither _BASE_ nor MODEL.NAME, so it would train TransReID's default ResNet-50; "
            "add '_BASE_: <recipe>.yml' (for Model B: configs/VeRi/_model_b.yml) or a MODEL section"
        )
    problems += [f"{_place(places, keys)}{text}" for keys, text in find_problems(cfg)]
    if problems:
        raise ConfigError(problems[0] if len(problems) == 1 else "\n  ".join([f"{len(problems)} problems:", *problems]))
    cfg.freeze()
    return cfg


def _apply(cfg: CfgNode, setting: Setting) -> list[str]:
    """Set one key; return the problem, if any, as a list of at most one line."""
    key = KEYS.get(setting.key)
    if key is None:
        if not any(name.startswith(f"{setting.key}.") for name in KEYS):
            return [f"{setting.where}: unknown key {setting.key}{_did_you_mean(setting.key)}"]
        if setting.value is None:
            return [f"{setting.where}: section {setting.key} is empty; check the indentation of the lines below it"]
        return [f"{setting.where}: {setting.key} is a section, got {setting.value!r}; give its keys below it"]
    if setting.value is None:
        if not isinstance(key.default, str):
            return [f"{setting.where}: {setting.key} has no value; give one or remove the line"]
        set_value(cfg, setting.key, "")
        return []
    length = key.length if key.length and key.high is None else 1
    try:
        set_value(cfg, setting.key, parse_value(setting.value, key.default, key.choices, length))
    except ValueError as error:
        return [f"{setting.where}: {setting.key} {error}"]
    return []


def _read_chain(path: Path, below: tuple[Path, ...]) -> list[Setting]:
    """Return the settings of a file after those of its `_BASE_`."""
    if path.suffix not in (".yml", ".yaml"):
        raise ConfigError(f"config file '{path}' is not a .yml file; configurations are YAML, never code")
    if not path.is_file():
        raise ConfigError(f"no config file '{path}'{_nearest_file(path)}")
    if path.resolve() in below:
        raise ConfigError(f"{path}: _BASE_ leads back to this file; break the circle")
    settings = _read_yaml(path)
    for setting in settings:
        if setting.key == BASE_KEY:
            if not isinstance(setting.value, str):
                raise ConfigError(f"{setting.where}: _BASE_ got {setting.value!r}, expected the path of one YAML file")
            base = path.parent / setting.value
            if not base.is_file():
                raise ConfigError(f"{setting.where}: _BASE_ names '{setting.value}', but there is no '{base}'")
            return _read_chain(base, (*below, path.resolve())) + settings
    return settings


def _read_yaml(path: Path) -> list[Setting]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text ({error}); save it as such") from error
    return _parse_yaml(text, str(path))


def _parse_yaml(text: str, where: str) -> list[Setting]:
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if not isinstance(root, yaml.MappingNode):
            raise ConfigError(f"{where}: holds no KEY: value lines")
        return _walk(loader, root, "", where)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{where}{line}: not valid YAML ({getattr(error, 'problem', None) or error})") from error
    finally:
        loader.dispose()


def _walk(loader: yaml.SafeLoader, node: yaml.MappingNode, prefix: str, file: str) -> list[Setting]:
    loader.flatten_mapping(node)  # YAML's merge key <<
    settings = []
    seen = set()
    for key_node, value_node in node.value:
        key = f"{prefix}{loader.construct_object(key_node)}"
        where = f"{file}:{key_node.start_mark.line + 1}"
        if key in seen:
            raise ConfigError(f"{where}: {key} stands twice; merge the two")
        seen.add(key)
        if isinstance(value_node, yaml.MappingNode) and value_node.value:
            settings += _walk(loader, value_node, f"{key}.", file)
        else:
            empty_section = isinstance(value_node, yaml.MappingNode)
            value = None if empty_section else loader.construct_object(value_node, deep=True)
            settings.append(Setting(key, value, where))
    return settings


def _read_opts(opts: Sequence[Any]) -> list[Setting]:
    if len(opts) % 2:
        raise ConfigError(
            f"{COMMAND_LINE}: expected KEY VALUE pairs, got {len(opts)} words: {' '.join(map(str, opts))}"
        )
    return [Setting(str(key), value, COMMAND_LINE) for key, value in zip(opts[::2], opts[1::2], strict=True)]


def _did_you_mean(word: str) -> str:
    near = [name for name in KEYS if name.lower() == word.lower()]
    near += difflib.get_close_matches(word, KEYS, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else "; docs/config.md lists all keys"


def _nearest_file(path: Path) -> str:
    root = path.parent
    while not root.is_dir() and root != root.parent:
        root = root.parent
    pool = {str(file) for folder in (root, Path("configs")) for file in folder.glob("**/*.yml") if folder.is_dir()}
    near = difflib.get_close_matches(str(path), sorted(pool), n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""


def _place(places: dict[str, str], keys: Sequence[str]) -> str:
    """Return where a problem between keys comes from: what was typed last, else the last of the keys that is set."""
    where = [places[key] for key in keys if key in places]
    if not where:
        return ""
    return f"{COMMAND_LINE if COMMAND_LINE in where else where[-1]}: "
