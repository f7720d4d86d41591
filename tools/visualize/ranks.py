"""Rank lists as pictures: a query and what was found for it, right, wrong and same-camera junk told apart."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tools.visualize.common import add_seed, open_test_set, picture_parser, samples_of
from tools.visualize.grid import Tile, draw_grid, file_stem, grid_image, save_picture, stacked
from tools.visualize.pictures import Picture, name_start, result_tiles, shown_ap, tile_lines
from utils.ap_rules import STANDARD
from utils.commands import OneLineParser, need_packages, whole_number
from utils.errors import ConfigError, DataError
from utils.progress import over

if TYPE_CHECKING:
    from datasets.bases import Sample
    from datasets.test_set import Labels, TestSet
    from processor.evaluation.embed import Embedded
    from processor.evaluation.evaluate import Searched
    from tools.visualize.common import Opened
    from utils.ranking.rank_list import RankList

ORDERS = ("worst", "best", "pid", "random")
SHEET_NAME = "overview.png"
MAX_TOPK = 100  # that have room in a picture
SHEET_QUERIES = 40  # that the overview holds
SHEET_HEIGHT = 72  # pixels of an image there
NUM_EXAMPLES = 5  # identities that an error quotes


class Chosen(NamedTuple):
    """Some queries of the test set and what was found for them."""

    embedded: "Embedded"
    searched: "Searched"
    rows: np.ndarray  # int64 [n]: rows of `ap`
    ap: np.ndarray  # float64 [Q]
    ap_rule: str  # one of AP_RULES
    lists: list["RankList"]  # of `rows`


def main(argv: list[str] | None = None) -> int:
    """Write one picture per query and the overview; return the exit code 0."""
    parser = picture_parser("ranks", "Show for single queries of the test set what the model finds.")
    add_queries(parser, topk=10, num_queries=20)
    args = parse_queries(parser, argv)
    need_packages("matplotlib")
    opened = open_test_set(args)

    from datasets.test_set import MODALITY, OWN_IMAGE
    from tools.visualize.caption_ranks import caption_pictures
    from tools.visualize.item_ranks import item_pictures

    test, chosen = opened.data.test, search_chosen(opened, args)
    if MODALITY in test.labels.more:
        pictures = item_pictures(test.labels, chosen)
    elif OWN_IMAGE in test.labels.more:
        pictures = caption_pictures(
            test.labels, chosen.searched, chosen.embedded.feat, chosen.rows, chosen.ap, chosen.lists, chosen.ap_rule
        )
    else:
        pictures = image_pictures(test.labels, chosen)
    for picture in over(pictures, "draw", "picture"):
        draw_grid(picture.query, picture.results, opened.folder / picture.name, title=picture.title)
    draw_sheet(pictures, opened.folder / SHEET_NAME)
    print(f"{len(chosen.rows)} rank lists and {SHEET_NAME} in {opened.folder}")
    return 0


def add_queries(parser: OneLineParser, topk: int, num_queries: int) -> None:
    """Add the arguments that choose queries and how much of their rank lists is drawn, with these defaults."""
    add_seed(parser)
    what = f"ranks to show, without junk ({topk})"
    parser.add_argument("--topk", type=whole_number, default=topk, metavar="K", help=what)
    how_many = f"how many (default {num_queries})"
    parser.add_argument("--num-queries", type=whole_number, default=num_queries, metavar="N", help=how_many)
    parser.add_argument("--order", choices=ORDERS, default="worst", help="which ones first (default worst, by AP)")
    parser.add_argument(
        "--set",
        metavar="NAME",
        help="set of queries, where there are several, e.g. NIR+TEXT (default: the first)",
    )
    parser.add_argument(
        "--pids",
        nargs="+",
        type=int,
        metavar="P",
        help="only queries of these identities; KEY VALUE pairs stand before",
    )


def parse_queries(parser: OneLineParser, argv: list[str] | None) -> Namespace:
    """Return the arguments of a parser with those of `add_queries`; ConfigError for more ranks than are drawn."""
    args = parser.parse_args(argv)
    if args.topk > MAX_TOPK:
        raise ConfigError(f"--topk got {args.topk}, a picture has room for {MAX_TOPK}; lower it")
    return args


def search_chosen(opened: "Opened", args: Namespace) -> Chosen:
    """Embed the test set, rank the first trial of a set as tests do, and return the queries that the arguments choose.

    Raises ConfigError for a --set that is not tested, DataError for identities of --pids that no query shows.
    """
    from datasets.test_set import first_items
    from processor.evaluation.embed import embed_test, make_embedding
    from processor.evaluation.evaluate import rank_options, search
    from utils.ranking.rank import rank
    from utils.ranking.rank_list import rank_lists

    trained, test, options = opened.trained, opened.data.test, rank_options(opened.trained.cfg)
    number = trial_of(test, args.set)
    pids = test.labels.pids[first_items(test.trials[number].query)]
    check_pids(args.pids or [], pids)  # before the work
    embedded = embed_test(trained.model, test, make_embedding(trained.cfg, trained.device))
    searched = search(test, embedded, options, number)
    ap = rank(searched.distances, searched.protocol, ap=options.ap).ap
    rows = choose(ap, pids, args.order, args.num_queries, args.pids, args.seed)
    lists = rank_lists(searched.distances, rows.tolist(), args.topk, searched.protocol)
    return Chosen(embedded, searched, rows, ap, options.ap, lists)


def trial_of(test: "TestSet", wanted: str | None) -> int:
    """Return the number of the first trial of a set, None = of the first; ConfigError where there is no such set."""
    names = [trial.set for trial in test.trials]
    if wanted is None:
        return 0
    found = next((number for number, name in enumerate(names) if name.lower() == wanted.lower()), None)
    if found is None:
        known = ", ".join(name or "one without a name" for name in dict.fromkeys(names))
        raise ConfigError(f"--set '{wanted}' is not tested (TEST.QUERY_SETS); sets of {test.title}: {known}")
    return found


def image_pictures(labels: "Labels", chosen: Chosen) -> list[Picture]:
    """Return the pictures of queries and of what was found for each of them."""
    queries = samples_of(labels, chosen.searched.query[chosen.rows])
    gallery = samples_of(labels, chosen.searched.trial.gallery)
    scores = chosen.ap[chosen.rows].tolist()
    return [
        Picture(file_name(number, query, score), query_tile(query, score, chosen.ap_rule), result_tiles(found, gallery))
        for number, (score, query, found) in enumerate(zip(scores, queries, chosen.lists, strict=True), 1)
    ]


def check_pids(wanted: Sequence[int], pids: np.ndarray) -> None:
    """Raise DataError for a wanted identity that is none of those of the queries, pids [Q]."""
    unknown = sorted(set(wanted) - set(pids.tolist()))
    if unknown:
        known = np.unique(pids)
        raise DataError(
            f"--pids {unknown[0]}: no query shows this identity; the {len(known)} of the test set begin "
            f"{', '.join(map(str, known[:NUM_EXAMPLES]))}"
        )


def choose(
    ap: np.ndarray, pids: np.ndarray, order: str, number: int, wanted: Sequence[int] | None = None, seed: int = 0
) -> np.ndarray:
    """Return the rows int64 of the first `number` queries in an order of ORDERS, ties by the smaller row.

    `ap` float [Q] is NaN for queries without a match, which come last by worst and best. `wanted` keeps only the
    queries of these identities.
    """
    rows = np.arange(len(ap))
    if wanted:
        rows = rows[np.isin(pids, wanted)]
    if order == "random":
        rows = np.random.default_rng(seed).permutation(rows)
    else:
        keys = {"worst": ap, "best": -ap, "pid": pids}
        rows = rows[np.argsort(keys[order][rows], kind="stable")]  # NaN last
    return rows[:number]


def query_tile(sample: "Sample", ap: float, rule: str = STANDARD) -> Tile:
    """Return the query with its average precision, by `rule`, identity, camera and file name."""
    return Tile(sample.path, "query", (shown_ap(ap, rule), *tile_lines(sample)))


def draw_sheet(pictures: Sequence[Picture], path: Path, height: int = SHEET_HEIGHT) -> None:
    """Write the overview: the first queries below each other, small, without the captions of what was found.

    `height` is that of an image, in pixels.
    """
    rows = []
    for picture in pictures[:SHEET_QUERIES]:
        small = [tile._replace(caption=()) for tile in picture.results]
        query = picture.query and picture.query._replace(caption=picture.query.caption[:2])
        rows.append(grid_image(query, small, max(1, len(small)), height, picture.title))
    save_picture(stacked(rows), path)


def file_name(number: int, sample: "Sample", ap: float) -> str:
    """Return a name that sorts by `number`, such as 001_ap0.03_pid12_c2_name.png."""
    return f"{name_start(number, sample.pid, ap)}_c{sample.camid}_{file_stem(sample.path)}.png"
