"""What the command lines share."""

import argparse
import importlib.util

import pytest

from tools.report import __main__ as report
from tools.search import __main__ as search
from tools.visualize import __main__ as visualize
from utils.commands import whole_number
from utils.errors import run_command


@pytest.mark.parametrize(
    ("main", "words", "absent", "message"),
    [
        (search.main, "--run r --query q --gallery g", "matplotlib", "pip install matplotlib"),
        (visualize.main, "ranks --run r --out o", "matplotlib", "pip install matplotlib"),
        (visualize.main, "attention --run r --out o", "matplotlib", "pip install matplotlib"),
        (visualize.main, "embedding --run r --out o", "sklearn", "needs scikit-learn: pip install scikit-learn"),
        (report.main, "folder", "matplotlib", "pip install matplotlib"),
    ],
)
def test_a_missing_package_is_one_line_that_says_what_to_install(main, words, absent, message, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == absent else find(name, *rest))
    assert run_command(main, words.split()) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize("text", ["0", "-1", "1e3", "ten", "", "\u00b2"])
def test_only_whole_numbers_of_at_least_one_count(text):
    assert whole_number("12") == 12
    with pytest.raises(argparse.ArgumentTypeError, match="need a whole number of at least 1"):
        whole_number(text)
