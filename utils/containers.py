"""The state dict in a checkpoint of any project: in which container, under which prefix, beside which others."""

import logging
from collections.abc import Mapping
from typing import Any

import torch

from utils.errors import DataError

logger = logging.getLogger(__name__)

CONTAINERS = (  # that other projects put around the weights, the first one wins
    *("state_dict", "model", "teacher", "model_state_dict", "model_state", "weights", "params", "net", "network"),
    "module",
)
AVERAGED = (  # of the same weights over the steps
    *("model_ema", "ema", "state_dict_ema", "ema_state_dict", "model_ema_state_dict", "ema_model", "params_ema"),
    *("averaged_model", "swa_model", "swa_state_dict"),
)
PREFIXES = ("module.", "_orig_mod.")  # left by DistributedDataParallel and torch.compile
ATTRIBUTES = ("model.", "net.", "network.", "backbone.")  # of a LightningModule, and of other wrappers
LIGHTNING = "pytorch-lightning_version"
DEEPEST = 3  # containers in containers
SHOWN = 6  # entries of a file that a message names


def unwrap(content: Any, source: str) -> dict[str, torch.Tensor]:
    """Return the state dict in the content of a file, without containers and prefixes.

    Where the file holds averaged weights too, that is said. `source` opens every message. Raises DataError where there
    are no weights, or several and no way to tell which are meant.
    """
    lightning = isinstance(content, Mapping) and LIGHTNING in content
    for _ in range(DEEPEST):
        inside = _container(content, source)
        if inside is None:
            break
        content = inside
    if not isinstance(content, Mapping) or not _tensors(content):
        raise DataError(f"{source} holds no weights ({_described(content)})")
    if any(type(name) is not str for name in content):
        raise DataError(f"{source} holds no state dict: its tensors have no names")
    weights: dict[str, torch.Tensor] = {}
    for name, value in _tensors(content).items():
        name = without_prefix(name)
        if name in weights:
            raise DataError(f"{source} holds {name} twice, with and without a prefix; save one of them alone")
        weights[name] = value
    return _without_attribute(weights, source, lightning)


def without_prefix(name: str) -> str:
    """Return the name of a weight without what wrappers of torch put before it."""
    while name.startswith(PREFIXES):
        name = name.split(".", 1)[1]
    return name


def _container(content: Any, source: str) -> Any:
    """Return what is in the container that holds the weights, None where `content` is the state dict itself."""
    if not isinstance(content, Mapping):
        return None
    inside = {name: value for name, value in content.items() if isinstance(name, str) and _holds_weights(value)}
    known = [name for name in CONTAINERS if name in inside]
    averaged = [name for name in AVERAGED if name in inside]
    if known:
        others = [name for name in (*known[1:], *averaged) if inside[name] is not inside[known[0]]]
        if others:
            _warn(source, known[0], others, averaged)
        return inside[known[0]]
    if _tensors(content):
        return None
    if len(inside) > 1:
        raise DataError(
            f"{source} holds several sets of weights ({', '.join(map(repr, list(inside)[:SHOWN]))}) and does not tell "
            f"which is meant; {_way_out(next(iter(inside)))}"
        )
    return next(iter(inside.values()), None)


def _warn(source: str, taken: str, others: list[str], averaged: list[str]) -> None:
    logger.warning(
        "%s holds %s beside '%s': '%s' is taken; %s",
        *(source, " and ".join(f"'{name}'{' (averaged weights)' * (name in averaged)}" for name in others), taken),
        *(taken, _way_out(others[-1])),
    )


def _way_out(name: str) -> str:
    return (
        "to take another, save it alone: torch.save(torch.load(FILE, map_location='cpu', weights_only=True)"
        f"[{name!r}], 'weights.pth')"
    )


def _without_attribute(weights: dict[str, torch.Tensor], source: str, lightning: bool) -> dict[str, torch.Tensor]:
    """Return the weights without the name that a wrapper gave the model, where all have it.

    A LightningModule also holds losses and metrics, which are left aside.
    """
    for prefix in ATTRIBUTES:
        named = {name: value for name, value in weights.items() if name.startswith(prefix)}
        if named and (lightning or len(named) == len(weights)):
            if len(named) < len(weights):
                logger.warning(
                    "%s: its %d weights %s* are taken, %d others are not (%s)",
                    *(source, len(named), prefix, len(weights) - len(named)),
                    ", ".join([name for name in weights if name not in named][:SHOWN]),
                )
            return {without_prefix(name.removeprefix(prefix)): value for name, value in named.items()}
    return weights


def _holds_weights(value: Any) -> bool:
    """Return whether a value is a state dict, or a container around one."""
    if not isinstance(value, Mapping):
        return False
    return any(_names_tensors(part) for part in (value, *value.values()))


def _names_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(name, str) for name in _tensors(value))


def _tensors(content: Mapping) -> dict[Any, torch.Tensor]:
    return {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}


def _described(content: Any) -> str:
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    entries = [f"{name!r}: {type(value).__name__}" for name, value in list(content.items())[:SHOWN]]
    more = ", ..." if len(content) > SHOWN else ""
    return f"a dict of {', '.join(entries)}{more}" if entries else "an empty dict"
