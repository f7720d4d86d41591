"""Rank lists of queries of modalities as pictures: all items of a query, its captions as text, then what they find."""

from typing import TYPE_CHECKING

import numpy as np

from configs.modalities import TEXT
from tools.visualize.common import samples_of
from tools.visualize.grid import Tile
from tools.visualize.pictures import Picture, name_start, result_tiles, shown_ap, tile_lines

if TYPE_CHECKING:
    from datasets.test_set import Labels
    from tools.visualize.ranks import Chosen

PARTED_BY = " / "  # captions of one query


def item_pictures(labels: "Labels", chosen: "Chosen") -> list[Picture]:
    """Return the pictures of queries whose items have modalities, and of what was found for each of them.

    Cameras are told where the data set has any. A gallery item of several rows shows its first.
    """
    from datasets.test_set import MODALITY, first_items

    trial, cameras = chosen.searched.trial, bool(labels.camids.any())
    gallery = samples_of(labels, first_items(trial.gallery))
    pictures = []
    for number, (row, found) in enumerate(zip(chosen.rows.tolist(), chosen.lists, strict=True), 1):
        rows = np.atleast_1d(trial.query[row])
        rows = rows[rows >= 0]
        names, items = labels.more[MODALITY][rows].tolist(), samples_of(labels, rows)
        score = shown_ap(chosen.ap[row], chosen.ap_rule)
        captions = [item.path for name, item in zip(names, items, strict=True) if name == TEXT]
        tiles = [
            Tile(item.path, name, tile_lines(item, cameras))
            for name, item in zip(names, items, strict=True)
            if name != TEXT
        ]
        title = PARTED_BY.join(captions)
        if tiles:
            tiles[0] = tiles[0]._replace(caption=(score, *tiles[0].caption))
        else:
            title = f"{title} ({score})"
        file = f"{name_start(number, items[0].pid, chosen.ap[row])}_{'_'.join(names)}.png"
        query = tiles[0]._replace(beside=tuple(tiles[1:])) if tiles else None
        pictures.append(Picture(file, query, result_tiles(found, gallery, cameras), title))
    return pictures
