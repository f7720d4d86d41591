"""train.py and run_phased_loss.py without arguments: what they do, examples that run when copied, exit code 2."""

import re
import shlex
import sys
from collections.abc import Callable

import pytest

import run_phased_loss
import train
from configs import load_cfg
from tests.commands import run
from tests.pages import ROOT
from tools.launch.arguments import parse_args
from tools.launch.plan import plan_launch
from utils.commands import config_parser

COMMANDS = {"train.py": train.main, "run_phased_loss.py": run_phased_loss.main}


def guide_of(main: Callable, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command without arguments; return what it says, checked to end in one error and code 2."""
    with pytest.raises(SystemExit) as ended:
        run(main)
    out, err = capsys.readouterr()
    assert (ended.value.code, out, err.count("error: ")) == (2, "", 1)
    assert err.splitlines()[-1].startswith("error: ")
    return err


def examples_in(text: str, script: str) -> list[list[str]]:
    """Return the words of each example after the script."""
    return [shlex.split(line) for line in re.findall(rf"^ +python {re.escape(script)} (.+)$", text, re.MULTILINE)]


@pytest.mark.parametrize("script", COMMANDS)
def test_without_arguments_a_command_explains_itself_with_three_examples_and_where_recipes_lie(script, capsys):
    said = guide_of(COMMANDS[script], capsys)
    assert len(examples_in(said, script)) == 3 and f"{script} --help lists the arguments" in said
    named = re.findall(r"\b(?:configs/\S+\.yml|configs/(?=<)|docs/\w+\.md)", said)
    assert "configs/" in named and "docs/recipes.md" in named
    assert [name for name in named if not (ROOT / name).exists()] == []
    assert max(map(len, said.splitlines()[:-1])) <= 120


def test_examples_of_training_are_sound_configurations(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    for words in examples_in(guide_of(train.main, capsys), "train.py"):
        args = config_parser("train.py", "").parse_args([word for word in words if word != "--show-schedule"])
        load_cfg(args.config_file, args.opts)


def test_the_example_with_a_schedule_runs_as_it_stands(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    (words,) = [words for words in examples_in(guide_of(train.main, capsys), "train.py") if "--show-schedule" in words]
    assert run(train.main, *words) == 0 and "epochs" in capsys.readouterr().out


def test_examples_of_launches_can_be_planned(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    counts = []
    for words in examples_in(guide_of(run_phased_loss.main, capsys), "run_phased_loss.py"):
        counts.append(len(plan_launch(parse_args([*words, "--output-root", str(tmp_path)]))))
    assert counts == [1, 1, 2]


def test_the_words_of_the_process_count_where_none_are_handed_over(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["run_phased_loss.py"])
    with pytest.raises(SystemExit):
        run_phased_loss.main()
    assert "configs/Synthetic/baseline.yml" in capsys.readouterr().err
