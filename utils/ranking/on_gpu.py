"""Distances and stable ranking on a GPU: what utils.ranking.distance and rank do on the CPU, on torch tensors.

The product is in true float32, whatever torch is set to, and a row is sorted whole: a GPU does that faster than it can
count. Nothing needs float64.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from utils.precision import without_autocast
from utils.ranking.distance import Distances, check_norms, check_pair, check_shape, row_blocks, widened_blocks
from utils.ranking.protocol import SameIdentity


@contextmanager
def true_float32(tensor: torch.Tensor) -> Iterator[None]:
    """Multiply float32 matrices in float32 within this context, also where TF32, bfloat16 or autocast are on."""
    settings = torch.backends.cuda.matmul
    name, exact = ("fp32_precision", "ieee") if hasattr(settings, "fp32_precision") else ("allow_tf32", False)
    before = getattr(settings, name)
    setattr(settings, name, exact)
    try:
        with without_autocast(tensor):
            yield
    finally:
        setattr(settings, name, before)


@torch.no_grad()
def device_distances(qf: torch.Tensor, gf: torch.Tensor) -> Distances:
    """Return the distances of `feature_distances`, made on the device of features [Q, D] and [G, D]; errors as there.

    They are those on the CPU up to float32 rounding.
    """
    check_pair(qf, gf)
    qf, gf = qf.detach(), gf.detach()
    q_norms, g_norms = _squared_norms(qf, "query"), _squared_norms(gf, "gallery")

    @torch.no_grad()
    def rows(start: int, stop: int) -> torch.Tensor:
        query, whole = qf[start:stop].float(), gf.dtype == torch.float32
        with true_float32(gf):
            parts = [
                torch.addmm(g_norms[first:end], query, gf[first:end].float().T, alpha=-2)
                for first, end in ([(0, len(gf))] if whole else widened_blocks(gf))
            ]
        return (parts[0] if whole else torch.cat(parts, dim=1)).add_(q_norms[start:stop, None])  # [c, G]

    return Distances((len(qf), len(gf)), rows)


@torch.no_grad()
def device_unit_features(values: torch.Tensor, name: str) -> torch.Tensor:
    """Return what `utils.ranking.distance.unit_features` does, float32 [N, D] on the device of `values`."""
    check_shape(values, name)
    feat = values.detach().float()
    length = _squared_norms(feat, name).sqrt()
    return feat / torch.where(length > 0, length, 1)[:, None]


def _squared_norms(feat: torch.Tensor, name: str) -> torch.Tensor:
    """Return what `utils.ranking.distance.stored_norms` does, float32 [N] on the device of features [N, D]."""
    blocks = row_blocks(len(feat), 2 * feat.shape[1] * torch.float32.itemsize)
    norms = torch.cat([feat[start:stop].float().square().sum(1) for start, stop in blocks])
    check_norms(norms.cpu().numpy(), name)
    return norms


def device_positions(rows: torch.Tensor, pairs: SameIdentity) -> np.ndarray:
    """Return the 0-based places of `pairs` in the stable ascending order of their rows [c, G], int64 [M].

    Junk by camera is counted, what is left out is not.
    """
    if pairs.left_out is not None:
        rows = rows.masked_fill(torch.from_numpy(pairs.left_out).to(rows.device), torch.inf)  # behind all others
    order = rows.argsort(dim=1, stable=True)  # [c, G]
    places = torch.arange(rows.shape[1], device=rows.device).expand_as(order)
    place_of = torch.empty_like(order).scatter_(1, order, places)  # the inverse of each row's order
    query, gallery = (torch.from_numpy(part).to(rows.device) for part in (pairs.query, pairs.gallery))
    return place_of[query, gallery].cpu().numpy()
