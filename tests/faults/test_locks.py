"""Garbage in the files of a lock decides nothing."""

import pytest

from tests.lockers import refusal, start
from utils.file_lock import locked

GARBAGE = (b"", b"\xff\xfe\x00", b"\xc2\xb2", b"[]", b"12", b'{"pid": -1}', b"[" * 100_000)


def test_garbage_in_either_file_locks_nobody_out_and_lets_nobody_in(tmp_path, tally):
    lock = tmp_path / "run.lock"
    holder = start(lock)
    files = [(lock.with_name(name), content) for name in ("run.lock", "run.lock.pid") for content in GARBAGE]
    held = []
    for path, content in files:
        path.write_bytes(content)
        held.append("it is in use by" in refusal(lock))
    holder.communicate("")
    for path, content in files:
        path.write_bytes(content)
        with locked(lock, "it") as left:
            held.append(left is None)
    tally("damaged results: locks", len(held), sum(held))
    assert all(held)


@pytest.mark.fault("damaged results: locks")
def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path):
    lock = tmp_path / "run.lock"
    lock.mkdir()
    assert "cannot be locked" in refusal(lock)
