"""Where the embeddings of a test are kept, once: in memory, there in half precision, or in a file that is mapped."""

import os
import tempfile
from pathlib import Path

import numpy as np
import torch

from utils.distributed import num_processes
from utils.errors import NO_ROOM, RunError

FLOAT32, FLOAT16, DISK = STORES = ("float32", "float16", "disk")
COPIES = 3  # of the features that a GPU must have room for: they, their parts in a ranking, and what that allocates


def room_for(part: torch.Tensor, total: int, store: str, folder: str) -> torch.Tensor:
    """Return an empty [total, D] for rows like `part` float32 [B, D], kept as `store` of STORES says.

    In memory that is on the device of `part`. Where a GPU lacks the room it is in pinned CPU memory, to which copies
    need not wait; not where processes share the loader, for they exchange features between their GPUs, and nothing is
    kept on a disk then. The file in `folder` has no name (where the system has such), so nothing is left of it.
    Raises RunError where the disk has no room for it.
    """
    shape, alone = (total, part.shape[1]), num_processes() == 1
    if store == DISK and alone:
        return torch.from_numpy(_mapped(shape, folder))
    kind = torch.float16 if store == FLOAT16 else torch.float32
    if part.is_cuda and alone:
        unused = torch.cuda.memory_reserved(part.device) - torch.cuda.memory_allocated(part.device)
        free = torch.cuda.mem_get_info(part.device)[0] + unused
        if COPIES * total * part.shape[1] * kind.itemsize > free:
            return torch.empty(shape, dtype=kind, pin_memory=True)
    return torch.empty(shape, dtype=kind, device=part.device)


def _mapped(shape: tuple[int, int], folder: str) -> np.ndarray:
    """Return float32 zeros of `shape` in a file of `folder`, which is made where it is not there."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    size = int(np.prod(shape)) * np.dtype(np.float32).itemsize
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)  # or a full disk would kill the process at a later row
            return np.memmap(file, dtype=np.float32, mode="r+", shape=shape)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            raise RunError(
                f"'{folder}' has no room for the {size / 2**30:.1f} GiB of features of TEST.FEATURES disk; free some, "
                "or set it to float16"
            ) from error


def rows_of(feat: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
    """Return the rows [Q] of features [N, D]: no copy where they follow one another, as a query or gallery set does."""
    first = int(rows[0]) if len(rows) else 0
    if len(rows) and int(rows[-1]) - first == len(rows) - 1 and (np.diff(rows) == 1).all():
        return feat[first : first + len(rows)]
    return feat[rows]
