"""Read and write weight files: nothing in a file is executed, and a half-written file never replaces a whole one."""

import hashlib
import pickle
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from utils.atomic import replacing
from utils.errors import ConfigError, DataError, RunError

MAX_REASON = 120  # characters of a library's message that ours quotes
WRAPPER_KEYS = ("state_dict", "model", "teacher")  # containers that other projects put around the weights
TORCHSCRIPT_FILE = "constants.pkl"  # in every archive of torch.jit.save, in none of torch.save
PROVENANCE = "reid_run"  # entry beside the version numbers that torch keeps with a state dict; other code ignores it
PREFIXES = ("module.", "_orig_mod.")  # left by DistributedDataParallel and torch.compile


def load_file(path: str | Path, key: str) -> Any:
    """Return the content of a .pth or .safetensors file with all tensors on the CPU.

    `key` is the config key that named the file; it appears in the errors. Raises ConfigError when there is no such
    file and DataError when it is damaged or holds anything but tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{key}: no file '{path}'; {_what_is_there(path)}")
    if _is_torchscript(path):
        raise DataError(
            f"{key}: '{path}' is a TorchScript archive, which holds code and is not loaded; where you trust it, save "
            "its weights alone with torch.save(torch.jit.load(path).state_dict(), ...)"
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file as load_safetensors

            return load_safetensors(path)
        _check_sums(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # its message advises to load code
        raise DataError(
            f"{key}: '{path}' is not a plain weight file and was not loaded: it is damaged, or holds more than tensors "
            "and plain values"
        ) from error
    except Exception as error:  # a damaged pickle raises nearly anything
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:MAX_REASON]
        raise DataError(f"{key}: cannot read '{path}' as a weight file ({reason}); copy it again") from error


def read_weights(path: str | Path, key: str) -> dict[str, torch.Tensor]:
    """Return the state dict in a weight file, unwrapped and without `module.` / `_orig_mod.` prefixes."""
    content = load_file(path, key)
    for wrapper in WRAPPER_KEYS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not any(isinstance(value, torch.Tensor) for value in content.values()):
        raise DataError(f"{key}: '{path}' holds no weights (a {type(content).__name__} without tensors)")
    if not all(isinstance(name, str) for name in content):
        raise DataError(f"{key}: '{path}' holds no state dict: its tensors have no names")
    weights = {}
    for name, value in content.items():
        while name.startswith(PREFIXES):
            name = name.split(".", 1)[1]
        if isinstance(value, torch.Tensor):
            weights[name] = value
    return weights


def save_atomic(content: Any, path: str | Path) -> None:
    """Write `content` with torch.save so that `path` always holds the old file or the whole new one.

    Raises RunError when the disk refuses; the old file stays.
    """
    path = Path(path)
    try:
        with replacing(path) as temporary, open(temporary, "wb") as stream:
            torch.save(content, stream)
    except (OSError, RuntimeError) as error:
        raise RunError(f"cannot write '{path}' ({error}); make room, then the same command continues") from error


def save_weights(weights: dict[str, torch.Tensor], path: str | Path, provenance: dict[str, Any]) -> None:
    """Write a module's state dict, bare as TransReID's, with `provenance` in its metadata: plain values alone.

    Raises RunError as `save_atomic` does.
    """
    weights._metadata[PROVENANCE] = provenance
    save_atomic(weights, path)


def read_provenance(path: str | Path) -> dict[str, Any] | None:
    """Return what `save_weights` wrote about the run beside its weights; None for a file of other code."""
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # whatever is wrong with the file, or its older format: reading the weights says it
        return None
    provenance = getattr(weights, "_metadata", {}).get(PROVENANCE)
    return provenance if isinstance(provenance, dict) else None


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_sums(path: Path) -> None:
    """Raise BadZipFile where an archive's part has another checksum than was written: torch.load does not look."""
    if not zipfile.is_zipfile(path):  # an older format
        return
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"its part '{damaged}' is damaged")


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(PurePosixPath(name).name == TORCHSCRIPT_FILE for name in archive.namelist())
    except Exception:  # an older format, or damaged in any way: loading says which
        return False


def _what_is_there(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"the folder '{folder}' does not exist either"
    files = sorted(entry.name for entry in folder.iterdir() if entry.suffix in (".pth", ".pt", ".safetensors"))
    return f"weight files in '{folder}': {', '.join(files[:8]) if files else 'none'}"
