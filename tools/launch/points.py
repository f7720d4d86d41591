"""The points of a sweep: what --grid and --range name, checked key by key, and the words that points have in names."""

import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from configs.keys import KEYS
from configs.load import did_you_mean, parse_setting
from configs.rules.problems import bounds
from utils.errors import ConfigError

Point = dict[str, str]  # values by key, as KEY VALUE pairs have them
LOG = "log"
MOST_WORD = 24  # characters of a value in a name
MOST_POINTS = 1000


class Axis(NamedTuple):
    """One --grid: a key and its values in the order of the command line."""

    key: str
    values: tuple[str, ...]  # in one spelling: 1e-3 is 0.001


class Span(NamedTuple):
    """One --range: the lowest and the highest value that a search tries; `log` draws by orders of magnitude."""

    key: str
    low: float
    high: float
    log: bool
    whole: bool  # whole numbers alone


def read_axes(given: Iterable[Sequence[str]]) -> list[Axis]:
    """Return the axes of all --grid; ConfigError for a key or value that cannot be, or one that stands twice."""
    axes = []
    for key, *texts in given:
        _check_key("--grid", key, [axis.key for axis in axes])
        if not texts:
            raise ConfigError(f"--grid {key}: names no value; give those to try, e.g. --grid {key} A B")
        values = []
        for text in texts:
            try:
                parsed = parse_setting(key, text)
            except ValueError as error:
                raise ConfigError(f"--grid {key} {error}") from error
            value = spelt(parsed)
            if value in values:
                raise ConfigError(f"--grid {key}: '{text}' stands there twice; drop one of the two")
            values.append(value)
        axes.append(Axis(key, tuple(values)))
    return axes


def read_spans(given: Iterable[Sequence[str]], axes: Sequence[Axis] = ()) -> list[Span]:
    """Return the spans of all --range; ConfigError for what is no range of a number."""
    spans: list[Span] = []
    for key, *words in given:
        flag = f"--range {' '.join([key, *words])}"
        _check_key(flag, key, [one.key for one in (*axes, *spans)])
        default = KEYS[key].default
        if isinstance(default, bool) or not isinstance(default, (int, float)):
            raise ConfigError(f"{flag}: {key} is no number; give the values to choose from with --grid {key} A B")
        if len(words) not in (2, 3) or words[2:] not in ([], [LOG]):
            raise ConfigError(f"{flag}: expected KEY LOW HIGH, and '{LOG}' behind it to draw by orders of magnitude")
        try:
            low, high = (parse_setting(key, word) for word in words[:2])
        except ValueError as error:
            raise ConfigError(f"{flag}: {key} {error}") from error
        if not KEYS[key].low <= low <= high <= KEYS[key].high:  # NaN is in no range
            raise ConfigError(f"{flag}: expected LOW at most HIGH, both within {bounds(KEYS[key])}")
        if low == high:
            raise ConfigError(f"{flag}: is one value alone; give {key} {words[0]} with --opts")
        if words[2:] and low <= 0:
            raise ConfigError(f"{flag}: '{LOG}' needs a LOW above 0")
        spans.append(Span(key, low, high, bool(words[2:]), isinstance(default, int)))
    return spans


def _check_key(flag: str, key: str, before: Sequence[str]) -> None:
    """Raise ConfigError for a key that does not exist, stands there twice, or changes no result."""
    if key not in KEYS:
        raise ConfigError(f"{flag}: unknown key {key}{did_you_mean(key)}")
    if key in before:
        raise ConfigError(f"{flag}: {key} is swept twice; name all of its values once")
    if KEYS[key].instead:
        raise ConfigError(f"{flag}: nothing reads {key}; {KEYS[key].instead}")
    if not {"training", "embedding", "ranking"} & {*KEYS[key].affects}:
        raise ConfigError(f"{flag}: no result depends on {key}; give it with --opts")


def spelt(value: Any) -> str:
    """Return a parsed value as one text that is read back as the same value."""
    return repr(value) if isinstance(value, float) else str(list(value) if isinstance(value, tuple) else value)


def points_of(axes: Sequence[Axis]) -> list[Point]:
    """Return every combination of the values, the last axis running fastest."""
    combined = itertools.product(*(axis.values for axis in axes))
    return [dict(zip((axis.key for axis in axes), values, strict=True)) for values in combined]


def count_points(axes: Sequence[Axis]) -> int:
    """Return how many points the axes make, without making them."""
    count = 1
    for axis in axes:
        count *= len(axis.values)
    return count


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return what each key is called in names and tables: its last part, or as much as tells it from the others."""
    names = {}
    for key in keys:
        parts = key.split(".")
        depth = 1
        while depth < len(parts) and any(other != key and _tail(other, depth) == _tail(key, depth) for other in keys):
            depth += 1
        names[key] = _tail(key, depth)
    return names


def _tail(key: str, depth: int) -> str:
    return ".".join(key.split(".")[-depth:])


def name_words(point: Mapping[str, str], axes: Sequence[Axis]) -> tuple[str, ...]:
    """Return a point's words in the names of its folders, e.g. ('BASE_LR0p001', 'MARGIN0p3'); equal ones never meet."""
    names, words = short_names([axis.key for axis in axes]), []
    for axis in axes:
        own, value = [value_word(text) for text in axis.values], point[axis.key]
        word = value_word(value)
        if own.count(word) > 1:
            word += f"_{hashlib.sha256(value.encode()).hexdigest()[:6]}"
        words.append(f"{names[axis.key]}{word}")
    return tuple(words)


def value_word(text: str) -> str:
    """Return a value as a part of a name: of letters, digits, '-' and '_', at most MOST_WORD of them."""
    word = re.sub(r"[^A-Za-z0-9_-]+", "-", text.replace(".", "p").replace("+", "").strip("[]() "))
    return word[:MOST_WORD].rstrip("-") or "none"


def told(point: Mapping[str, str], names: Mapping[str, str]) -> str:
    """Return a point in words, e.g. `BASE_LR 0.001, MARGIN 0.3`."""
    return ", ".join(f"{names[key]} {value or repr('')}" for key, value in point.items())
