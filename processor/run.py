"""One process of a training run in one of its stages, and how it starts: afresh, or where a saved state left it."""

import logging
from dataclasses import dataclass, field
from typing import Any

from yacs.config import CfgNode

from configs.keys.test import TENSORBOARD
from configs.phases import Phase
from configs.stages import stages_of
from datasets.make_dataloader import ReIDData
from datasets.sampler import RandomIdentitySampler
from processor.evaluation.embed import Embedding, make_embedding
from processor.provenance import run_of
from processor.resume import restore_state
from processor.stage import Stage
from processor.step.speed import SpeedLog, images_at_peak
from processor.tracking import Tracking
from solver.average import Average
from utils.background import Background
from utils.distributed import Ranks, find_ranks
from utils.run_folder import Position, Recorder, RunFolder

logger = logging.getLogger(__name__)

START = {"epoch": 0, "evaluated": 0, "best": {}}  # of a stage: last whole epoch, last epoch that was evaluated, best


@dataclass
class Run:
    """One process in one stage; `progress` holds epoch, iteration, evaluated, best, device, data_fingerprint, run.

    `run` is the identity, see `utils.run_record`, "" in all ranks but 0, which keep nothing. `best` counts in rank 0,
    which evaluates and saves. Iterations count over all stages.
    """

    cfg: CfgNode
    folder: RunFolder
    stage: Stage
    file_stage: str  # of the stage in the names of its files, "" = the last
    data: ReIDData
    ranks: Ranks
    embedding: Embedding
    progress: dict[str, Any]
    speed: SpeedLog
    tracking: Tracking
    peak_images: float = 0.0  # images/s of one device at its peak, 0 = unknown
    recorder: Recorder | None = None  # of rank 0
    background: Background = field(default_factory=Background)  # writes the state of the last epoch
    announced: Phase | None = field(default=None)  # the phase that the log said last
    told_one_way: bool = False  # whether the log said that routing sends all images to one loss


def start_run(
    cfg: CfgNode,
    stage: Stage,
    data: ReIDData,
    state: dict[str, Any] | None,
    identity: str,
    tracking: Tracking,
    iteration: int = 0,
) -> Run:
    """Return the run at the stage's first epoch, after `iteration` steps of earlier stages, or where a state left it.

    `identity` comes from `processor.kept.begin_record`, `tracking` from `processor.tracking.tracked`.

    Raises ConfigError for TEST.AMP that cannot work on the model's device, and what `restore_state` raises.
    """
    ranks, folder, device = find_ranks(cfg.MODEL.DIST_TRAIN), run_of(cfg), stage.settings.device
    names = list(stages_of(cfg))
    progress = START | {"iteration": iteration, "device": str(device), "data_fingerprint": data.fingerprint}
    progress["run"] = identity
    speed = SpeedLog(stage.loader.num_workers, bool(cfg.DATALOADER.CACHE))
    half, size, tflops = stage.settings.amp is not None, stage.settings.image_size, stage.settings.peak_tflops
    peak = images_at_peak(stage, size, device, half, tflops) if size else 0.0
    file_stage = "" if stage.name == names[-1] else stage.name
    run = Run(cfg, folder, stage, file_stage, data, ranks, make_embedding(cfg, device), progress, speed, tracking, peak)
    if cfg.SOLVER.EMA and not file_stage:
        stage.average = Average(stage.model, cfg.SOLVER.EMA)
    if state is not None:
        restore_state(state, stage, ranks)
        progress |= {key: state[key] for key in ("epoch", "iteration", "evaluated", "best")}
        logger.info("continuing after epoch %d of %d", progress["epoch"], stage.max_epochs)
        if isinstance(stage.sampler, RandomIdentitySampler) and progress["epoch"]:
            stage.sampler.set_num_instances(stage.plan.at(progress["epoch"]).num_instance)
    if ranks.rank == 0:
        position = Position(progress["epoch"], progress["evaluated"], progress["iteration"], stage.name, tuple(names))
        run.recorder = Recorder(folder, position, curves=TENSORBOARD in cfg.LOGGER)
    return run
