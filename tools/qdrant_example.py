"""Upload what `python -m tools.qdrant` wrote to a Qdrant server, and search it:

python -m tools.qdrant_example FOLDER [URL] [COLLECTION]

URL is http://localhost:6333 unless given, the collection is called gallery. Printed are the five images nearest to the
first one, with their similarity: it stands first.

An example to copy: it needs numpy and Qdrant's client (qdrant-client) alone, and nothing of this repository.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

URL, COLLECTION = "http://localhost:6333", "gallery"
BATCH = 256  # points of a request
SHOWN = 5


def end(message: str) -> NoReturn:
    """End with an error of one line."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def lines_of(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the points of a file, one at a time."""
    with open(file, encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)


def upload(client: Any, models: Any, folder: Path, name: str) -> None:
    """Make the collection where it is not there, and upload all points; those that are there already are replaced."""
    about = json.loads((folder / "collection.json").read_text(encoding="utf-8"))
    vectors = about["vectors"]
    if not client.collection_exists(name):
        params = models.VectorParams(
            size=vectors["size"],
            distance=models.Distance(vectors["distance"]),
            datatype=models.Datatype(vectors["datatype"]),
            on_disk=vectors["on_disk"],
        )
        client.create_collection(name, vectors_config=params)
    for file in sorted(folder.glob("vectors_*.npy")):
        points = folder / file.name.replace("vectors_", "points_").replace(".npy", ".jsonl")
        client.upload_collection(
            name,
            vectors=np.load(file, mmap_mode="r", allow_pickle=False),
            ids=(point["id"] for point in lines_of(points)),
            payload=(point["payload"] for point in lines_of(points)),
            batch_size=BATCH,
            wait=True,
        )


def search(client: Any, name: str, vector: np.ndarray) -> list[tuple[float, str]]:
    """Return similarity and path of the nearest images."""
    found = client.query_points(name, query=vector.astype(float).tolist(), limit=SHOWN, with_payload=True)
    return [(point.score, point.payload["path"]) for point in found.points]


def main(argv: list[str]) -> int:
    if not 1 <= len(argv) <= 3 or argv[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if argv else 2
    folder, url, name = Path(argv[0]), *(argv[1:] + [URL, COLLECTION][len(argv) - 1 :])
    if not (folder / "collection.json").is_file():
        end(f"'{folder}' is no folder of python -m tools.qdrant")
    try:
        from qdrant_client import QdrantClient, models
    except ImportError:
        end("Qdrant's client is not installed: pip install qdrant-client")
    client = QdrantClient(url=url)
    try:
        client.get_collections()
    except Exception as error:  # of whatever transport the client has
        end(f"no Qdrant answers at {url} ({error}); start one: docker run -p 6333:6333 qdrant/qdrant")
    upload(client, models, folder, name)
    first = np.load(next(iter(sorted(folder.glob("vectors_*.npy")))), mmap_mode="r", allow_pickle=False)[0]
    for similarity, path in search(client, name, first):
        print(f"{similarity:.4f}  {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
