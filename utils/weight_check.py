"""What a weight file of torch.save may be and hold; torch itself, told to load weights only, executes nothing of it."""

import re
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from utils.errors import DataError

DEEPEST = 100  # levels of containers; what torch and we save has five
SHOWN = 4  # classes that a message names
LONGEST_NAME = 200  # characters of an entry's name that are kept
LARGEST_COPY, SPARE = 4, 64 * 2**20  # times a file, and bytes, that its tensors may fill where their values repeat
CONTAINERS = (dict, OrderedDict, Counter, list, tuple, torch.Size, set)
NAMES = (str, int, float, bool, bytes, type(None))
PLAIN = (*NAMES, complex, torch.dtype, torch.device, torch.layout)
ODD = {  # what is refused -> whether a tensor is that, asked in this order
    "a tensor of a class of its own": lambda value: type(value) not in (torch.Tensor, nn.Parameter),
    "a nested tensor": lambda value: value.is_nested,
    "a sparse tensor": lambda value: value.layout != torch.strided,
    "a quantized tensor": lambda value: value.is_quantized,
    "a tensor of the meta device, without values": lambda value: value.is_meta,
    "a conjugate or negative view of a tensor": lambda value: value.is_conj() or value.is_neg(),
    "a tensor with hooks": lambda value: value._backward_hooks,
    "a tensor with attributes": lambda value: vars(value),
}


def check_archive(path: Path) -> None:
    """Raise BadZipFile for an archive that is damaged or that torch.save never writes: torch.load does not look."""
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        if len({part.filename for part in parts}) < len(parts):
            raise zipfile.BadZipFile("two of its parts have the same name")
        if any(part.compress_type for part in parts) or sum(part.file_size for part in parts) > path.stat().st_size:
            raise zipfile.BadZipFile("its parts are compressed or overlap")
        damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"its part '{damaged}' is damaged")
        if any(archive.read(part) != b"little" for part in parts if part.filename.endswith("/byteorder")):
            raise zipfile.BadZipFile("its values are not in little-endian order")


def check_content(content: Any, path: Path, source: str) -> None:
    """Raise DataError, with the entry's name, for anything but dense tensors and plain values in what was loaded."""
    pending, seen, size = [("", content, 0)], set(), 0
    while pending:
        name, value, depth = pending.pop()
        problem = f"values nested more than {DEEPEST} deep" if depth > DEEPEST else _problem(value)
        if problem:
            raise DataError(
                f"{source} holds {problem} ({name or 'nothing else'}) and was not loaded; take it out or save it as a "
                "plain dense tensor"
            )
        if isinstance(value, torch.Tensor):
            size += value.numel() * value.element_size()  # each value of an expanded one counted
        elif isinstance(value, CONTAINERS) and id(value) not in seen:
            seen.add(id(value))
            items = [*(value.items() if isinstance(value, dict) else enumerate(value))]
            items += getattr(value, "__dict__", {}).items()
            prefix = f"{name}." if name else ""
            pending += [(f"{prefix}{key}"[:LONGEST_NAME], item, depth + 1) for key, item in reversed(items)]
    if size > LARGEST_COPY * path.stat().st_size + SPARE:
        raise DataError(
            f"{source} is damaged: its tensors would fill {size / 2**30:,.1f} GiB, the file is "
            f"{path.stat().st_size / 2**20:,.1f} MiB"
        )


def explain_refusal(error: Exception, path: Path, source: str) -> str:
    """Return why torch loads no weights alone from a file, and how one who trusts it gets at its weights."""
    try:
        classes = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # of the format before torch 1.6, damaged, or a torch before 2.6: its error names the first
        classes = re.findall(r"GLOBAL (\S+)", str(error))
    refused = f"{source} is not a plain weight file and was not loaded: it"
    if not classes:
        return f"{refused} is damaged, or holds more than tensors and plain values"
    more = f" and {len(classes) - SHOWN} more" if len(classes) > SHOWN else ""
    return (
        f"{refused} holds more than tensors and plain values ({', '.join(classes[:SHOWN])}{more}), and making such "
        "objects runs code of the file's choice; where you trust it, open it in the project that wrote it and save its "
        "weights alone: torch.save(WEIGHTS, 'weights.pth') with its entry that holds them, as content['state_dict'], "
        "or content.state_dict() of a whole model"
    )


def _problem(value: Any) -> str:
    """Return what is wrong with a value by itself, "" for nothing."""
    if isinstance(value, torch.Tensor):
        return next((problem for problem, is_so in ODD.items() if is_so(value)), "")
    if type(value) not in (*CONTAINERS, *PLAIN):
        return f"an object of class {type(value).__name__}"
    if getattr(value, "__dict__", {}).keys() - {"_metadata"}:
        return "a dict with attributes that no state dict has"
    if isinstance(value, dict) and not all(type(key) in NAMES for key in value):
        return "a dict with an entry whose name is no text or number"
    return ""
