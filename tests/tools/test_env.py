"""What a bug report needs: tables that Markdown understands, what a run folder tells, nothing that is private."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch

from tests.commands import run
from tests.faults.mistakes import refusal
from tests.pages import ROOT
from tools import env
from tools.run_facts import TAIL_BYTES, fenced, last_lines, recipe_of
from utils.device import resolve_amp, resolve_device

SECRET = "hf_q7Zr0pXw2LmN8vTk4BsE"


def rows_of(text: str) -> dict[str, str]:
    """Return the second cell by the first of all rows of the tables in a text."""
    return dict(re.findall(r"^\| (.+?) \| (.*?) \|$", text, re.MULTILINE))


@pytest.fixture(scope="module")
def printed() -> str:
    """What the command prints without a run."""
    return "\n".join(env.describe_machine(""))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder of a recipe with a base, in a home folder of its own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "base.yml").write_text("MODEL: {NAME: resnet50}\nSOLVER: {GAMMA: 0.5, MAX_EPOCHS: 9}\n")
    (tmp_path / "mine.yml").write_text("_BASE_: base.yml\nSOLVER: {MARGIN: 0.1}\n")
    folder = tmp_path / "logs" / "run"
    folder.mkdir(parents=True)
    environment = {"command": ["train.py", "--config_file", f"{tmp_path}/mine.yml"], "git_commit": "0123abcd-dirty"}
    (folder / "env.json").write_text(json.dumps(environment | {"torch": "2.5.0"}))
    settings = "MODEL: {NAME: resnet50}\nSOLVER: {GAMMA: 0.5, MAX_EPOCHS: 3, MARGIN: 0.1}\n"
    (folder / "config.yaml").write_text(f"{settings}DATALOADER: {{CACHE: {tmp_path}/pixels}}\n")
    lines = ["2026-01-01 10:00:00,000 reid INFO: starts", f"2026-01-01 10:00:01,000 x WARNING: {tmp_path}/a.jpg is odd"]
    (folder / "train_log.txt").write_text("\n".join([*lines, f"token={SECRET}", "```", "last words"]) + "\n")
    (folder / "resnet50_2.pth").touch()
    (tmp_path / "pixels").mkdir()
    (tmp_path / "pixels" / "a.npy").write_bytes(bytes(3 * 2**30 // 10**3))
    return folder


def test_versions_device_precision_and_threads_are_those_of_this_process(printed):
    rows, device = rows_of(printed), resolve_device("auto", "0")
    assert rows["Python"].startswith(".".join(map(str, sys.version_info[:3])))
    assert rows["torch"].startswith(torch.__version__.split("+")[0])
    assert rows["MODEL.DEVICE auto"].startswith(str(device))
    assert rows["threads of torch"].startswith(f"{torch.get_num_threads()},")
    amp = resolve_amp("auto", device)
    assert rows["SOLVER.AMP auto"].split()[0] == ("float32" if amp is None else str(amp).removeprefix("torch."))


def test_every_required_package_is_told_with_what_is_asked_of_it(printed):
    required = re.findall(r"^([\w-]+)(>=.+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert len(required) >= 10
    assert [name for name, asked in required if not rows_of(printed)[name].endswith(f" ({asked})")] == []


def test_cards_that_torch_cannot_use_are_no_crash(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert dict(env.device_rows())["MODEL.DEVICE auto"].startswith(("cpu", "mps"))


def test_a_package_that_is_absent_is_said_to_be(monkeypatch):
    def absent(name: str) -> str:
        raise env.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(env.importlib.metadata, "version", absent)
    assert {version.split(" (")[0] for _, version in env.package_rows()} == {"not installed"}


def test_a_torch_that_cannot_be_imported_is_the_finding_and_no_crash(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    text = "\n".join(env.describe_machine(""))
    assert "cannot be imported" in text and "| timm |" in text


def test_variables_that_are_set_are_told_and_others_are_not(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    rows = dict(env.variable_rows())
    assert rows["OMP_NUM_THREADS"] == "3" and not {"HF_HOME", "HF_TOKEN"} & set(rows)


def test_the_size_of_a_folder_is_that_of_its_files_and_links_count_nothing_twice(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "a").write_bytes(b"")
    (tmp_path / "a").symlink_to(tmp_path / "blobs" / "a")
    with open(tmp_path / "blobs" / "a", "wb") as stream:
        stream.truncate(5 * 2**30)  # a hole: no disk is used
    assert env.folder_size(tmp_path).endswith(": 5.0 GiB")
    assert env.folder_size(tmp_path / "absent").endswith(": none")


def test_a_run_tells_its_commit_settings_and_end_and_no_private_word(folder, capsys):
    assert run(env.main, "--run", folder) == 0
    text = capsys.readouterr().out
    rows = rows_of(text)
    assert (rows["commit"], rows["epochs kept"], rows["folder"]) == ("0123abcd-dirty", "2", "~/logs/run")
    assert "SOLVER.MARGIN 0.3 -> 0.1" in text and "SOLVER.MAX_EPOCHS 9 -> 3" in text and "SOLVER.GAMMA" not in text
    assert re.search(r"^Settings, .*base\.yml -> run:$", text, re.MULTILINE)
    assert rows["DATALOADER.CACHE"] == "~/pixels: 0.0 GiB"
    assert text.count("~/a.jpg is odd") == 2 and text.rstrip().endswith("last words\n````")
    assert SECRET not in text and str(folder.parents[1]) not in text


def test_without_its_recipe_a_run_is_compared_with_the_defaults(folder, capsys):
    (folder.parents[1] / "mine.yml").unlink()
    assert run(env.main, "--run", folder) == 0
    text = capsys.readouterr().out
    assert "Settings, the defaults (docs/config.md) -> run:" in text and "SOLVER.GAMMA 0.1 -> 0.5" in text


@pytest.mark.parametrize("name", ["env.json", "config.yaml", "train_log.txt"])
@pytest.mark.parametrize("content", [None, b"", b"\xff\x00{[", b"[1, 2]", b"- 1\n- 2\n"])
def test_a_damaged_or_absent_file_takes_only_its_own_part_away(folder, name, content, capsys):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    assert run(env.main, "--run", folder) == 0
    text = capsys.readouterr().out
    assert ("0123abcd" in text) == (name != "env.json")
    assert ("SOLVER.MAX_EPOCHS" in text) == (name != "config.yaml")
    assert ("last words" in text) == (name != "train_log.txt")


def test_a_folder_that_is_no_run_is_one_clear_error(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert "holds none of config.yaml" in refusal(env.main, "--run", tmp_path / "empty", capsys=capsys)
    assert "no such folder" in refusal(env.main, "--run", tmp_path / "absent", capsys=capsys)


def test_a_run_as_it_is_left_by_a_training_is_told(trained_run, capsys):
    assert run(env.main, "--run", trained_run) == 0
    text = capsys.readouterr().out
    assert rows_of(text)["epochs kept"] == "1, 2" and "SOLVER.MAX_EPOCHS" in text


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["train.py", "--config_file", "a.yml", "SOLVER.SEED", "1"], "a.yml"),
        (["train.py", "SOLVER.SEED", "1", "--config=b.yml"], "b.yml"),
        (["train.py", "--config_file"], ""),
        (["train.py"], ""),
        ("train.py --config_file a.yml", ""),
        ([1, 2], ""),
        (None, ""),
    ],
)
def test_the_recipe_of_a_command(command, expected):
    assert recipe_of(command) == expected


def test_the_end_of_a_long_log_is_read_without_the_rest_and_begins_with_a_whole_line(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("".join(f"line {number:06d}\n" for number in range(20_000)))
    lines = last_lines(path)
    assert lines[-1] == "line 019999" and all(re.fullmatch(r"line \d{6}", line) for line in lines)
    assert len(lines) * len("line 000000\n") <= TAIL_BYTES
    assert last_lines(tmp_path / "absent") == []


def test_a_fence_is_longer_than_any_in_the_text():
    assert fenced(["a", "`````", "b"]).splitlines()[0] == "``````text"
    assert fenced(["a"]) == "```text\na\n```"
