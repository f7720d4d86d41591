"""train.py that knows the system of two stages."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])  # in place of this folder, whose modules have the same names

if __name__ == "__main__":
    import train
    from tests.two_stages.system import enter
    from utils.errors import run_command

    enter()
    sys.exit(run_command(train.main))
