"""Processes: how many a data loader starts, what they do with Ctrl-C, and whether one still runs."""

import os
import signal


def usable_cores() -> int:
    """Return the CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def num_workers(wanted: int, batches: int) -> int:
    """Return how many workers a loader starts: not more than cores or batches; 0 = the main process reads."""
    return min(wanted, usable_cores(), batches)


def leave_interrupts_to_the_parent(worker_id: int) -> None:
    """Let a loader's worker ignore Ctrl-C, which reaches all processes of a terminal: the parent ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def is_alive(pid: int) -> bool:
    """Return whether a process of this number runs on this machine."""
    try:
        os.kill(pid, 0)
    except PermissionError:  # somebody else's
        return True
    except (OSError, OverflowError):
        return False
    return True
