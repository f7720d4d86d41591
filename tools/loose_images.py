"""Images that belong to no data set: files and folders as a user names them."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from utils.commands import OneLineParser, path_flag
from utils.errors import ConfigError, DataError
from utils.paths import what_is_at

SKIP_HINT = "--skip-broken leaves such images out"


def add_paths(parser: OneLineParser, *flags: str, metavar: str, what: str, required: bool = True) -> None:
    """Add a flag that takes one or more paths; `what` they are opens its help."""
    help_text = f"{what}; KEY VALUE pairs stand before"
    parser.add_argument(*flags, nargs="+", required=required, type=path_flag, metavar=metavar, help=help_text)


def add_skip_broken(parser: OneLineParser) -> None:
    """Add --skip-broken."""
    help_text = "leave out images that cannot be read, naming each (default: an error)"
    parser.add_argument("--skip-broken", action="store_true", help=help_text)


def list_images(folder: str | Path, key: str) -> list[str]:
    """Return the images in a folder and all folders below it, relative to it, with / between names, sorted.

    What counts, and the errors: `image_folders`. Raises DataError too when there is no image.
    """
    names = [name for _, below in image_folders(folder, key) for name in below]
    if not names:
        raise no_image(folder, key)
    return sorted(names)


def image_folders(folder: str | Path, key: str) -> Iterator[tuple[Path, list[str]]]:
    """Yield a folder and each one below it, with its own images relative to the first, / between names.

    Hidden files and folders do not count, nor pipes and devices; a link that leads nowhere does, as a broken image.
    Links to folders are followed, and each folder counts once. `key` is the argument that named the folder. Raises
    ConfigError when there is no such folder, DataError when one of its folders cannot be read.
    """
    from datasets.archives.find import is_image_name

    if not os.fspath(folder):  # Path("") is the working directory
        raise ConfigError(f"{key} is empty; name a folder of images")
    folder = Path(folder)
    if not folder.is_dir():
        what = f"is {what_is_at(folder) or 'a file'}, not a folder" if folder.exists() else "does not exist"
        raise ConfigError(f"{key} '{folder}' {what}; name a folder of images")
    visited = set()
    for parent, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        place = os.path.realpath(parent)
        if place in visited:  # a link that leads back
            folders.clear()
            continue
        visited.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = Path(parent).relative_to(folder).as_posix()
        prefix = "" if below == "." else f"{below}/"
        images = [name for name in files if is_image_name(name) and _is_no_pipe(Path(parent) / name)]
        yield Path(parent), [prefix + name for name in images]


def no_image(folder: str | Path, key: str) -> DataError:
    """Return the error of a folder without any image."""
    from datasets.archives.find import IMAGE_SUFFIXES

    return DataError(f"{key} '{folder}' holds no image ({', '.join(IMAGE_SUFFIXES)}), nor does a folder below it")


def check_holds_images(folder: str | Path, key: str) -> None:
    """Raise what `list_images` raises of a folder without images; the first one found is enough."""
    if not any(names for _, names in image_folders(folder, key)):
        raise no_image(folder, key)


def check_paths(paths: Sequence[str], key: str, folders: bool = True) -> None:
    """Raise ConfigError naming the first path that does not exist, or is a folder where `folders` may not be given.

    So are pipes and devices, which would block whoever reads them. `key` is the argument that took them.
    """
    for path in paths:
        if not os.path.exists(path):
            raise ConfigError(f"{key}: no file '{path}'; correct the path (KEY VALUE pairs stand before {key})")
        if not folders and os.path.isdir(path):
            raise ConfigError(f"{key} '{path}' is a folder; name the images in it")
        kind = what_is_at(Path(path))
        if kind and not os.path.isdir(path):
            raise ConfigError(f"{key} '{path}' is {kind}; name image files")


def find_images(sources: Sequence[str], key: str) -> list[str]:
    """Return the paths of all images that the files and folders `sources` name, in that order, each once.

    Files may have any suffix. `key` and the errors are as in `list_images`.
    """
    check_paths(sources, key)
    paths = []
    for source in sources:
        if os.path.isfile(source):
            paths.append(source)
        else:
            paths += [os.path.join(source, name) for name in list_images(source, key)]
    return list(dict.fromkeys(paths))


def _is_no_pipe(path: Path) -> bool:
    """Return False for what is no regular file, which might block whoever reads it; True for a dangling link."""
    return os.path.isfile(path) or not os.path.exists(path)


def _refuse(error: OSError) -> NoReturn:
    raise DataError(f"folder '{error.filename}' cannot be read ({error.strerror}); check its permissions") from error
