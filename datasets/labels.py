"""Labels as names, lists and tables write them: what is a number, what is no identity, and how large any may be."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping

from utils.errors import DataError

JUNK_PID = -1  # of an image that shows nobody in particular
UNKNOWN_VIEW = -1
MAX_PID = 10**12 - 1  # of a number; MAX_PID * (MAX_LABEL + 1) has to fit into int64, and float64 has to hold it exactly
MAX_LABEL = 9999  # of camid and viewid: each up to the largest gets an embedding
MAX_IDS = 10**7  # identities: each has a row in the classifier
MAX_SIDE_ROWS = 10**5  # cameras x viewpoints: each has a row in the side information, 300 MB of a ViT-B
SHOWN_FORMS = 5  # ways to write "no identity" that a note quotes

# What spreadsheets, pandas and people write where there is no label, in canonical spelling.
NO_LABEL = frozenset(
    (
        *("", "-1", "?", "??", "???", "-", "--", "unknown", "undefined"),
        *("nan", "-nan", "none", "null", "nil", "nat", "na", "n/a", "<na>", "#n/a", "#n/a n/a", "#na"),
        *("1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan", "inf", "-inf", "infinity", "-infinity"),
        *("#value!", "#ref!", "#div/0!", "#name?", "#null!", "#num!"),
    )
)
WHOLE = re.compile(r"([+-]?)0*(\d+)(\.0*|,00?)?", re.ASCII)
ROUNDED = re.compile(r"\d(\.\d*)?e\+\d+", re.ASCII | re.IGNORECASE)  # a long number as spreadsheets shorten it
QUOTES = "'\"`\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}"  # a spreadsheet's mark of text, or doubled
DECIMAL = re.compile(r"\d+\.0*", re.ASCII)


def canonical(text: str) -> str:
    """Return what all spellings of one label have in common.

    Case, outer and repeated spaces, invisible characters, quotes around it, the script of digits, +, leading zeros and
    .0 do not count.
    """
    if text.isascii() and text.isdigit():
        return text.lstrip("0") or "0"
    folded = unicodedata.normalize("NFKC", text).casefold().replace("\N{MINUS SIGN}", "-")
    visible = (c for c in folded if unicodedata.category(c) != "Cf")
    plain = " ".join("".join(str(unicodedata.decimal(c, c)) for c in visible).split()).strip(f"{QUOTES} ")
    whole = WHOLE.fullmatch(plain)
    if whole is None:
        return plain
    return f"-{whole[2]}" if whole[1] == "-" and whole[2] != "0" else whole[2]


def is_no_label(text: str) -> bool:
    """Return whether a label says that there is none: -1, nan, None, null, ?, empty and their like."""
    return canonical(text) in NO_LABEL


def whole_number(text: str, most: int, what: str) -> int:
    """Return a number of 0 to `most` in ASCII digits; `what`, e.g. "a.csv:3: camid", opens the DataError otherwise."""
    if not (text.isascii() and text.isdigit()):
        raise DataError(f"{what} '{text}' is not a whole number from 0; correct it")
    digits = text.lstrip("0") or "0"
    if len(digits) > len(str(most)) or int(digits) > most:
        way_out = "number from 0 without gaps" if most < MAX_PID else "use smaller numbers"
        raise DataError(f"{what} {text} exceeds {most}; {way_out}")
    return int(digits)


def identity_of(text: str, what: str) -> int:
    """Return the identity of a name or list entry as a number, JUNK_PID where it says none; DataError otherwise."""
    if not text.isdecimal() and is_no_label(text):
        return JUNK_PID
    return whole_number(text, MAX_PID, what)


def junk_notes(what: str, junk: Counter[str]) -> list[str]:
    """Return the note on images that were left out as they show nobody; `junk` counts them by what stood there."""
    if not junk:
        return []
    forms = [form or "empty" for form, _ in sorted(junk.items())]
    more = ", ..." if len(forms) > SHOWN_FORMS else ""
    return [f"{what}: {junk.total():,} junk images (pid {', '.join(forms[:SHOWN_FORMS])}{more}) are ignored"]


def number_identities(names: Mapping[str, str]) -> dict[str, int]:
    """Return {identity as text: pid} of {identity as text: file and line}.

    The pid is the identity's own number when all are whole numbers, else its place in sorted order. Raises DataError
    where one identity may be written in two ways (1 and 1.0, 01, A and a), and for numbers that are negative, too
    large, or rounded by a spreadsheet.
    """
    first: dict[str, str] = {}
    numbers = {}
    for name, where in names.items():
        if ROUNDED.fullmatch(name):
            raise DataError(
                f"{where}: pid '{name}' was rounded by a spreadsheet; format the column as text, save again"
            )
        key = canonical(name)
        if WHOLE.fullmatch(key) and key.startswith("-"):
            raise DataError(f"{where}: pid '{name}' is negative; identities count from 0, {JUNK_PID} means none")
        other = first.setdefault(key, name)
        if other != name:
            raise DataError(
                f"{where}: pid '{name}' and pid '{other}' ({names[other]}) look like one identity in two spellings; "
                "write it one way"
            )
        numbers[name] = key
    _check_forms(names)
    if all(key.isdecimal() for key in numbers.values()):
        hint = ", or put a letter in front of every pid"
        return {name: _number(key, f"{names[name]}: pid", hint) for name, key in numbers.items()}
    return {name: place for place, name in enumerate(sorted(names))}


def check_side_rows(camera_num: int, view_num: int) -> None:
    """Raise DataError where the side information would need more than MAX_SIDE_ROWS rows; 0 = that side is off."""
    rows = max(camera_num, 1) * max(view_num, 1)
    if rows > MAX_SIDE_ROWS:
        raise DataError(
            f"the side information needs a row for each of {camera_num:,} cameras x {view_num:,} viewpoints, and "
            f"{rows:,} exceed {MAX_SIDE_ROWS:,}; number both from 0 without gaps, or set MODEL.SIE_CAMERA or "
            "MODEL.SIE_VIEW False"
        )


def _number(digits: str, what: str, hint: str) -> int:
    try:
        return whole_number(digits, MAX_PID, what)
    except DataError as error:
        raise DataError(f"{error}{hint}") from error


def _check_forms(names: Mapping[str, str]) -> None:
    """Raise DataError where some identities are written as 1.0 and others as 1."""
    decimal = next((name for name in names if DECIMAL.fullmatch(name)), None)
    whole = next((name for name in names if name.isascii() and name.isdigit()), None)
    if decimal is not None and whole is not None:
        raise DataError(
            f"{names[decimal]}: pid '{decimal}' is written as a decimal number, pid '{whole}' ({names[whole]}) as a "
            "whole one; write all one way"
        )
