"""Decoded, resized images of one list in one memory-mapped file: the pixels of `read_image`, at the cost of a copy.

Resizing is the first step of the training transform and draws nothing, so a run with the cache is the run without it.
The file's name is a digest of all that its pixels depend on, so that it is never out of date: a changed image, size,
filter, decoder or library makes another file. Workers, ranks, runs and seeds share it. It is a .npy, after whose array
a `TAIL` of each image stands: a later run, which opens no image, knows those whose files are damaged too.
"""

import errno
import hashlib
import logging
import math
import os
import shutil
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import PIL
import torch
import torchvision
from torch.utils.data import Dataset

from datasets.decode import missing, read_image
from datasets.loader import Loader
from utils.atomic import is_full, remove_left, replacing
from utils.errors import ConfigError, DataError, RunError
from utils.file_lock import LockHeldError, hold
from utils.paths import user_path
from utils.progress import progress
from utils.run_folder import make_folder
from utils.workers import num_workers

logger = logging.getLogger(__name__)

KEY = "DATALOADER.CACHE"
SCHEMA = 2  # of the file and of what its name is made from
LOCK_NAME = "cache.lock"
DIGEST_LENGTH = 16  # hex digits
ROWS_AT_ONCE = 64  # images that a worker decodes before it writes them
WAIT_SECONDS = 0.2
NO_FOLDERS = ("", "0", "1", "none", "null", "true", "false", "on", "off", "yes", "no")  # were meant as a switch
GB = 1e9
TAIL = np.dtype([("crc", "<u4"), ("damaged", "u1")])  # of an image: CRC-32 of its pixels; 1 = its file is damaged


class Wanted(NamedTuple):
    """What a cache is to hold: the images at `paths`, as `read_image` returns them."""

    paths: Sequence[str]
    size: tuple[int, int]  # height, width
    resize_filter: str
    decoder: str
    grey: bool = False  # in equal channels

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of the array, uint8 [N, 3, H, W]."""
        return (len(self.paths), 3, *self.size)

    @property
    def num_bytes(self) -> int:
        """The size of the array."""
        return math.prod(self.shape)

    @property
    def num_bytes_of_file(self) -> int:
        """The size of the array and of what follows it."""
        return self.num_bytes + TAIL.itemsize * len(self.paths)

    def file_name(self) -> str:
        """Return the name of the cache's file; reads size and time of each image, DataError for one that is missing."""
        versions = (SCHEMA, torch.__version__, torchvision.__version__, PIL.__version__)
        reading = (versions, self.size, self.resize_filter, self.decoder, *["grey"] * self.grey)
        digest = hashlib.sha256(repr(reading).encode())
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
        self._unchecked: np.ndarray | None = None  # bool [N]: rows that this process has not read before
        self._tails: np.ndarray | None = None  # TAIL [N]

    def __getstate__(self) -> dict:
        # to a worker that is spawned, its gigabytes stay here
        return {"file": self.file, "_array": None, "_unchecked": None, "_tails": None}

    def copy_rows(self, rows: Sequence[int], images: torch.Tensor) -> None:
        """Copy rows into `images`, contiguous uint8 [B, 3, H, W] on the CPU.

        Raises IndexError for a row that is none, and DataError when the file went since it was found, or a row that
        this process reads for the first time is not what was written; such a file is removed.
        """
        if self._array is None:
            self._open()
        rows = np.asarray(rows)
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self._array):
            raise IndexError(f"rows {rows.min()}..{rows.max()} of {len(self._array)}")
        np.take(self._array, rows, axis=0, out=images.numpy(), mode="clip")  # mode raise would copy twice
        for place in np.flatnonzero(self._unchecked[rows]):
            if zlib.crc32(images[place].numpy()) != self._tails["crc"][rows[place]]:
                self.file.unlink(missing_ok=True)
                raise _gone(self.file)
        self._unchecked[rows] = False

    def damaged_rows(self) -> list[int]:
        """Return the rows whose files are damaged, rising; DataError when the file went since it was found."""
        _, tails = self._opened()  # mapped no longer than that: the first reader may be another process
        return np.flatnonzero(tails["damaged"]).tolist()

    def _open(self) -> None:
        array, self._tails = self._opened()
        self._unchecked, self._array = np.ones(len(array), dtype=bool), array.view(np.ndarray)

    def _opened(self) -> tuple[np.memmap, np.ndarray]:
        """Return the mapped array and its TAILs."""
        try:
            array = np.load(self.file, mmap_mode="r", allow_pickle=False)
            tails = np.fromfile(self.file, TAIL, len(array), offset=array.offset + array.nbytes)
        except (OSError, ValueError, EOFError) as error:
            raise _gone(self.file) from error
        if len(tails) != len(array):
            raise _gone(self.file)
        return array, tails


def _gone(file: Path) -> DataError:
    return DataError(
        f"{KEY}: '{file}' was deleted or damaged during the run; the same command builds it again and continues"
    )


def find_cache(folder: str, wanted: Wanted) -> PixelCache | None:
    """Return the cache if it is there and whole; DataError naming an image that is missing."""
    file = _folder(folder) / wanted.file_name()
    return PixelCache(file) if _is_whole(file, wanted) else None


def make_cache(folder: str, wanted: Wanted, workers: int) -> PixelCache:
    """Return the cache, built by `workers` processes (0 = this one) where it is not there, by one of those who want it.

    Raises ConfigError when `folder` is none or cannot be written, RunError when it has too little room, DataError
    naming an image that is missing or does not decode; nothing is left of such a build.
    """
    file = _folder(folder) / wanted.file_name()
    if not _is_whole(file, wanted):
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
            except OSError as error:  # another user's lock, say
                raise _cannot_write(error.filename or file, error) from error
    logger.info("%s: %d images of %d x %d from '%s'", KEY, len(wanted.paths), *wanted.size, file)
    return PixelCache(file)


def _folder(named: str) -> Path:
    """Return the folder that the key names, ~ as the user's; ConfigError for a word that was meant as a switch."""
    if named.strip().lower() in NO_FOLDERS:
        raise ConfigError(f"{KEY} got '{named}', which is no folder; name one such as /fast/disk/cache, or '' for none")
    return user_path(named, KEY)


def _is_whole(file: Path, wanted: Wanted) -> bool:
    """Return whether array and checksums are all there; whether the pixels are right shows when they are read."""
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
        size = file.stat().st_size
    except Exception:  # absent, cut short, or a damaged header, which raises nearly anything
        return False
    if not isinstance(array, np.memmap) or array.dtype != np.uint8 or array.shape != wanted.shape:
        return False
    return array.flags.c_contiguous and size == array.offset + wanted.num_bytes_of_file


def _build_where_absent(file: Path, wanted: Wanted, workers: int) -> None:
    """Build the file unless another process did; the lock is held."""
    if _is_whole(file, wanted):
        return
    if file.exists():
        logger.warning("%s: '%s' is damaged, or of an older version, so it is built again", KEY, file)
        file.unlink()
    remove_left(file.parent, "*.npy.*.tmp")  # of builds of other images, too
    free = shutil.disk_usage(file.parent).free
    if wanted.num_bytes_of_file > free:
        raise RunError(
            f"{KEY} '{file.parent}': {len(wanted.paths)} images of {wanted.size[0]} x {wanted.size[1]} need "
            f"{wanted.num_bytes / GB:.2f} GB, {free / GB:.2f} GB are free; make room, name a folder on a larger "
            f"disk, or set {KEY} '' to decode images as they are needed"
        )
    started = time.perf_counter()
    with replacing(file) as temporary:
        try:
            _write(temporary, wanted, workers)
        except OSError as error:
            raise _cannot_write(file, error) from error
    seconds = time.perf_counter() - started
    logger.info("%s: decoded %d images, %.2f GB, in %.1f s", KEY, len(wanted.paths), wanted.num_bytes / GB, seconds)


def _write(file: Path, wanted: Wanted, workers: int) -> None:
    """Write header and pixels; every process writes its rows at their place."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": wanted.shape}
    with open(file, "wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        start = stream.tell()
        _reserve(stream, start + wanted.num_bytes_of_file)
    loader = Loader(
        _RowWriter(file, start, wanted),
        batch_size=ROWS_AT_ONCE,
        num_workers=num_workers(workers, math.ceil(len(wanted.paths) / ROWS_AT_ONCE)),
        collate_fn=int,  # a batch is the number of images that were written
        generator=torch.Generator(),  # the loader's own draws leave the training's random state alone
    )
    with progress("decode images for the cache", len(wanted.paths), "image") as bar:
        for count in loader:
            bar.update(count)


def _reserve(stream: BinaryIO, num_bytes: int) -> None:
    """Give the file its length and its room on the disk, so that a full one shows before hours of decoding."""
    stream.truncate(num_bytes)
    try:
        os.posix_fallocate(stream.fileno(), 0, num_bytes)
    except AttributeError:  # a system without it
        return
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # a kind of disk without it
            raise


def _cannot_write(file: Path, error: OSError) -> RunError | ConfigError:
    kind, way_out = (RunError, "make room, choose") if is_full(error) else (ConfigError, "choose")
    return kind(f"{KEY}: cannot write '{file}' ({error.strerror}); {way_out} another folder, or set {KEY} ''")


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
        tails = np.zeros(len(rows), TAIL)
        for place, row in enumerate(rows):
            damaged: list[str] = []
            path, *reading, grey = self.wanted.paths[row], *self.wanted[1:]
            images[place] = read_image(path, *reading, damaged, grey)
            tails[place] = zlib.crc32(images[place].numpy()), bool(damaged)
        try:
            # not through a mapping: on a full disk that would kill the process
            with open(self.file, "r+b") as stream:
                stream.seek(self.start + rows[0] * math.prod(image_shape))
                stream.write(images.numpy().data)
                stream.seek(self.start + self.wanted.num_bytes + rows[0] * TAIL.itemsize)
                stream.write(tails.tobytes())
        except OSError as error:
            raise _cannot_write(self.file, error) from error
        return len(rows)
