"""The points of a sweep: what --grid and --range name, checked key by key, and the words that points have in names."""

import hashlib
import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from configs.guess import did_you_mean
from configs.keys import KEYS
from configs.load import parse_setting
from configs.rules.problems import bounds
from utils.errors import ConfigError

Point = dict[str, str]  # values by key, as KEY VALUE pairs have them
LOG = "log"
MOST_WORD = 24  # characters of a value in a name
NUMBER = r"-?\d+(\.\d+)?(e[+-]?\d+)?"
TOLD_WHOLE = re.compile(rf"[A-Za-z_][A-Za-z0-9_-]*|{NUMBER}|\[{NUMBER}(, {NUMBER})*\]", re.ASCII)


class Axis(NamedTuple):
    """One --grid: a key and its values in the order of the command line."""

    key: str
    values: tuple[str, ...]  # in one spelling: 1e-3 is 0.001

    @property
    def size(self) -> int:
        return len(self.values)


class Span(NamedTuple):
    """One --range: the lowest and the highest value that a search tries; `log` draws by orders of magnitude."""

    key: str
    low: float
    high: float
    log: bool
    whole: bool  # whole numbers alone

    @property
    def size(self) -> float:
        return self.high - self.low + 1 if self.whole else math.inf


def read_axes(given: Iterable[Sequence[str]]) -> list[Axis]:
    """Return the axes of all --grid; ConfigError for a key or value that cannot be, or one that stands twice."""
    axes = []
    for key, *texts in given:
        _check_key("--grid", key, [axis.key for axis in axes])
        if not texts:
            raise ConfigError(f"--grid {key}: names no value; give those to try, e.g. --grid {key} A B")
        values: list[Any] = []
        for text in texts:
            try:
                value = parse_setting(key, text)
            except ValueError as error:
                raise ConfigError(f"--grid {key} {error}") from error
            if value in values:  # by what they are: -0.0 is 0
                raise ConfigError(f"--grid {key}: '{text}' stands there twice; drop one of the two")
            values.append(value)
        axes.append(Axis(key, tuple(map(spelt, values))))
    return axes


def read_spans(given: Iterable[Sequence[str]], axes: Sequence[Axis] = ()) -> list[Span]:
    """Return the spans of all --range; ConfigError for what is no range of a number."""
    spans: list[Span] = []
    for key, *words in given:
        flag = f"--range {' '.join([key, *words])}"
        _check_key(flag, key, [one.key for one in (*axes, *spans)])
        default = KEYS[key].default
        if isinstance(default, bool) or not isinstance(default, (int, float)) or KEYS[key].low is None:
            raise ConfigError(f"{flag}: {key} is no number of a range; name its values with --grid {key} A B")
        if len(words) not in (2, 3) or words[2:] not in ([], [LOG]):
            raise ConfigError(f"{flag}: expected KEY LOW HIGH, and '{LOG}' behind it to draw by orders of magnitude")
        try:
            low, high = (parse_setting(key, word) for word in words[:2])
        except ValueError as error:
            raise ConfigError(f"{flag}: {error}") from error
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


def count_points(swept: Iterable[Axis | Span]) -> float:
    """Return how many points there are, without making them; infinity where a span has other than whole numbers."""
    return math.prod(one.size for one in swept)


def short_name(key: str) -> str:
    """Return what a key is called in names and tables: its last part, or as much as tells it from all other keys.

    A key of fewer parts keeps the shorter name: SOLVER.BASE_LR is BASE_LR beside STAGE1.BASE_LR.
    """
    parts = key.split(".")
    others = [other for other in KEYS if other != key and other.count(".") <= key.count(".")]
    tails = (".".join(parts[-depth:]) for depth in range(1, len(parts)))
    return next((tail for tail in tails if not any(f".{other}".endswith(f".{tail}") for other in others)), key)


def name_words(point: Mapping[str, str]) -> tuple[str, ...]:
    """Return a point's words in the names of its folders, e.g. ('BASE_LR0p001', 'MARGIN0p3'); equal ones never meet.

    They depend on nothing but the point: a sweep of more values finds its folders again.
    """
    return tuple(f"{short_name(key)}{value_word(value)}" for key, value in point.items())


def value_word(text: str) -> str:
    """Return a value as a part of a name: of letters, digits, '-' and '_'.

    No other value of its key has the same: one that is longer than MOST_WORD, or has other characters than a number, a
    list of numbers or a word, ends in a digest.
    """
    word = re.sub(r"[^A-Za-z0-9_-]+", "-", text.strip("[]() ").replace(".", "p").replace("+", ""))
    if TOLD_WHOLE.fullmatch(text) and len(word) <= MOST_WORD:
        return word
    return f"{word[:MOST_WORD].strip('-') or 'none'}_{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def told(point: Mapping[str, str], names: Mapping[str, str]) -> str:
    """Return a point in words, e.g. `BASE_LR 0.001, MARGIN 0.3`."""
    return ", ".join(f"{names[key]} {value or repr('')}" for key, value in point.items())
