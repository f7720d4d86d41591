"""Distillation: the student's logits, embedding and relations between images come near those of a teacher.

References: Hinton et al., Distilling the Knowledge in a Neural Network, 2015; Park et al., Relational Knowledge
Distillation, CVPR 2019, here with a softmax over cosines in place of distances.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from losses.branches import HALVES, Reduce, over_branches
from losses.numeric import attached_zero, unit_rows
from utils.precision import at_least_float32, without_autocast

if TYPE_CHECKING:
    from configs.phases import Phase
    from datasets.batch import Batch
    from model import ModelOutput

EMBEDDING = "embedding"  # of a teacher's ModelOutput.extra: [B, D]


def distill_logits(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float, symmetric: bool = False
) -> torch.Tensor:
    """Return T^2 KL(softmax(teacher / T) || softmax(student / T)), mean over the rows: a scalar of at least float32.

    Both are logits [B, C] in any float type; `symmetric` takes the mean of both directions. No gradient reaches the
    teacher. Without rows the result is a differentiable 0. Raises ValueError for other shapes and a temperature <= 0.
    """
    _check(student, teacher, temperature)
    if student.shape != teacher.shape:
        raise ValueError(f"logits are {list(student.shape)} and of the teacher {list(teacher.shape)}")
    if not len(student):
        return attached_zero([student])
    student, teacher = at_least_float32(student) / temperature, at_least_float32(teacher.detach()) / temperature
    own, taught = F.log_softmax(student, 1), F.log_softmax(teacher, 1)
    divergence = _divergence(taught, own)
    if symmetric:
        divergence = (divergence + _divergence(own, taught)) / 2
    return temperature**2 * divergence.mean()


def distill_features(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Return 1 - cosine of student and teacher, mean over the rows: a scalar of at least float32.

    Both are features [B, D] in any float type; a zero row has the cosine 0. No gradient reaches the teacher. Without
    rows the result is a differentiable 0. Raises ValueError for other shapes.
    """
    _check(student, teacher)
    if student.shape != teacher.shape:
        raise ValueError(f"features are {list(student.shape)} and of the teacher {list(teacher.shape)}")
    if not len(student):
        return attached_zero([student])
    return (1 - (unit_rows(student) * unit_rows(teacher.detach())).sum(1)).mean()


def distill_relations(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the mean over rows of KL(teacher's relations || student's), a scalar of at least float32.

    The relations of row i are the softmax over j != i of cos(x_i, x_j) / temperature. student is [B, D] and teacher
    [B, E] in any float type. No gradient reaches the teacher. A single row has no relation: the result of fewer than
    two rows is a differentiable 0. Raises ValueError for other shapes and a temperature <= 0.
    """
    _check(student, teacher, temperature)
    if len(student) < 2:
        return attached_zero([student])
    own, taught = (F.log_softmax(_cosines_of_others(x) / temperature, 1) for x in (student, teacher.detach()))
    return _divergence(taught, own).mean()


def _cosines_of_others(feat: torch.Tensor) -> torch.Tensor:
    """Return cos(x_i, x_j) of rows [B, D] for all j != i: [B, B - 1], j ascending."""
    with without_autocast(feat):
        unit = unit_rows(feat)
        cosines, count = unit @ unit.t(), len(unit)
    # the diagonal is every (count + 1)-th entry: drop the first, and the last of each row of the rest
    return cosines.flatten()[1:].view(count - 1, count + 1)[:, :-1].reshape(count, count - 1)


def _divergence(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """Return KL(p || q) of each row [B] for logarithms [B, C] of distributions."""
    return (log_p.exp() * (log_p - log_q)).sum(1)


def _check(student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0) -> None:
    if student.ndim != 2 or teacher.ndim != 2 or len(student) != len(teacher):
        raise ValueError(
            f"expected two dimensions and equal rows of student and teacher, got {list(student.shape)} and "
            f"{list(teacher.shape)}"
        )
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")


class Lesson(NamedTuple):
    """What of a teacher is learnt: the weights of its parts, 0 = off, and the temperatures."""

    w_logit: float = 1.0
    temperature: float = 4.0
    symmetric: bool = False
    w_feat: float = 0.0
    w_relation: float = 0.0
    t_relation: float = 0.1

    @property
    def embeds(self) -> bool:
        """Whether a part compares embeddings."""
        return self.w_feat > 0 or self.w_relation > 0


class DistillTerm(nn.Module):
    """The term `distill`: the weighted sum of the parts of a lesson, against the ModelOutput batch["teacher"].

    `places` are the student's branches whose logits are compared, in the order of the teacher's `logits`; `reduce`
    makes their values one. `scale` is that of the student's logits where its heads return cosines. `embedding` makes
    [B, D] of the student's output, the teacher's is extra["embedding"] [B, E]. `widths` are D and E: where they differ
    and features are compared, the student's go through a linear layer without bias, which no test needs.
    """

    def __init__(
        self,
        lesson: Lesson,
        places: Sequence[int],
        embedding: Callable[["ModelOutput"], torch.Tensor],
        widths: tuple[int, int],
        scale: float = 1.0,
        reduce: Reduce = HALVES,
    ) -> None:
        super().__init__()
        self.lesson, self.places, self.embedding, self.scale, self.reduce = lesson, places, embedding, scale, reduce
        differ = lesson.w_feat > 0 and widths[0] != widths[1]
        self.projection = nn.Linear(*widths, bias=False) if differ else nn.Identity()

    def forward(self, output: "ModelOutput", batch: "Batch", phase: "Phase") -> dict[str, torch.Tensor]:
        """Return the term; the teacher saw the same images in the same order."""
        lesson, teacher, parts = self.lesson, batch["teacher"], []
        if lesson.w_logit > 0:
            student = [self.scale * at_least_float32(output.logits[place]) for place in self.places]
            parts.append(lesson.w_logit * self.reduce(over_branches(self._of_logits, student, teacher.logits)))
        if lesson.embeds:
            own, taught = at_least_float32(self.embedding(output)), teacher.extra[EMBEDDING]
            if lesson.w_feat > 0:
                parts.append(lesson.w_feat * distill_features(self.projection(own), taught))
            if lesson.w_relation > 0:
                parts.append(lesson.w_relation * distill_relations(own, taught, lesson.t_relation))
        return {"distill": torch.stack(parts).sum()}

    def _of_logits(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        return distill_logits(student, teacher, self.lesson.temperature, self.lesson.symmetric)

    def extra_repr(self) -> str:
        """Return the settings for printing."""
        return f"{self.lesson}, branches {list(self.places)}, {self.reduce}"


def teacher_accuracy(output: "ModelOutput", batch: "Batch") -> torch.Tensor:
    """Return the share of images whose identity the teacher's first compared classifier names."""
    return (batch["teacher"].logits[0].argmax(1) == batch["pids"]).float().mean()
