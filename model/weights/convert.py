"""Position embeddings for another grid of patches, and for captions of another length."""

import logging
import math

import torch
import torch.nn.functional as F

from utils.precision import at_least_float32

logger = logging.getLogger(__name__)


def resize_pos_embed(
    pos_embed: torch.Tensor,
    grid: tuple[int, int],
    source_grid: tuple[int, int] | None = None,
    num_prefix: int = 1,
    mode: str = "bilinear",
    antialias: bool = False,
) -> torch.Tensor:
    """Return a position embedding [1, P + N, D] interpolated to `grid` (rows, columns); the P first slots are kept.

    Pixel centres are aligned as in image resizing (align_corners False). The defaults are TransReID's; timm and
    open_clip resize with `mode` bicubic and antialiasing. `source_grid` is guessed by `guess_grid` when it is not
    given. Keeps the dtype.
    """
    prefix, patches = pos_embed[:, :num_prefix], pos_embed[:, num_prefix:]
    rows, columns = source_grid or guess_grid(patches.shape[1], grid)
    image = patches.reshape(1, rows, columns, -1).permute(0, 3, 1, 2)  # [1, D, rows, columns]
    image = F.interpolate(
        at_least_float32(image), size=tuple(grid), mode=mode, align_corners=False, antialias=antialias
    )
    return torch.cat([prefix, image.permute(0, 2, 3, 1).flatten(1, 2).to(pos_embed.dtype)], dim=1)


def resize_text_positions(table: torch.Tensor, length: int) -> torch.Tensor:
    """Return a position table [L, W] of words for `length` of them: its first rows, or more by linear interpolation.

    Centres of rows are aligned as those of pixels (align_corners False). Keeps the dtype.
    """
    if length <= len(table):
        return table[:length]
    longer = F.interpolate(at_least_float32(table.t()[None]), size=length, mode="linear", align_corners=False)
    return longer[0].t().to(table.dtype)


def fitted_text_positions(weights: dict[str, torch.Tensor], name: str, ours: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return a checkpoint's weights; where its captions have another length, with its table `name` for `ours` [L, W].

    That the file's changes is logged. A table that cannot be of captions stays as it is: loading says what is wrong.
    """
    table = weights.get(name)
    if table is None or table.dim() != 2 or len(table) in (0, len(ours)) or table.shape[1] != ours.shape[1]:
        return weights
    logger.warning("%s: %d rows in place of %d, for INPUT.TEXT.LENGTH", name, len(ours), len(table))
    return {**weights, name: resize_text_positions(table, len(ours))}


def guess_grid(count: int, like: tuple[int, int]) -> tuple[int, int]:
    """Return (rows, columns) of `count` patches: square if it can be, else the shape nearest to that of `like`."""
    side = math.isqrt(count)
    if side * side == count:
        return side, side
    wanted = math.log(like[0] / like[1])
    shapes = [(rows, count // rows) for rows in range(1, count + 1) if count % rows == 0]
    return min(shapes, key=lambda shape: abs(math.log(shape[0] / shape[1]) - wanted))
