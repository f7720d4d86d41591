"""A YAML as settings `KEY: value`: every scalar stays the text that is written; its key says later what it means."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from configs.values import Verbatim
from utils.errors import ConfigError
from utils.paths import existing_file
from utils.text_files import read_text
from utils.yaml_text import MAX_DEPTH, MAX_NODES, TextLoader

MAX_BYTES = 1_000_000
NULLS = ("null", "Null", "NULL", "~")
READ_TAGS = tuple(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "seq", "map"))
HINTS = (
    (r"'\\t'", "indent with spaces, not tabs"),
    ("found another document", "keep one of the parts that '---' divides"),
    ("mapping values are not allowed", "put text that holds ': ' in quotes"),
)  # part of the YAML parser's words -> what to do


class Setting(NamedTuple):
    """One `KEY: value` and where it stands."""

    key: str
    value: Any  # None: nothing is written there
    where: str


class Null(str):
    """A scalar that is written as one of NULLS."""


def read_settings(path: Path) -> list[Setting]:
    """Return the settings of one file; raises ConfigError, with the line, for all that is no plain YAML of them."""
    path = existing_file(path, "config file")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ConfigError(f"{path}: holds {size:,} bytes; a configuration has at most {MAX_BYTES:,}")
    return parse_settings(read_text(path, "config file", ConfigError), str(path))


def parse_settings(text: str, where: str, dumped: bool = False) -> list[Setting]:
    """Return the settings in a YAML `text` from `where`, in their order, merge keys (<<) resolved.

    A plain scalar is a str and a quoted one Verbatim; so is each one of a text that `dumped`, written by this project.
    Raises ConfigError with the line.
    """
    if len(text) > MAX_BYTES:
        raise ConfigError(f"{where}: holds {len(text):,} characters; a configuration has at most {MAX_BYTES:,}")
    try:
        loader = TextLoader(text)
        try:
            root = loader.get_single_node()
            if not isinstance(root, yaml.MappingNode):
                raise ConfigError(f"{where}: holds no KEY: value lines")
            return _Walk(where, dumped).settings(root, "", 0)
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{where}:{line}: holds the character {chr(error.character)!r}; remove it") from error
    except yaml.YAMLError as error:
        raise ConfigError(_not_valid(error, where)) from error


class _Walk:
    """Reads the nodes of one file, whose aliases may lead to the same node many times or round in a circle."""

    def __init__(self, file: str, dumped: bool) -> None:
        self._file, self._dumped = file, dumped
        self._visited = 0
        self._seen: set[str] = set()

    def settings(self, node: yaml.MappingNode, prefix: str, depth: int) -> list[Setting]:
        """Return the settings of a section and of those below it."""
        self._visit(node, depth)
        settings = []
        for key_node, value_node in self._pairs(node, depth):
            where = self._visit(key_node, depth)
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError(f"{where}: a list or section stands where a key is meant; write KEY: value")
            key = f"{prefix}{key_node.value}"
            if isinstance(value_node, yaml.MappingNode) and value_node.value:
                settings += self.settings(value_node, f"{key}.", depth + 1)
                continue
            if key in self._seen:
                raise ConfigError(f"{where}: {key} stands twice; merge the two")
            self._seen.add(key)
            settings.append(Setting(key, self._value(value_node, depth + 1), where))
        return settings

    def _pairs(self, node: yaml.MappingNode, depth: int) -> list[tuple[yaml.Node, yaml.Node]]:
        """Return key and value nodes, those that a merge key brings in first, as far as they are not set here."""
        own, merged, names = [], [], set()
        for key_node, value_node in node.value:
            if _plain(key_node) and key_node.value == "<<":
                where = self._visit(value_node, depth)
                sources = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                if not all(isinstance(source, yaml.MappingNode) for source in sources):
                    raise ConfigError(f"{where}: << takes a section, or a list of sections")
                merged += [pair for source in sources for pair in self._pairs(source, depth + 1)]
                continue
            where = self._visit(key_node, depth)
            if isinstance(key_node, yaml.ScalarNode):
                if key_node.value in names:
                    raise ConfigError(f"{where}: {key_node.value} stands twice; merge the two")
                names.add(key_node.value)
            own.append((key_node, value_node))
        first = {}  # of several sources the first one wins
        for pair in merged:
            first.setdefault(str(pair[0].value), pair)
        return [*(pair for name, pair in first.items() if name not in names), *own]

    def _value(self, node: yaml.Node, depth: int) -> Any:
        where = self._visit(node, depth)
        if isinstance(node, yaml.SequenceNode):
            items = [self._value(item, depth + 1) for item in node.value]
            if any(isinstance(item, Null) for item in items):
                raise ConfigError(f"{where}: a list holds ~ or null, which means nothing; leave it out or quote it")
            return items
        if isinstance(node, yaml.MappingNode):
            if node.value:
                raise ConfigError(f"{where}: a section stands in a list, which holds values only")
            return None
        if _plain(node) and node.value in NULLS:
            return Null(node.value)
        if _plain(node) and not node.value:
            return None
        return str(node.value) if _plain(node) and not self._dumped else Verbatim(node.value)

    def _visit(self, node: yaml.Node, depth: int) -> str:
        """Return where a node stands; ConfigError for one too many, too deep, or with a tag that nothing reads."""
        where = f"{self._file}:{node.start_mark.line + 1}"
        self._visited += 1
        if depth > MAX_DEPTH or self._visited > 2 * MAX_NODES:
            raise ConfigError(f"{where}: not valid YAML (aliases repeat too much, or lead round in a circle)")
        if node.tag not in READ_TAGS:
            raise ConfigError(f"{where}: the tag '{node.tag}' is not read; write the plain value")
        return where


def _plain(node: yaml.Node) -> bool:
    """Return whether a node is a scalar without quotes, whatever its tag."""
    return isinstance(node, yaml.ScalarNode) and node.style is None


def _not_valid(error: yaml.YAMLError, where: str) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    context = getattr(error, "context", None)
    words = f"{context}, {problem}" if context else problem
    hint = next((f"; {hint}" for pattern, hint in HINTS if re.search(pattern, problem)), "")
    return f"{where}{f':{mark.line + 1}' if mark else ''}: not valid YAML ({words}){hint}"
