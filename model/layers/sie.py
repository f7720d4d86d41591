"""Side information embedding: one learnt vector per camera, viewpoint or pair of both.

Reference: He et al., TransReID: Transformer-based Object Re-Identification, ICCV 2021, section 3.3.
"""

import torch

from utils.errors import DataError

NEUTRAL_ROWS = 1  # of a table that holds the mean alone; a trained one has more


def count_rows(camera_num: int, view_num: int) -> int:
    """Return the rows of the embedding for these numbers of cameras and viewpoints; 0 = that side is off."""
    if not camera_num and not view_num:
        return 0
    return max(camera_num, 1) * max(view_num, 1)


def look_up(
    embed: torch.Tensor,
    camera_num: int,
    view_num: int,
    cam_label: torch.Tensor | None,
    view_label: torch.Tensor | None,
    batch_size: int,
) -> torch.Tensor:
    """Return one row of `embed` per image: [B, 1, D] from [K, 1, D], row cam * views + view.

    The labels are [B] int64 from 0. A negative label, or None for a whole batch, is neutral: the mean over that side.
    A side whose number is 0 is off and its labels are ignored. Raises DataError for a label beyond the table when the
    labels are on the CPU; on a GPU the look-up itself fails.
    """
    cameras, views = max(camera_num, 1), max(view_num, 1)
    table = embed.reshape(cameras, views, embed.shape[-1])
    table = torch.cat([table, table.mean(dim=0, keepdim=True)])  # row `cameras` is neutral
    table = torch.cat([table, table.mean(dim=1, keepdim=True)], dim=1).flatten(0, 1)  # [(cameras + 1)(views + 1), D]
    beyond = (cameras + 1) * (views + 1)
    cam = _rows(cam_label, camera_num, beyond, "camera", embed.device)
    view = _rows(view_label, view_num, beyond, "view", embed.device)
    rows = table[cam * (views + 1) + view]  # a sum, which exported graphs broadcast: [B, D] or [1, D]
    return rows.expand(batch_size, -1).unsqueeze(1)


def _rows(label: torch.Tensor | None, count: int, beyond: int, side: str, device: torch.device) -> torch.Tensor:
    """Return numbers [B] or [1] along one side: `count` is neutral, a side that is off has one, 0.

    A label beyond the table becomes `beyond`, so that it falls on no row, whatever the other side adds.
    """
    if not count or label is None:
        return torch.full((1,), count, dtype=torch.int64, device=device)
    label = label.to(torch.int64)
    recorded = torch.compiler.is_compiling() or torch.jit.is_tracing()
    if label.device.type == "cpu" and not recorded and bool((label >= count).any()):
        raise DataError(
            f"{side} label {int(label.max())}, but the side information embedding was built for {count} {side}s "
            f"(0 to {count - 1}); use the training set's {side} numbering, or -1 for an unknown {side}"
        )
    return torch.where(label < 0, count, torch.where(label >= count, beyond, label)).to(device)
