"""Which losses act at an epoch, with which weights, and which K the sampler uses: the one resolver all of them read."""

from typing import NamedTuple

from yacs.config import CfgNode


class Phase(NamedTuple):
    """The plan of one epoch (1-based); a weight of 0.0 means that the term is off."""

    epoch: int
    index: int
    tag: str
    weights: dict[str, float]  # id, triplet, tripletx, supcon
    num_instance: int  # K
    routed: bool


class PhasePlan:
    """A pure function from the epoch to its Phase."""

    def __init__(self, cfg: CfgNode) -> None:
        sampler = cfg.DATALOADER.SAMPLER
        has_metric = "triplet" in sampler and "triplet" in cfg.MODEL.METRIC_LOSS_TYPE
        self._weights = {
            "id": float(cfg.MODEL.ID_LOSS_WEIGHT) if "softmax" in sampler else 0.0,
            "triplet": float(cfg.MODEL.TRIPLET_LOSS_WEIGHT) if has_metric else 0.0,
            "tripletx": 0.0,
            "supcon": 0.0,
        }
        self._num_instance = cfg.DATALOADER.NUM_INSTANCE

    def at(self, epoch: int) -> Phase:
        """Return the phase of `epoch`, counted from 1."""
        if epoch < 1:
            raise ValueError(f"epochs count from 1, got {epoch}")
        return Phase(epoch, 0, "static", dict(self._weights), self._num_instance, False)
