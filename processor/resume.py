"""The state of a run after its last whole epoch: saved in one file, checked against the configuration, restored."""

import logging
from pathlib import Path
from typing import Any

import torch
import yaml
from yacs.config import CfgNode

from configs.compare import find_differences
from processor.stage import Stage
from utils.checkpoint import load_file, save_atomic
from utils.distributed import Ranks, gather_objects
from utils.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

STATE_NAME = "state_last.pth"
STATE_SCHEMA = 1
STATE_KEYS = (
    *("model", "criterion", "optimizer", "center_optimizer", "scaler", "rng", "config"),
    *("stage", "epoch", "iteration", "evaluated", "best", "data_fingerprint"),
)
START_ANEW = "train anew in another OUTPUT_DIR, or from a kept checkpoint with MODEL.PRETRAIN_CHOICE finetune"


def find_state(cfg: CfgNode, data_fingerprint: str) -> dict[str, Any] | None:
    """Return the saved state in OUTPUT_DIR that this run continues; None for a fresh run.

    Raises ConfigError when MODEL.PRETRAIN_CHOICE is resume and there is none, or when keys differ that change training;
    DataError when it was trained on images of another fingerprint.
    """
    path = Path(cfg.OUTPUT_DIR) / STATE_NAME
    if not path.is_file():
        orphans = sorted(entry.name for entry in path.parent.glob(f"{cfg.MODEL.NAME}_*.pth"))
        if orphans:
            raise ConfigError(
                f"OUTPUT_DIR '{path.parent}' holds {len(orphans)} checkpoints ({orphans[0]}, ...) but no {STATE_NAME} "
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
        raise DataError(f"'{path}' is damaged; {START_ANEW}") from error
    if not isinstance(state, dict) or state.get("schema") != STATE_SCHEMA or not state.keys() >= set(STATE_KEYS):
        raise DataError(f"'{path}' is not a whole training state of this version; {START_ANEW}")
    saved = yaml.safe_load(state["config"])
    differing = find_differences(saved, yaml.safe_load(cfg.dump()))
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
    if saved["SOLVER"]["MAX_EPOCHS"] < cfg.SOLVER.MAX_EPOCHS:
        logger.warning(
            "SOLVER.MAX_EPOCHS %d -> %d: the cosine learning rate and a linear W_SUP_SPEC of the last phase follow the "
            "longer schedule from here on; the epochs up to %d followed the shorter one, so this is not the run that "
            "one launch with %d epochs gives",
            *(saved["SOLVER"]["MAX_EPOCHS"], cfg.SOLVER.MAX_EPOCHS, state["epoch"], cfg.SOLVER.MAX_EPOCHS),
        )
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
    """Put a saved state into the stage, the scaler and the random generators of this process.

    Raises DataError for a state that does not fit and ConfigError for one of another number of processes.
    """
    try:
        stage.model.load_state_dict(state["model"])
        stage.criterion.load_state_dict(state["criterion"])
        stage.optimizer.load_state_dict(state["optimizer"])
        if stage.center_optimizer is not None:
            stage.center_optimizer.load_state_dict(state["center_optimizer"])
        scaler.load_state_dict(state["scaler"])
    except (KeyError, ValueError, RuntimeError) as error:
        raise DataError(
            f"the saved state does not fit this model ({str(error).splitlines()[0]}); {START_ANEW}"
        ) from error
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
