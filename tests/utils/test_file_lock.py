"""One process at a time holds a file; a process that is killed lets go of it."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from utils import file_lock
from utils.file_lock import LockHeldError, hold, is_alive

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys
from pathlib import Path
from utils.file_lock import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen]:
    """A process that holds tmp_path / "lock"."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "lock")]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_file_that_is_held_is_refused_with_the_pid_of_its_holder(tmp_path, holder):
    with pytest.raises(LockHeldError, match=f"^{holder.pid}$"), hold(tmp_path / "lock"):
        pass


def test_a_killed_holder_lets_go_and_leaves_its_pid(tmp_path, holder):
    holder.kill()
    holder.wait()
    with hold(tmp_path / "lock") as left:
        assert left == str(holder.pid) and (tmp_path / "lock").read_text() == str(os.getpid())
    assert not is_alive(holder.pid) and is_alive(os.getpid())
    with hold(tmp_path / "lock") as left:
        assert left == ""


def test_where_the_disk_has_no_locks_the_pid_decides(tmp_path, holder, monkeypatch):
    def no_locks(*args: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(file_lock.fcntl, "lockf", no_locks)
    with pytest.raises(LockHeldError), hold(tmp_path / "lock"):
        pass
    holder.kill()
    holder.wait()
    with hold(tmp_path / "lock") as left:
        assert left == str(holder.pid)
