"""One process at a time holds a file; a process that is killed lets go of it; who holds it is said."""

import errno
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from tests.lockers import refusal, start
from utils.file_lock import LAUNCHER, locked
from utils.workers import is_alive

NO_PROCESS = 4_190_000  # beyond the largest process id of most machines


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "run.lock"


@pytest.fixture
def holder(lock: Path) -> Iterator[subprocess.Popen]:
    """A process that holds the lock."""
    process = start(lock)
    yield process
    process.kill()
    process.communicate()


def test_a_file_that_is_held_is_refused_with_the_pid_of_its_holder(lock, holder):
    assert refusal(lock) == f"it is in use by process {holder.pid}; wait for it, stop it, or choose another folder"


def test_a_killed_holder_lets_go_and_leaves_its_pid(lock, holder):
    holder.kill()
    holder.wait()
    with locked(lock, "it") as left:
        assert left == holder.pid
    assert not is_alive(holder.pid) and is_alive(os.getpid())
    with locked(lock, "it") as left:
        assert left is None


def test_the_children_of_a_killed_holder_are_waited_for(lock):
    holder = start(lock, "with a child")
    holder.kill()
    holder.wait()
    holder.stdin.close()  # and so its child ends
    with locked(lock, "it") as left:
        assert left == holder.pid
    holder.stdout.close()


def test_a_child_of_a_launcher_names_it_and_an_orphan_says_what_to_do(lock):
    for launcher, words in ((os.getpid(), "a child of the launcher"), (NO_PROCESS, "the orphaned child of a launcher")):
        child = start(lock, **{LAUNCHER: str(launcher)})
        error = refusal(lock)
        child.communicate("")
        assert f"process {child.pid}" in error and f"{words} (process {launcher})" in error
    assert f"`kill {child.pid}`" in error and "the same command continues" in error


def test_a_folder_that_is_removed_while_it_is_locked_is_no_error(lock):
    with locked(lock, "it"):
        for path in lock.parent.iterdir():
            path.unlink()
        lock.parent.rmdir()


def test_a_process_of_another_machine_is_named_with_it(lock):
    with FileLock(lock):
        content = {"pid": NO_PROCESS, "host": f"not-{socket.gethostname()}", "launcher": None}
        lock.with_name("run.lock.pid").write_text(json.dumps(content))
        assert f"process {NO_PROCESS} of the machine 'not-" in refusal(lock)


def test_where_the_disk_has_no_locks_the_pid_decides(lock, holder, monkeypatch):
    def no_locks(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", no_locks)
    assert f"process {holder.pid}" in refusal(lock)
    holder.kill()
    holder.wait()
    with locked(lock, "it") as left:
        assert left == holder.pid
