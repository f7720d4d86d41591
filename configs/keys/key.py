"""What one configuration key is: its default, what it may be, and what depends on it."""

from typing import Any, NamedTuple

EFFECTS = ("training", "embedding", "ranking", "place")
EMBEDS = ("training", "embedding")
YES_NO = ("yes", "no")  # TransReID's switches


class Key(NamedTuple):
    """One key, whose default also gives its type.

    `low` and `high` are allowed themselves; of a list they bound each item. A list of fixed `length` holds finite
    numbers, above 0 unless `low` says otherwise, and one without `high` may be given as a lone number that fills it.
    `affects` says what another value makes another one of: the training (a run does not go on with it), the embedding
    of an image (an index is made anew), the ranking (a test is run again); `place` is where something lies on one
    machine, no part of a recipe; () is none of these. A legacy key is accepted and read by nothing.
    """

    default: Any
    words: str  # what it means, with its unit
    choices: tuple = ()  # () = open; of a list those of each item
    low: float | None = None
    high: float | None = None
    length: int = 0  # 0 = any
    affects: tuple[str, ...] = ("training",)  # of EFFECTS
    why: str = ""  # the reason of a bound that is not plain
    instead: str = ""  # of a legacy key: what replaces it
