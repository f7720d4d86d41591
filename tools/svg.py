"""The colours of charts, and a figure as an SVG that takes the page's colours and letters: dark on a dark page.

A page gives the colours as CSS variables (`--ink`, `--grid`, `--c0`, ...); without them those of COLOURS stand. The
palette stays apart for colour-blind readers. Reference: Okabe and Ito, Color Universal Design, 2008.
"""

import hashlib
import io
import re
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, SOFT, GRID, EMPTY, CARD = "#000000", "#5c6470", "#e4e7ec", "#eef0f3", "#ffffff"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", INK)
LIGHT_LETTERS, DARK_LETTERS = "#fefefe", "#0b0b0b"  # on cells whose colour is the same on every page
NAMES = {INK: "ink", SOFT: "soft", GRID: "grid", EMPTY: "empty", CARD: "card"}
COLOURS = NAMES | {colour: f"c{number}" for number, colour in enumerate(PALETTE[:-1])}
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "charts", "font.sans-serif": ["DejaVu Sans"]}


def to_svg(figure: "Figure") -> str:
    """Return the figure as an <svg> element for an HTML page: the page scales it, text stays text in its letters.

    The same numbers always give the same text. Its ids begin with a hash of title and picture, so that they differ
    from those of any other figure; nothing outside is referred to. Its title is what screen readers say.
    """
    import matplotlib

    stream = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :].replace("xlink:href", "href")
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<[^>]*>", lambda tag: _shorter(tag[0]), svg)
    prefix = "c" + hashlib.sha256(f"{figure.get_label()}\n{svg}".encode()).hexdigest()[:10]  # equal curves may meet
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    view_box = re.search(r'viewBox="[^"]*"', svg)[0]
    title = escape(figure.get_label(), quote=True)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {view_box} role="img" aria-label="{title}" '
        f'style="stroke-linejoin:round;stroke-linecap:butt;fill:{_variable(INK)}">\n<title>{title}</title>'
    )
    return re.sub(r"\n\s*", "\n", head + svg[svg.index(">") + 1 :])


def _shorter(tag: str) -> str:
    """Return a tag with coordinates to a hundredth of a point, without what no page needs, colours as variables."""
    tag = re.sub(r"(\.\d\d)\d+", r"\1", tag)
    tag = re.sub(r' transform="rotate\(-0 [^"]*"| ?font-family: [^;"]*;?', "", " ".join(tag.split()))
    tag = re.sub(r'^<g id="[^"]*"', "<g", tag)  # nothing refers to groups
    tag = re.sub(r' fill="(#[0-9a-f]{6})"', r' style="fill:\1"', tag)  # of a hatch; variables count in styles alone
    return re.sub(r"#[0-9a-f]{6}\b", lambda colour: _variable(colour[0]), tag) if "style=" in tag else tag


def _variable(colour: str) -> str:
    return f"var(--{COLOURS[colour]},{colour})" if colour in COLOURS else colour
