"""Queries and their rank lists as rows of small embedded images."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.modalities import TEXT
from tools.report.page import details, join, missing, paragraph, text

Entry = Mapping[str, Any]  # an image of analysis.json's `worst`
Images = Mapping[str, str | None]  # data URI by path

SIDE = 96  # longest side of a thumbnail, pixels
QUALITY = 80  # of the JPEG, 1..95
MOST_LETTERS = 60  # of a caption in the place of an image
LABELS = {"right": "✓ right", "wrong": "✗ wrong", "junk": "– junk"}
LEGEND = (
    "Each row: the query, then the gallery from the nearest on. Green ✓ is the query's identity, red ✗ another one, "
    "grey – (junk) the query's identity seen by the query's camera: shown here, but not ranked. pid is the identity, "
    "cam the camera as in slices.csv (VeRi's c001 is 0), d the distance."
)
CAPTION_LEGEND = (
    "Each row: the image that the caption was written for, then the gallery from the nearest on, in which that image "
    "stays and counts. Green ✓ shows the caption's identity, red ✗ another one. pid is the identity, d the distance."
)
MODAL_LEGEND = (
    "Each row: the items of a query, its captions as text, then the gallery from the nearest on. Green ✓ is the "
    "query's identity, red ✗ another one, grey – (junk) what the data set's rule leaves out: shown here, but not "
    "ranked. The queries are the worst of the weakest set of each group. pid is the identity, d the distance."
)
OWN, NOT_THERE = "own image", "not in the gallery"


def thumbnail(path: str) -> str | None:
    """Return the image as a JPEG data URI, at most SIDE pixels wide and high; None when it cannot be read."""
    from datasets.image_files import ImageError, decode, read_file

    try:
        small, _ = decode(read_file(path), draft=(2 * SIDE, 2 * SIDE))
    except (FileNotFoundError, ImageError):
        return None
    small.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def worst_queries(worst: Sequence[Entry]) -> str:
    """Return entries of analysis.json's `worst`, the first half of them open."""
    if not worst:
        return missing("No query has a match, so none can be ranked.")
    legend = MODAL_LEGEND if "items" in worst[0] else CAPTION_LEGEND if "own" in worst[0] else LEGEND
    parts = [paragraph(legend, "note")]
    shown = [[*(entry for _, entry in _images_of(query)), *query["ranks"]] for query in worst]
    paths = [entry["path"] for entries in shown for entry in entries if not _is_caption(entry)]
    images = {path: thumbnail(path) for path in dict.fromkeys(paths) if path}  # one gallery image is near many queries
    absent = sum(image is None for image in images.values())
    if absent:
        parts.append(missing(f"{absent} of {len(images)} images cannot be read where the test found them."))
    rows = [_query_row(number, query, images) for number, query in enumerate(worst, start=1)]
    half = (len(rows) + 1) // 2
    parts += rows[:half]
    if rows[half:]:
        parts.append(details(f"{len(rows) - half} more", join(rows[half:])))
    return join(parts)


def _images_of(query: Entry) -> list[tuple[str, Entry]]:
    """Return the images beside which a rank list stands, with their labels; the path of one that is not there is ""."""
    if "items" in query:
        return [(item["modality"], item) for item in query["items"] if not _is_caption(item)]
    return [(OWN if "own" in query else "query", {**query, "path": query.get("own", query["path"])})]


def _is_caption(entry: Entry) -> bool:
    return entry.get("modality") == TEXT


def _query_row(number: int, query: Entry, images: Images) -> str:
    found = query["first_hit"] + 1  # counted from 1, as people do
    scores = f"AP {query['ap']:.2%}, {query['num_pos']} matches, the first at rank {found}"
    items = [_item("query", label, entry, images) for label, entry in _images_of(query)]
    for entry in query["ranks"]:
        is_own = entry["path"] == query.get("own")
        items.append(_item(entry["status"], LABELS[entry["status"]], entry, images, OWN if is_own else ""))
    captions = [paragraph(item["path"], "note") for item in query.get("items", ()) if _is_caption(item)]
    name = query["set"] if "items" in query else query["path"] if "own" in query else Path(query["path"]).name
    title = paragraph(f"{number}. {scores}: {name}", "title")
    return join([title, *captions, '<ol class="ranks">\n' + "\n".join(items) + "\n</ol>"])


def _item(kind: str, label: str, entry: Entry, images: Images, note: str = "") -> str:
    source, name = images.get(entry["path"]), Path(entry["path"]).name
    if source is None:
        words = entry["path"][:MOST_LETTERS] if _is_caption(entry) else "not found" if entry["path"] else NOT_THERE
        image = f'<span class="absent">{text(words)}</span>'
    else:
        image = f'<img src="{source}" alt="{text(f"{label}: {name}")}">'
    lines = [f"pid {entry['pid']}"]
    if "camid" in entry:
        lines.append(f"cam {entry['camid']}")
    if "distance" in entry:
        lines.append(f"d {round(entry['distance'], 3) + 0.0:.3f}")  # + 0.0: no -0.000
    words = "".join(f"<span>{text(line)}</span>" for line in (*lines, *filter(None, [note])))
    return f'<li class="{kind}" title="{text(entry["path"])}">{image}<strong>{text(label)}</strong>{words}</li>'
