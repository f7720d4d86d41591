"""The modalities of MODEL.NAME multimodal: their names, and the sets of them that a query may be made of."""

from collections.abc import Sequence
from itertools import combinations

VIS, TEXT = "vis", "text"
MODALITIES = (VIS, "nir", "sk", "cp", TEXT)  # RGB, infrared, sketch, coloured pencil, caption; in the order of sets
IMAGES = MODALITIES[:-1]  # all but captions
GREY = ("nir", "sk")  # images that are read as grey, in three equal channels
DRAWN = ("sk", "cp")  # drawings, on white paper
ALIASES = {
    **dict.fromkeys(("rgb", "visible", "v"), VIS),
    **dict.fromkeys(("ir", "infrared"), "nir"),
    "sketch": "sk",
    **dict.fromkeys(("cpencil", "colorpencil", "coloredpencil"), "cp"),
    **dict.fromkeys(("txt", "caption"), TEXT),
}
JOINED_BY = "+"  # the modalities in the name of a set


def modality_of(name: str) -> str:
    """Return the modality that a user's name for it, in any case, stands for; ValueError for another word."""
    if not is_modality(name):
        raise ValueError(f"'{name}' is no modality; there are {', '.join(MODALITIES)} (also {', '.join(ALIASES)})")
    return ALIASES.get(name.lower(), name.lower())


def sets_of(modalities: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Return ("vis",), then every set of the others: singles, doubles, ..., each in the order of MODALITIES."""
    others = [name for name in MODALITIES if name in modalities and name != VIS]
    return (VIS,), *(names for size in range(1, len(others) + 1) for names in combinations(others, size))


def set_name(modalities: Sequence[str]) -> str:
    """Return the name of a set of modalities, its main one first: `NIR+TEXT`."""
    return JOINED_BY.join(name.upper() for name in modalities)


def parse_set(name: str) -> tuple[str, ...]:
    """Return the modalities of a set by its name, in its order; ValueError for an unknown or a repeated one."""
    modalities = tuple(modality_of(part.strip()) for part in name.split(JOINED_BY))
    if len({*modalities}) < len(modalities):
        raise ValueError(f"the set '{name}' names a modality twice")
    return modalities


def in_order(names: Sequence[str]) -> tuple[str, ...]:
    """Return modalities by their own names in the order of MODALITIES; words that name none stay, behind them."""
    known = [modality_of(name) if is_modality(name) else name for name in names]
    return tuple(sorted(known, key=lambda name: MODALITIES.index(name) if name in MODALITIES else len(MODALITIES)))


def is_modality(name: str) -> bool:
    """Return whether a word is a user's name for a modality."""
    return name.lower() in MODALITIES or name.lower() in ALIASES


def group_name(size: int) -> str:
    """Return the name of the group of all sets of so many modalities: `MM-2`."""
    return f"MM-{size}"
