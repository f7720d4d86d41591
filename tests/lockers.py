"""A process of its own that holds a lock, and what a refused one is told."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from utils.errors import ConfigError
from utils.file_lock import locked

ROOT = Path(__file__).parents[1]
HOLDER = """
import os, sys
from pathlib import Path
from utils.file_lock import locked
with locked(Path(sys.argv[1]), "it"):
    if sys.argv[2:] and not os.fork():
        sys.stdin.read()
        os._exit(0)
    print("held", flush=True)
    sys.stdin.read()
"""


def start(lock: Path, *words: str, **environment: str) -> subprocess.Popen:
    """Return a process that holds the lock until its stdin ends; with a word more a child of it has the file open."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock), *words],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    assert process.stdout.readline() == "held\n"
    return process


def refusal(lock: Path) -> str:
    """Return what a process is told that cannot lock `it`."""
    with pytest.raises(ConfigError) as refused, locked(lock, "it"):
        pass
    return str(refused.value)
