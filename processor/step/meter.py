"""Means of what a step gives, kept on the device, and the guard against losses that are not finite."""

import torch

from utils.distributed import num_processes, own_rank, sum_over_ranks
from utils.errors import RunError


class Meter:
    """Means of loss terms and accuracy since the last reading, kept on the device; remembers the first bad step."""

    def __init__(self, names: list[str], device: torch.device) -> None:
        self.names = names
        self._sum = torch.zeros(len(names), device=device)
        self._count = 0
        self._steps = 0
        self._bad_step = torch.zeros((), dtype=torch.int64, device=device)  # 0 = none so far
        self._bad_terms = torch.zeros(len(names), dtype=torch.bool, device=device)

    def add(self, values: list[torch.Tensor]) -> None:
        """Add the values of one step, in the order of `names`."""
        self._steps += 1
        self._count += 1
        row = torch.stack([value.detach().float() for value in values])
        self._sum += row
        bad = ~torch.isfinite(row)
        first = bad.any() & (self._bad_step == 0)
        self._bad_step = torch.where(first, self._steps, self._bad_step)
        self._bad_terms = torch.where(first, bad, self._bad_terms)

    def read(self, epoch: int) -> dict[str, float]:
        """Return the means over steps and processes and start anew, with one collective and one wait for the device.

        Raises RunError, on all processes alike, when a step was NaN or infinite on any of them.
        """
        own = torch.cat([self._bad_step.float().view(1), self._bad_terms.float(), self._sum / max(self._count, 1)])
        rows = own.new_zeros(num_processes(), len(own))  # a row for each process, so that a sum gathers
        rows[own_rank()] = own
        rows = sum_over_ranks(rows).tolist()
        bad = [row for row in rows if row[0]]
        if bad:
            bad_step = min(row[0] for row in bad)
            flags = [row[1 : len(self.names) + 1] for row in bad if row[0] == bad_step]
            terms = [name for name, *found in zip(self.names, *flags, strict=True) if any(found)]
            raise RunError(
                f"epoch {epoch}, iteration {bad_step:.0f}: {', '.join(terms)} is not finite; the last good state is "
                "kept. Train anew in another OUTPUT_DIR with a lower SOLVER.BASE_LR, with SOLVER.GRAD_CLIP, or "
                "SOLVER.AMP off"
            )
        self._sum.zero_()
        self._count = 0
        columns = zip(*(row[len(self.names) + 1 :] for row in rows), strict=True)
        return {name: sum(values) / len(rows) for name, values in zip(self.names, columns, strict=True)}
