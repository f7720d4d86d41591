"""Candidates for a search in a large gallery: FAISS's inverted lists of product-quantised embeddings (IVF-PQ).

Jegou et al., Product Quantization for Nearest Neighbor Search, TPAMI 2011. A search reads the few lists that are near
the query, from the mapped file; their order is rough, so candidates are compared again by their own embeddings.
"""

import importlib.util
import logging
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tools.search.shards import READ_BYTES, Shards, file_of, next_number
from utils.atomic import replacing

if TYPE_CHECKING:
    import faiss

logger = logging.getLogger(__name__)

CODES = 96  # bytes of an embedding in a list, at most
LEAST_VALUES = 4  # of an embedding in a byte
TRAINED_ON = 48  # embeddings per list; FAISS asks for 39
LEAST_TRAINED = 256  # the values of a byte: FAISS needs an embedding for each
SAMPLED = 39 * LEAST_TRAINED  # embeddings at least where there are so many
STEPS, POINTS = 10, 64  # of k-means for the codes: its steps, and embeddings for each of the 256 values of a byte
PROBED = 1 / 4  # share of the lists that a search reads, at least LEAST_PROBED of them
LEAST_PROBED = 64
SEED = 0


def has_faiss() -> bool:
    """Return whether FAISS is installed."""
    return importlib.util.find_spec("faiss") is not None


def number_of_lists(rows: int) -> int:
    """Return the power of two next to twice the root of the rows: 512 for 10^5, 2,048 for 10^6, 8,192 for 10^7."""
    return 2 ** max(0, round(np.log2(2 * np.sqrt(rows))))


def make_lists(index: Shards) -> dict[str, Any]:
    """Learn lists from a sample of an index, put all its rows into them and write them; return the manifest's entry.

    k-means and the sample have a seed. RunError when the disk refuses.
    """
    import faiss

    rows, kept = len(index), np.setdiff1d(np.arange(len(index)), index.gone, assume_unique=True)
    count = min(number_of_lists(len(kept)), max(1, len(kept) // TRAINED_ON))
    codes = max(1, min(CODES, index.width // LEAST_VALUES))
    width = codes * -(-index.width // codes)  # zeros behind an embedding change no inner product
    lists = faiss.IndexIVFPQ(faiss.IndexFlatIP(width), width, count, codes, 8, faiss.METRIC_INNER_PRODUCT)
    lists.cp.spherical, lists.cp.seed, lists.pq.cp.seed = True, SEED, SEED
    lists.pq.cp.min_points_per_centroid = 1  # else it warns of what few images cannot give
    lists.pq.cp.niter, lists.pq.cp.max_points_per_centroid = STEPS, POINTS  # more hardly changes what is proposed
    chosen = np.random.default_rng(SEED).permutation(len(kept))[: max(SAMPLED, TRAINED_ON * count)]
    logger.info("index: learning %d lists from %d of %d images", count, len(chosen), len(kept))
    lists.train(padded(index.take(np.sort(kept[chosen])), width))
    return _filled(index, lists, 0) | {"learnt_at": rows}


def add_to_lists(index: Shards) -> dict[str, Any]:
    """Put the rows that its lists lack into them, write them to another file, and return the manifest's entry."""
    import faiss

    entry = index.meta["lists"]
    try:
        lists = faiss.read_index(str(lists_file(index.folder, entry["number"])))
    except RuntimeError:
        return make_lists(index)
    return entry | _filled(index, lists, entry["rows"])


def _filled(index: Shards, lists: "faiss.IndexIVFPQ", first: int) -> dict[str, Any]:
    """Put the rows from `first` on into lists, write them and return the manifest's entry."""
    for start, feat in index.blocks("sort into lists"):
        skipped = max(0, first - start)
        if skipped < len(feat):
            rows = np.arange(start + skipped, start + len(feat))
            lists.add_with_ids(padded(feat[skipped:], lists.d), rows)
    number = next_number(index.folder)
    file = lists_file(index.folder, number)
    with replacing(file) as temporary:
        import faiss

        try:
            faiss.write_index(lists, str(temporary))
        except RuntimeError as error:  # FAISS's word for whatever the disk says
            raise OSError(28, "FAISS could not write it; the disk may be full") from error
    entry = {"number": number, "rows": len(index), "bytes": file.stat().st_size}
    return entry | {"check": _crc(file)}


def open_lists(index: Shards) -> "faiss.IndexIVFPQ":
    """Return the lists of an index, mapped; DataError where the file is not the one that the manifest names."""
    import faiss

    entry = index.meta["lists"]
    file = lists_file(index.folder, entry["number"])
    try:
        whole = file.stat().st_size == entry["bytes"]
        lists = faiss.read_index(str(file), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY) if whole else None
    except (OSError, RuntimeError):
        lists = None
    if lists is None or lists.ntotal != entry["rows"] or lists.d < index.width:
        raise index.damaged(file.name)
    return lists


def has_whole_lists(index: Shards) -> bool:
    """Return whether the file of the lists of an index holds what was written."""
    entry = index.meta["lists"]
    try:
        return _crc(lists_file(index.folder, entry["number"])) == entry["check"]
    except OSError:
        return False


def candidates(
    lists: "faiss.IndexIVFPQ", query: np.ndarray, count: int, gone: np.ndarray, least: int
) -> list[np.ndarray]:
    """Return for each query float32 [Q, D] up to `count` rows that are probably near, none of `gone`, in any order.

    There are at least `least` where so many are left: lists are added until then.
    """
    import faiss

    query = padded(query, lists.d)
    gone = np.ascontiguousarray(gone, np.int64)
    left = faiss.IDSelectorNot(faiss.IDSelectorBatch(gone)) if len(gone) else None
    probed = max(LEAST_PROBED, round(PROBED * lists.nlist))
    least = min(least, lists.ntotal - len(gone))
    found: list[np.ndarray] = []
    for one in query:
        probes = min(probed, lists.nlist)
        while True:
            how = faiss.SearchParametersIVF(nprobe=probes, sel=left)
            rows = lists.search(one[None], count, params=how)[1][0]
            rows = rows[rows >= 0]
            if len(rows) >= min(least, count) or probes == lists.nlist:
                break
            probes = min(4 * probes, lists.nlist)
        found.append(rows)
    return found


def lists_file(folder: Path, number: int) -> Path:
    """Return the file of lists of an index."""
    return file_of(folder, number, "faiss")


def padded(feat: np.ndarray, width: int) -> np.ndarray:
    """Return embeddings [n, D] as float32 [n, width], with zeros behind."""
    wide = np.zeros((len(feat), width), dtype=np.float32)
    wide[:, : feat.shape[1]] = feat
    return wide


def _crc(file: Path) -> int:
    check = 0
    with open(file, "rb") as stream:
        while part := stream.read(READ_BYTES):
            check = zlib.crc32(part, check)
    return check
