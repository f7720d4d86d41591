"""Embeddings of some test identities in the plane, by t-SNE or PCA: a picture and the coordinates.

Reference: van der Maaten and Hinton, Visualizing Data using t-SNE, JMLR 2008.
"""

import csv
import io
import logging
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tools.visualize.common import add_seed, open_test_set, picture_parser, samples_of
from utils.commands import need_packages, whole_number
from utils.errors import ConfigError, DataError, RunError
from utils.progress import progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch.utils.data import DataLoader

    from datasets.bases import Sample
    from datasets.test_set import TestSet
    from tools.visualize.common import Opened

logger = logging.getLogger(__name__)

METHODS = {"tsne": "t-SNE", "pca": "PCA"}
LABELS = {"pid": "identity", "camid": "camera"}
FEWEST = 4  # points
LEAST_SPREAD = 1e-18  # its square is still a float32; without spread, t-SNE would divide by 0 and crash the process
USUAL_PERPLEXITY = 30.0
MARKERS = {"query": ("*", 110), "gallery": ("o", 26)}  # shape and area in points
LEGEND_ROWS = 22
MAX_LEGEND = 3 * LEGEND_ROWS  # names that have room beside the picture
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how one begins
DISTINCT = (  # Trubetskoy, List of 20 simple, distinct colors, 2017, the strong ones first
    *("#e6194b", "#3cb44b", "#4363d8", "#ffe119", "#911eb4", "#f58231", "#42d4f4", "#000075", "#f032e6", "#bfef45"),
    *("#800000", "#469990", "#9a6324", "#dcbeff", "#808000", "#fabed4", "#a9a9a9", "#aaffc3", "#ffd8b1", "#fffac8"),
)


def main(argv: list[str] | None = None) -> int:
    """Write <method>_<colour>.png and <method>.csv; return the exit code 0."""
    parser = picture_parser("embedding", "Draw the embeddings of some test identities in the plane.")
    add_seed(parser)
    parser.add_argument("--method", choices=METHODS, default="tsne", help="how the plane is found (default tsne)")
    parser.add_argument("--num-ids", type=whole_number, default=20, metavar="N", help="identities, drawn by --seed")
    parser.add_argument("--colour", "--color", choices=LABELS, default="pid", help="what colours show (default pid)")
    parser.add_argument(
        "--perplexity", type=float, metavar="P", help="of t-SNE, below the number of images (default: at most 30)"
    )
    args = parser.parse_args(argv)
    need_packages("matplotlib", "sklearn")
    opened = open_test_set(args)
    samples, is_query, feat = _embed_some(opened, args.num_ids, args.seed)
    points = project(feat, args.method, args.seed, args.perplexity)

    from tools.charts import save_png
    from utils.atomic import write_text_atomic

    picture, table = opened.folder / f"{args.method}_{args.colour}.png", opened.folder / f"{args.method}.csv"
    write_text_atomic(table, coordinates(samples, is_query, points))
    labels = np.array([getattr(sample, args.colour) for sample in samples])
    ids = len({sample.pid for sample in samples})
    title = f"{METHODS[args.method]} of {len(samples)} embeddings of {ids} identities"
    save_png(scatter(points, labels, is_query, LABELS[args.colour], title), picture)
    print(f"{title}: {picture}, {table}")
    return 0


def choose_ids(pids: np.ndarray, number: int, seed: int) -> np.ndarray:
    """Return `number` of the identities in pids [N], or all where there are fewer, drawn by `seed` and sorted."""
    known = np.unique(pids)
    if number >= len(known):
        return known
    return np.sort(np.random.default_rng(seed).choice(known, number, replace=False))


def project(feat: np.ndarray, method: str, seed: int, perplexity: float | None = None) -> np.ndarray:
    """Return float [N, 2] for features [N, D], the same on each call with one `seed`; axes are centred.

    `perplexity` None: 30, or a third of the images where they are few. Raises DataError for fewer than 4 images or a
    feature that is not finite, RunError for features that are all alike, ConfigError for a perplexity that is not
    above 0 and below N.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    from utils.ranking.distance import squared_norms

    total = len(feat)
    if total < FEWEST:
        raise DataError(f"{total} images of the chosen identities; {FEWEST} are needed: raise --num-ids")
    squared_norms(feat, "test")
    if np.std(feat, axis=0, dtype=np.float64).max() < LEAST_SPREAD:
        raise RunError(f"all {total} embeddings are alike, so there is nothing to draw: has the model learnt anything?")
    if method == "pca":
        return PCA(2, svd_solver="full").fit_transform(feat)
    if perplexity is None:
        perplexity = min(USUAL_PERPLEXITY, (total - 1) / 3)
    if not 0 < perplexity < total:
        raise ConfigError(
            f"--perplexity got {perplexity:g}, allowed: above 0 and below {total}, the number of images; "
            "lower it, or raise --num-ids"
        )
    with progress(f"t-SNE of {total} embeddings", 1, "map"):  # it tells nothing on the way
        return TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(feat)


def coordinates(samples: list["Sample"], is_query: np.ndarray, points: np.ndarray) -> str:
    """Return CSV text with the columns path, pid, camid, x, y, split (query or gallery).

    A path that a spreadsheet would take for a formula begins with an apostrophe.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("path", "pid", "camid", "x", "y", "split"))
    for sample, query, (x, y) in zip(samples, is_query, points, strict=True):
        split = "query" if query else "gallery"
        path = f"'{sample.path}" if sample.path.startswith(FORMULA) else sample.path
        writer.writerow((path, sample.pid, sample.camid, f"{x:.6g}", f"{y:.6g}", split))
    return stream.getvalue()


def scatter(points: np.ndarray, labels: np.ndarray, is_query: np.ndarray, what: str, title: str) -> "Figure":
    """Return the picture of points [N, 2], coloured by labels [N]: stars are queries, dots gallery images."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    names = np.unique(labels)
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    axes = figure.subplots()
    colours = dict(zip(names.tolist(), palette(len(names)), strict=True))
    for split, chosen in (("gallery", ~is_query), ("query", is_query)):
        marker, area = MARKERS[split]
        own = [colours[label] for label in labels[chosen].tolist()]
        axes.scatter(*points[chosen].T, c=own, marker=marker, s=area, edgecolors="black", linewidths=0.4)
    axes.set(title=title, xticks=[], yticks=[])
    axes.set_aspect("equal", adjustable="datalim")
    style: dict[str, Any] = {"linestyle": "", "markeredgecolor": "black", "markeredgewidth": 0.4}
    roles = [Line2D([], [], marker=MARKERS[split][0], color="white", label=split, **style) for split in MARKERS]
    figure.legend(handles=roles, loc="outside lower center", ncols=len(roles), frameon=False, fontsize=9)
    named = names[np.unique(np.linspace(0, len(names) - 1, min(len(names), MAX_LEGEND)).astype(int))].tolist()
    handles = [Line2D([], [], marker="o", color=colours[name], label=f"{name}", **style) for name in named]
    columns = math.ceil(len(handles) / LEGEND_ROWS)
    heading = what if len(named) == len(names) else f"{what}: {len(named)} of {len(names)}"
    figure.legend(handles=handles, title=heading, loc="outside right upper", ncols=columns, frameon=False, fontsize=9)
    return figure


def palette(number: int) -> list[tuple[float, ...]]:
    """Return `number` RGBA colours: the distinct ones while they last, else that many along a rainbow."""
    import matplotlib
    from matplotlib.colors import to_rgba

    if number <= len(DISTINCT):
        return [to_rgba(name) for name in DISTINCT[:number]]
    return [tuple(colour) for colour in matplotlib.colormaps["turbo"](np.linspace(0, 1, number))]


def _embed_some(opened: "Opened", num_ids: int, seed: int) -> tuple[list["Sample"], np.ndarray, np.ndarray]:
    """Return samples, whether each is a query [N], and features [N, D] of `num_ids` identities among the queries.

    An item that has a modality is fused alone, and is a query where it is not in the gallery.
    """
    from datasets.test_set import MODALITY, first_items, images_of_rows
    from processor.evaluation.embed import embed_test, make_embedding, vectors

    test, trained = opened.data.test, opened.trained
    queries = first_items(test.trials[0].query)
    pids = test.labels.pids
    chosen = choose_ids(pids[queries], num_ids, seed)
    if len(chosen) < num_ids:
        logger.warning("--num-ids %d: the test set has %d identities, all are drawn", num_ids, len(chosen))
    rows = np.flatnonzero(np.isin(pids, chosen))
    how = make_embedding(trained.cfg, trained.device)
    lengths = None if test.lengths is None else test.lengths[rows]
    images = rows if test.lengths is None else images_of_rows(test.lengths, rows)
    embedded = embed_test(trained.model, test._replace(loaders=_loaders_of(test, images), lengths=lengths), how)
    feat, is_query = embedded.feat, np.isin(rows, queries)
    if MODALITY in test.labels.more:
        feat = vectors(embedded, np.arange(len(rows))[:, None])
        is_query = ~np.isin(rows, test.trials[0].gallery)
    return samples_of(test.labels, rows), is_query, feat.float().cpu().numpy()


def _loaders_of(test: "TestSet", rows: np.ndarray) -> list["DataLoader"]:
    """Return loaders of some rows of a test set's loaders, which rise."""
    loaders, first = [], 0
    for loader in test.loaders:
        own = rows[(rows >= first) & (rows < first + len(loader.dataset))] - first
        first += len(loader.dataset)
        loaders.append(
            type(loader)(
                loader.dataset,
                batch_size=loader.batch_size,
                sampler=own.tolist(),
                num_workers=loader.num_workers,
                collate_fn=loader.collate_fn,
            )
        )
    return loaders
