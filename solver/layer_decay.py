"""Layer-wise learning rates: the nearer a layer of a transformer is to the image, the less it moves.

Reference: Clark et al., ELECTRA, ICLR 2020, and Bao et al., BEiT, ICLR 2022: appendices on fine-tuning.
"""

import re
from collections.abc import Iterable

INPUT_NAMES = ("cls_token", "pos_embed", "reg_token", "patch_embed", "norm_pre")
BLOCK = re.compile(r"base\.blocks\.(\d+)\.")
COPIED_BLOCKS = ("b1.0.", "b2.0.")  # the jigsaw module's copies of the last block


def trunk_depth(names: Iterable[str]) -> int:
    """Return the number of blocks of a model's trunk from the names of its parameters; 0 when it has none."""
    return max((1 + int(match[1]) for match in map(BLOCK.match, names) if match), default=0)


def layer_scale(name: str, depth: int, decay: float) -> float:
    """Return the factor decay^(depth + 1 - layer) in (0, 1] on the learning rate of the parameter `name`.

    Layer 0 turns the image into the first block's input, block i is layer i + 1 (its adapters too), and all that comes
    after the blocks or is new in ReID (side information, necks, heads, a CLIP tower) is layer depth + 1, factor 1.
    """
    layer = depth + 1
    block = BLOCK.match(name)
    first = name.removeprefix("base.").split(".")[0] if name.startswith("base.") else ""
    if block:
        layer = int(block[1]) + 1
    elif name.startswith(COPIED_BLOCKS):
        layer = depth
    elif first in INPUT_NAMES or first.startswith("rope"):
        layer = 0
    return decay ** (depth + 1 - layer)
