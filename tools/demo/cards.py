"""The results as HTML within the page: all text is escaped, all pictures are part of it, nothing is a link."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tools.demo.engine import Answer, Result
from tools.demo.gallery import UNKNOWN, Gallery
from tools.report.page import text
from tools.report.thumbnails import data_uri, zoomed

if TYPE_CHECKING:
    from PIL import Image

WORDS = {  # modality -> what it is called on the page
    "vis": "image",
    "nir": "infrared image",
    "sk": "sketch",
    "cp": "coloured pencil drawing",
    "text": "sentence",
}
# Colours are those of gradio's theme, which follows the system into the dark.
STYLE = """
.gradio-container footer {display: none !important;}
.reid p {margin: .25rem 0; overflow-wrap: anywhere;}
.reid .note, .reid .absent {opacity: .75;}
.reid .sentence {max-height: 7rem; overflow-y: auto;}
.reid .error {color: var(--error-text-color, #b91c1c); font-weight: 600;}
.reid ol {display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: .75rem; margin: 0;
    padding: 0; list-style: none;}
.reid li {display: flex; flex-direction: column; gap: .15rem; margin: 0; padding: .5rem; min-width: 0;
    border: 1px solid var(--border-color-primary); border-radius: .5rem; background: var(--block-background-fill);
    color: var(--body-text-color); font-size: .875rem;}
.reid li > * {overflow-wrap: anywhere;}
.reid .value {font-variant-numeric: tabular-nums;}
.reid .absent {display: flex; align-items: center; justify-content: center; height: 11rem;}
.reid summary {cursor: zoom-in; list-style: none;}
.reid summary::-webkit-details-marker {display: none;}
.reid summary img {display: block; margin: 0; width: 100%; height: 11rem; object-fit: contain;}
.reid .query {grid-template-columns: repeat(auto-fill, minmax(6rem, 1fr));}
.reid .query summary img {height: 7rem;}
.reid details[open] summary {position: fixed; inset: 0; z-index: 1000; padding: 2vmin; background: rgb(0 0 0 / .85);
    cursor: zoom-out;}
.reid details[open] summary img {height: 100%;}
"""


def heading_of(model: str, gallery: Gallery) -> str:
    """Return the head of the page: the folder that is searched, and the model."""
    line = f"{len(gallery.names):,} images in '{gallery.root.name or gallery.root}', {model}"
    return _frame(f'<h1>Search</h1><p class="note">{text(line)}</p>')


def results_of(answer: Answer) -> str:
    """Return the ranked images as a list."""
    return _frame(f"<ol>{''.join(_card(rank, result) for rank, result in enumerate(answer.results, start=1))}</ol>")


def query_of(pictures: Mapping[str, "Image.Image"], sentence: str) -> str:
    """Return what the query is made of: images by modality, and the sentence."""
    items = [
        f"<li>{zoomed(data_uri(picture), WORDS[name])}<span>{text(WORDS[name])}</span></li>"
        for name, picture in pictures.items()
    ]
    images = f'<ol class="query">{"".join(items)}</ol>' if items else ""
    words = f'<p class="sentence">“{text(sentence)}”</p>' if sentence else ""
    return _frame(images + words) if images or words else ""


def status_of(answer: Answer, total: int, cameras: Sequence[int]) -> str:
    """Return one line on what is shown of the `total` images of a gallery, and the note of the answer."""
    where = f" seen by {', '.join(map(camera_word, cameras))}" if cameras else ""
    line = f"the {len(answer.results)} nearest of {total:,} images{where}"
    return _frame(f"<p>{text(line)}</p>" + (f'<p class="note">{text(answer.note)}</p>' if answer.note else ""))


def error_of(message: str) -> str:
    """Return the line that tells the visitor what went wrong."""
    return _frame(f'<p class="error" role="alert">{text(message)}</p>')


def camera_word(camera: int) -> str:
    """Return what a camera is called on the page."""
    return "no known camera" if camera == UNKNOWN else f"camera {camera}"


def _card(rank: int, result: Result) -> str:
    hit = result.hit
    if result.picture is None:
        image = '<span class="absent">cannot be read</span>'
    else:
        image = zoomed(data_uri(result.picture), f"rank {rank}: {hit.name}")
    lines = [f'<strong class="value">{rank}. {hit.similarity:.4f}</strong>']
    if hit.camera != UNKNOWN:
        lines.append(f"<span>{text(camera_word(hit.camera))}</span>")
    return f'<li title="{text(hit.name)}">{image}{"".join(lines)}<span>{text(hit.name)}</span></li>'


def _frame(markup: str) -> str:
    return f'<div class="reid">{markup}</div>'
