"""The state of a run after its last whole epoch: saved in one file, checked against the configuration, restored."""

from pathlib import Path
from typing import Any

import torch
import yaml
from yacs.config import CfgNode

from processor.stage import Stage
from utils.checkpoint import load_file, save_atomic
from utils.distributed import Ranks, gather_objects
from utils.errors import ConfigError, DataError

STATE_NAME = "state_last.pth"
STATE_SCHEMA = 1

# Keys that may differ when a run continues: where things lie, how often something is written, how it is tested.
FREE_PREFIXES = ("TEST.", "OUTPUT_DIR", "MODEL.DEVICE", "MODEL.PRETRAIN_PATH", "MODEL.PRETRAIN_CHOICE")
FREE_KEYS = {
    "DATASETS.ROOT_DIR",
    "DATASETS.TABLE",
    "DATASETS.VIEW_FILES",
    "DATALOADER.NUM_WORKERS",
    "SOLVER.CHECKPOINT_PERIOD",
    "SOLVER.EVAL_PERIOD",
    "SOLVER.LOG_PERIOD",
}


def has_state(cfg: CfgNode) -> bool:
    """Return whether OUTPUT_DIR holds a state to continue from."""
    return (Path(cfg.OUTPUT_DIR) / STATE_NAME).is_file()


def find_state(cfg: CfgNode) -> dict[str, Any] | None:
    """Return the saved state that this run continues, checked against `cfg`; None for a fresh run.

    Raises ConfigError when MODEL.PRETRAIN_CHOICE is resume and there is none, or when keys differ that change training.
    """
    path = Path(cfg.OUTPUT_DIR) / STATE_NAME
    if not has_state(cfg):
        if cfg.MODEL.PRETRAIN_CHOICE == "resume":
            raise ConfigError(
                f"MODEL.PRETRAIN_CHOICE resume finds no '{path}'; set OUTPUT_DIR to the run to continue, or another "
                "PRETRAIN_CHOICE to start a new one"
            )
        return None
    state = load_file(path, "OUTPUT_DIR")
    if not isinstance(state, dict) or state.get("schema") != STATE_SCHEMA:
        raise DataError(f"'{path}' is not a training state of this version; move it away to train anew")
    _check_same_config(yaml.safe_load(state["config"]), yaml.safe_load(cfg.dump()), path)
    return state


def save_state(
    cfg: CfgNode, stage: Stage, scaler: torch.amp.GradScaler, ranks: Ranks, progress: dict[str, Any]
) -> None:
    """Replace state_last.pth with the state after an epoch.

    `progress` holds epoch, iteration, best and data_fingerprint. All ranks call it; rank 0 writes.
    """
    rng = gather_objects(_rng_state(progress["device"]))
    if ranks.rank:
        return
    content = {
        "schema": STATE_SCHEMA,
        "stage": stage.name,
        "model": stage.model.state_dict(),
        "criterion": stage.criterion.state_dict(),
        "optimizer": stage.optimizer.state_dict(),
        "center_optimizer": stage.center_optimizer.state_dict() if stage.center_optimizer else {},
        "scaler": scaler.state_dict(),
        "rng": rng,
        "config": cfg.dump(),
        **progress,
    }
    save_atomic(content, Path(cfg.OUTPUT_DIR) / STATE_NAME)


def restore_state(
    state: dict[str, Any], stage: Stage, scaler: torch.amp.GradScaler, ranks: Ranks, device: torch.device
) -> None:
    """Put a saved state into the stage, the scaler and the random generators of this process."""
    stage.model.load_state_dict(state["model"])
    stage.criterion.load_state_dict(state["criterion"])
    stage.optimizer.load_state_dict(state["optimizer"])
    if stage.center_optimizer is not None:
        stage.center_optimizer.load_state_dict(state["center_optimizer"])
    scaler.load_state_dict(state["scaler"])
    if len(state["rng"]) != ranks.world_size:
        raise ConfigError(
            f"the run was trained by {len(state['rng'])} processes, now there are {ranks.world_size}; "
            "continue with the same number"
        )
    _set_rng_state(state["rng"][ranks.rank], device)


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


def _check_same_config(saved: dict[str, Any], now: dict[str, Any], path: Path) -> None:
    saved, now = _flatten(saved), _flatten(now)
    differing = []
    for key in sorted(saved.keys() | now.keys()):
        old, new = saved.get(key), now.get(key)
        if old == new or key in FREE_KEYS or key.startswith(FREE_PREFIXES):
            continue
        if key == "SOLVER.MAX_EPOCHS" and new > old:
            continue
        differing.append(f"{key} {old} -> {new}")
    if differing:
        raise ConfigError(
            f"'{path}' was trained with other settings: {'; '.join(differing)}; choose another OUTPUT_DIR, set them "
            "back, or delete that file to train anew"
        )


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = list(value) if isinstance(value, tuple) else value
    return flat
