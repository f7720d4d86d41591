"""Which terms there are for sets of modalities, built from the configuration.

The identity loss sees every set that a sample has, the losses on distances see RGB alone.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn
from yacs.config import CfgNode

from configs.keys.multimodal import ALIGN, NORM
from configs.phases import PAIR_LOSSES
from configs.readings import ACC, QUERY_ACC
from losses.alignment import VALID, AlignTerm, NormTerm
from losses.criterion import Criterion, Reading, Term
from losses.identity import identity_losses
from losses.numeric import weighted_mean
from losses.readings import accuracy
from losses.transreid import dark_reading, make_terms, smoothing_of

if TYPE_CHECKING:
    from configs.phases import Phase
    from datasets.batch import Batch
    from model import ModelOutput


def make_multimodal_loss(cfg: CfgNode, sets: Sequence[Sequence[str]], num_classes: int, feat_dim: int) -> Criterion:
    """Return the criterion of a model of these sets of modalities, RGB alone first, then by size.

    Triplet, TripletX and SupCon, where they are switched on, see the rows of RGB alone.
    """
    align, norm = cfg.LOSS.ALIGN, cfg.LOSS.FEAT_NORM
    of_images = make_terms(cfg, num_classes, feat_dim)
    terms: dict[str, Term] = {
        **{name: OfRgb(term) if name in PAIR_LOSSES else term for name, term in of_images.items()},
        "id": SetIdentityTerm(smoothing_of(cfg)),
        ALIGN: AlignTerm(align.T, sizes_of(sets[1:]), align.FORM),
        NORM: NormTerm(norm.TARGET, norm.BAND),
    }
    readings = {ACC: Reading(accuracy, of="id"), QUERY_ACC: Reading(query_accuracy, of="id")}
    return Criterion(terms, dark_reading(cfg) | readings)


def sizes_of(sets: Sequence[Sequence[str]]) -> tuple[int, ...]:
    """Return how many sets there are of each size, the smallest first; ValueError unless they are in that order."""
    sizes = [len(names) for names in sets]
    if sizes != sorted(sizes):
        raise ValueError(f"expected the sets in the order of their sizes, got {[*map(list, sets)]}")
    return tuple(Counter(sizes).values())


class SetIdentityTerm(nn.Module):
    """The term id over sets of modalities: the mean over the samples that have a set, then over the sets."""

    def __init__(self, smoothing: float = 0.0) -> None:
        super().__init__()
        self.smoothing = smoothing

    def forward(self, output: "ModelOutput", batch: "Batch", phase: "Phase") -> dict[str, torch.Tensor]:
        """Return the term; a set that no sample has does not count, and where there is none it is 0."""
        logits = torch.stack(output.logits)  # [L, B, C]
        labels = batch["pids"].expand(len(logits), -1)
        losses = identity_losses(logits.flatten(0, 1), labels.flatten(), self.smoothing).view_as(labels)
        there = output.extra[VALID].t()  # [L, B]
        by_set = (losses * there).sum(1) / there.sum(1).clamp(min=1)
        return {"id": weighted_mean(by_set, there.any(1))}

    def extra_repr(self) -> str:
        """Return the smoothing for printing."""
        return f"smoothing={self.smoothing}"


class OfRgb(nn.Module):
    """A term of images that sees the first set, RGB, alone; its features after the neck stand for a projection."""

    def __init__(self, term: Term) -> None:
        super().__init__()
        self.term = term

    def forward(self, output: "ModelOutput", batch: "Batch", phase: "Phase") -> dict[str, torch.Tensor]:
        """Return the values of the term."""
        seen = output._replace(
            logits=output.logits[:1], pre_bn=output.pre_bn[:1], bnneck=output.bnneck[:1], projection=output.bnneck[0]
        )
        return self.term(seen, batch, phase)


def query_accuracy(output: "ModelOutput", batch: "Batch") -> torch.Tensor:
    """Return the share of rows of sets of query modalities, of those that samples have, whose identity is named."""
    named = torch.stack(output.logits[1:], 1).argmax(2) == batch["pids"][:, None]  # [B, L - 1]
    return weighted_mean(named.float(), output.extra[VALID][:, 1:])
