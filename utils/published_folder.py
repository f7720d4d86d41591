"""The folder of a published model: every file name in it, and the list of its files that makes it whole."""

import json
from pathlib import Path
from typing import NamedTuple

from utils.atomic import write_text_atomic
from utils.digest import remembered_sha256, sha256_of
from utils.errors import DataError
from utils.paths import what_is_at

SCHEMA = 1  # of the list
MOST_BYTES = 2**20  # of the list, which has some hundred
COPY_AGAIN = "copy or download the whole folder again"


class PublishedFolder(NamedTuple):
    """The files of a published model. Code reads the weights alone, which hold the configuration too, and `clip`."""

    path: Path

    @property
    def weights(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def clip(self) -> Path:
        """The description of the CLIP that a model is made of, where open_clip has none of that name."""
        return self.path / "clip.json"

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def preprocessing(self) -> Path:
        return self.path / "preprocessing.json"

    @property
    def provenance(self) -> Path:
        return self.path / "provenance.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.json"

    @property
    def card(self) -> Path:
        """The model card, which its author may edit: it is not in the list."""
        return self.path / "README.md"

    @property
    def list(self) -> Path:
        """The SHA-256 of all files but the card, written last: without it the folder is not whole."""
        return self.path / "published.json"

    @property
    def required(self) -> tuple[Path, ...]:
        """What every published model has, beside card and list."""
        return self.weights, self.config, self.preprocessing, self.provenance, self.metrics

    @property
    def files(self) -> tuple[Path, ...]:
        """All files there may be, the list first: removed in this order, the folder is not whole from the start."""
        return self.list, *self.required, self.clip, self.card


def write_list(folder: PublishedFolder) -> None:
    """Write the list of the files, after which the folder is whole."""
    files = {path.name: sha256_of(path) for path in (*folder.required, folder.clip) if path.is_file()}
    write_text_atomic(folder.list, json.dumps({"schema": SCHEMA, "files": files}, indent=2) + "\n")


def check_whole(folder: PublishedFolder) -> set[str]:
    """Return the names of the files of a published model.

    Raises DataError where a folder is not the whole of what was published: a file is missing, or is another one.
    """
    files = _read_list(folder)
    known = {path.name: path for path in (*folder.required, folder.clip)}
    if not files.keys() <= known.keys():
        raise DataError(f"'{folder.list}' lists files that no published model has; {COPY_AGAIN}")
    missing = [path.name for path in folder.required if path.name not in files]
    missing += [name for name in files if not known[name].is_file()]
    if missing:
        raise DataError(f"'{folder.path}' is no whole published model: it has no {', '.join(missing)}; {COPY_AGAIN}")
    other = [name for name, digest in files.items() if remembered_sha256(known[name]) != digest]
    if other:
        raise DataError(
            f"'{folder.path}': {', '.join(other)} is not what was published; {COPY_AGAIN}, or publish the run anew"
        )
    return set(files)


def _read_list(folder: PublishedFolder) -> dict[str, str]:
    """Return SHA-256 by file name; DataError where there is no list that can be read."""
    if not folder.list.exists():
        raise DataError(
            f"'{folder.path}' is no whole published model: it has no {folder.list.name}, which is written last; wait "
            f"for its writer, or {COPY_AGAIN}"
        )
    damaged = DataError(f"'{folder.list}' is damaged; {COPY_AGAIN}")
    if what_is_at(folder.list) or folder.list.stat().st_size > MOST_BYTES:
        raise damaged
    try:
        content = json.loads(folder.list.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise damaged from error
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, dict) or not all(isinstance(digest, str) for digest in files.values()):
        raise damaged
    if content.get("schema") != SCHEMA:
        raise DataError(
            f"'{folder.list}' has schema {content.get('schema')!r}, this version reads {SCHEMA}; use the version that "
            "wrote it"
        )
    return files
