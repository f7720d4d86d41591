"""How the tools are told which trained model to use."""

import pytest

from tools.source import load_source, source_parser
from utils.errors import ConfigError


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "by --run OUTPUT_DIR or by --weights FILE"),
        (("--run", "a", "--weights", "b"), "one of the two"),
        (("--weights", "b.pth", "--epoch", "3"), "--epoch 3 goes with --run"),
        (("--run", "nowhere"), "run folder 'nowhere': no such folder"),
        (("--weights", "nowhere/x.pth"), "no file 'nowhere/x.pth'"),
    ],
)
def test_a_model_that_is_not_named_rightly_is_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        load_source(source_parser("tool", "A tool.").parse_args(words))


def test_an_unknown_flag_is_one_line(capsys):
    with pytest.raises(SystemExit):
        source_parser("tool", "A tool.").parse_args(["--rum", "x"])
    assert capsys.readouterr().err.count("\n") == 1
