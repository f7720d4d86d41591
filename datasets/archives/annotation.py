"""The JSON of a captioned archive: a list with an object for each image, whom it shows and what is said of it."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from datasets.labels import MAX_PID
from utils.errors import DataError
from utils.paths import existing_file

IMAGES = "imgs"  # the folder of the images, beside the JSON
SPLITS = ("train", "val", "test")
SHOWN = 60  # characters of a value that an error quotes
HALF_CHARACTER = re.compile("[\ud800-\udfff]")
ROLES = {"train": "not trained on", "val": "only searched for", "test": "only searched for"}  # without captions


class Entry(NamedTuple):
    """One image and all that is said of it."""

    path: str
    pid: int  # the archive's own
    captions: list[str]
    split: str  # of SPLITS


def read_annotation(annotation: str | Path, path_key: str) -> tuple[list[Entry], list[str]]:
    """Return the entries of a JSON list of {"id", `path_key`, "captions", "split"} in their order, and notes on them.

    Paths are as they stand there; splits other than train and test are val. Raises DataError, with the place of the
    entry (from 0), where the file is no such list, and where no image has a caption.
    """
    content = read_json(Path(annotation))
    if not isinstance(content, list) or not content:
        raise DataError(
            f"{annotation}: holds {kind_of(content)}, expected a list with an object for each image; {_form(path_key)}"
        )
    entries = [_check_entry(item, path_key, f"{annotation}: entry {row}") for row, item in enumerate(content)]
    if not any(entry.captions for entry in entries):
        raise DataError(f"{annotation}: none of its {len(entries):,} images has a caption; get the annotation again")
    other = Counter(item["split"] for item in content if item["split"] not in SPLITS)
    notes = [f"{count:,} images of split '{split[:SHOWN]}' count as val" for split, count in sorted(other.items())]
    return entries, notes + _captionless_notes(entries)


def read_json(path: Path) -> Any:
    """Return what a JSON file holds; DataError naming file and line where it is none."""
    path = existing_file(path, "", DataError)
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}:{error.lineno}: is no JSON ({error.msg}, column {error.colno}); get the annotation again"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason}, byte {error.start:,}); save it as UTF-8") from error
    except (ValueError, RecursionError) as error:  # a number of too many digits, brackets too deep in brackets
        raise DataError(f"{path}: is no annotation ({error}); get it again") from error


def _check_entry(item: Any, path_key: str, where: str) -> Entry:
    """Return one object of the list as an entry; DataError says which of its values does not fit."""
    if not isinstance(item, dict):
        raise DataError(f"{where} is {kind_of(item)}, expected an object; {_form(path_key)}")
    missing = [key for key in ("id", path_key, "captions", "split") if key not in item]
    if missing:
        raise DataError(
            f"{where} has no {' and no '.join(missing)}, its keys are {', '.join(item)[:SHOWN] or 'none'}; "
            f"{_form(path_key)}"
        )
    pid, path, captions, split = item["id"], item[path_key], item["captions"], item["split"]
    if not is_text(path) or not path or path.startswith("/") or "\0" in path:
        raise DataError(f"{where}: {path_key} is {kind_of(path)}, expected the path of an image below {IMAGES}")
    where = f"{where} ('{path}')"
    check_pid(pid, where)
    if not isinstance(captions, list):
        raise DataError(f"{where}: captions is {kind_of(captions)}, expected a list of texts")
    wrong = [caption for caption in captions if not is_text(caption)]
    if wrong:
        raise DataError(f"{where}: captions holds {kind_of(wrong[0])}, expected texts alone")
    if not is_text(split):
        raise DataError(f"{where}: split is {kind_of(split)}, expected train, test or val")
    return Entry(path, pid, captions, split if split in SPLITS else "val")


def check_pid(pid: Any, where: str) -> None:
    """Raise DataError for a value of JSON that is no number of a person."""
    if type(pid) is not int or not 0 <= pid <= MAX_PID:  # true is an int of Python's
        raise DataError(f"{where}: id is {kind_of(pid)}, expected a whole number from 0 to {MAX_PID}")


def is_text(value: Any) -> bool:
    """Return whether a value of JSON is a text of whole characters: JSON can hold halves, which no file takes."""
    return isinstance(value, str) and not HALF_CHARACTER.search(value)


def _captionless_notes(entries: Sequence[Entry]) -> list[str]:
    count = Counter(entry.split for entry in entries if not entry.captions)
    return [
        f"{split}: {count[split]:,} images have no caption, so they are {ROLES[split]}"
        for split in SPLITS
        if count[split]
    ]


def _form(path_key: str) -> str:
    example = json.dumps({"id": 1, path_key: "a/1.jpg", "captions": ["A man ..."], "split": "train"})
    return f"e.g. [{example}, ...]"


def kind_of(value: Any) -> str:
    """Return what a value of JSON is, short enough for a line."""
    if isinstance(value, (dict, list)):
        return ("an object" if isinstance(value, dict) else "a list") if value else f"the empty {value}"
    return f"{'the text ' * isinstance(value, str)}{json.dumps(value)[:SHOWN]}"
