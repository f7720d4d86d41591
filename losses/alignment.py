"""Alignment of queries with the gallery: an identity's features from any set of modalities lie beside those from RGB.

Of cosines S_ij / T between rows i and j, and Y_ij = 1 for one identity, the loss of a row with a positive is
    - sum_j (Y_ij / sum_j Y_ij) log softmax(S_i)_j
a mean over these rows of S, and over those of its transpose, half of both. With p positives in each row its minimum is
log p, not 0. The form `kl` is IRRA's SDM with the scale 1 / T.
References: Khosla et al., Supervised Contrastive Learning, NeurIPS 2020, equation 2 (the mean over positives outside
the logarithm); Jiang and Ye, IRRA, CVPR 2023, equations 1 to 5 (SDM).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from configs.keys.multimodal import ALIGN, ALIGN_FORMS, NORM
from losses.image_text import sdm_loss
from losses.numeric import attached_zero, check_labels, lowest, unit_rows, weighted_mean
from utils.precision import at_least_float32, without_autocast

if TYPE_CHECKING:
    from configs.phases import Phase
    from datasets.batch import Batch
    from model import ModelOutput

VALID = "valid"  # of ModelOutput.extra: bool [B, L], which sets of modalities each sample has
CE, KL = ALIGN_FORMS


def alignment_loss(
    query: torch.Tensor,
    gallery: torch.Tensor,
    q_labels: torch.Tensor,
    g_labels: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """Return the alignment of N queries with M gallery features, a scalar of at least float32.

    query [N, D] and gallery [M, D] are raw features in any float type; q_labels is [N], g_labels [M]; temperature is
    above 0. Where no row has a positive the loss is a differentiable 0. Raises ValueError for other shapes.
    """
    check_labels(query, q_labels)
    check_labels(gallery, g_labels)
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(f"queries are {query.shape[1]} wide, but the gallery {gallery.shape[1]}")
    if not len(query) or not len(gallery):
        return attached_zero([query, gallery])
    same = q_labels[:, None] == g_labels[None, :]
    return _both_ways(_cosines(query, gallery) / temperature, same, torch.ones_like(same))


def align_sets(rows: torch.Tensor, valid: torch.Tensor, pids: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return `alignment_loss` of each set of modalities with the first one, [C], at least float32.

    rows [1 + C, B, D] are the features of every set, the gallery's first; valid, bool [B, 1 + C], says which there
    are, pids are [B]. Rows that are not valid are finite and take no part; a set without any has the value 0.
    """
    there = valid.t()
    among = there[1:, :, None] & there[0]  # [C, B, B]
    same = (pids[:, None] == pids[None, :]).expand_as(among)
    cosines = _cosines(rows[1:].flatten(0, 1), rows[0])  # one product
    return _both_ways(cosines.unflatten(0, (len(rows) - 1, len(pids))) / temperature, same, among)


def sdm_of_sets(rows: torch.Tensor, valid: torch.Tensor, pids: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return IRRA's SDM of each set of modalities with the first one, [C], of scale 1 / temperature; as `align_sets`.

    A sample makes a pair where it has both sets.
    """
    there = valid.t()

    def loss(own: torch.Tensor, among: torch.Tensor) -> torch.Tensor:
        return sdm_loss(rows[0], own, pids, 1 / temperature, among=among)

    return torch.vmap(loss)(rows[1:], there[1:] & there[0])


def norm_penalty(feat: torch.Tensor, target: float, band: float, valid: torch.Tensor | None = None) -> torch.Tensor:
    """Return mean_i of max(0, |f_i| - target - band)^2 + max(0, target - band - |f_i|)^2, a scalar, at least float32.

    feat is [..., D] in any float type; `valid`, bool [...], leaves out all other rows, which are finite. Without rows
    the penalty is a differentiable 0.
    """
    if not feat.numel():
        return attached_zero([feat])
    lengths = torch.linalg.vector_norm(at_least_float32(feat), dim=-1)
    beyond = ((lengths - target).abs() - band).clamp(min=0).square()
    return beyond.mean() if valid is None else weighted_mean(beyond, valid)


def mean_by_size(values: torch.Tensor, there: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """Return the mean over sizes of the mean over sets of a size, of values [C] that are `there`, bool [C].

    `sizes` are the numbers of sets of one modality, of two, ..., in the order of the values; a size of which no set is
    there does not count. 0 where none is.
    """
    parts = list(zip(values.split(list(sizes)), there.split(list(sizes)), strict=True))
    means = torch.stack([weighted_mean(*part) for part in parts])
    return weighted_mean(means, torch.stack([part.any() for _, part in parts]))


def _cosines(query: torch.Tensor, gallery: torch.Tensor) -> torch.Tensor:
    with without_autocast(query):
        return unit_rows(query) @ unit_rows(gallery).t()


def _both_ways(logits: torch.Tensor, same: torch.Tensor, among: torch.Tensor) -> torch.Tensor:
    """Return the loss [...] of logits [..., N, M]; `same` and `among`, bool of their shape: Y, and who takes part."""
    there = _mean_over_rows(logits, same, among)
    return (there + _mean_over_rows(logits.mT, same.mT, among.mT)) / 2


def _mean_over_rows(logits: torch.Tensor, same: torch.Tensor, among: torch.Tensor) -> torch.Tensor:
    positive = same & among
    log_shares = logits.masked_fill(~among, lowest(logits)).log_softmax(-1)
    counts = positive.sum(-1)  # [..., N]
    by_row = -(positive * log_shares).sum(-1) / counts.clamp(min=1)
    return by_row.sum(-1) / (counts > 0).sum(-1).clamp(min=1)


class AlignTerm(nn.Module):
    """The term align of a model's sets of modalities, after the neck; `sizes` as in `mean_by_size`.

    `form` is ce or kl; the temperature is above 0. ValueError otherwise.
    """

    def __init__(self, temperature: float, sizes: Sequence[int], form: str = CE) -> None:
        super().__init__()
        if form not in ALIGN_FORMS:
            raise ValueError(f"form got '{form}', expected {' or '.join(ALIGN_FORMS)}")
        if not temperature > 0:
            raise ValueError(f"temperature got {temperature}, expected a number above 0")
        self.temperature = temperature
        self.sizes = tuple(sizes)
        self.form = form

    def forward(self, output: "ModelOutput", batch: "Batch", phase: "Phase") -> dict[str, torch.Tensor]:
        """Return the term; sets of which the batch has no row do not count."""
        rows, valid = torch.stack(output.bnneck), output.extra[VALID]
        by_set = (align_sets if self.form == CE else sdm_of_sets)(rows, valid, batch["pids"], self.temperature)
        return {ALIGN: mean_by_size(by_set, valid[:, 1:].any(0), self.sizes)}

    def extra_repr(self) -> str:
        """Return the settings for printing."""
        return f"temperature={self.temperature:g}, sizes={self.sizes}, form={self.form}"


class NormTerm(nn.Module):
    """The term norm: `norm_penalty` on the features after the neck, of every set that a sample has."""

    def __init__(self, target: float, band: float) -> None:
        super().__init__()
        self.target = target
        self.band = band

    def forward(self, output: "ModelOutput", batch: "Batch", phase: "Phase") -> dict[str, torch.Tensor]:
        """Return the term."""
        rows = torch.stack(output.bnneck, 1)  # [B, L, D]
        return {NORM: norm_penalty(rows, self.target, self.band, output.extra[VALID])}

    def extra_repr(self) -> str:
        """Return the band for printing."""
        return f"target={self.target:g}, band={self.band:g}"
