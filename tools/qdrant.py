"""Write the index of a gallery as files that Qdrant takes in bulk:

python -m tools.qdrant --index photos/.reid_index_0123456789abcdef.npz --out points

    collection.json         what the collection must be (values, distance, precision), and of which model it is
    vectors_00001.npy       float16 [n, D], L2-normalised; map it, numpy.load(file, mmap_mode="r", allow_pickle=False)
    points_00001.jsonl      a line for each vector: id, a UUID that the path gives, and payload: path, bytes, changed_ns

The same image has the same id in each export: what is uploaded again takes its own place.
`python -m tools.qdrant_example` uploads them.
"""

from __future__ import annotations

from utils.interrupts import take_over

if __name__ == "__main__":
    take_over()  # Ctrl-C, before the imports that take time

import json
import os
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.commands import OneLineParser, path_flag
from utils.errors import ConfigError, run_command

if TYPE_CHECKING:
    import numpy as np

    Rows = tuple[Sequence[str], np.ndarray, np.ndarray]  # paths, stamps int64 [n, 2], embeddings [n, D]

COLLECTION = "collection.json"
AT_ONCE = 50_000  # rows of a file


def main(argv: list[str] | None = None) -> int:
    """Write the files. Returns the exit code 0."""
    parser = OneLineParser(
        prog="python -m tools.qdrant", description="Write the index of a gallery as files that Qdrant takes in bulk."
    )
    parser.add_argument(
        "--index",
        required=True,
        type=path_flag,
        metavar="INDEX",
        help="what tools.search keeps, and names in its log: a file .npz, or of a large gallery a folder .shards",
    )
    parser.add_argument("--out", required=True, type=path_flag, metavar="DIR", help="empty folder of the files")
    args = parser.parse_args(argv)
    from utils.run_folder import make_folder

    meta, rows = open_rows(Path(args.index))
    out = make_folder(args.out, "--out")
    if os.listdir(out):
        raise ConfigError(f"--out '{out}' is not empty; name an empty folder, or one that does not exist yet")
    number, width = write_points(rows, meta, out)
    print(f"{out}: {number} points x {width} values; upload them: python -m tools.qdrant_example {out}")
    return 0


def open_rows(index: Path) -> tuple[dict[str, Any], Iterator[Rows]]:
    """Return what an index says of itself, and its rows in parts. ConfigError for what is no index, or no whole one."""
    from tools.search.large_index import read_large
    from tools.search.shards import SHARDS_SUFFIX

    if index.suffix == SHARDS_SUFFIX and index.is_dir():
        large = read_large(index)
        if large is None or not large.meta["whole"]:
            raise ConfigError(f"--index '{index}' is not whole; search the gallery again, which finishes it")
        return large.meta, large_rows(large)
    return small_rows(index)


def small_rows(file: Path) -> tuple[dict[str, Any], Iterator[Rows]]:
    """Return what `open_rows` does of the index of a small gallery."""
    import numpy as np

    from tools.search.index import KIND
    from utils.paths import check_readable

    if not file.is_file():
        raise ConfigError(f"--index: no index '{file}'; tools.search names the one that it keeps")
    check_readable(file, "--index")
    try:
        with np.load(file, allow_pickle=False) as content:
            meta = json.loads(str(content["meta"]))
            rows = [content[name] for name in ("name", "stamp", "feat")] if meta.get("kind") == KIND else None
    except Exception as error:  # a damaged archive raises nearly anything
        raise ConfigError(f"--index '{file}' is damaged, or no index ({error}); search the gallery again") from error
    if rows is None:
        raise ConfigError(f"--index '{file}' is another file than an index; tools.search names the one that it keeps")
    names, stamps, feat = rows
    parts = (slice(start, start + AT_ONCE) for start in range(0, len(names), AT_ONCE))
    return meta, ((names[part].tolist(), stamps[part], feat[part]) for part in parts)


def large_rows(index: Any) -> Iterator[Rows]:
    """Yield the rows of a `tools.search.shards.Shards` that are not gone."""
    import numpy as np

    lost = np.zeros(len(index), dtype=bool)
    lost[index.gone] = True
    for part, start in zip(index.parts, index.starts.tolist(), strict=False):
        rows = start + np.flatnonzero(~lost[start : start + part.rows])
        if len(rows):
            yield index.names(rows), index.array(part, "stamp")[rows - start], index.take(rows)


def write_points(parts: Iterator[Rows], meta: dict[str, Any], out: Path) -> tuple[int, int]:
    """Write the files, collection.json last, and return the numbers of points and of values of each."""
    import numpy as np

    from tools.search.shards import write_array
    from utils.atomic import replacing, write_text_atomic

    total = width = 0
    for number, (names, stamps, feat) in enumerate(parts, start=1):
        write_array(out / f"vectors_{number:05d}.npy", np.asarray(feat, np.float16))
        with replacing(out / f"points_{number:05d}.jsonl") as file, open(file, "w", encoding="utf-8") as stream:
            for name, (size, changed) in zip(names, stamps.tolist(), strict=True):
                stream.write(json.dumps(point_of(name, size, changed)) + "\n")
        total, width = total + len(names), feat.shape[1]
    about = {name: meta[name] for name in ("fingerprint", "precision", "gallery") if name in meta}
    vectors = {"size": width, "distance": "Dot", "datatype": "float16", "on_disk": True}
    content = {"vectors": vectors, "points": total, "model": about}
    write_text_atomic(out / COLLECTION, json.dumps(content, indent=1) + "\n")
    return total, width


def point_of(name: str, size: int, changed: int) -> dict[str, Any]:
    """Return id and payload of an image; a name that is no Unicode has backslash escapes."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    payload = {"path": text, "bytes": size, "changed_ns": changed}
    return {"id": str(uuid.uuid5(uuid.NAMESPACE_URL, text)), "payload": payload}


if __name__ == "__main__":
    sys.exit(run_command(main))
