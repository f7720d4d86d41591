"""Rank a folder of images by similarity to images, or to sentences where the model was trained on captions:

python -m tools.search --run logs/my_run --query a.jpg --gallery photos
python -m tools.search --run logs/my_run --text "a woman in a red coat" --gallery photos
python -m tools.search --run logs/my_run --query nir=a.jpg text="a woman in a red coat" --gallery photos

The last one is a single query of several modalities, for a model that was trained on these (MODEL.NAME multimodal).
Prints the nearest images of each query and draws them. The folder's embeddings stay in an index, see `index`.
"""

from __future__ import annotations

from utils.interrupts import take_over

if __name__ == "__main__":
    take_over()  # Ctrl-C, before the imports that take time

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tools.loose_images import SKIP_HINT, add_skip_broken, check_holds_images
from tools.queries import Query, parse_queries, query_word
from tools.sentences import check_quotes, sentence
from tools.source import load_source, source_parser
from utils.commands import OneLineParser, need_packages, path_flag, whole_number
from utils.errors import DataError, run_command

if TYPE_CHECKING:
    import numpy as np

    from tools.search.index import Index
    from tools.search.shards import Shards

logger = logging.getLogger(__name__)

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
    check_holds_images(args.gallery, "--gallery")
    from tools.feature_extractor import BrokenImageError, FeatureExtractor
    from tools.modalities import gallery_modality
    from tools.search.index import check_file, choose_file, read_kept, up_to_date
    from tools.search.large_index import Update

    if args.index is not None:
        check_file(args.index)  # before the gallery is embedded
    trained = load_source(args)
    extractor = FeatureExtractor(trained, gallery_modality(trained.cfg))
    file = choose_file(gallery, extractor, args.index)
    old = read_kept(file, gallery, extractor)  # says in which precision to embed
    feat = extractor.embed_queries([query.items for query in queries])  # first, so that a mistake shows at once
    out = make_folder(args.out, "--out")
    try:
        index = up_to_date(extractor, gallery, file, old, Update(args.skip_broken, args.update))
    except BrokenImageError as error:
        raise DataError(f"{error}; {SKIP_HINT}") from error
    names, similarity = find(feat.numpy(), index, args.topk, args.exact)
    for number, query in enumerate(queries):
        found = [str(gallery / name) for name in names[number]]
        show(query, found, similarity[number], out / f"{number + 1}_{stem_of(query)}.png")
    return 0


def _add_gallery(parser: OneLineParser) -> None:
    """Add what says where the gallery and its index are, and how they are read."""
    parser.add_argument(
        "--gallery", required=True, type=path_flag, metavar="DIR", help="folder of images, with all folders below it"
    )
    parser.add_argument(
        "--index",
        type=path_flag,
        metavar="FILE.npz",
        help="file that keeps the gallery's embeddings; of a large gallery the folder FILE.shards (default: hidden in "
        "DIR, or beside the weights)",
    )
    parser.add_argument(
        "--update",
        action="store_true",
        help="look at every image of a large gallery and check its index (default: where a folder has changed)",
    )
    parser.add_argument(
        "--exact",
        action="store_true",
        help="compare with every image of a large gallery (default: with the candidates that FAISS's lists propose)",
    )


def find(
    query: np.ndarray, index: Index | Shards, topk: int, exact: bool
) -> tuple[Sequence[Sequence[str]], Sequence[np.ndarray]]:
    """Return the paths most similar to each query float32 [Q, D], nearest first, and their similarities."""
    from tools.search.nearest import nearest, nearest_in
    from tools.search.shards import Shards

    if isinstance(index, Shards):
        return nearest_in(query, index, topk, exact)
    rows, similarity = nearest(query, index.feat, topk)
    return index.names[rows].tolist(), similarity


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
    parser.add_argument("--topk", type=whole_number, default=10, metavar="K", help="results per query (default: 10)")
    _add_gallery(parser)
    parser.add_argument(
        "--out", default="logs/search", type=path_flag, metavar="DIR", help="folder of the pictures (%(default)s)"
    )
    add_skip_broken(parser)
    args = parser.parse_args(argv)
    if not args.query and not args.text:
        parser.error('name what to search for: --query IMG ..., --text "WORDS", or both')
    check_quotes(args.text, args.opts, ", or --text again for each sentence")
    return args


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
