"""One pass over the distances of a trial: each block of rows is made once, and all that looks at it looks at the same.

A distance made twice can round twice; so ranks, rates, slices and rank lists agree, too.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol as Interface

import numpy as np
import torch

from utils.ranking.distance import Distances, as_array
from utils.ranking.protocol import Grouped, SameIdentity, finite_range, same_identity


class Block:
    """The distances of some successive queries to the whole gallery, and their pairs of one identity.

    Raises DataError where a distance is not finite.
    """

    def __init__(self, start: int, rows: np.ndarray | torch.Tensor, pairs: SameIdentity) -> None:
        self.start = start  # the query of row 0
        self.queries = slice(start, start + len(rows))
        self.rows = rows  # [c, G], on the GPU where they are made there
        self.pairs = pairs
        self.low, self.high = finite_range(rows, start)  # the smallest and the largest distance of each row, [c] each

    @cached_property
    def values(self) -> np.ndarray:
        """The distances [c, G] on the CPU."""
        return as_array(self.rows)


class Look(Interface):
    """What wants to know something of all distances; it keeps no block."""

    def add(self, block: Block) -> None: ...


def no_looks(*_: object) -> tuple[()]:
    """Nothing but the ranks of a trial is wanted."""
    return ()


def look_at(distances: Distances, labels: Grouped, looks: Sequence[Look]) -> None:
    """Show every block of distances [Q, G], about 64 MiB each and in order of the queries, to each of `looks` in turn.

    A look may read what those before it made of the same block. Raises DataError where a distance is not finite.
    """
    for start, rows in distances.blocks_in_place():
        block = Block(start, rows, same_identity(labels, start, start + len(rows)))
        for look in looks:
            look.add(block)
