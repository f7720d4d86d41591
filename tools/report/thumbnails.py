"""Queries and their rank lists as rows of small embedded images."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.modalities import TEXT
from tools.report.page import details, join, missing, paragraph, text
from tools.report.places import is_below, outside_note

if TYPE_CHECKING:
    from PIL import Image

Entry = Mapping[str, Any]  # an image of analysis.json's `worst`
Images = Mapping[str, str | None]  # data URI by path

SIDE = 160  # longest side of a picture, pixels: it is shown smaller and enlarged by a click
QUALITY = 80  # of the JPEG, 1..95
MOST_LETTERS = 60  # of a caption in the place of an image
LABELS = {"right": "✓ right", "wrong": "✗ wrong", "junk": "– junk"}
LEGEND = (
    "Each row: the query, then the gallery from the nearest on. Green ✓ is the query's identity, red ✗ another one, "
    "grey – (junk) the query's identity seen by the query's camera: shown here, but not ranked. pid is the identity, "
    "cam the camera as in slices.csv (VeRi's c001 is 0), d the distance. A click enlarges a picture, another one ends "
    "that."
)
COPY_LEGEND = "'same picture': the query's own copy in the gallery, as in VeRi, where every query is there too; junk."
CAPTION_LEGEND = (
    "Each row: the image that the caption was written for, then the gallery from the nearest on, in which that image "
    "stays and counts. Green ✓ shows the caption's identity, red ✗ another one. pid is the identity, d the distance."
)
MODAL_LEGEND = (
    "Each row: the items of a query, its captions as text, then the gallery from the nearest on. Green ✓ is the "
    "query's identity, red ✗ another one, grey – (junk) what the data set's rule leaves out: shown here, but not "
    "ranked. The queries are the worst of the weakest set of each group. pid is the identity, d the distance."
)
OWN, NOT_THERE, COPY = "own image", "not in the gallery", "same picture"


def thumbnail(path: str) -> str | None:
    """Return the image as a JPEG data URI, at most SIDE pixels wide and high; None when it cannot be read."""
    from datasets.image_files import ImageError, decode, read_file

    try:
        small, _ = decode(read_file(path), draft=(2 * SIDE, 2 * SIDE))
    except (FileNotFoundError, ImageError):
        return None
    small.thumbnail((SIDE, SIDE))
    return data_uri(small)


def data_uri(image: "Image.Image") -> str:
    """Return an RGB image as a JPEG data URI."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def query_rows(queries: Sequence[Entry], pictures: Sequence[Path], legend: bool = True) -> str:
    """Return entries of analysis.json's `worst` or `best`, the first half of them open; `legend`: what marks mean.

    Images below the folders `pictures` are shown.
    """
    if not queries:
        return missing("No query has a match, so none can be ranked.")
    parts = [paragraph(line, "note") for line in _legend_of(queries)] if legend else []
    images = read_images(queries, pictures)
    parts += absent_notes(images, pictures)
    rows = [_query_row(number, query, images) for number, query in enumerate(queries, start=1)]
    half = (len(rows) + 1) // 2
    parts += rows[:half]
    if rows[half:]:
        parts.append(details(f"{len(rows) - half} more", join(rows[half:])))
    return join(parts)


def read_images(queries: Sequence[Entry], pictures: Sequence[Path]) -> dict[str, str | None]:
    """Return a data URI of each image that such queries show; None where it cannot be read, or lies elsewhere."""
    shown = [[*(entry for _, entry in _images_of(query)), *query["ranks"]] for query in queries]
    paths = [entry["path"] for entries in shown for entry in entries if not _is_caption(entry)]
    known = dict.fromkeys(path for path in paths if path)  # one gallery image is near many queries
    return {path: thumbnail(path) if is_below(path, pictures) else None for path in known}


def absent_notes(images: Images, pictures: Sequence[Path]) -> list[str]:
    """Return what is to be said of images that are not shown."""
    outside = outside_note(images, pictures)
    absent = sum(image is None and is_below(path, pictures) for path, image in images.items())
    lost = f"{absent} of {len(images)} images cannot be read where the test found them." if absent else ""
    return [missing(note) for note in (lost, outside) if note]


def _legend_of(queries: Sequence[Entry]) -> list[str]:
    """Return what the marks of such queries mean."""
    if "items" in queries[0]:
        return [MODAL_LEGEND]
    if "own" in queries[0]:
        return [CAPTION_LEGEND]
    copied = any(is_copy(query, entry) for query in queries for entry in query["ranks"])
    return [LEGEND, COPY_LEGEND] if copied else [LEGEND]


def is_copy(query: Entry, entry: Entry) -> bool:
    """Return whether an image of the gallery is the query's own picture: junk whose file has the same name."""
    return entry["status"] == "junk" and Path(entry["path"]).name == Path(query["path"]).name


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
    captions = [paragraph(item["path"], "note") for item in query.get("items", ()) if _is_caption(item)]
    name = query["set"] if "items" in query else query["path"] if "own" in query else Path(query["path"]).name
    title = paragraph(f"{number}. {scores}: {name}", "title")
    return join([title, *captions, rank_list(query, images)])


def rank_list(query: Entry, images: Images) -> str:
    """Return a query and what it found, of analysis.json, in a row; `images` as `read_images` returns them."""
    items = [_item("query", label, entry, images) for label, entry in _images_of(query)]
    for entry in query["ranks"]:
        remark = OWN if entry["path"] == query.get("own") else COPY if is_copy(query, entry) else ""
        items.append(_item(entry["status"], LABELS[entry["status"]], entry, images, remark))
    return '<ol class="ranks">\n' + "\n".join(items) + "\n</ol>"


def zoomed(source: str, words: str) -> str:
    """Return a picture that fills the screen from a click to the next; no script is needed."""
    return f'<details class="zoom"><summary><img src="{source}" alt="{text(words)}"></summary></details>'


def _item(kind: str, label: str, entry: Entry, images: Images, note: str = "") -> str:
    source, name = images.get(entry["path"]), Path(entry["path"]).name
    if source is None:
        words = entry["path"][:MOST_LETTERS] if _is_caption(entry) else "not found" if entry["path"] else NOT_THERE
        image = f'<span class="absent">{text(words)}</span>'
    else:
        image = zoomed(source, f"{label}: {name}")
    lines = [f"pid {entry['pid']}"]
    if "camid" in entry:
        lines.append(f"cam {entry['camid']}")
    if "distance" in entry:
        lines.append(f"d {round(entry['distance'], 3) + 0.0:.3f}")  # + 0.0: no -0.000
    words = "".join(f"<span>{text(line)}</span>" for line in lines)
    words += f'<span class="remark">{text(note)}</span>' if note else ""
    return f'<li class="{kind}" title="{text(entry["path"])}">{image}<strong>{text(label)}</strong>{words}</li>'
