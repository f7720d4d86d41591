"""CMC and mAP of matrices: under TransReID's names, and of similarities; on `utils.ranking.rank`."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from utils.ap_rules import STANDARD
from utils.errors import ConfigError, DataError
from utils.ranking.distance import Distances, as_array, matrix_distances
from utils.ranking.protocol import Protocol
from utils.ranking.rank import Array, make_distances, rank

FEAT_NORM = {True: True, False: False, "yes": True, "no": False}


def eval_func(
    distmat: Array,
    q_pids: Any,
    g_pids: Any,
    q_camids: Any,
    g_camids: Any,
    max_rank: int = 50,
    ap: str = STANDARD,
    depth: int | None = None,
) -> tuple[np.ndarray, float]:
    """Return (CMC float32 [max_rank], mAP or, with a depth k, mAP@k) of a distance matrix, as TransReID's function.

    distmat is [Q, G], smaller = more alike; labels are integer arrays or lists. The CMC is padded with its last value
    where the gallery is shorter than max_rank. `ap` (standard or trapezoid), `depth` (AP at so many places, None = at
    all) and errors are those of `utils.ranking.rank.rank`.
    """
    protocol = Protocol(q_pids, g_pids, q_camids, g_camids)
    ranking = rank(matrix_distances(distmat), protocol, max_rank, ap=ap, depth=depth)
    mean_ap = ranking.mAP if depth is None else float(np.nanmean(ranking.ap_at))
    return ranking.cmc.astype(np.float32), mean_ap


def eval_similarity(similarity: Array, q_pids: Any, g_pids: Any, max_rank: int = 10) -> dict[str, Any]:
    """Return how well similarities [Q, G], larger = more alike, rank a gallery; no pair is junk.

    Keys, as fractions: cmc float64 [max_rank], mAP, mINP (means over the queries with a match in the gallery), ap and
    inp float64 [Q] (NaN without a match), num_valid_query. Ties go to the smaller gallery index. pids are integer
    arrays or lists. Raises DataError where shapes disagree, a similarity is not finite or no query has a match,
    ConfigError for max_rank below 1. Reference: Jiang and Ye, IRRA, CVPR 2023, section 4 (the protocol).
    """
    if similarity.ndim != 2:
        raise DataError(f"the similarities have shape {list(similarity.shape)}; need [queries, gallery]")
    num_query, num_gallery = similarity.shape

    def rows(start: int, stop: int) -> np.ndarray:
        values = as_array(similarity[start:stop])
        # nothing below 0 is known to unsigned integers
        return -values if values.dtype.kind == "f" else -values.astype(np.float64)

    cameras = (np.zeros(num_query, dtype=np.int64), np.ones(num_gallery, dtype=np.int64))  # of their own: no junk
    ranking = rank(Distances((num_query, num_gallery), rows), Protocol(q_pids, g_pids, *cameras), max_rank)
    figures = {name: getattr(ranking, name) for name in ("cmc", "mAP", "mINP", "ap", "inp")}
    return figures | {"num_valid_query": int((ranking.num_pos > 0).sum())}


class R1_mAP_eval:
    """TransReID's evaluator: collects embeddings batch by batch, then ranks.

    The first `num_query` images are the queries, the others the gallery. `feat_norm` (bool or TransReID's 'yes'/'no')
    L2-normalises the features; `reranking` replaces the distances by k-reciprocal ones of k1, k2, lambda_value.
    """

    def __init__(
        self,
        num_query: int,
        max_rank: int = 50,
        feat_norm: bool | str = True,
        reranking: bool = False,
        k1: int = 50,
        k2: int = 15,
        lambda_value: float = 0.3,
    ) -> None:
        if feat_norm not in FEAT_NORM:
            raise ConfigError(f"feat_norm {feat_norm!r} is unknown; use True, False, 'yes' or 'no'")
        self.num_query = num_query
        self.max_rank = max_rank
        self.feat_norm = FEAT_NORM[feat_norm]
        self.reranking = reranking
        self.rerank_options = (k1, k2, lambda_value)
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self.feats: list[torch.Tensor] = []
        self.pids: list[int] = []
        self.camids: list[int] = []

    def update(self, output: tuple[torch.Tensor, Any, Any]) -> None:
        """Add a batch (features [B, D], pids [B], camids [B]); it is kept as float32 on the CPU."""
        feat, pids, camids = output
        self.feats.append(feat.detach().float().cpu())
        self.pids.extend(as_array(pids).tolist())
        self.camids.extend(as_array(camids).tolist())

    def compute(
        self,
    ) -> tuple[np.ndarray, float, np.ndarray | None, list[int], list[int], torch.Tensor, torch.Tensor]:
        """Return (cmc, mAP, distmat, pids, camids, qf, gf) of all images so far.

        cmc is float32 [max_rank]; qf [Q, D] and gf [G, D] are the features as ranked; distmat is float32 [Q, G] with
        re-ranking and None without, where no such matrix is made. Raises DataError as `make_distances` and `rank` do.
        """
        if not self.feats:
            raise DataError("no image was added before compute(); call update() with each batch")
        feats = torch.cat(self.feats)
        if self.feat_norm:
            feats = F.normalize(feats, dim=1)
        qf, gf = feats[: self.num_query], feats[self.num_query :]
        sides = (slice(None, self.num_query), slice(self.num_query, None))
        labels = [values[side] for values in (self.pids, self.camids) for side in sides]
        distances = make_distances(qf, gf, rerank=self.rerank_options if self.reranking else None)
        ranking = rank(distances, Protocol(*labels), self.max_rank)
        distmat = distances.rows(0, len(qf)) if self.reranking else None
        return ranking.cmc.astype(np.float32), ranking.mAP, distmat, self.pids, self.camids, qf, gf
