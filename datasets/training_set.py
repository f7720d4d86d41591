"""What a training set must offer for the losses and batches of a configuration, checked before the first epoch."""

from collections import defaultdict
from collections.abc import Sequence

from yacs.config import CfgNode

from configs.loss_weights import supcon_across_cameras
from configs.phases import PAIR_LOSSES, PhasePlan
from configs.stages import draws_pxk
from datasets.bases import Sample
from datasets.sampler import check_pxk
from utils.errors import ConfigError, DataError


def check_training_set(cfg: CfgNode, train: Sequence[Sample], world_size: int) -> None:
    """Raise ConfigError for a K that the set cannot serve, DataError when SupCon's positives need a second camera."""
    _check_supcon_cameras(cfg, train)
    if draws_pxk(cfg):
        _check_every_k(cfg, len({sample.pid for sample in train}), world_size)


def _check_supcon_cameras(cfg: CfgNode, train: Sequence[Sample]) -> None:
    if not cfg.LOSS.SUPCON.ENABLE or not supcon_across_cameras(cfg):
        return
    cameras = defaultdict(set)
    for sample in train:
        cameras[sample.pid].add(sample.camid)
    if max(len(seen_by) for seen_by in cameras.values()) < 2:
        raise DataError(
            f"{', '.join(cfg.DATASETS.NAMES)}: no training identity is seen by more than one camera, so SupCon between "
            "cameras has no positive; set LOSS.SUPCON.CAM_AWARE False and LOSS.SUPCON.POS_RULE class"
        )


def _check_every_k(cfg: CfgNode, identities: int, world_size: int) -> None:
    """Check the batches of every epoch: they divide, and hold negatives where a loss needs them.

    Without SOLVER.GATHER_FEATURES each process's loss sees its own share alone.
    """
    plan, first_epoch = PhasePlan(cfg), {}
    batch = plan.batch_size
    for phase, _ in plan.segments():
        wants_pairs = any(phase.weights.get(name, 0) > 0 for name in PAIR_LOSSES)
        first_epoch.setdefault((phase.num_instance, phase.k_key, wants_pairs), phase.epoch)
    for (k, key, wants_pairs), epoch in first_epoch.items():
        check_pxk(batch, k, world_size, identities, f"{key}, epoch {epoch}")
        if wants_pairs and not cfg.SOLVER.GATHER_FEATURES and batch // k // world_size < 2:
            raise ConfigError(
                f"SOLVER.IMS_PER_BATCH {batch} with K {k} ({key}, epoch {epoch}) leaves one identity on each of "
                f"{world_size} processes, so no loss finds a negative; use at least {2 * k * world_size}, a smaller K, "
                "or SOLVER.GATHER_FEATURES True"
            )
