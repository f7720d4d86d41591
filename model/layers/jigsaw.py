"""Jigsaw patch module: which tokens go into which local branch.

Reference: He et al., TransReID: Transformer-based Object Re-Identification, ICCV 2021, section 3.2.
"""

import math
from typing import NamedTuple


class Jigsaw(NamedTuple):
    """How the patches of an image are dealt to local branches."""

    branches: int = 4
    shift: int = 5  # the first shift - 1 patches move to the end
    groups: int = 2
    rearrange: bool = True  # False: the patches stay in order


def rearranged(num_patches: int, shift: int, groups: int) -> list[int]:
    """Return the patch numbers 0..N-1 shifted and shuffled, as TransReID's released code does it.

    The first shift - 1 patches move to the end. Where N is no multiple of `groups`, the last but one of them is
    appended until it is. Read as `groups` rows, the sequence is then taken column by column.
    """
    order = [*range(num_patches)]
    order = order[shift - 1 :] + order[: shift - 1]
    order += [order[max(num_patches - 2, 0)]] * (-num_patches % groups)
    row = len(order) // groups
    return [order[group * row + column] for column in range(row) for group in range(groups)]


def branch_tokens(num_patches: int, jigsaw: Jigsaw, num_prefix: int = 1) -> list[list[int]]:
    """Return for each local branch the token numbers it sees: all prefix tokens, then N // branches patches.

    Tokens are numbered as in [prefix tokens (the class token); patch 1; ...; patch N]. What is left over, and any
    padding beyond, is dropped.
    """
    order = [*range(num_patches)]
    if jigsaw.rearrange:
        order = rearranged(num_patches, jigsaw.shift, jigsaw.groups)
    length = num_patches // jigsaw.branches
    parts = [order[branch * length : (branch + 1) * length] for branch in range(jigsaw.branches)]
    return [[*range(num_prefix), *(num_prefix + patch for patch in part)] for part in parts]


def seen_bias(groups: list[list[int]], num_tokens: int) -> list[list[float]]:
    """Return for each group the logarithm of how often it sees each token, -inf = not at all.

    Added to the scores of attention over all tokens before the softmax, it gives that over the group's own.
    """
    return [
        [math.log(group.count(token)) if token in group else -math.inf for token in range(num_tokens)]
        for group in groups
    ]
