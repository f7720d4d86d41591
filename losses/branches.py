"""Which branches of a model a loss sees, and how its values over them add up."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from utils.generators import seeded_generator
from utils.precision import at_least_float32

BranchLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # ([B, *], labels [B]) -> scalar
KINDS = ("halves", "sum", "mean")
VIEWS = ("each", "global", "concat", "global+concat")


def draw_branches(count: int, draws: int, generator: torch.Generator | None = None) -> torch.Tensor:
    """Return, bool [count] on the CPU, which of `count` branches are kept.

    `draws` branches are drawn uniformly with replacement and dropped; where that leaves none, one is drawn that stays.
    0 draws keep all. Raises ValueError without a branch and for a negative number of draws.
    """
    if count < 1 or draws < 0:
        raise ValueError(f"got {count} branches and {draws} draws, expected at least 1 and at least 0")
    kept = torch.ones(count, dtype=torch.bool)
    kept[torch.randint(count, (draws,), generator=generator)] = False
    if not kept.any():
        kept[torch.randint(count, (1,), generator=generator)] = True
    return kept


@dataclass(frozen=True)
class Draws:
    """Random branch update: `draws` of `draw_branches` in each step, from the seed and the number of the step alone."""

    draws: int = 0
    seed: int = 0

    def kept(self, count: int, batch: Mapping[str, Any]) -> list[bool] | None:
        """Return which of `count` branches the step batch["step"] trains, None = all; ValueError without a step."""
        if not self.draws:
            return None
        if "step" not in batch:
            raise ValueError("branches are drawn by the number of the step, which the batch lacks: batch['step']")
        return draw_branches(count, self.draws, seeded_generator(self.seed, batch["step"])).tolist()


EVERY = Draws()


@dataclass(frozen=True)
class Views:
    """What a loss sees of the branches, of any widths: each by itself, the global one, the others side by side, both.

    `has_global` says that the first branch is the global one; all others are parts. Raises ValueError for another kind,
    and where a kind needs a global branch and there is none.
    """

    kind: str = "each"
    has_global: bool = True

    def __post_init__(self) -> None:
        if self.kind not in VIEWS:
            raise ValueError(f"kind got '{self.kind}', expected {', '.join(VIEWS)}")
        if not self.has_global and "global" in self.kind:
            raise ValueError(f"kind got '{self.kind}' of a model without a global branch, expected each or concat")

    def __call__(self, branches: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the features of each term of the loss, from branches [B, d_i]; ValueError where there is no part."""
        if self.kind == "each":
            return list(branches)
        parts = list(branches[1:] if self.has_global else branches)
        if "concat" in self.kind and not parts:
            raise ValueError(f"kind got '{self.kind}', but the model returned no part")
        seen = [branches[0]] if "global" in self.kind else []
        return seen + ([torch.cat(parts, 1)] if "concat" in self.kind else [])


ALL_ALIKE = Views()


def over_branches(loss: Callable, *sources: Sequence[torch.Tensor]) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """Return the values [L] of a loss over L branches; a tuple of [L] where the loss gives several.

    `loss` takes one tensor, at least float32, of each of the `sources`, which hold L tensors each. Branches of equal
    shape are one batched call, others a call each. Raises ValueError when there is no branch at all.
    """
    if not sources[0]:
        raise ValueError("the model returned no branch for a loss that is switched on")
    raised = [[at_least_float32(branch) for branch in branches] for branches in sources]
    if all(branch.shape == branches[0].shape for branches in raised for branch in branches):
        return torch.vmap(loss)(*(torch.stack(branches) for branches in raised))
    values = [loss(*parts) for parts in zip(*raised, strict=True)]
    if isinstance(values[0], tuple):
        return tuple(torch.stack(part) for part in zip(*values, strict=True))
    return torch.stack(values)


@dataclass(frozen=True)
class Reduce:
    """How values [L] of a loss, the first branch's first, become one.

    halves: w v_0 + (1 - w) mean(v_1, v_2, ...), or v_0 where there is no other; sum; mean. Halves alone reads the share
    `global_weight` w. Raises ValueError for another kind, and for a share outside [0, 1].
    """

    kind: str = "halves"
    global_weight: float = 0.5

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind got '{self.kind}', expected {', '.join(KINDS)}")
        if not 0 <= self.global_weight <= 1:
            raise ValueError(f"global_weight got {self.global_weight}, expected a number in [0, 1]")

    def __call__(self, values: torch.Tensor, kept: Sequence[bool] | None = None) -> torch.Tensor:
        """Return the scalar for values [L]; of those that are not `kept` the gradient is 0, as if they were not there.

        Raises ValueError where halves are to be taken of a part of them.
        """
        if kept is not None:
            return self._of_some(values, kept)
        if self.kind == "sum":
            return values.sum()
        if self.kind == "mean":
            return values.mean()
        if len(values) == 1:
            return values[0]
        return self.global_weight * values[0] + (1 - self.global_weight) * values[1:].mean()

    def _of_some(self, values: torch.Tensor, kept: Sequence[bool]) -> torch.Tensor:
        if self.kind == "halves":
            raise ValueError("halves of branches that are drawn are not defined; expected sum or mean")
        # numbers of the host, each its own factor: a mask would be copied to the device, which a step would wait for
        total = torch.stack([value * keep for value, keep in zip(values.unbind(), kept, strict=True)]).sum()
        return total if self.kind == "sum" else total / sum(kept)


HALVES, SUM = Reduce(), Reduce("sum")


def combine_branches(
    loss: BranchLoss,
    branches: Sequence[torch.Tensor],
    labels: torch.Tensor,
    reduce: Reduce,
    kept: Sequence[bool] | None = None,
) -> torch.Tensor:
    """Return the values of a loss over the branches as one scalar; ValueError when there is no branch at all.

    `kept` as in `Reduce`.
    """
    return reduce(over_branches(lambda branch: loss(branch, labels), branches), kept)
