"""Losses between images and their captions, of which row i shows row i: SDM, ITC and CMPM.

References: Jiang and Ye, Cross-Modal Implicit Relation Reasoning and Aligning for Text-to-Image Person Retrieval, CVPR
2023, equations 1 to 5 (SDM); Radford et al., Learning Transferable Visual Models From Natural Language Supervision,
ICML 2021, figure 3 (ITC); Zhang and Lu, Deep Cross-Modal Projection Learning for Image-Text Matching, ECCV 2018,
equations 1 to 5 (CMPM).
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from configs.keys.irra import MASKED_WORDS
from losses.numeric import attached_zero, check_labels, lowest, unit_rows, weighted_mean
from losses.own_rows import mean_of_own_rows
from utils.precision import at_least_float32, without_autocast

if TYPE_CHECKING:
    from configs.phases import Phase
    from datasets.batch import Batch
    from model import ModelOutput

EPS = 1e-8  # added to target shares: a unit of probability on a wrong pair costs -log(EPS) = 18.42
TEXT = 1  # branch of a ModelOutput, after that of the images
LOGITS, TARGETS = "mlm_logits", "mlm_targets"  # of ModelOutput.extra, of the masked words
TARGET_NORMS = {"l1": 1, "l2": 2}  # of a row of targets


def sdm_loss(
    image: torch.Tensor,
    text: torch.Tensor,
    pids: torch.Tensor,
    scale: float = 50.0,
    image_ids: torch.Tensor | None = None,
    soft_label: float = 0.3,
    among: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the similarity distribution matching of N pairs, a scalar of at least float32.

    It is KL(softmax_j(scale cos_ij) || targets), a mean over the rows, from images to texts plus from texts to images;
    targets share the pairs of one identity alike. image and text are raw features [N, D] in any float type, pids [N].
    With image_ids [N], pairs of one image count 1 and others of its identity `soft_label`. `among`, bool [N], leaves
    out all other pairs, as rows and as what a row is compared with; their features are finite. Without rows the loss
    is a differentiable 0. Raises ValueError for other shapes.
    """
    _check_pairs(image, text, pids)
    if among is not None:
        check_labels(image, among)
    same = (pids[:, None] == pids[None, :]).to(at_least_float32(image).dtype)  # [N, N], symmetric
    if image_ids is not None:
        check_labels(image, image_ids)
        own = (image_ids[:, None] == image_ids[None, :]).to(same.dtype)
        same = soft_label * (same - own) + own
    if not len(image):
        return attached_zero([image, text])
    logits = scale * _products(unit_rows(image), unit_rows(text))
    same = same if among is None else same * among
    log_targets = (F.normalize(same, p=1, dim=1) + EPS).log()
    return _divergence(logits, log_targets, among) + _divergence(logits.t(), log_targets, among)


def itc_loss(image: torch.Tensor, text: torch.Tensor, scale: float = 50.0) -> torch.Tensor:
    """Return CLIP's contrast of N pairs, a scalar of at least float32.

    It is the mean of both directions' cross-entropy of scale * cosines, in which row i belongs to row i alone, also
    where another row shows the same identity. image and text are raw features [N, D] in any float type. Without rows
    the loss is a differentiable 0. Raises ValueError for other shapes.
    """
    _check_pairs(image, text)
    if not len(image):
        return attached_zero([image, text])
    logits = scale * _products(unit_rows(image), unit_rows(text))
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.t(), own)) / 2


def cmpm_loss(image: torch.Tensor, text: torch.Tensor, pids: torch.Tensor, target: str = "l1") -> torch.Tensor:
    """Return the cross-modal projection matching of N pairs, a scalar of at least float32.

    As `sdm_loss` with hard targets, but of the lengths of the projections, v_i . t_j / |t_j| and t_i . v_j / |v_j|.
    `target` divides the targets of a row by their sum (l1) or by their Euclidean norm (l2), whose shares of n pairs add
    up to sqrt(n), so that the loss may be negative. Raises ValueError for another target, and for other shapes.
    """
    _check_pairs(image, text, pids)
    if target not in TARGET_NORMS:
        raise ValueError(f"target got '{target}', expected {' or '.join(TARGET_NORMS)}")
    if not len(image):
        return attached_zero([image, text])
    to_text = _products(at_least_float32(image), unit_rows(text))
    to_image = _products(at_least_float32(text), unit_rows(image))
    same = (pids[:, None] == pids[None, :]).to(to_text.dtype)
    log_targets = (F.normalize(same, p=TARGET_NORMS[target], dim=1) + EPS).log()
    return _divergence(to_text, log_targets) + _divergence(to_image, log_targets)


def _products(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    with without_autocast(left):
        return left @ right.t()


def _divergence(logits: torch.Tensor, log_targets: torch.Tensor, among: torch.Tensor | None = None) -> torch.Tensor:
    """Return the mean over rows of sum_j p_j (log p_j - log_targets_j), p = softmax of the row; both are [N, N].

    `among`, bool [N], says which rows and columns there are.
    """
    if among is not None:
        logits = logits.masked_fill(~among, lowest(logits))
    log_shares = logits.log_softmax(1)
    by_row = (log_shares.exp() * (log_shares - log_targets)).sum(1)
    return by_row.mean() if among is None else weighted_mean(by_row, among)


def _check_pairs(image: torch.Tensor, text: torch.Tensor, pids: torch.Tensor | None = None) -> None:
    """Raise ValueError unless both are [N, D] and pids [N]; other shapes would broadcast to a wrong loss."""
    if image.ndim != 2 or image.shape != text.shape:
        raise ValueError(f"expected images and texts [N, D] alike, got {list(image.shape)} and {list(text.shape)}")
    if pids is not None:
        check_labels(image, pids)


class SdmTerm(nn.Module):
    """The term sdm; `soft_label` below 1 counts pairs of one identity but of other images by so much."""

    def __init__(self, scale: float = 50.0, soft_label: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.soft_label = soft_label

    def forward(self, output: "ModelOutput", batch: "Batch", phase: "Phase") -> dict[str, torch.Tensor]:
        """Return the term of the features before any neck."""
        image_ids = batch["image_ids"] if self.soft_label < 1 else None
        image, text = output.pre_bn
        return {"sdm": sdm_loss(image, text, batch["pids"], self.scale, image_ids, self.soft_label)}

    def extra_repr(self) -> str:
        """Return the settings for printing."""
        return f"scale={self.scale:g}, soft_label={self.soft_label}"


class ItcTerm(nn.Module):
    """The term itc."""

    def __init__(self, scale: float = 50.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, output: "ModelOutput", batch: "Batch", phase: "Phase") -> dict[str, torch.Tensor]:
        """Return the term of the features before any neck."""
        return {"itc": itc_loss(*output.pre_bn, self.scale)}

    def extra_repr(self) -> str:
        """Return the scale for printing."""
        return f"scale={self.scale:g}"


class CmpmTerm(nn.Module):
    """The term cmpm; `target` l1 or l2."""

    def __init__(self, target: str = "l1") -> None:
        super().__init__()
        self.target = target

    def forward(self, output: "ModelOutput", batch: "Batch", phase: "Phase") -> dict[str, torch.Tensor]:
        """Return the term of the features before any neck."""
        return {"cmpm": cmpm_loss(*output.pre_bn, batch["pids"], self.target)}

    def extra_repr(self) -> str:
        """Return the norm of the targets for printing."""
        return f"target={self.target}"


def masked_word_term(output: "ModelOutput", batch: "Batch", phase: "Phase") -> dict[str, torch.Tensor]:
    """Return the term mlm: the mean cross-entropy over the masked words of all processes, each of which has its own.

    Raises ValueError for an output without targets: of a batch that asks for no words.
    """
    if TARGETS not in output.extra:
        raise ValueError(
            f"the loss {MASKED_WORDS} has the weight {phase.weights[MASKED_WORDS]:g}, but the batch asks for no words: "
            "it needs mlm_ids and mlm_labels beside caption_ids (datasets.tokens.mask_tokens makes them)"
        )
    logits = at_least_float32(output.extra[LOGITS])
    return {MASKED_WORDS: mean_of_own_rows(F.cross_entropy(logits, output.extra[TARGETS], reduction="none"))}


def masked_word_accuracy(output: "ModelOutput", batch: "Batch") -> torch.Tensor:
    """Return the share of the masked words, of all processes, that are named right."""
    return mean_of_own_rows((output.extra[LOGITS].argmax(1) == output.extra[TARGETS]).float())


def text_accuracy(output: "ModelOutput", batch: "Batch") -> torch.Tensor:
    """Return the share of captions whose identity the classifier names."""
    return (output.logits[TEXT].argmax(1) == batch["pids"]).float().mean()
