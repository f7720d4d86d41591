"""Rows of cells as text: aligned for the terminal, or as a Markdown table; and fractions as cells."""

import math
from collections.abc import Sequence

Rows = Sequence[Sequence[str]]


def align(rows: Rows, left: Sequence[int] = (0,)) -> str:
    """Return lines of equal columns, two spaces apart; the columns in `left` start at the left, others end right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = (
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def markdown(rows: Rows) -> str:
    """Return a Markdown table whose head is the first row; a | within a cell is escaped."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def percent(fraction: float | None) -> str:
    """Return a fraction in percent, e.g. 45.00; - for None and NaN."""
    return "-" if fraction is None or math.isnan(fraction) else f"{100 * fraction:.2f}"
