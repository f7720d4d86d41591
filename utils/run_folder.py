"""The folder of one run: made, locked for one process, described, and its metrics recorded."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.errors import ConfigError, RunError
from utils.file_lock import LockHeldError, hold

if TYPE_CHECKING:
    import numpy as np

LOCK_NAME = "run.lock"
METRICS_NAME = "metrics.jsonl"
RECORD_KINDS = ("phase", "train", "eval", "val", "reference")  # val: on the held-out identities
PROBE_BYTES = 4096


def make_folder(path: str, key: str) -> Path:
    """Create a folder for output, with parents; ConfigError naming `key` when that is not allowed."""
    if not path:
        raise ConfigError(f"{key} is empty; name the folder that takes the results, e.g. {key} logs/my_run")
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write_test_{os.getpid()}"
        probe.write_bytes(bytes(PROBE_BYTES))
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"{key} '{path}': cannot write there ({error.strerror}); choose another folder") from error
    return folder


@contextmanager
def locked(folder: Path) -> Iterator[int | None]:
    """Keep other processes out of a run folder; yields the pid of a process that left its lock behind, or None.

    Raises ConfigError when the folder is in use.
    """
    try:
        with hold(folder / LOCK_NAME) as left:
            yield int(left) if left.isdigit() else None
    except LockHeldError as holder:
        raise ConfigError(
            f"OUTPUT_DIR '{folder}' is in use by process {holder}; wait for it, stop it, or choose another OUTPUT_DIR"
        ) from holder


@contextmanager
def replacing(path: Path, suffix: str = ".tmp") -> Iterator[Path]:
    """Yield the name, `path` + `suffix`, of a file to write; it becomes `path` when the block ends, on disk and whole.

    On any error the temporary file goes and what was at `path` stays.
    """
    temporary = path.with_name(path.name + suffix)
    try:
        yield temporary
        with open(temporary, "rb+") as stream:  # Windows syncs only what is open for writing
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:  # Ctrl-C too
        temporary.unlink(missing_ok=True)
        raise


def write_text_atomic(path: Path, text: str) -> None:
    """Replace a text file so that it always holds the old or the whole new content."""
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        stream.write(text)


def save_arrays(file: Path, arrays: dict[str, "np.ndarray"], meta: dict[str, Any]) -> None:
    """Write arrays and, as JSON under the name meta, plain values as npz, so that the old or the whole new file exists.

    Read it with allow_pickle=False. Raises RunError when the disk refuses; the old file stays.
    """
    import numpy as np

    try:
        # the process in the name: two searches may make the index of one folder
        with replacing(file, f".{os.getpid()}.tmp") as temporary, open(temporary, "wb") as stream:
            np.savez(stream, **arrays, meta=np.array(json.dumps(meta)))
    except OSError as error:
        raise RunError(f"cannot write '{file}' ({error.strerror}); choose another place or make room") from error


def describe(folder: str | Path, config: str, device: str, data_fingerprint: str) -> None:
    """Write config.yaml (the resolved configuration) and env.json: the environment, and the data's fingerprint."""
    folder = Path(folder)
    environment = find_environment(device) | {"data_fingerprint": data_fingerprint}
    write_text_atomic(folder / "config.yaml", config)
    write_text_atomic(folder / "env.json", json.dumps(environment, indent=2) + "\n")


def find_environment(device: str) -> dict[str, Any]:
    """Return what a result may depend on beside its configuration: versions, device, git commit, command, time."""
    import timm
    import torch
    import torchvision

    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "timm": timm.__version__,
        "device": device,
        "device_name": torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor(),
        "threads": torch.get_num_threads(),
        "git_commit": _git_commit(),
    }


def _git_commit() -> str | None:
    """Return the commit of this code, marked when files differ from it; None outside a git checkout."""
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()


class Recorder:
    """Appends records to metrics.jsonl and scalars to TensorBoard.

    Opening drops what a killed run recorded after its last whole epoch (`last_epoch`, `last_iteration`) and
    evaluation (of epoch `last_evaluated`).
    """

    def __init__(self, folder: Path, last_epoch: int, last_iteration: int, last_evaluated: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        path = folder / METRICS_NAME
        last_of = {"eval": last_evaluated, "val": last_evaluated, "reference": 0 if last_epoch else -1}
        last_of |= dict.fromkeys(("phase", "train"), last_epoch)
        kept = [record for record in read_metrics(folder) if record["epoch"] <= last_of[record["kind"]]]
        write_text_atomic(path, "".join(json.dumps(record) + "\n" for record in kept))
        self._stream = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed in close()
        self._board = SummaryWriter(str(folder), purge_step=last_iteration + 1)

    def write(self, kind: str, epoch: int, iteration: int, values: dict[str, float | str]) -> None:
        """Record `values` under a `kind` of RECORD_KINDS; numbers also go to TensorBoard at `iteration`."""
        self._stream.write(json.dumps({"kind": kind, "epoch": epoch, "iteration": iteration, **values}) + "\n")
        self._stream.flush()
        for name, value in values.items():
            if isinstance(value, (int, float)):
                self._board.add_scalar(f"{kind}/{name}", value, iteration)

    def close(self) -> None:
        """Flush and close both files."""
        self._stream.close()
        self._board.close()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the whole records of metrics.jsonl, with kind and epoch; any other line (cut short, say) is left out."""
    path = folder / METRICS_NAME
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(record, dict) and isinstance(record.get("epoch"), int) and record.get("kind") in RECORD_KINDS:
            records.append(record)
    return records
