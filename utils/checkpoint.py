"""Read and write weight files: nothing in a file is executed, and a half-written file never replaces a whole one."""

import json
import pickle
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import torch

from utils.atomic import replacing
from utils.containers import unwrap
from utils.errors import ConfigError, DataError
from utils.file_kinds import is_safetensors, is_zip, what_else
from utils.paths import check_readable, user_path, what_is_at
from utils.weight_check import check_archive, check_content, explain_refusal

MAX_REASON = 120  # characters of a library's message that ours quotes
PROVENANCE = "reid_run"  # entry beside the version numbers that torch keeps with a state dict; other code ignores it
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
WHOLE_NUMBERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)  # of counters, of masks


def load_file(path: str | Path, key: str) -> Any:
    """Return the content of a file of torch.save or safetensors, told apart by content, all tensors on the CPU.

    `key` is the config key that named the file; it appears in the errors. Raises ConfigError when there is no such
    file, or it may not be read, and DataError when it is damaged or holds anything but dense tensors and plain values.
    """
    path = weight_file(path, key)
    source = f"{key}: '{path}'"
    try:
        kind = what_else(path)
        if kind:
            raise DataError(f"{source} is {kind}")
        if is_safetensors(path):
            from safetensors.torch import load_file as load_safetensors

            return load_safetensors(path)
        if is_zip(path):
            check_archive(path)
        with open(path, "rb") as stream:  # by a path, torch takes the format from the name
            content = _load(stream)
        check_content(content, path, source)
        return content
    except DataError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        if isinstance(error, pickle.UnpicklingError) or "weights_only" in str(error):  # torch advises to load code
            raise DataError(explain_refusal(error, path, source)) from error
        reason = (f"{type(error).__name__}: {error}".splitlines() or [""])[0][:MAX_REASON]
        raise DataError(f"{key}: cannot read '{path}' as a weight file ({reason}); copy it again") from error


def weight_file(path: str | Path, key: str) -> Path:
    """Return the path of a file that may hold weights; ConfigError, opened by `key`, where none can be read there."""
    path = user_path(path, key)
    if not path.exists():
        raise ConfigError(f"{key}: no file '{path}'; {_what_is_there(path)}")
    kind = what_is_at(path)
    if kind:
        raise ConfigError(f"{key}: '{path}' is {kind}, expected a weight file; name one")
    check_readable(path, key)
    return path


def read_weights(path: str | Path, key: str) -> dict[str, torch.Tensor]:
    """Return the state dict in a weight file, out of its container and without the prefixes of wrappers.

    Raises as `load_file`, and DataError for weights of a type that no model here computes in.
    """
    source = f"{key}: '{path}'"
    weights = unwrap(load_file(path, key), source)
    for name, value in weights.items():
        if value.dtype not in (*FLOATS, *WHOLE_NUMBERS):
            raise DataError(
                f"{source}: {name} is of type {str(value.dtype).removeprefix('torch.')}, which no model here takes; "
                "save it as float32"
            )
    return {name: value.detach() for name, value in weights.items()}


def save_atomic(content: Any, path: str | Path) -> None:
    """Write `content` with torch.save so that `path` always holds the old file or the whole new one.

    Raises RunError when the disk refuses; the old file stays.
    """
    path = Path(path)
    with replacing(path) as temporary, open(temporary, "wb") as stream:
        output = _Output(stream)
        try:
            torch.save(content, output)
        except RuntimeError as error:  # torch says at which byte, the disk says why
            raise output.refusal or error from error


class _Output:
    """What torch.save writes to; keeps the error of the disk, which torch replaces by one of its own."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.refusal: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self.stream.write(data)
        except OSError as error:
            self.refusal = error
            raise

    def flush(self) -> None:
        self.stream.flush()


def save_weights(weights: dict[str, torch.Tensor], path: str | Path, provenance: dict[str, Any]) -> None:
    """Write a module's state dict, bare as TransReID's, with `provenance` in its metadata: plain values alone.

    Raises RunError as `save_atomic` does.
    """
    weights._metadata[PROVENANCE] = provenance
    save_atomic(weights, path)


def save_safetensors(weights: dict[str, torch.Tensor], path: str | Path, provenance: dict[str, Any]) -> None:
    """Write a state dict in the format safetensors, with `provenance` as JSON in its header; the bits stay the same.

    Raises RunError as `save_atomic` does.
    """
    from safetensors.torch import save_file

    apart = {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in weights.items()}
    with replacing(Path(path)) as temporary:  # weights that share memory are refused by the format, hence the copies
        save_file(apart, temporary, {"format": "pt", PROVENANCE: json.dumps(provenance)})


def read_provenance(path: str | Path) -> dict[str, Any] | None:
    """Return what `save_weights` or `save_safetensors` wrote about the run; None for a file of other code."""
    try:
        metadata = _metadata_of(Path(path))  # reads no values
    except Exception:  # no state dict, or whatever is wrong with the file: reading the weights says it
        return None
    provenance = metadata.get(PROVENANCE) if isinstance(metadata, dict) else None
    return provenance if isinstance(provenance, dict) else None


def _metadata_of(path: Path) -> Any:
    """Return what a weight file says beside its weights."""
    if not is_safetensors(path):
        return vars(_load(path, mmap=True))["_metadata"]
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return {PROVENANCE: json.loads(file.metadata()[PROVENANCE])}


def _load(file: Path | BinaryIO, **options: bool) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of kinds of tensors that are refused anyway
        return torch.load(file, map_location="cpu", weights_only=True, **options)


def _what_is_there(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"the folder '{folder}' does not exist either"
    files = sorted(entry.name for entry in folder.iterdir() if entry.suffix in (".pth", ".pt", ".safetensors"))
    return f"weight files in '{folder}': {', '.join(files[:8]) if files else 'none'}"
