"""Whether a saved training state is one of this run: type, shape and values of every entry, before any of it is used.

An optimizer takes whatever it is given and writes over memory where a moment has another shape than its parameter, so
each entry is compared with what this run's own model, criterion and optimizers hold. All functions raise ValueError
that names the entry.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from solver.average import Average
from solver.update import Updater

BEST = {"epoch": int, "mAP": float, "Rank-1": float}
LARGEST = 2**53  # of a count
OF_THE_MACHINE = ("fused", "foreach", "capturable")  # options of an optimizer that change no value
FREE = ("params", "name", *OF_THE_MACHINE)  # options of a group that a state may have otherwise
NO_LAYOUT = ("params", "lr", "initial_lr", "lr_scale", "weight_decay", "name")  # do not decide what moments there are


def check_progress(state: Mapping[str, Any], last_epoch: int) -> None:
    """Check the counts of a state of a stage that ends with `last_epoch`."""
    epoch, iteration, evaluated, best = (state[name] for name in ("epoch", "iteration", "evaluated", "best"))
    for name, value, low, high in (
        ("epoch", epoch, 1, last_epoch),
        ("iteration", iteration, 0, LARGEST),
        ("evaluated", evaluated, 0, epoch),
    ):
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"{name} is {value!r}, expected {low} to {high}")
    if not best:
        return
    if best.keys() != BEST.keys() or any(type(best[name]) is not kind for name, kind in BEST.items()):
        raise ValueError("best is not an epoch with its mAP and Rank-1")
    if not 1 <= best["epoch"] <= epoch or not all(0 <= best[name] <= 1 for name in ("mAP", "Rank-1")):
        raise ValueError("best is an epoch or a score that cannot be")


def check_module(saved: Mapping[str, Any], module: nn.Module, name: str) -> None:
    """Check the weights in the entry `name` for a module."""
    own = module.state_dict()
    differing = sorted(map(str, own.keys() ^ saved.keys()))
    if differing:
        which = "is missing" if differing[0] in own else "is none of this run's"
        raise ValueError(f"{name}.{differing[0]} {which}")
    for entry, value in own.items():
        _check_tensor(saved[entry], value, f"{name}.{entry}")


def check_updater(saved: Mapping[str, Any], updater: Updater) -> None:
    """Check the states of optimizers and loss scaler for an updater."""
    _check_optimizer(_part(saved, "optimizer"), updater.optimizer, "updater.optimizer")
    if updater.center_optimizer is not None:
        centers = _part(saved, "center_optimizer")
        _check_optimizer(centers, updater.center_optimizer, "updater.center_optimizer")
    scaler, own = _part(saved, "scaler"), updater.scaler.state_dict()
    if own:  # of float16 alone
        _check_scaler(scaler, own)


def check_average(saved: Any, average: Average) -> None:
    """Check the state of averaged weights."""
    if not isinstance(saved, dict) or not isinstance(saved.get("weights"), dict):
        raise ValueError("average is missing or no dict of weights")
    if type(saved.get("updates")) is not int or not 0 <= saved["updates"] <= LARGEST:
        raise ValueError(f"average.updates is {saved.get('updates')!r}, expected a count")
    check_module(saved["weights"], average.model, "average.weights")


def check_random_state(saved: Any, device: torch.device) -> None:
    """Check the random states of one process by setting those of generators that nobody uses."""
    states = saved if isinstance(saved, dict) else {}
    for kind in dict.fromkeys(("cpu", device.type)):
        if kind != "cpu" and kind not in states:  # saved on another device
            continue
        if not isinstance(states.get(kind), torch.Tensor):
            raise ValueError(f"rng.{kind} is no tensor")
        try:
            torch.Generator(device if kind == device.type else "cpu").set_state(states[kind])
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"rng.{kind} is no state of a random generator") from error


def own_groups(saved: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return a checked state of an optimizer with the options of this run, of which a state brings the rates alone."""
    groups = optimizer.state_dict()["param_groups"]
    rates = [{"lr": group["lr"]} for group in saved["param_groups"]]
    return {"state": saved["state"], "param_groups": [own | rate for own, rate in zip(groups, rates, strict=True)]}


def _part(saved: Mapping[str, Any], name: str) -> dict[str, Any]:
    part = saved.get(name)
    if not isinstance(part, dict):
        raise ValueError(f"updater.{name} is missing or no dict")
    return part


def _check_tensor(saved: Any, own: torch.Tensor, name: str) -> None:
    if not isinstance(saved, torch.Tensor):
        raise ValueError(f"{name} is of type {type(saved).__name__}, expected a tensor")
    if (saved.shape, saved.dtype) != (own.shape, own.dtype):
        kinds = [f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')}" for value in (saved, own)]
        raise ValueError(f"{name} is {kinds[0]}, expected {kinds[1]}")
    if saved.is_floating_point() and not saved.isfinite().all():
        raise ValueError(f"{name} holds values that are not finite")


def _check_optimizer(saved: Mapping[str, Any], optimizer: torch.optim.Optimizer, name: str) -> None:
    own = optimizer.state_dict()["param_groups"]
    groups, moments = saved.get("param_groups"), saved.get("state")
    if not isinstance(groups, list) or not isinstance(moments, dict):
        raise ValueError(f"{name} is no state of an optimizer")
    if len(groups) != len(own):
        raise ValueError(f"{name} has {len(groups)} groups of parameters, this run has {len(own)}")
    for number, (theirs, ours) in enumerate(zip(groups, own, strict=True)):
        _check_group(theirs, ours, f"{name}.param_groups.{number}")
    numbers = [number for group in own for number in group["params"]]
    parameters = [(parameter, group) for group in optimizer.param_groups for parameter in group["params"]]
    known = dict(zip(numbers, parameters, strict=True))
    layouts: dict[str, dict[str, Any]] = {}
    for number, entries in moments.items():
        if type(number) is not int or number not in known or not isinstance(entries, dict):
            raise ValueError(f"{name}.state.{number} is of no parameter of this run")
        parameter, group = known[number]
        options = {key: value for key, value in group.items() if key not in NO_LAYOUT}
        kind = f"{parameter.shape} {parameter.dtype} {options}"
        layout = layouts.get(kind) or layouts.setdefault(kind, _layout(optimizer, parameter, group))
        if entries.keys() != layout.keys():
            raise ValueError(f"{name}.state.{number} holds other moments than {', '.join(layout) or 'none'}")
        for entry, value in layout.items():
            _check_moment(entries[entry], value, f"{name}.state.{number}.{entry}")


def _check_group(theirs: Any, ours: Mapping[str, Any], name: str) -> None:
    if not isinstance(theirs, dict) or theirs.get("params") != ours["params"]:
        raise ValueError(f"{name} is not of this run's parameters")
    lr = theirs.get("lr")
    if type(lr) is not float or not 0 <= lr < math.inf:
        raise ValueError(f"{name}.lr is no learning rate")
    for option, value in ours.items():  # one that the state lacks is younger than it
        if option not in (*FREE, "lr") and option in theirs and theirs[option] != value:
            raise ValueError(f"{name}.{option} is another than {value}")


def _layout(
    optimizer: torch.optim.Optimizer, parameter: torch.Tensor, group: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """Return what such an optimizer keeps of such a parameter: that of a copy of 0, after a step without gradient."""
    probe = torch.zeros(parameter.shape, dtype=parameter.dtype, requires_grad=True)
    probe.grad = torch.zeros_like(probe)
    options = {key: value for key, value in group.items() if key != "params"}
    copy = type(optimizer)([{"params": [probe], **options}], lr=group["lr"])
    copy.step()
    return dict(copy.state[probe])


def _check_moment(saved: Any, own: Any, name: str) -> None:
    if not isinstance(own, torch.Tensor):
        if type(saved) is not type(own):
            raise ValueError(f"{name} is of type {type(saved).__name__}, expected {type(own).__name__}")
        return
    _check_tensor(saved, own, name)
    if not own.dim() and saved < 0:  # a count of steps, or what is made of one
        raise ValueError(f"{name} is below 0")


def _check_scaler(saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    scale, tracker = saved.get("scale"), saved.get("_growth_tracker")
    if type(scale) is not float or not 0 < scale < math.inf:
        raise ValueError("updater.scaler.scale is no factor")
    if type(tracker) is not int or not 0 <= tracker <= LARGEST:
        raise ValueError("updater.scaler._growth_tracker is no count")
    for name, value in own.items():
        if name not in ("scale", "_growth_tracker") and saved.get(name) != value:
            raise ValueError(f"updater.scaler.{name} is another than {value}")
