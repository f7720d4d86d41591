"""What the loop evaluates: the model before training, and epochs as they end."""

import logging
from collections.abc import Mapping
from typing import Any

from torch import nn

from configs.picking import picked_by
from datasets.test_set import TestSet
from processor.evaluation.cautions import image_sets
from processor.evaluation.embed import embed_test
from processor.evaluation.evaluate import evaluate, log_results, rank_options
from processor.evaluation.reference import raw_pixel_results
from processor.resume import save_state
from processor.run import Run
from utils.test_folder import TestResult, write_table

logger = logging.getLogger(__name__)


def is_due(epoch: int, period: int, at_end: bool) -> bool:
    """Return whether something happens after `epoch` that does every `period` epochs (0 = never) and at the end."""
    return at_end or (period > 0 and epoch % period == 0)


def evaluate_if_due(run: Run) -> None:
    """Evaluate the epoch just finished where the stage asks for it and it is not done yet.

    With DATASETS.VAL_IDS that is on the held-out identities, with EVAL_SPLIT val on that split: the test set is left to
    test.py.
    """
    stage, progress = run.stage, run.progress
    epoch, period = progress["epoch"], stage.test_every
    due = stage.test is not None and period > 0 and is_due(epoch, period, epoch == stage.max_epochs)
    if not due or epoch <= progress["evaluated"]:
        return
    run.background.wait()  # the loaders may start processes, which are not to be born in the middle of a write
    results = _evaluate(run, stage.model, stage.test)
    held_out = stage.test is run.data.held_out
    on = f" on the {stage.test.title}" if held_out else ""
    if results is not None:
        log_results(results, f"Validation Results{on} - Epoch: {epoch}")
        if held_out and not run.file_stage:  # before the record: a run that is killed in between evaluates again
            write_table(run.folder.held_out(epoch), results.per_query)
        run.recorder.write("val" if held_out else "eval", epoch, progress["iteration"], results.metrics)
        keep_best(progress, epoch, results.metrics, picked_by(run.cfg.MODEL.NAME))
    averaged = _evaluate(run, stage.average.model, stage.test) if stage.average is not None else None
    if averaged is not None:
        log_results(averaged, f"Validation Results{on} of the averaged weights - Epoch: {epoch}")
        run.recorder.write("ema", epoch, progress["iteration"], averaged.metrics)
    progress["evaluated"] = epoch
    save_state(run.cfg, stage, run.ranks, progress, run.background)


def keep_best(progress: dict[str, Any], epoch: int, metrics: Mapping[str, float], names: tuple[str, str]) -> None:
    """Make an epoch the `best` of the progress where it is better by the metrics `names`, the first decides."""
    score, best = {name: metrics[name] for name in names}, progress["best"]
    if not best or [*score.values()] > [best[name] for name in names]:
        progress["best"] = {"epoch": epoch, "mAP": metrics["mAP"], "Rank-1": metrics["Rank-1"]}
        logger.info("epoch %d is the best so far by %s", epoch, " and then ".join(names))


def evaluate_references(run: Run) -> None:
    """Evaluate what a trained model has to beat, on the test set that decides: raw pixels, and the model as it is.

    Where captions are searched with there are no pixels to compare.
    """
    test = run.data.test
    untrained = _evaluate(run, run.stage.model, test)
    if untrained is None:
        return
    references = [("untrained", "Reference: the model before training", untrained)]
    if len(image_sets(test.loaders)) == len(test.loaders):
        raw_pixels = raw_pixel_results(test, run.cfg.TEST.MAX_RANK, run.cfg.TEST.AP)
        title = "Reference: nearest neighbours on raw pixels (32 x 32, z-scored)"
        references.insert(0, ("raw_pixels", title, raw_pixels))
    for name, title, results in references:
        log_results(results, title)
        run.recorder.write("reference", 0, 0, {"name": name, **results.metrics})


def _evaluate(run: Run, model: nn.Module, test: TestSet) -> TestResult | None:
    """Embed the test images on all ranks and rank them on rank 0, which alone returns results."""
    embedded = embed_test(model, test, run.embedding)
    return evaluate(test, embedded, rank_options(run.cfg)) if run.ranks.rank == 0 else None
