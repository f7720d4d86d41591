"""Ctrl-C: how every command meets it, without a traceback and with nothing left half-written.

An exception raised at any moment can land in an import, a destructor or a library's `except`, and be printed or lost
there. So the one handler raises nothing: where there is nothing to unwind it ends the process itself, after what
`at_end` names; inside `deferred` it takes note, and `check` ends the block between two steps. A handler runs only where
Python does: what may wait in native code without end, for another process, stands in `bounded`.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import socket
    import threading

EXIT_CODE = 130
MESSAGE = "interrupted; the same command continues with what was kept"
INSIST_S = 0.5  # a second signal sooner than this is the same Ctrl-C: a terminal and a parent may both send it
ANSWER_S = 10.0  # in which a `bounded` block that defers Ctrl-C must have ended; torchrun kills after 30
STANDARD_STREAMS = (0, 1, 2)


class _State:
    def __init__(self) -> None:
        self.owner: int | None = None  # the process that `take_over` was called in
        self.asked_at: float | None = None  # of the first Ctrl-C that is not obeyed yet, on the monotonic clock
        self.deferred = 0  # blocks around the code that runs
        self.last_acts: list[Callable[[], object]] = []


_state = _State()


def take_over() -> None:
    """Meet Ctrl-C from here on as this module says; for a script's first lines, in its main thread.

    A process that was started with SIGINT ignored, in the background, goes on ignoring it. A standard stream that was
    closed becomes the null device: the next file opened would take its place.
    """
    for number in STANDARD_STREAMS:
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - as long as the process
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        _state.owner = os.getpid()
        signal.signal(signal.SIGINT, _on_signal)


def asked() -> bool:
    """Return whether Ctrl-C has been noted in a `deferred` block."""
    return _state.asked_at is not None


def check() -> None:
    """Raise KeyboardInterrupt where Ctrl-C has been noted."""
    if _state.asked_at is not None:
        raise KeyboardInterrupt


@contextmanager
def deferred() -> Iterator[None]:
    """Only note Ctrl-C in this block: `check`, or the end of the block, raises KeyboardInterrupt.

    A second Ctrl-C ends the process at once.
    """
    _state.deferred += 1
    try:
        yield
    finally:
        _state.deferred -= 1
    check()


@contextmanager
def bounded() -> Iterator[None]:
    """End the process after Ctrl-C in this block also where its main thread waits in native code and hears nothing.

    Where it is deferred that takes ANSWER_S, else INSIST_S. Without `take_over` nothing changes.
    """
    if _state.owner != os.getpid():
        yield
        return
    import socket  # which --help does without
    import threading

    heard, wakes = socket.socketpair()
    wakes.setblocking(False)
    over = threading.Event()
    with hidden_from_children():
        threading.Thread(target=_end_late, args=(heard, over), daemon=True).start()
    before = signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        over.set()
        wakes.close()


@contextmanager
def at_end(act: Callable[[], object]) -> Iterator[None]:
    """Where Ctrl-C ends the process inside this block, call `act` before; it may wait for no lock."""
    _state.last_acts.append(act)
    try:
        yield
    finally:
        _state.last_acts.remove(act)


@contextmanager
def whole_command() -> Iterator[None]:
    """Around a command: an error after Ctrl-C becomes KeyboardInterrupt, and once its work is done it cannot be undone.

    Without `take_over` nothing changes.
    """
    try:
        yield
    except BaseException as error:
        if asked() and not isinstance(error, KeyboardInterrupt):  # of a worker or another rank that ended first, say
            raise KeyboardInterrupt from error
        raise
    finally:
        if _state.owner == os.getpid():
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # also while the interpreter ends


def stop() -> int:
    """Print MESSAGE and return EXIT_CODE; after `take_over` the process ends here, with all its workers."""
    if _state.owner == os.getpid():
        _end()
    print(MESSAGE, file=sys.stderr)
    return EXIT_CODE


@contextmanager
def hidden_from_children() -> Iterator[None]:
    """Processes and threads that start in this block never see Ctrl-C; this one sees it after the block at the latest.

    Where the system cannot block signals, nothing happens.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _on_signal(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _state.owner:  # a forked child; its parent ends it
        return
    now = time.monotonic()
    if not _state.deferred or (asked() and now - _state.asked_at > INSIST_S):
        _end()
    _state.asked_at = _state.asked_at or now


def _end_late(heard: "socket.socket", over: "threading.Event") -> None:
    """Be told of each signal as it comes, and end the process where Ctrl-C has not ended the block in time."""
    with heard:
        while number := heard.recv(1):
            if number[0] == signal.SIGINT and not over.wait(ANSWER_S if _state.deferred else INSIST_S):
                _end()


def _end() -> NoReturn:
    """End this process and its workers now; nothing here waits for a lock that the interrupted code may hold."""
    with suppress(ValueError):  # in another thread, while the main one hears nothing
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if hasattr(signal, "SIGCHLD"):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a loader's handler would raise for workers that end here
    if "multiprocessing" in sys.modules:
        for child in sys.modules["multiprocessing"].active_children():
            with suppress(Exception):
                child.kill()
    for act in reversed(_state.last_acts):
        with suppress(Exception):
            act()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # the interrupted code may be printing
            stream.flush()
    start = "\n" if os.isatty(2) else ""  # after a progress bar
    with suppress(OSError):
        os.write(2, f"{start}{MESSAGE}\n".encode())
    os._exit(EXIT_CODE)
