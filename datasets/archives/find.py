"""Where a data set lies below DATASETS.ROOT_DIR, and what to do where it does not lie as expected."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from utils.errors import DataError
from utils.paths import user_path

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
PACKED = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
LEFT_BY_SYSTEMS = ("__MACOSX", "@eaDir")  # folders beside the data: of macOS, which unpacked it, of a NAS
OWN_LAYOUT = "for another layout write a CSV and set DATASETS.NAMES table (docs/data.md, Your own labelled images)"
MAX_NAMES = 10  # entries of a folder that an error quotes
ABOVE = 3  # folders, from DATASETS.ROOT_DIR up, that may be the data set itself
SHORTEST = 4  # letters of a data set's name that tell which one it is


def find_folder(root_dir: str | Path, names: Sequence[str], needed: Sequence[str], spare: Sequence[str] = ()) -> Path:
    """Return the first `<root_dir>/<name>` that holds every entry of `needed`, else the first that lacks `spare` alone.

    Raises DataError saying what was expected and what was found, with the way out where it is plain: `root_dir` is
    itself the data set, a folder too many or too few, other upper or lower case, an archive that is still packed,
    folders by identity.
    """
    root = user_path(root_dir, "DATASETS.ROOT_DIR", DataError)
    essential = [entry for entry in needed if entry not in spare]
    for wanted in (needed, essential):
        for name in names:
            if has_entries(root / name, wanted):
                return root / name
    shown = os.path.abspath(root)
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise DataError(f"folder '{shown}' {what}; set DATASETS.ROOT_DIR to the folder that holds '{names[0]}'")
    expected = f"expected folder '{os.path.join(shown, names[0])}' with {', '.join(needed)}"
    present = next((place for place in _places(root, names) if place.is_dir()), root)
    hint = _elsewhere(root, names, essential) or _other_case(root, names, essential) or _packed(present, names)
    if hint:
        raise DataError(f"{expected}; {hint}")
    place = os.path.abspath(present)
    absent = [entry for entry in needed if not os.path.exists(present / entry)]
    if len(absent) < len(needed):
        raise DataError(f"{expected}; '{place}' has no {', '.join(absent)}, found there: {entries(present)}")
    by_identity = f"; {OWN_LAYOUT}" if present != root and folders_of_images(present) else ""
    raise DataError(f"{expected}; found in '{place}': {entries(present)}{by_identity}")


def has_entries(folder: Path, needed: Sequence[str]) -> bool:
    """Return whether `folder` holds every file and folder in `needed`."""
    return all(os.path.exists(folder / entry) for entry in needed)


def renaming(folder: Path, needed: Sequence[str]) -> str:
    """Return which entries of `folder` to rename where only upper or lower case differs from `needed`; '' for none."""
    if not folder.is_dir():
        return ""
    inside = {entry.casefold(): entry for entry in names_in(folder)}
    absent = [entry for entry in needed if not os.path.lexists(folder / entry)]
    wrong = {inside[entry.casefold()]: entry for entry in absent if entry.casefold() in inside}
    return f"rename {', '.join(wrong)} in '{os.path.abspath(folder)}' to {', '.join(wrong.values())}" if wrong else ""


def does_not_exist(path: Path) -> str:
    """Return that a file or folder of an archive is absent, and what to do, as words that follow its kind."""
    return f"'{path}' does not exist; {renaming(path.parent, (path.name,)) or 'unpack the archive again'}"


def entries(folder: Path) -> str:
    """Return the first entries of a folder in one line."""
    names = names_in(folder)
    more = f" and {len(names) - MAX_NAMES:,} more" if len(names) > MAX_NAMES else ""
    return (", ".join(names[:MAX_NAMES]) or "nothing") + more


def names_in(folder: Path) -> list[str]:
    """Return the sorted names in a folder; DataError where it cannot be read."""
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise DataError(f"folder '{folder}' cannot be read ({error.strerror}); check its permissions") from error


def folders_in(folder: Path) -> list[str]:
    """Return the sorted names of the folders in a folder, without hidden ones and those that systems leave there."""
    return [
        name
        for name in names_in(folder)
        if not name.startswith(".") and name not in LEFT_BY_SYSTEMS and os.path.isdir(folder / name)
    ]


def is_image_name(name: str) -> bool:
    """Return whether a file is called as an image; hidden files are none, macOS leaves ._* beside each image."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def folders_of_images(folder: Path) -> bool:
    """Return whether the first folders in `folder` hold images, as where each identity has a folder of its own."""
    return any(is_image_name(name) for place in folders_in(folder)[:MAX_NAMES] for name in names_in(folder / place))


def packed_in(folder: Path) -> str:
    """Return the first file in `folder` that is a packed archive, '' for none."""
    return next((name for name in names_in(folder) if name.lower().endswith(PACKED)), "")


def _elsewhere(root: Path, names: Sequence[str], needed: Sequence[str]) -> str:
    """Return where the data set lies instead, one folder up or down, and what to set; '' for nowhere."""
    shown = os.path.abspath(root)
    for own in (Path(shown), *Path(shown).parents)[:ABOVE]:
        whole = next((path for path in _around(own, names) if has_entries(path[0] / path[1], needed)), None)
        if whole is not None:
            place = f"{'its parent ' * (own.parent == whole[0])}'{whole[0]}'"
            return f"'{whole[0] / whole[1]}' is the data set itself: set DATASETS.ROOT_DIR to {place}"
        if has_entries(own, needed):
            rename = f"to its parent '{own.parent}' and name the folder '{names[0]}'"
            return f"'{own}' is the data set itself: set DATASETS.ROOT_DIR {rename}"
    for name in folders_in(root):
        for deeper in names:
            if has_entries(root / name / deeper, needed):
                return f"it lies in '{os.path.join(shown, name, deeper)}': set DATASETS.ROOT_DIR {shown}/{name}"
    return ""


def _around(own: Path, names: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """Yield (root, name) of the data sets that `own` is, or lies in the way to: their folder may be in another one."""
    for name in names:  # cuhk03-np/labeled
        for root in own.parents[: len(Path(name).parts)]:
            if own in (root / name, *(root / name).parents):
                yield root, name


def _places(root: Path, names: Sequence[str]) -> list[Path]:
    """Return the folders in which a data set may lie, as far as they lead to it, `root` last."""
    whole = [root / name for name in names]
    return [*whole, *(place for path in whole for place in path.parents if place.is_relative_to(root))]


def _other_case(root: Path, names: Sequence[str], needed: Sequence[str]) -> str:
    """Return which folders to rename where only case, - and _, or the end of the name differ; '' for none."""
    known = [_plain(name) for name in names]
    for name in names_in(root):
        plain = _plain(name)
        begins = [plain.startswith(one) or (len(plain) >= SHORTEST and one.startswith(plain)) for one in known]
        if not any(begins) or not (root / name).is_dir():
            continue
        if name not in names and has_entries(root / name, needed):
            return f"'{os.path.abspath(root / name)}' is it by another name: rename it to '{names[0]}'"
        hint = renaming(root / name, needed)
        if hint:
            return hint
    return ""


def _packed(folder: Path, names: Sequence[str]) -> str:
    """Return the archive in `folder` that is still to be unpacked, one that is called as the data set first; or ''."""
    packed = [name for name in names_in(folder) if name.lower().endswith(PACKED)]
    known = {_plain(name) for name in names}
    first = next((name for name in packed if any(_plain(name).startswith(own) for own in known)), None)
    name = first or next(iter(packed), None)
    return f"'{os.path.abspath(folder / name)}' is still packed: unpack it there" if name else ""


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())
