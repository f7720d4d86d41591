"""The state of a run after its last whole epoch: saved in one file, checked against the configuration, restored."""

import copy
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from yacs.config import CfgNode

from configs.compare import find_differences, flatten
from configs.stages import solver_key, stages_of
from processor.provenance import run_of
from processor.stage import Stage
from processor.state_check import (
    check_average,
    check_module,
    check_progress,
    check_random_state,
    check_updater,
    own_groups,
)
from utils.background import Background
from utils.checkpoint import load_file, save_atomic
from utils.distributed import Ranks, gather_objects
from utils.errors import ConfigError, DataError
from utils.run_folder import EMA
from utils.yaml_text import plain_tree

logger = logging.getLogger(__name__)

STATE_SCHEMA = 2
STATE_TYPES = {  # what a whole state holds
    **dict.fromkeys(("model", "criterion", "updater", "best"), dict),
    **dict.fromkeys(("epoch", "iteration", "evaluated"), int),
    **dict.fromkeys(("config", "stage", "data_fingerprint"), str),
    "rng": list,  # by process
}
UPDATER_OF_SCHEMA_1 = ("optimizer", "center_optimizer", "scaler")  # stood beside each other there
FILE = "file"  # entry of a loaded state: where it was read
START_ANEW = "train anew in another OUTPUT_DIR, or from a kept checkpoint with MODEL.PRETRAIN_CHOICE finetune"


def find_state(cfg: CfgNode, data_fingerprint: str) -> dict[str, Any] | None:
    """Return the saved state in OUTPUT_DIR that this run continues; None for a fresh run.

    Raises ConfigError when MODEL.PRETRAIN_CHOICE is resume and there is none, or when keys differ that change training;
    DataError when it was trained on images of another fingerprint.
    """
    folder = run_of(cfg)
    path = folder.state
    if not path.is_file():
        stages = ("", EMA, *stages_of(cfg))
        orphans = sorted(path.name for stage in stages for path in folder.checkpoints(stage).values())
        if orphans:
            raise ConfigError(
                f"OUTPUT_DIR '{folder.path}' holds {len(orphans)} checkpoints ({orphans[0]}, ...) but no {path.name} "
                "to continue from; choose another OUTPUT_DIR or move those files away"
            )
        if cfg.MODEL.PRETRAIN_CHOICE == "resume":
            raise ConfigError(
                f"MODEL.PRETRAIN_CHOICE resume finds no '{path}'; set OUTPUT_DIR to the run to continue, or another "
                "PRETRAIN_CHOICE to start a new one"
            )
        return None
    try:
        state = load_file(path, "OUTPUT_DIR")
    except DataError as error:
        raise DataError(f"{error}; {START_ANEW}") from error
    state = _present(state)
    saved = None if state is None else plain_tree(state["config"])
    if saved is None or state["stage"] not in stages_of(cfg):
        raise DataError(f"'{path}' is not a whole training state of this version; {START_ANEW}")
    state[FILE] = str(path)
    with _fitting(state):
        differing = find_differences(saved, plain_tree(cfg.dump()))
    if differing:
        raise ConfigError(
            f"'{path}' was trained with other settings: {'; '.join(differing)}; set them back or choose "
            "another OUTPUT_DIR"
        )
    if state["data_fingerprint"] != data_fingerprint:
        raise DataError(
            f"'{path}' was trained on other data (fingerprint {state['data_fingerprint']}, now {data_fingerprint}); "
            "point DATASETS.ROOT_DIR to the same images or choose another OUTPUT_DIR"
        )
    with _fitting(state):
        check_progress(state, stages_of(cfg)[state["stage"]])
    _warn_of_a_longer_schedule(cfg, saved, state["epoch"])
    return state


def _warn_of_a_longer_schedule(cfg: CfgNode, saved: dict[str, Any], epoch: int) -> None:
    key = solver_key(cfg, "MAX_EPOCHS")
    before, now = flatten(saved).get(key), flatten(cfg)[key]
    if before is not None and before < now:
        logger.warning(
            "%s %d -> %d: the cosine learning rate and a linear W_SUP_SPEC of the last phase follow the "
            "longer schedule from here on; the epochs up to %d followed the shorter one, so this is not the run that "
            "one launch with %d epochs gives",
            *(key, before, now, epoch, now),
        )


def _present(state: Any) -> dict[str, Any] | None:
    """Return a loaded state in today's schema; None for what is no whole state of one that is known."""
    if not isinstance(state, dict) or type(state.get("schema")) is not int:
        return None
    if state["schema"] == 1 and state.keys() >= set(UPDATER_OF_SCHEMA_1):
        updater = {name: state[name] for name in UPDATER_OF_SCHEMA_1}
        state = {name: value for name, value in state.items() if name not in updater}
        state |= {"schema": STATE_SCHEMA, "updater": updater}
    is_whole = all(isinstance(state.get(name), kind) for name, kind in STATE_TYPES.items())
    return state if state["schema"] == STATE_SCHEMA and is_whole else None


def save_state(cfg: CfgNode, stage: Stage, ranks: Ranks, progress: dict[str, Any], background: Background) -> None:
    """Have state_last.pth replaced with the state after an epoch, while training goes on: it is copied here.

    `progress` holds epoch, iteration, best and data_fingerprint. All ranks call it; rank 0 writes, in `background`,
    which raises RunError when the disk refuses.
    """
    rng = gather_objects(_rng_state(progress["device"]))
    if ranks.rank:
        return
    background.wait()  # so there are never two copies
    content = {
        "schema": STATE_SCHEMA,
        "stage": stage.name,
        "model": stage.model.state_dict(),
        "criterion": stage.criterion.state_dict(),
        "updater": stage.updater.state_dict(),
        **({"average": stage.average.state_dict()} if stage.average is not None else {}),
        "rng": rng,
        "config": cfg.dump(),
        **progress,
    }
    copied, arrive = copied_to_host(content)
    background.start(partial(_write_when_there, copied, run_of(cfg).state, arrive))


def _write_when_there(content: dict[str, Any], path: Path, arrive: Callable[[], None]) -> None:
    arrive()
    save_atomic(content, path)


def copied_to_host(content: Any) -> tuple[Any, Callable[[], None]]:
    """Return a copy of nested values with all tensors on the CPU, and what waits until they have arrived.

    It holds what they are now, whatever the caller does next: copies from a GPU, into pinned memory, are queued before
    that. Tensors that are one place in memory stay one.
    """
    known: dict[tuple, torch.Tensor] = {}
    gpus: set[torch.device] = set()

    def copied(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            place = (value.data_ptr(), value.device, value.dtype, value.shape, value.stride())
            if place not in known:
                on_gpu = value.device.type == "cuda"
                gpus.update([value.device] if on_gpu else [])
                host = torch.empty_like(value, device="cpu", pin_memory=on_gpu)
                known[place] = host.copy_(value.detach(), non_blocking=on_gpu)
            return known[place]
        if isinstance(value, dict):
            whole = copy.copy(value)  # a state dict keeps its metadata
            whole.update((name, copied(part)) for name, part in value.items())
            return whole
        return type(value)(map(copied, value)) if isinstance(value, (list, tuple)) else value

    whole = copied(content)
    queued = [torch.cuda.current_stream(gpu).record_event() for gpu in gpus]

    def arrive() -> None:
        for event in queued:
            event.synchronize()

    return whole, arrive


def restore_model(state: dict[str, Any], model: nn.Module) -> None:
    """Put the weights of a saved state into the model; DataError, and nothing is changed, where they do not fit."""
    with _fitting(state):
        check_module(state["model"], model, "model")
        model.load_state_dict(dict(state["model"]))  # without its metadata


@contextmanager
def _fitting(state: dict[str, Any]) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"'{state.get(FILE, 'the saved state')}' does not fit this run: {reason}; {START_ANEW}"
        ) from error


def restore_state(state: dict[str, Any], stage: Stage, ranks: Ranks) -> None:
    """Put a saved state into criterion and updater of the stage and into the random generators of this process.

    Raises DataError for a state that does not fit and ConfigError for one of another number of processes; nothing is
    changed then.
    """
    if len(state["rng"]) != ranks.world_size:
        raise ConfigError(
            f"the run was trained by {len(state['rng'])} processes, now there are {ranks.world_size}; "
            "continue with the same number"
        )
    updater, random_state = stage.updater, state["rng"][ranks.rank]
    with _fitting(state):
        check_module(state["criterion"], stage.criterion, "criterion")
        check_updater(state["updater"], updater)
        check_random_state(random_state, stage.settings.device)
        if stage.average is not None:
            check_average(state.get("average"), stage.average)
        optimizers = {"optimizer": updater.optimizer, "center_optimizer": updater.center_optimizer}
        checked = {
            name: own_groups(state["updater"][name], optimizer) for name, optimizer in optimizers.items() if optimizer
        }
        stage.criterion.load_state_dict(dict(state["criterion"]))
        updater.load_state_dict({**state["updater"], **checked})
        if stage.average is not None:
            stage.average.load_state_dict(state["average"])
        _set_rng_state(random_state, stage.settings.device)


def _rng_state(device: str) -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.startswith("cuda"):
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def _set_rng_state(states: dict[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
    elif device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"])
