"""The moments of a command at which a kill or a full disk may do harm, counted."""

import atexit
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path


def at_event(number: int, names: str = "", error: OSError | None = None) -> None:
    """Kill this process at its event of this number (from 1), or raise `error` there; 0: never.

    `names` is a file that takes the names of all events at the end of a process that was not stopped.
    """
    import datasets.pixel_cache
    import utils.run_folder
    from solver.update import Updater

    seen = []

    def happens(name: str) -> None:
        seen.append(name)
        if len(seen) == number:
            if error is not None:
                raise error
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(owner: object, name: str, before: bool) -> None:
        original: Callable = getattr(owner, name)

        def hooked(*args: object, **kwargs: object) -> object:
            label = f"{'before' if before else 'after'} {getattr(owner, '__name__', owner)}.{name}"
            if before:
                happens(label)
            result = original(*args, **kwargs)
            if not before:
                happens(label)
            return result

        setattr(owner, name, hooked)

    hook(os, "fsync", before=True)  # the temporary file is whole
    hook(os, "replace", before=True)
    hook(os, "replace", before=False)
    if error is None:
        hook(Updater, "step", before=True)
        hook(utils.run_folder.Recorder, "write", before=False)
        hook(Path, "unlink", before=False)
    hook(datasets.pixel_cache._RowWriter, "__getitems__", before=False)
    _hook_saving(happens)
    if names:
        atexit.register(lambda: Path(names).write_text(json.dumps(seen)))


def slow_disk(seconds: float = 0.1) -> None:
    """Let each file of this process take so long to reach the disk."""
    sync = os.fsync

    def slowly(file: int) -> None:
        time.sleep(seconds)
        sync(file)

    os.fsync = slowly


def _hook_saving(happens: Callable[[str], None]) -> None:
    """Let an event happen when torch.save has begun a file."""
    from utils.checkpoint import _Output

    written = _Output.write

    def begun(self: _Output, data: bytes) -> int:
        count = written(self, data)
        if self.stream.tell() == count:
            happens("in torch.save")
        return count

    _Output.write = begun


def code(number: int, names: Path | str = "", full: bool = False) -> str:
    """Return the code that calls `at_event`, for `Processes.start`; `full`: a full disk in place of a kill."""
    error = "OSError(28, 'No space left on device')" if full else "None"
    return f"from tests.faults.events import at_event; at_event({number}, {str(names)!r}, {error})"
