"""The criterion: which terms act in a phase, how they add up, and what is read of a step beside them."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from losses.numeric import attached_zero

if TYPE_CHECKING:
    from configs.phases import Phase
    from datasets.batch import Batch
    from model import ModelOutput

# from what the model gave for a batch to the terms' values: scalars of at least float32, before any weight, by name
Term = Callable[["ModelOutput", "Batch", "Phase"], dict[str, torch.Tensor]]


class Reading(NamedTuple):
    """A value that is logged beside the losses and has no gradient."""

    read: Callable[["ModelOutput", "Batch"], torch.Tensor]  # -> scalar on the device
    of: str = ""  # the term without whose weight there is nothing to read, "" = always read


class Criterion(nn.Module):
    """All losses of a stage: `criterion(output, batch, phase) -> (total, {name: value})`.

    `terms` holds each term by its name in phase.weights; one that gives several values stands under the name of each
    and is asked once. Those that are modules are submodules of that name. `readings` are what is logged beside them.
    """

    def __init__(self, terms: Mapping[str, Term], readings: Mapping[str, Reading]) -> None:
        super().__init__()
        self._terms = dict(terms)
        self._readings = dict(readings)
        for name, term in terms.items():
            if isinstance(term, nn.Module):
                self.add_module(name, term)

    def with_term(self, name: str, term: Term, readings: Mapping[str, Reading]) -> "Criterion":
        """Return a criterion of these terms and readings and one more term, with further readings."""
        return Criterion(self._terms | {name: term}, self._readings | dict(readings))

    def forward(
        self, output: "ModelOutput", batch: "Batch", phase: "Phase"
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the total and the parts for a model output, its batch and the phase of the epoch.

        Active are the terms whose weight in phase.weights is not 0. total is their weighted sum in the order of the
        weights, a scalar of at least float32, and depends on all that the model gave, by a gradient of 0 where no term
        reaches: DistributedDataParallel waits for a gradient of every parameter. The parts are unweighted and detached.
        Raises ValueError when the phase gives weight to a term that this criterion does not have.
        """
        weights = _active(phase)
        unknown = [name for name in weights if name not in self._terms]
        if unknown:
            known = ", ".join(self._terms)
            raise ValueError(f"the phase weighs the loss '{unknown[0]}' {weights[unknown[0]]}, but there are {known}")
        total = attached_zero(list(_tensors(output)))
        values, parts = {}, {}
        for name, weight in weights.items():
            if name not in values:
                values |= self._terms[name](output, batch, phase)
            total = total + weight * values[name]
            parts[name] = values[name].detach()
        return total, parts

    def readings(self, output: "ModelOutput", batch: "Batch", phase: "Phase") -> dict[str, torch.Tensor]:
        """Return the readings of a step by name: scalars on the device, without a wait for it."""
        return {name: self._readings[name].read(output, batch) for name in self._names_of_readings(phase)}

    def names(self, phase: "Phase") -> list[str]:
        """Return the names of what a step of the phase gives: the parts, then the readings, always in this order."""
        return [*_active(phase), *self._names_of_readings(phase)]

    def _names_of_readings(self, phase: "Phase") -> list[str]:
        weights = _active(phase)
        return [name for name, reading in self._readings.items() if not reading.of or reading.of in weights]


def _active(phase: "Phase") -> dict[str, float]:
    return {name: weight for name, weight in phase.weights.items() if weight != 0}


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors of a model output, however its fields nest them."""
    if isinstance(value, torch.Tensor):
        yield value
    elif value is not None:
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(part)
