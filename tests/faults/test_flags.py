"""Flags with a slip in them: the flag that was meant is named, also where argparse misses that flag alone."""

import pytest

import run_phased_loss
import test as test_command
import train
from tests.faults.mistakes import refusal
from tools import check, compare, config_docs, extract, synthetic
from tools.export import __main__ as export
from tools.search import __main__ as search
from tools.visualize import __main__ as visualize

pytestmark = pytest.mark.fault("bad input: flags")
KNOWN = ("--config_file", "--run", "--images", "--out", "--query", "--gallery", "--format")


@pytest.mark.parametrize(
    ("main", "argv", "meant"),
    [
        (train.main, ["--confg_file", "x.yml"], "--config_file"),
        (train.main, ["--config_file", "x.yml", "--show_schedule"], "--show-schedule"),
        (test_command.main, ["--Config_File=x.yml"], "--config_file"),
        (check.main, ["--config-flie", "x.yml"], "--config_file"),
        (extract.main, ["--rum", "logs", "--images", "x", "--out", "x.npz"], "--run"),
        (extract.main, ["--run", "logs", "--image", "x", "--out", "x.npz"], "--images"),
        (search.main, ["--run", "logs", "--query", "x", "--galery", "x"], "--gallery"),
        (extract.main, ["--run", "logs", "--text", "x", "--out", "x.npz"], "--texts"),
        (search.main, ["--run", "logs", "--texts", "x", "--gallery", "x"], "--text"),
        (export.main, ["--run", "logs", "--foramt", "onnx", "--out", "x"], "--format"),
        (compare.main, ["a", "b", "--metrics", "mAP"], "--metric"),
        (visualize.main, ["ranks", "--run", "logs", "--out", "x", "--num_queries", "3"], "--num-queries"),
        (synthetic.main, ["--root-dir", "x"], "--root_dir"),
        (synthetic.main, ["--root_di", "x"], "--root_dir"),
        (config_docs.main, ["--ou", "x"], "--out"),
        (run_phased_loss.main, ["--seed", "1"], "--seeds"),
        (run_phased_loss.main, ["--no-supcn"], "--no-supcon"),
    ],
)
def test_a_mistyped_flag_is_told_with_the_one_that_was_meant(main, argv, meant, capsys):
    slip = next(word.split("=")[0] for word in argv if word.startswith("--") and word.split("=")[0] not in KNOWN)
    assert f"'{slip}' is unknown, did you mean {meant}?" in refusal(main, *argv, capsys=capsys)


def test_a_value_that_begins_like_a_flag_is_no_slip(capsys):
    message = refusal(train.main, "--config_file", capsys=capsys)
    assert "expected one argument" in message and "is unknown" not in message
