"""From a model and the test loader to metrics, and to the files that keep them."""

import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm
from yacs.config import CfgNode

from datasets.bases import fingerprint
from datasets.make_dataloader import ReIDData, make_transforms
from datasets.transforms import BatchTransform, brightness
from utils.checkpoint import sha256_of
from utils.metrics import Ranking, rank_embeddings
from utils.results import METRICS, RESULT_NAME
from utils.run_folder import write_text_atomic

logger = logging.getLogger(__name__)

SUMMARY_SCHEMA = 1


def do_inference(cfg: CfgNode, model: nn.Module, data: ReIDData) -> dict[str, Any]:
    """Embed query and gallery in float32 whatever SOLVER.AMP says, rank, and return the results as fractions in 0..1.

    Keys: mAP, mINP, Rank-1, Rank-5, Rank-10 (means over the trials where the protocol has several, with their sample
    standard deviations in `trial_sd`), cmc [max_rank], num_query, num_valid_query, num_trials, data_fingerprint, notes
    of the data set (images left out), and `per_query`: arrays over all queries (of all trials), see `save_results`.
    The model is left in eval mode.
    """
    _, transform = make_transforms(cfg)
    feat, luma = extract(model, data.val_loader, transform)
    if cfg.TEST.FEAT_NORM == "yes":
        feat = F.normalize(feat, dim=1)
    rerank = (cfg.TEST.RERANK.K1, cfg.TEST.RERANK.K2, cfg.TEST.RERANK.LAMBDA) if cfg.TEST.RE_RANKING else None
    return evaluate_features(data, feat, luma, cfg.TEST.MAX_RANK, rerank)


@torch.inference_mode()
def extract(
    model: nn.Module, loader: torch.utils.data.DataLoader, transform: BatchTransform
) -> tuple[torch.Tensor, np.ndarray]:
    """Return the embeddings of all images in the loader's order, float32 [N, D] on the CPU, and brightness [N]."""
    model.eval()
    device = next(model.parameters()).device
    feat, luma = [], []
    for batch in tqdm(loader, desc="embed", disable=not sys.stderr.isatty(), leave=False):
        images = batch["images"].to(device, non_blocking=True)
        labels = {"cam_label": batch["camids"].to(device), "view_label": batch["viewids"].to(device)}
        feat.append(model(transform(images), **labels).float().cpu())
        luma.append(brightness(images).cpu())
    return torch.cat(feat), torch.cat(luma).numpy()


def evaluate_features(
    data: ReIDData,
    feat: torch.Tensor,
    luma: np.ndarray,
    max_rank: int,
    rerank: tuple[int, int, float] | None = None,
) -> dict[str, Any]:
    """Return the results of `do_inference` for features [N, D] and brightness [N] of query + gallery.

    `rerank` is (k1, k2, lambda) of the k-reciprocal re-ranking, None = off.
    """
    images = data.val_loader.dataset
    pids, camids, viewids = np.array([sample[1:] for sample in images.samples], dtype=np.int64).T
    rows = np.arange(len(pids))
    trials = images.trials or ((rows[: data.num_query], rows[data.num_query :]),)
    rankings, per_query = [], []
    for trial, (query, gallery) in enumerate(trials):
        q_camids, g_camids = camids[query], camids[gallery]
        if images.trials:  # random galleries: the protocol has no cameras, so none may filter
            q_camids, g_camids = np.zeros_like(query), np.ones_like(gallery)
        labels = (pids[query], pids[gallery], q_camids, g_camids)
        ranking, _ = rank_embeddings(feat[query], feat[gallery], labels, max_rank, rerank)
        rankings.append(ranking)
        per_query.append(
            {
                "ap": ranking.ap,
                "inp": ranking.inp,
                "first_hit": ranking.first_hit,
                "num_pos": ranking.num_pos,
                "pid": pids[query],
                "camid": camids[query],
                "viewid": viewids[query],
                "brightness": luma[query],
                "path": np.array([images.samples[row].path for row in query]),
                "trial": np.full(len(query), trial),
            }
        )
    values = {name: [_metric(ranking, name) for ranking in rankings] for name in METRICS}
    results: dict[str, Any] = {name: float(np.mean(value)) for name, value in values.items()}
    if len(trials) > 1:
        results["trial_sd"] = {name: float(np.std(value, ddof=1)) for name, value in values.items()}
    query, gallery = trials[0]
    splits = {"query": [images.samples[row] for row in query], "gallery": [images.samples[row] for row in gallery]}
    return results | {
        "cmc": np.mean([ranking.cmc for ranking in rankings], axis=0),
        "num_query": len(query),
        "num_valid_query": int(np.sum(per_query[0]["first_hit"] >= 0)),
        "num_trials": len(trials),
        "data_fingerprint": fingerprint(splits),
        "notes": list(images.notes),
        "per_query": {key: np.concatenate([part[key] for part in per_query]) for key in per_query[0]},
    }


def _metric(ranking: Ranking, name: str) -> float:
    if name == "mAP":
        return float(ranking.mAP)
    if name == "mINP":
        return float(ranking.mINP)
    first_hit = ranking.first_hit[ranking.first_hit >= 0]
    return float(np.mean(first_hit < int(name.removeprefix("Rank-"))))


def log_results(results: dict[str, Any], title: str) -> None:
    """Log metrics in percent, in TransReID's lines."""
    logger.info("%s", title)
    if results["num_valid_query"] < results["num_query"]:
        logger.info("valid queries: %d / %d", results["num_valid_query"], results["num_query"])
    for note in results["notes"]:
        logger.info("%s", note)
    spread = results.get("trial_sd", {})
    for name in METRICS:
        label = f"CMC curve, Rank-{name.removeprefix('Rank-'):<3}:" if name.startswith("Rank") else f"{name}: "
        note = f" +- {spread[name]:.1%} over {results['num_trials']} trials" if name in spread else ""
        logger.info("%s%s%s", label, f"{results[name]:.1%}", note)


def save_results(
    results: dict[str, Any], folder: Path, weight: Path, epoch: int | None, settings: dict[str, Any]
) -> None:
    """Write per_query.npz and then, as the mark of a finished test, summary.json; both replace older ones whole.

    per_query.npz holds, per query: ap, inp (float), first_hit (0-based rank, -1 = no match, query excluded), num_pos,
    pid, camid, viewid, brightness (of the clean image, 0..1), path (unicode), trial. Read it with allow_pickle=False.
    `settings` says how the test was run, see `utils.results.result_settings`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "per_query.tmp.npz"
    np.savez_compressed(temporary, **results["per_query"])
    temporary.replace(folder / "per_query.npz")
    summary = {
        "schema": SUMMARY_SCHEMA,
        "epoch": epoch,
        **{name: results[name] for name in METRICS},
        **({"trial_sd": results["trial_sd"]} if "trial_sd" in results else {}),
        "num_query": results["num_query"],
        "num_valid_query": results["num_valid_query"],
        "num_trials": results["num_trials"],
        "cmc": [float(value) for value in results["cmc"]],
        "weight": str(weight),
        "weight_sha256": sha256_of(weight),
        "data_fingerprint": results["data_fingerprint"],
        "notes": results["notes"],
        "settings": settings,
    }
    write_text_atomic(folder / RESULT_NAME, json.dumps(summary, indent=2) + "\n")
