"""How tests start a command."""

from collections.abc import Callable, Sequence
from pathlib import Path

from utils.errors import run_command

KILLED_AT_A_STEP = """
import os, signal, sys
import train
from solver.update import Updater
steps, update = 0, Updater.step
def killing_step(self):
    global steps
    steps += 1
    if steps == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    update(self)
Updater.step = killing_step
{before}
train.main(sys.argv[2:])
"""  # train.py that kills itself at an optimizer step (from 1), its first argument, after the code `before`


def run(main: Callable[[Sequence[str]], object], *words: object) -> int:
    """Run a command as its script does, each word as text; return the exit code."""
    return run_command(main, [str(word) for word in words])


def args_for(config: str | Path, *opts: object) -> list[str]:
    """The command line of train.py and test.py: a YAML and KEY, VALUE, ..."""
    return ["--config_file", str(config), *map(str, opts)]
