"""Values of keys: read from a tree, and brought into the type of their default."""

import ast
import re
import threading
import warnings
from collections.abc import Sequence
from typing import Any

from yacs.config import CfgNode

from configs.keys import KEYS

ON_OFF = (("yes", "no"), ("on", "off"))  # a key with these choices may also be set by the words of the other pairs
BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
LEADING_ZERO = re.compile(r"([+-]?)0[\d_]*[1-9][\d_]*")
LONGEST_LITERAL = 65536  # characters
LARGEST = 2**63

_parsing = threading.Lock()  # Python 3.11 counts the depth of all threads together, and filters warnings for all


class Verbatim(str):
    """Text that stands in quotes: of a key that takes text it is the value, whatever it looks like."""


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


def is_set(cfg: CfgNode, name: str) -> bool:
    """Return whether a dotted key has another value than its default."""
    return value_of(cfg, name) != KEYS[name].default


def parse_value(value: Any, default: Any, choices: Sequence[Any] = (), length: int = 1, item: Any = "") -> Any:
    """Return `value` in the type of `default`: int widens to float, a lone string to a tuple, a list fits a tuple.

    Items of a list are of the type of its default's first one, of that of `item` where the default is empty.

    Text is kept as written, but for a Python string in quotes ("('veri')", as yacs allows) that is not Verbatim.
    Numbers and lists are read as Python literals ('1e-4', '[256, 128]'), so no 0120 (octal?) and no 10:30 (base 60?);
    booleans as true, yes, on and their opposites. A lone number fills a sequence of `length` items. Raises ValueError
    saying which type was expected.
    """
    if isinstance(default, str):
        return _text(value, choices)
    literal = _literal(value)
    if isinstance(default, bool):
        flag = _boolean(literal)
        if flag is None:
            raise ValueError(f"got {_quoted(value)}, expected True or False")
        return flag
    if isinstance(default, (int, float)):
        return _number(value, literal, default)
    return _sequence(value, literal, type(default), default[0] if default else item, length)


def _text(value: Any, choices: Sequence[Any]) -> str:
    literal = value if isinstance(value, Verbatim) else _literal(value)
    for spelling in ON_OFF:
        if set(spelling) == set(choices) and _boolean(literal) is not None:
            return spelling[0] if _boolean(literal) else spelling[1]
    if isinstance(literal, str):
        return str(literal)
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    raise ValueError(f"got {_quoted(value)}, expected a string")


def _boolean(literal: Any) -> bool | None:
    """Return what a boolean or the word for one means, None for anything else."""
    if isinstance(literal, bool):
        return literal
    if isinstance(literal, str) and literal in (literal.lower(), literal.capitalize(), literal.upper()):
        return BOOLEANS.get(literal.lower())
    return None


def _number(value: Any, literal: Any, default: int | float) -> int | float:
    if isinstance(default, float) and isinstance(literal, (int, float)) and not isinstance(literal, bool):
        try:
            return float(literal)
        except OverflowError:
            raise ValueError(f"got {_quoted(value)}, which is too large for a number") from None
    if isinstance(literal, int) and not isinstance(literal, bool):
        if abs(literal) >= LARGEST:
            raise ValueError(f"got {_quoted(value)}, which is too large for a whole number")
        return literal
    kind = "a number" if isinstance(default, float) else "a whole number"
    raise ValueError(f"got {_quoted(value)}, expected {kind}{_meant(literal)}")


def _meant(literal: Any) -> str:
    """Return what may be meant by text that is no number here but one in some YAML, with a semicolon, or ''."""
    if not isinstance(literal, str):
        return ""
    zero = LEADING_ZERO.fullmatch(literal)
    if zero:
        digits = literal.lstrip("+-0_")
        octal = "" if re.search("[89]", digits) else f" or {zero[1]}0o{digits}"
        return f"; a 0 in front may mean octal: write {zero[1]}{digits}{octal}"
    if re.fullmatch(r"[+-]?\d+(:\d+)+(\.\d*)?", literal):
        return "; write it without ':'"
    return ""


def _sequence(value: Any, literal: Any, kind: type, example: Any, length: int) -> Sequence[Any]:
    holds_strings = isinstance(example, str)
    if isinstance(value, (list, tuple)):
        items = list(value)
    elif isinstance(literal, (list, tuple)):
        items = [Verbatim(item) if isinstance(item, str) else item for item in literal]
    elif holds_strings and isinstance(literal, str):
        items = [Verbatim(literal)] if literal else []
    elif not holds_strings and isinstance(literal, (int, float)) and not isinstance(literal, bool):
        items = [literal] * length
    else:
        raise ValueError(f"got {_quoted(value)}, expected a list{'' if holds_strings else _meant(literal)}")
    try:
        items = [parse_value(item, example) for item in items]
    except ValueError as error:
        wanted = "strings" if holds_strings else "numbers"
        raise ValueError(f"got {_quoted(value)}, expected a list of {wanted}: {error}") from error
    return kind(items)


def _literal(value: Any) -> Any:
    """Return the Python literal that a text is, else the value itself."""
    if not isinstance(value, str) or len(value) > LONGEST_LITERAL:
        return value
    try:
        with _parsing, warnings.catch_warnings():  # of '\d', which is a Windows path
            warnings.simplefilter("ignore")
            return ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return value


def _quoted(value: Any) -> str:
    """Return repr() of a value; of a number that is too long for it (see sys.set_int_max_str_digits) its length."""
    try:
        return repr(value)
    except ValueError:
        return f"a number of about {int(value.bit_length() * 0.30103):,} digits"
