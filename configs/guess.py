"""Which key is meant by a name that is none, or what there is to choose from."""

import difflib
from collections.abc import Iterable

from configs.keys import KEYS

CLOSE, CLOSE_SECTION = 0.75, 0.6  # likenesses 0..1 from which a guess is worth a word
PARTLY = 0.85  # likeness of names of which one holds the words of the other: LR and BASE_LR
FEWEST_LETTERS = 3  # of a name that another one may begin with
MOST_LISTED = 20  # keys of a section that an error lists


def did_you_mean(word: str) -> str:
    """Return, with a semicolon, which key an unknown one may mean, which its section has, or where all stand."""
    near = nearest_key(word, KEYS)
    if near:
        return f"; did you mean {near}?"
    section = word.rpartition(".")[0]
    names = [name.removeprefix(f"{section}.") for name in KEYS if section and name.startswith(f"{section}.")]
    if 0 < len(names) <= MOST_LISTED:
        return f"; {section} has {', '.join(names)}"
    return "; docs/config.md lists all keys"


def nearest_key(word: str, keys: Iterable[str]) -> str:
    """Return the key that is most like `word`, '' where none is close: the last parts have to agree, then the sections.

    A word without a section may be of any.
    """
    section, _, last = word.upper().rpartition(".")
    likeness = {}
    for key in keys:
        own_section, _, own_last = key.upper().rpartition(".")
        ends, begins = _alike(last, own_last), difflib.SequenceMatcher(None, section, own_section).ratio()
        if ends >= CLOSE and (begins >= CLOSE_SECTION or not section):
            likeness[key] = ends + begins, -len(key)
    return max(likeness, key=likeness.__getitem__, default="")


def _alike(one: str, other: str) -> float:
    """Return the likeness of two names, 1 = equal."""
    words, other_words = {*one.split("_")}, {*other.split("_")}
    short, long = sorted((one.replace("_", ""), other.replace("_", "")), key=len)
    begins = len(short) >= FEWEST_LETTERS and long.startswith(short)
    ratio = difflib.SequenceMatcher(None, short, long).ratio()
    return max(ratio, PARTLY if words <= other_words or other_words <= words or begins else 0.0)
