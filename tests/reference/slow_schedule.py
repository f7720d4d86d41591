"""Model B's rules for losses, weights, routing and K as they read, on a plain dict {dotted key: value}.

One list of phases with their first and last epoch, one branch per rule, strings split by hand.
"""

import math
from typing import Any, NamedTuple


class Rules(NamedTuple):
    phase: int
    weights: dict[str, float]
    k: int
    routed: bool


def rules_at(values: dict, epoch: int) -> Rules:
    phased = values["LOSS.PHASED.ENABLE"]
    first, last, number = phase_around(values, epoch) if phased else (0, math.inf, 0)

    supervised = values["MODEL.TRAINING_MODE"] == "supervised"
    sampler = values["DATALOADER.SAMPLER"]
    has_metric = supervised and sampler in ("softmax_triplet", "triplet")
    has_metric = has_metric and values["MODEL.METRIC_LOSS_TYPE"] in ("triplet", "triplet_center")
    if not has_metric:
        kind = "none"
    elif phased:
        kind = entry(values["LOSS.PHASED.METRIC_SEQ"], number)
        retired_from = values["LOSS.PHASED.TRIPLETX_END"]
        if kind == "tripletx" and retired_from >= 0 and epoch >= retired_from:
            kind = "triplet"
    else:
        kind = "tripletx" if values["LOSS.TRIPLETX.ENABLE"] else "triplet"

    routed = kind == "tripletx" and values["LOSS.BRIGHTNESS.ENABLE"]
    weights = {"id": 0.0, "triplet": 0.0, "tripletx": 0.0, "supcon": supcon(values, epoch, first, last, number)}
    if supervised and sampler != "triplet":
        weights["id"] = values["MODEL.ID_LOSS_WEIGHT"]
    metric = entry(values["LOSS.PHASED.W_METRIC_SEQ"], number) if phased else None
    if kind == "triplet" or routed:
        weights["triplet"] = values["MODEL.TRIPLET_LOSS_WEIGHT"] if metric is None else metric
    if kind == "tripletx":
        weights["tripletx"] = values["LOSS.TRIPLETX.W"] if metric is None else metric

    if not values["DATALOADER.PHASED.ENABLE"]:
        k = values["DATALOADER.NUM_INSTANCE"]
    elif weights["tripletx"] != 0:
        k = values["DATALOADER.PHASED.K_WHEN_TRIPLETX"]
    elif weights["supcon"] != 0:
        k = values["DATALOADER.PHASED.K_WHEN_SUPCON"]
    else:
        k = values["DATALOADER.PHASED.K_OTHER"]
    return Rules(number, weights, k, routed)


def phase_around(values: dict, epoch: int) -> tuple[float, float, int]:
    """Return the start, the end (not included, the last epoch for the last phase) and the number of the phase."""
    edges = [0, *values["LOSS.PHASED.BOUNDARIES"], math.inf]
    for number in range(len(edges) - 1):
        if edges[number] <= epoch < edges[number + 1]:
            end = edges[number + 1]
            return edges[number], values["SOLVER.MAX_EPOCHS"] if end == math.inf else end, number
    raise AssertionError(f"no phase holds epoch {epoch}")


def entry(sequence: list, number: int) -> Any:
    return sequence[number] if number < len(sequence) else sequence[-1]


def supcon(values: dict, epoch: int, first: float, last: float, number: int) -> float:
    if not values["LOSS.SUPCON.ENABLE"]:
        return 0.0
    if not values["LOSS.PHASED.ENABLE"]:
        return values["LOSS.SUPCON.W"]
    if not values["LOSS.PHASED.W_SUP_SPEC"]:
        return decayed(values, epoch)
    name, _, numbers = entry(values["LOSS.PHASED.W_SUP_SPEC"], number).partition(":")
    if name.strip().lower() == "const":
        return max(0.0, float(numbers))
    x, y = map(float, numbers.split("->"))
    if last <= first:
        last = first + 1
    if epoch >= last:
        return max(0.0, y)
    return max(0.0, x + (y - x) * (epoch - first) / (last - first))


def decayed(values: dict, epoch: int) -> float:
    start, end = values["LOSS.SUPCON.DECAY_START"], values["LOSS.SUPCON.DECAY_END"]
    weight, kind = values["LOSS.SUPCON.W0"], values["LOSS.SUPCON.DECAY_TYPE"]
    if kind == "exp":
        return weight if epoch < start else weight / math.exp(0.05) ** (epoch - start)
    if kind == "linear":
        if epoch <= start:
            return weight
        return 0.0 if epoch >= end else weight * (end - epoch) / (end - start)
    return weight
