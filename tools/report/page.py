"""The HTML of a report: one page, nothing outside it, no script; all text from outside is escaped."""

import html
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Nothing may be fetched: whatever a caption or a path smuggled in, a browser that obeys this loads no other file.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
REVERSING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # they can make a path look like another
NAMESPACE = ' xmlns="http://www.w3.org/2000/svg"'
ROOT = Path(__file__).resolve().parents[2]
PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="$policy">
<meta name="viewport" content="width=device-width, initial-scale=1">
$results<title>$title</title>
<link rel="icon" href="data:,">
<style>
$style</style>
</head>
<body>
<header>
<h1>$title</h1>
$subtitle
</header>
<nav aria-label="Contents">
<ul>
$contents
</ul>
</nav>
<main>
$sections
</main>
</body>
</html>
""")


RESULTS = '<meta name="results" content="{count}">'  # how many seeds have a result at their last epoch


class Section(NamedTuple):
    """One entry of the table of contents; `body` is markup."""

    anchor: str  # unique in the page, [a-z0-9-]+
    title: str
    body: str


def text(value: Any) -> str:
    """Return `value` as text that no browser takes for markup.

    What UTF-8 or HTML cannot hold (lone surrogates of undecodable file names, control characters) is shown as a
    backslash escape, and so are the characters that reverse the direction of the text behind them.
    """
    return html.escape("".join(_visible(character) for character in str(value)))


def _visible(character: str) -> str:
    hidden = unicodedata.category(character) in ("Cc", "Cs") or character in REVERSING
    if character in "\n\t" or not hidden:
        return character
    return character.encode("unicode_escape").decode("ascii")


def paragraph(line: Any, kind: str = "") -> str:
    """Return a paragraph of plain text; `kind` is a class of style.css (note, missing, caution)."""
    return f'<p class="{kind}">{text(line)}</p>' if kind else f"<p>{text(line)}</p>"


def missing(line: str) -> str:
    """Return the line that stands where something cannot be shown."""
    return paragraph(line, "missing")


def short_path(path: str | Path) -> str:
    """Return a path for readers on other machines: as it is where relative, from the repository on, else its end."""
    path = Path(path)
    if not path.is_absolute():
        return str(path)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else "/".join(path.parts[1:][-2:])


def table(
    rows: Sequence[Sequence[Any]], caption: str, left: Sequence[int] = (0,), lead: Sequence[int] | None = None
) -> str:
    """Return a table that scrolls sideways within its own frame; the first row is the head, the first column too.

    The columns in `left` start at the left, others (numbers) end at the right. Cells are plain text. With `lead` a
    phone shows each row as a card, which begins with these columns, instead of a table that reaches beyond its edge.
    """
    heads = rows[0]
    head, *body = (
        "<tr>"
        + "".join(_cell(cell, (number, column), column in left, heads, lead) for column, cell in enumerate(row))
        + "</tr>"
        for number, row in enumerate(rows)
    )
    lines = [f"<caption>{text(caption)}</caption>", f"<thead>{head}</thead>", "<tbody>", *body, "</tbody>"]
    kind = ' class="cards"' if lead is not None else ""
    return frame(f"<table{kind}>\n" + "\n".join(lines) + "\n</table>", caption)


def _cell(value: Any, place: tuple[int, int], left: bool, heads: Sequence[Any], lead: Sequence[int] | None) -> str:
    row, column = place
    kinds = [*([] if left else ["number"]), *(["lead"] if lead and column in lead else [])]
    side = f' class="{" ".join(kinds)}"' if kinds else ""
    if row and lead is not None:  # a card has no head above it
        side += f' data-label="{text(heads[column])}"'
    if row and column:
        return f"<td{side}>{text(value)}</td>"
    return f'<th scope="{"row" if row else "col"}"{side}>{text(value)}</th>'


def frame(markup: str, label: str) -> str:
    """Return markup in a frame that scrolls by itself, also with the keyboard."""
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{text(label)}">\n{markup}\n</div>'


def chart(figure: "Figure", fills_row: bool = False, note: str = "") -> str:
    """Return a chart as an inline drawing below its title, a note below; `fills_row`: also as wide as a row of two."""
    from tools import charts, svg

    drawn = [("narrow", svg.to_svg(figure))] if fills_row else [("", svg.to_svg(figure))]
    if fills_row:
        figure.set_figwidth(charts.WIDE)
        drawn.append(("wide", svg.to_svg(figure)))
    # without its address, which is needless within HTML, the page holds none at all
    markup = "\n".join(one.replace(NAMESPACE, f' class="{kind}"' if kind else "", 1) for kind, one in drawn)
    kind, below = ("chart row" if fills_row else "chart"), (paragraph(note, "note") + "\n" if note else "")
    return f'<figure class="{kind}">\n<figcaption>{text(figure.get_label())}</figcaption>\n{markup}\n{below}</figure>'


def pictures(figures: Iterable["Figure"], packed: bool = False, note: str = "") -> str:
    """Return charts in rows of two, the last of an odd number as wide as its row; below each other on a phone.

    `packed` is for several of unequal heights: column by column. `note` stands below the first.
    """
    drawn = list(figures)
    packed = packed and len(drawn) > 1
    alone = len(drawn) - 1 if len(drawn) % 2 and not packed else None
    markup = "\n".join(chart(figure, place == alone, "" if place else note) for place, figure in enumerate(drawn))
    return f'<div class="{"charts packed" if packed else "charts"}">\n{markup}\n</div>'


class Bar(NamedTuple):
    """One row of `bars`: fractions in 0..1; `kind` is main, other or reference."""

    name: str
    value: float
    interval: Sequence[float] | None = None  # 95 %
    kind: str = "main"


def bars(rows: Sequence[Bar]) -> str:
    """Return horizontal bars with their intervals and numbers in percent; the longest reaches the end of the track."""
    end = max([0.01, *(value for one in rows for value in (one.value, *(one.interval or ())))])
    items = []
    for one in rows:
        drawn = f'<span class="bar" style="width:{100 * one.value / end:.2f}%"></span>'
        words = f"{100 * one.value:.1f}"
        if one.interval:
            low, high = one.interval
            place = f"left:{100 * low / end:.2f}%;width:{100 * (high - low) / end:.2f}%"
            drawn += f'<span class="whisker" style="{place}"></span>'
            words += f" <small>({100 * low:.1f} to {100 * high:.1f})</small>"
        name = f'<span class="name">{text(one.name)}</span>'
        items.append(
            f'<li class="{one.kind}">{name}<span class="track">{drawn}</span><span class="value">{words}</span></li>'
        )
    return '<ul class="bars">\n' + "\n".join(items) + "\n</ul>"


def verdict(figure: str, sentence: str) -> str:
    """Return the first lines of a page: its figure, large, and the rest of a sentence about it."""
    return f'<p class="verdict"><strong>{text(figure)}</strong>{text(sentence)}</p>'


def code(lines: str, wraps: bool = False) -> str:
    """Return a command (`wraps`: all of it is in sight), or an aligned table, in letters of equal width."""
    kind = ' class="wrap"' if wraps else ""
    return f'<pre{kind} tabindex="0"><code>{text(lines)}</code></pre>'


def details(summary: str, body: str, is_open: bool = False) -> str:
    """Return a part that a click opens."""
    return f"<details{' open' if is_open else ''}>\n<summary>{text(summary)}</summary>\n{body}\n</details>"


def part(title: str, body: str, level: int = 3) -> str:
    """Return a titled part of a section, or at `level` 4 of such a part."""
    return f"<h{level}>{text(title)}</h{level}>\n{body}"


def join(parts: Iterable[str]) -> str:
    """Return the parts that are not empty, one below the other."""
    return "\n".join(part for part in parts if part)


def try_part(title: str, make: Callable[..., str], *args: Any) -> str:
    """Return `make(*args)`; where a damaged or older file stops it, a line with the error.

    A report is the last thing that a test writes, and one of its parts is worth less than the others together.
    """
    try:
        return make(*args)
    except Exception as error:
        return missing(f"{title}: cannot be shown ({type(error).__name__}: {error}).")


def make_section(anchor: str, title: str, make: Callable[..., str], *args: Any) -> Section:
    """Return the section whose body is `make(*args)`, or a line with the error that stopped it."""
    return Section(anchor, title, try_part(title, make, *args))


@cache
def _style() -> str:
    return Path(__file__).with_name("style.css").read_text(encoding="utf-8")


def make_page(title: str, subtitle: Iterable[str], sections: Sequence[Section], results: int | None = None) -> str:
    """Return the whole page; the lines of `subtitle` are plain text, `results` is what a launch's page has to show."""
    return PAGE.substitute(
        results="" if results is None else RESULTS.format(count=results) + "\n",
        policy=POLICY,
        title=text(title),
        subtitle=join(paragraph(line) for line in subtitle),
        style=_style(),
        contents="\n".join(f'<li><a href="#{one.anchor}">{text(one.title)}</a></li>' for one in sections),
        sections="\n".join(
            f'<section id="{one.anchor}">\n<h2>{text(one.title)}</h2>\n{one.body}\n</section>' for one in sections
        ),
    )
