"""Values of keys: read from a tree, and brought into the type of their default."""

import ast
from collections.abc import Sequence
from typing import Any

from yacs.config import CfgNode

ON_OFF = (("yes", "no"), ("on", "off"))  # spellings that YAML 1.1 turns into booleans when they are not quoted


def value_of(cfg: CfgNode, name: str) -> Any:
    """Return the value of a dotted key."""
    node = cfg
    for part in name.split("."):
        node = node[part]
    return node


def set_value(cfg: CfgNode, name: str, value: Any) -> None:
    """Set a dotted key that the tree has."""
    section, _, leaf = name.rpartition(".")
    (value_of(cfg, section) if section else cfg)[leaf] = value


def parse_value(value: Any, default: Any, choices: Sequence[Any] = (), length: int = 1) -> Any:
    """Return `value` in the type of `default`: int widens to float, a lone string to a tuple, a list fits a tuple.

    A string is read as a Python literal first, as yacs does ('1e-4', "('veri')", '[256, 128]'). A lone number fills a
    sequence of `length` items. Booleans stand for yes/no or on/off where a key has these choices. Raises ValueError
    saying which type was expected.
    """
    literal = _literal(value)
    if isinstance(default, str):
        for spelling in ON_OFF:
            if isinstance(literal, bool) and set(spelling) == set(choices):
                return spelling[0] if literal else spelling[1]
        if isinstance(literal, str):
            return literal
        if isinstance(value, str):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        raise ValueError(f"got {value!r}, expected a string")
    if isinstance(default, bool):
        if isinstance(literal, bool):
            return literal
        raise ValueError(f"got {value!r}, expected True or False")
    if isinstance(default, (int, float)):
        return _number(value, literal, default)
    return _sequence(value, literal, default, length)


def _number(value: Any, literal: Any, default: int | float) -> int | float:
    if isinstance(default, float) and isinstance(literal, (int, float)) and not isinstance(literal, bool):
        return float(literal)
    if isinstance(literal, int) and not isinstance(literal, bool):
        return literal
    raise ValueError(f"got {value!r}, expected {'a number' if isinstance(default, float) else 'a whole number'}")


def _sequence(value: Any, literal: Any, default: Sequence[Any], length: int) -> Sequence[Any]:
    holds_strings = not default or isinstance(default[0], str)
    if isinstance(literal, (list, tuple)):
        items = list(literal)
    elif holds_strings and isinstance(literal, str):
        items = [literal] if literal else []
    elif not holds_strings and isinstance(literal, (int, float)) and not isinstance(literal, bool):
        items = [literal] * length
    else:
        raise ValueError(f"got {value!r}, expected a list")
    example = "" if holds_strings else default[0]
    try:
        items = [parse_value(item, example) for item in items]
    except ValueError as error:
        raise ValueError(f"got {value!r}, expected a list of {'strings' if holds_strings else 'numbers'}") from error
    return type(default)(items)


def _literal(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
