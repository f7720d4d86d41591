"""How a weight moves over the epochs: written as text, 'const:0.30' or 'linear:0.30->0.0' a phase, or by decay."""

import math
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from configs.keys.key import MOST_WEIGHT, OUTWEIGHS
from utils.errors import ConfigError

GRAMMAR = "'const:<float>' or 'linear:<float>-><float>', e.g. const:0.30 or linear:0.30->0.0"
NUMBER = r"\s*([+-]?[0-9.]+(?:e[+-]?[0-9]+)?)\s*"
SPEC_PATTERN = re.compile(rf"\s*(?:const\s*:{NUMBER}|linear\s*:{NUMBER}->{NUMBER})", re.IGNORECASE)
EXP_RATE = 0.05  # per epoch, of the decay exp
TERM_SPEC = re.compile(r"\s*(\w+)\s*=(.+)", re.DOTALL)


@lru_cache(maxsize=4096)  # each epoch asks again
def parse_weight_spec(spec: str, key: str = "LOSS.PHASED.W_SUP_SPEC") -> tuple[float, float]:
    """Return (weight at the phase's start, weight at its end) of 'const:w' or 'linear:x->y'.

    Case and spaces do not matter. Raises ConfigError that names `key` and quotes the grammar for anything else.
    """
    match = SPEC_PATTERN.fullmatch(spec)
    try:
        weights = [float(number) for number in match.groups() if number is not None] if match else []
    except ValueError:  # 1.2.3
        weights = []
    if not weights or not all(math.isfinite(weight) for weight in weights):
        raise ConfigError(f"{key} got '{spec}', expected {GRAMMAR}")
    if max(map(abs, weights)) > MOST_WEIGHT:
        raise ConfigError(f"{key} got '{spec}', allowed: weights up to {MOST_WEIGHT:g} ({OUTWEIGHS})")
    return weights[0], weights[-1]


@lru_cache(maxsize=4096)
def parse_term_spec(entry: str, key: str = "LOSS.PHASED.W_TERMS") -> tuple[str, tuple[str, ...]]:
    """Return (term, its specs, one for each phase) of '<term>=<spec>|<spec>'; ConfigError for anything else."""
    match = TERM_SPEC.fullmatch(entry)
    if not match:
        raise ConfigError(f"{key} got '{entry}', expected <term>=<spec>|<spec>, one spec a phase, each {GRAMMAR}")
    specs = tuple(match[2].split("|"))
    for spec in specs:
        parse_weight_spec(spec, key)
    return match[1], specs


def spec_weight(specs: Sequence[str], index: int, boundaries: Sequence[int], max_epochs: int, epoch: int) -> float:
    """Return the weight at `epoch` of phase `index` by its spec (the last one where there are fewer), at least 0.

    A linear one moves from the start of the phase to its end; `boundaries` are the first epochs of the later phases.
    """
    first, last = parse_weight_spec(specs[min(index, len(specs) - 1)])
    start = boundaries[index - 1] if index else 0
    end = boundaries[index] if index < len(boundaries) else max_epochs
    progress = min(max((epoch - start) / max(end - start, 1), 0.0), 1.0)
    return max((1 - progress) * first + progress * last, 0.0)


def decayed_weight(weight: float, kind: str, start: int, end: int, epoch: int) -> float:
    """Return `weight` at `epoch`: const, or falling from epoch `start`, exp by EXP_RATE or linear to 0 at `end`."""
    if kind == "const" or epoch <= start:
        return weight
    if kind == "exp":
        return weight * math.exp(-EXP_RATE * (epoch - start))
    return 0.0 if epoch >= end else weight * (1 - (epoch - start) / (end - start))


def spec_problems(specs: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with the entries of LOSS.PHASED.W_SUP_SPEC."""
    for spec in specs:
        try:
            parse_weight_spec(spec)
        except ConfigError as error:
            yield str(error)


def term_problems(entries: Sequence[str], terms: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with the entries of LOSS.PHASED.W_TERMS, of which each may weigh one of `terms`."""
    seen = set()
    for entry in entries:
        try:
            term, _ = parse_term_spec(entry)
        except ConfigError as error:
            yield str(error)
            continue
        if term not in terms:
            yield f"LOSS.PHASED.W_TERMS got the term '{term}', allowed: {', '.join(terms)}"
        if term in seen:
            yield f"LOSS.PHASED.W_TERMS names '{term}' twice; give all its specs in one entry, {term}=<spec>|<spec>"
        seen.add(term)
