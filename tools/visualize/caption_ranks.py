"""Rank lists of captions as pictures: the image that a caption was written for, then what it finds."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tools.visualize.grid import Tile, text_stem
from tools.visualize.pictures import Picture, name_start, shown_ap
from utils.ap_rules import STANDARD

if TYPE_CHECKING:
    import torch

    from datasets.test_set import Labels
    from processor.evaluation.evaluate import Searched
    from utils.ranking.rank_list import RankList

OWN = "own image"


def caption_pictures(
    labels: "Labels",
    searched: "Searched",
    feat: "torch.Tensor",
    chosen: np.ndarray,
    ap: np.ndarray,
    lists: Sequence["RankList"],
    rule: str = STANDARD,
) -> list[Picture]:
    """Return the pictures of captions `chosen` [n], rows of `ap` [Q], and of the images that each of them finds.

    `feat` [N, D] are the embeddings of all rows of the test set. Images come in the order of `lists`; the similarity
    below each is its cosine to the caption, also where the order comes from re-ranking. `rule` is that of AP.
    """
    from datasets.test_set import OWN_IMAGE

    pictures = []
    for number, (row, found) in enumerate(zip(chosen.tolist(), lists, strict=True), 1):
        caption = searched.query[row]
        rows, own = searched.trial.gallery[found.gallery], labels.more[OWN_IMAGE][caption]
        text, pid = labels.names[caption], labels.pids[caption]
        results = result_tiles(labels, rows, found, similarities(feat, caption, rows), own)
        name = f"{name_start(number, pid, ap[row])}_{text_stem(text)}.png"
        score = shown_ap(ap[row], rule)
        query = None if own < 0 else Tile(labels.names[own], OWN, (score, *_lines(labels, own)))
        pictures.append(Picture(name, query, results, text if query else f"{text} ({score})"))
    return pictures


def similarities(feat: "torch.Tensor", caption: int, rows: np.ndarray) -> np.ndarray:
    """Return the cosines float64 [n] of a caption to images, rows of features [N, D]."""
    images, text = feat[rows].double().cpu(), feat[caption].double().cpu()
    return ((images @ text) / (images.norm(dim=1) * text.norm()).clamp(min=np.finfo(np.float64).tiny)).numpy()


def result_tiles(labels: "Labels", rows: np.ndarray, found: "RankList", similarity: np.ndarray, own: int) -> list[Tile]:
    """Return the images `rows` [n] that were found, with rank from 1, similarity [n], identity and file name.

    None of them is junk: a caption has no camera. `own` is the row of its own image, which is marked.
    """
    from utils.ranking.rank_list import STATUS

    return [
        Tile(
            labels.names[row],
            f"{rank}",
            (f"similarity {value:.3f}", *_lines(labels, row), *((OWN,) if row == own else ())),
            STATUS[code],
        )
        for rank, (row, code, value) in enumerate(zip(rows, found.status, similarity, strict=True), 1)
    ]


def _lines(labels: "Labels", row: int) -> tuple[str, str]:
    return f"pid {labels.pids[row]}", Path(labels.names[row]).name
