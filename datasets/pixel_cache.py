"""Decoded, resized images of one list in one memory-mapped file: the pixels of `read_image`, at the cost of a copy.

Resizing is the first step of the training transform and draws nothing, so a run with the cache is the run without it.
The file's name is a digest of all that its pixels depend on, so that it is never out of date: a changed image, size,
filter, decoder or library makes another file. Workers, ranks, runs and seeds share it.
"""

import hashlib
import logging
import math
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
import torch
import torchvision
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from datasets.decode import missing, read_image
from utils.atomic import replacing
from utils.errors import ConfigError, DataError
from utils.file_lock import LockHeldError, hold, is_alive
from utils.run_folder import make_folder
from utils.workers import leave_interrupts_to_the_parent, num_workers

logger = logging.getLogger(__name__)

KEY = "DATALOADER.CACHE"
SCHEMA = 1  # of the file and of what its name is made from
LOCK_NAME = "cache.lock"
DIGEST_LENGTH = 16  # hex digits
ROWS_AT_ONCE = 64  # images that a worker decodes before it writes them
WAIT_SECONDS = 0.2
NO_FOLDERS = ("", "0", "1", "none", "null", "true", "false", "on", "off", "yes", "no")  # were meant as a switch
GB = 1e9


class Wanted(NamedTuple):
    """What a cache is to hold: the images at `paths`, as `read_image` returns them."""

    paths: Sequence[str]
    size: tuple[int, int]  # height, width
    resize_filter: str
    decoder: str

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of the array, uint8 [N, 3, H, W]."""
        return (len(self.paths), 3, *self.size)

    @property
    def num_bytes(self) -> int:
        """The size of the array."""
        return math.prod(self.shape)

    def file_name(self) -> str:
        """Return the name of the cache's file; reads size and time of each image, DataError for one that is missing."""
        versions = (SCHEMA, torch.__version__, torchvision.__version__, PIL.__version__)
        digest = hashlib.sha256(repr((versions, self.size, self.resize_filter, self.decoder)).encode())
        for path in self.paths:
            try:
                stat = os.stat(path)
            except OSError as error:
                raise missing(path) from error
            line = f"{os.path.abspath(path)}\0{stat.st_size}\0{stat.st_mtime_ns}\n"
            digest.update(line.encode(errors="surrogateescape"))
        count, _, height, width = self.shape
        name = f"{count}x{height}x{width}_{self.resize_filter}_{self.decoder}"
        return f"{name}_{digest.hexdigest()[:DIGEST_LENGTH]}.npy"


class PixelCache:
    """The rows of a whole cache file; each process maps it when it first reads."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._array: np.ndarray | None = None

    def __getstate__(self) -> dict:
        return {"file": self.file, "_array": None}  # to a worker that is spawned, its gigabytes stay here

    def copy_rows(self, rows: Sequence[int], images: torch.Tensor) -> None:
        """Copy rows into `images`, contiguous uint8 [B, 3, H, W] on the CPU.

        Raises IndexError for a row that is none, and DataError when the file went since it was found.
        """
        if self._array is None:
            try:
                self._array = np.load(self.file, mmap_mode="r").view(np.ndarray)
            except (OSError, ValueError, EOFError) as error:
                raise DataError(
                    f"{KEY}: '{self.file}' was deleted or damaged during the run; the same command builds it again and "
                    "continues"
                ) from error
        rows = np.asarray(rows)
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self._array):
            raise IndexError(f"rows {rows.min()}..{rows.max()} of {len(self._array)}")
        np.take(self._array, rows, axis=0, out=images.numpy(), mode="clip")  # mode raise would copy twice


def find_cache(folder: str, wanted: Wanted) -> PixelCache | None:
    """Return the cache if it is there and whole; DataError naming an image that is missing."""
    file = _folder(folder) / wanted.file_name()
    return PixelCache(file) if _is_whole(file, wanted.shape) else None


def make_cache(folder: str, wanted: Wanted, workers: int) -> PixelCache:
    """Return the cache, built by `workers` processes (0 = this one) where it is not there, by one of those who want it.

    Raises ConfigError when `folder` is none, cannot be written or has too little room, DataError naming an image that
    is missing or does not decode; nothing is left of such a build.
    """
    file = _folder(folder) / wanted.file_name()
    if not _is_whole(file, wanted.shape):
        make_folder(str(file.parent), KEY)
        waited = False
        while True:
            try:
                with hold(file.parent / LOCK_NAME):
                    _build_where_absent(file, wanted, workers)
                break
            except LockHeldError as holder:
                if not waited:
                    logger.info("%s '%s': waiting for process %s, which builds a cache there", KEY, folder, holder)
                waited = True
                time.sleep(WAIT_SECONDS)
            except OSError as error:  # another user's lock, or a file larger than the disk's format allows
                raise ConfigError(
                    f"{KEY} '{folder}': cannot write '{error.filename or file}' ({error.strerror}); choose another "
                    f"folder, or set {KEY} ''"
                ) from error
    logger.info("%s: %d images of %d x %d from '%s'", KEY, len(wanted.paths), *wanted.size, file)
    return PixelCache(file)


def _folder(named: str) -> Path:
    """Return the folder that the key names, ~ as the user's; ConfigError for a word that was meant as a switch."""
    if named.strip().lower() in NO_FOLDERS:
        raise ConfigError(f"{KEY} got '{named}', which is no folder; name one such as /fast/disk/cache, or '' for none")
    return Path(named).expanduser()


def _is_whole(file: Path, shape: tuple[int, ...]) -> bool:
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):  # absent, or cut short
        return False
    return array.shape == shape and array.dtype == np.uint8


def _build_where_absent(file: Path, wanted: Wanted, workers: int) -> None:
    """Build the file unless another process did; the lock is held."""
    if _is_whole(file, wanted.shape):
        return
    if file.exists():
        logger.warning("%s: '%s' is damaged, so it is built again", KEY, file)
        file.unlink()
    for left in file.parent.glob("*.npy.*.tmp"):  # of builds that were killed
        pid = left.name.split(".")[-2]
        if not (pid.isdigit() and is_alive(int(pid))):
            left.unlink(missing_ok=True)
    free = shutil.disk_usage(file.parent).free
    if wanted.num_bytes > free:
        raise ConfigError(
            f"{KEY} '{file.parent}': {len(wanted.paths)} images of {wanted.size[0]} x {wanted.size[1]} need "
            f"{wanted.num_bytes / GB:.2f} GB, {free / GB:.2f} GB are free; name a folder on a larger disk, or set "
            f"{KEY} '' to decode images as they are needed"
        )
    started = time.perf_counter()
    with replacing(file, f".{os.getpid()}.tmp") as temporary:
        _write(temporary, wanted, workers)
    seconds = time.perf_counter() - started
    logger.info("%s: decoded %d images, %.2f GB, in %.1f s", KEY, len(wanted.paths), wanted.num_bytes / GB, seconds)


def _write(file: Path, wanted: Wanted, workers: int) -> None:
    """Write header and pixels; every process writes its rows at their place."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": wanted.shape}
    with open(file, "wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        start = stream.tell()
        stream.truncate(start + wanted.num_bytes)
    loader = DataLoader(
        _RowWriter(file, start, wanted),
        batch_size=ROWS_AT_ONCE,
        num_workers=num_workers(workers, math.ceil(len(wanted.paths) / ROWS_AT_ONCE)),
        collate_fn=int,  # a batch is the number of images that were written
        worker_init_fn=leave_interrupts_to_the_parent,
        generator=torch.Generator(),  # the loader's own draws leave the training's random state alone
    )
    hidden = not sys.stderr.isatty()
    with tqdm(total=len(wanted.paths), desc="cache", unit="image", disable=hidden, leave=False) as progress:
        for count in loader:
            progress.update(count)


class _RowWriter(Dataset):
    """Asked for rows side by side, decodes them, writes them to their place in the file and returns their number."""

    def __init__(self, file: Path, start: int, wanted: Wanted) -> None:
        self.file = file
        self.start = start
        self.wanted = wanted

    def __len__(self) -> int:
        return len(self.wanted.paths)

    def __getitems__(self, rows: list[int]) -> int:
        _, *image_shape = self.wanted.shape
        images = torch.empty(len(rows), *image_shape, dtype=torch.uint8)
        for place, row in enumerate(rows):
            images[place] = read_image(self.wanted.paths[row], *self.wanted[1:])
        try:
            # not through a mapping: on a full disk that would kill the process
            with open(self.file, "r+b") as stream:
                stream.seek(self.start + rows[0] * math.prod(image_shape))
                stream.write(images.numpy().data)
        except OSError as error:
            raise ConfigError(
                f"{KEY} '{self.file.parent}': cannot write there ({error.strerror}); make room, choose another folder, "
                f"or set {KEY} ''"
            ) from error
        return len(rows)
