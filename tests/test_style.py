"""The tree is clean for ruff, and the README's commands exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]])
def test_ruff_finds_nothing(command):
    result = subprocess.run([sys.executable, "-m", "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_files_that_the_readme_names_exist():
    text = (ROOT / "README.md").read_text()
    named = set(re.findall(r"configs/[\w/]+\.(?:yml|png)", text)) | set(re.findall(r"\b\w+\.py\b", text))
    missing = [name for name in named if not (ROOT / name).exists() and not list(ROOT.rglob(name))]
    assert not missing


def test_no_figure_is_left_blank():
    files = [ROOT / "README.md", *(ROOT / "configs").rglob("*.yml")]
    assert not [path.name for path in files if "@@" in path.read_text()]
