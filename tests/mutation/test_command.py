"""The command of the mutation tests on two faults, where mutmut is installed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_two_faults_are_tried_and_counted_and_the_tree_stays_as_it_is():
    pytest.importorskip("mutmut")
    before = (ROOT / "datasets" / "sampler.py").read_bytes()
    words = [sys.executable, "-m", "tests.mutation", "datasets/sampler", "--each", "2", "--at-least", "0"]
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert re.search(r"^\| datasets/sampler \| 2 \| [012] \| [012] \| (0|50|100)% \|$", result.stdout, re.MULTILINE)
    assert re.search(r"^2/2 datasets/sampler\.py:\d+ (killed|survived|timed out), \d+ s$", result.stderr, re.MULTILINE)
    assert (ROOT / "datasets" / "sampler.py").read_bytes() == before
