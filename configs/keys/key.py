"""What one configuration key is: its default, what it may be, and what depends on it."""

from typing import Any, NamedTuple

EFFECTS = ("training", "embedding", "ranking", "place")
EMBEDS = ("training", "embedding")
YES_NO = ("yes", "no")  # TransReID's switches
MOST_EPOCHS = 100_000  # of a run
MOST_IMAGES = 65_536  # of a batch
MOST_PIXELS = 4096  # of a side of an image
MOST_WEIGHT = 1e6  # of a loss
OUTWEIGHS = "beyond, float32 loses the other losses"  # the reason of MOST_WEIGHT
SLIP = "more is a typing slip"  # the reason of a bound far above what anyone has used
MOST_ITEMS = 1000  # of any list


class Key(NamedTuple):
    """One key, whose default also gives its type.

    A list with `joined_by` may also be given as one text, its items joined by that character.
    `low` and `high` are allowed themselves; every number has both, of a list they bound each item. They are wide: what
    they refuse is no experiment, but a slip that would take days or all memory. A list of fixed `length` that `fills`
    may be given as a lone number, any other list has at most MOST_ITEMS items.
    `affects` says what another value makes another one of: the training (a run does not go on with it), the embedding
    of an image by weights as they are (an index is made anew, and a test by other settings than those of the training
    says so), the ranking (a test is run again); `place` is where something lies on one machine, no part of a recipe; ()
    is none of these. A legacy key is accepted and read by nothing.
    """

    default: Any
    words: str  # what it means, with its unit
    choices: tuple = ()  # () = open; of a list those of each item
    low: float | None = None
    high: float | None = None
    length: int = 0  # 0 = any
    fills: bool = False
    joined_by: str = ""
    affects: tuple[str, ...] = ("training",)  # of EFFECTS
    why: str = ""  # the reason of a bound that is not plain
    instead: str = ""  # of a legacy key: what replaces it

    @property
    def item(self) -> Any:
        """An item of a list like this one, else the default: of an empty list a number where there are bounds."""
        if not isinstance(self.default, (tuple, list)):
            return self.default
        return self.default[0] if self.default else "" if self.low is None else 0.0
