"""Rank a folder of images by similarity to images, or to sentences where the model was trained on captions:

python -m tools.search --run logs/my_run --query a.jpg --gallery photos
python -m tools.search --run logs/my_run --text "a woman in a red coat" --gallery photos
python -m tools.search --run logs/my_run --query nir=a.jpg text="a woman in a red coat" --gallery photos

The last one is a single query of several modalities, for a model that was trained on these (MODEL.NAME multimodal).
Prints the nearest images of each query and draws them. The folder's embeddings stay in an index, see `tools.index`.
"""

from __future__ import annotations

from utils.interrupts import take_over

if __name__ == "__main__":
    take_over()  # Ctrl-C, before the imports that take time

import argparse
import importlib.util
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tools.loose_images import SKIP_HINT, add_skip_broken, list_images
from tools.queries import Query, parse_queries, query_word
from tools.sentences import check_quotes, sentence
from tools.source import load_source, source_parser
from utils.commands import need_packages, path_flag, whole_number
from utils.errors import DataError, run_command

if TYPE_CHECKING:
    import numpy as np

logger = logging.getLogger(__name__)

FAISS_FROM = 100_000  # gallery images; below it a matrix product is as fast
SPARE = 64  # rows that FAISS is asked for beyond the wanted ones, so that near ties are among them
MAX_DRAWN = 100  # results in a picture
COLUMNS = 5  # results beside each other


def main(argv: list[str] | None = None) -> int:
    """Search, print and draw. Returns the exit code 0."""
    args = _parse(argv)
    need_packages("matplotlib")
    from utils.logger import log_to_stderr
    from utils.run_folder import make_folder

    log_to_stderr()
    gallery = Path(args.gallery)
    queries = parse_queries(args.query, args.text)
    list_images(args.gallery, "--gallery")
    out = make_folder(args.out, "--out")
    from tools.feature_extractor import BrokenImageError, FeatureExtractor
    from tools.index import check_file, choose_file, read_index, update_index
    from tools.modalities import gallery_modality

    if args.index is not None:
        check_file(args.index)  # before the gallery is embedded
    trained = load_source(args)
    extractor = FeatureExtractor(trained, gallery_modality(trained.cfg))
    file = choose_file(gallery, extractor, args.index)
    old = read_index(file, gallery, extractor)  # says in which precision to embed
    feat = extractor.embed_queries([query.items for query in queries])  # first, so that a mistake shows at once
    try:
        index = update_index(extractor, gallery, file, old, args.skip_broken)
    except BrokenImageError as error:
        raise DataError(f"{error}; {SKIP_HINT}") from error
    rows, similarity = nearest(feat.numpy(), index.feat, args.topk)
    for number, query in enumerate(queries):
        found = [str(gallery / index.names[row]) for row in rows[number]]
        show(query, found, similarity[number], out / f"{number + 1}_{stem_of(query)}.png")
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = source_parser(
        "python -m tools.search",
        "Rank a folder of images by similarity to images, to sentences, or to several of these as one query.",
    )
    parser.add_argument(
        "--query",
        action="append",
        nargs="+",
        default=[],
        type=query_word,
        metavar="IMG",
        help='image files, each by itself; or MODALITY=IMG text="WORDS" ..., together one query, for a model of these '
        "modalities; give --query again for each further one; KEY VALUE pairs stand before",
    )
    parser.add_argument(
        "--text",
        action="append",
        default=[],
        type=sentence,
        metavar='"WORDS"',
        help="a sentence in quotes, for a model that was trained on captions; give --text again for each further one",
    )
    parser.add_argument(
        "--gallery", required=True, type=path_flag, metavar="DIR", help="folder of images, with all folders below it"
    )
    parser.add_argument("--topk", type=whole_number, default=10, metavar="K", help="results per query (default: 10)")
    parser.add_argument(
        "--index",
        type=path_flag,
        metavar="FILE.npz",
        help="file that keeps the gallery's embeddings (default: a hidden file in DIR, or beside the weights)",
    )
    parser.add_argument(
        "--out", default="logs/search", type=path_flag, metavar="DIR", help="folder of the pictures (%(default)s)"
    )
    add_skip_broken(parser)
    args = parser.parse_args(argv)
    if not args.query and not args.text:
        parser.error('name what to search for: --query IMG ..., --text "WORDS", or both')
    check_quotes(args.text, args.opts, ", or --text again for each sentence")
    return args


def nearest(query: np.ndarray, gallery: np.ndarray, topk: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the gallery rows int64 [Q, K] most similar to each query, nearest first, and their similarities [Q, K].

    `query` [Q, D] and `gallery` [N, D] are float32 and L2-normalised, the similarity is their inner product (cosine),
    float64; K = min(topk, N). Of equal similarities the lower row comes first. The ranking is exact with and without
    FAISS: both only propose candidates, a set that holds every image that float32 rounding could have displaced.
    """
    import numpy as np

    topk = min(topk, len(gallery))
    with_faiss = len(gallery) >= FAISS_FROM and importlib.util.find_spec("faiss") is not None
    logger.info("search: %s", "FAISS" if with_faiss else "matrix product")
    propose = faiss_candidates if with_faiss else exact_candidates
    proposed = propose(query, gallery, topk)
    results = [ranked(one, gallery, rows, topk) for one, rows in zip(query, proposed, strict=True)]
    rows, similarity = zip(*results, strict=True)
    return np.stack(rows), np.stack(similarity)


def ranked(query: np.ndarray, gallery: np.ndarray, rows: np.ndarray, topk: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the `topk` of the candidate `rows` in order, with float64 similarities that depend on nothing else."""
    import numpy as np

    from utils.ranking.distance import row_blocks

    wide = query.astype(np.float64)
    blocks = row_blocks(len(rows), 2 * wide.nbytes)
    similarity = np.concatenate([(gallery[rows[start:stop]] * wide).sum(1) for start, stop in blocks])
    order = np.lexsort((rows, -similarity))[:topk]
    return rows[order], similarity[order]


def _slack(width: int) -> float:
    """Return how far apart in float32 two inner products of unit vectors [D] can be whose true order is the opposite.

    Each is wrong by at most D u / (1 - D u), u = 2^-24, in whatever order it is summed (Higham, Accuracy and Stability
    of Numerical Algorithms, 2002, section 3.1); twice that for two of them, and once more for safety.
    """
    return 2 * width * 2.0**-23


def exact_candidates(query: np.ndarray, gallery: np.ndarray, topk: int) -> Iterator[np.ndarray]:
    """Yield for each query the rows, in any order, that hold its `topk` nearest of [N, D], by matrix products."""
    import numpy as np

    from utils.ranking.distance import row_blocks

    last, slack = len(gallery) - topk, _slack(query.shape[1])
    for start, stop in row_blocks(len(query), 2 * len(gallery) * gallery.itemsize):
        for scores in query[start:stop] @ gallery.T:  # [N]
            yield np.flatnonzero(scores >= np.partition(scores, last)[last] - slack)


def faiss_candidates(query: np.ndarray, gallery: np.ndarray, topk: int) -> list[np.ndarray]:
    """Return what `exact_candidates` yields, or more, by FAISS's exact search."""
    import faiss
    import numpy as np

    slack = _slack(query.shape[1])
    index = faiss.IndexFlatIP(gallery.shape[1])
    index.add(gallery)
    found: dict[int, np.ndarray] = {}
    pending, asked = np.arange(len(query)), min(len(gallery), topk + SPARE)
    while len(pending):
        scores, rows = index.search(query[pending], asked)
        more = (scores[:, -1] >= scores[:, topk - 1] - slack) & (asked < len(gallery))  # the last one is a near tie
        found.update(zip(pending[~more], rows[~more], strict=True))
        pending, asked = pending[more], min(len(gallery), 4 * asked)
    return [found[number] for number in range(len(query))]


def show(query: Query, found: Sequence[str], similarity: np.ndarray, picture: Path) -> None:
    """Print the results of one query and draw the first MAX_DRAWN of them as PNG, its sentence as the title."""
    from tools.visualize.grid import Tile, draw_grid, printable
    from utils.tables import align

    ranks = map(str, range(1, len(found) + 1))
    lines = list(zip(ranks, (f"{value:.4f}" for value in similarity), found, strict=True))
    shown = [(rank, value, printable(path)) for rank, value, path in lines]
    table = align([("rank", "similarity", "image"), *shown], left=(2,))
    tiles = [Tile(path, rank, (value, os.path.basename(path))) for rank, value, path in lines[:MAX_DRAWN]]
    items = [
        Tile(path, "query" if query.is_plain else name, (os.path.basename(path),))
        for name, path in query.images.items()
    ]
    tile = items[0]._replace(beside=tuple(items[1:])) if items else None
    draw_grid(tile, tiles, picture, columns=COLUMNS, title=query.text)
    print(f"{query.kind} {printable(query.words)}\n{table}\npicture: {picture}\n")


def stem_of(query: Query) -> str:
    """Return what a query is called in the name of its picture."""
    from tools.visualize.grid import file_stem, text_stem

    if not query.images:
        return text_stem(query.text)
    stem = file_stem(next(iter(query.images.values())))
    return stem if query.is_plain else f"{stem}_{'_'.join(query.items)}"


if __name__ == "__main__":
    sys.exit(run_command(main))
