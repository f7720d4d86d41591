"""Paths in every key and flag: what no file can be called, and what stands where another thing is meant."""

import argparse
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

import run_phased_loss
import test as test_command
import train
from datasets.archives.find import find_folder
from datasets.archives.table import load_table
from datasets.archives.veri import find_view_files
from datasets.pixel_cache import find_cache
from datasets.synthetic.load import load_synthetic
from datasets.synthetic_orbench import load_synthetic_orbench
from datasets.synthetic_text import load_synthetic_text
from processor.trained import find_weight, load_trained
from tests.commands import run
from tests.faults.mistakes import refusal
from tools import check, compare, config_docs, extract, synthetic
from tools.export import __main__ as export
from tools.report import __main__ as report
from tools.search import __main__ as search
from tools.visualize import __main__ as visualize
from utils.atomic import write_text_atomic
from utils.checkpoint import load_file
from utils.commands import path_flag
from utils.errors import ConfigError, DataError
from utils.logger import setup_logger
from utils.run_folder import make_folder, open_run
from utils.yaml_text import plain_tree

pytestmark = pytest.mark.fault("bad input: paths")
RECIPE = "configs/VeRi/vit_base.yml"
NAMES = {
    "NUL": ("a\0b", "holds a NUL character"),
    "unknown home": ("~nobody_of_this_name/x", "names a home folder that does not exist"),
    "long": ("x" * 300, "cannot be used"),
    "loop": ("loop/x", "cannot be used"),
    "no encoding": ("x\ud800", "is no path of this system"),
}
READERS: dict[str, Callable[[str], object]] = {
    "OUTPUT_DIR": lambda path: make_folder(path, "OUTPUT_DIR"),
    "DATASETS.ROOT_DIR": lambda path: find_folder(path, ["VeRi"], ["image_train"]),
    "DATASETS.ROOT_DIR synthetic": load_synthetic,
    "DATASETS.ROOT_DIR synthetic_text": load_synthetic_text,
    "DATASETS.ROOT_DIR synthetic_orbench": load_synthetic_orbench,
    "DATASETS.TABLE": lambda path: load_table(path, "."),
    "DATASETS.VIEW_FILES": lambda path: find_view_files(Path("."), [path]),
    "DATALOADER.CACHE": lambda path: find_cache(path, None),
    "MODEL.PRETRAIN_PATH": lambda path: load_file(path, "MODEL.PRETRAIN_PATH"),
    "run folder": find_weight,
    "checkpoint": load_trained,
    "flag": path_flag,
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder with a link that leads to itself, a pipe, a file and a folder."""
    repository = Path.cwd()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(repository / "configs")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", READERS)
def test_a_name_that_no_file_has_is_refused_by_every_key(key, name):
    path, words = NAMES[name]
    with pytest.raises((ConfigError, DataError, argparse.ArgumentTypeError), match=words):
        READERS[key](path)


@pytest.mark.parametrize("path", ["file", "pipe", "file/below", ""])
def test_an_output_folder_is_a_folder(path):
    with pytest.raises(ConfigError, match="OUTPUT_DIR"):
        make_folder(path, "OUTPUT_DIR")


FILE_KEYS = ("DATASETS.TABLE", "MODEL.PRETRAIN_PATH", "run folder", "checkpoint", "DATASETS.ROOT_DIR")


@pytest.mark.parametrize("key", FILE_KEYS)
@pytest.mark.parametrize("path", ["pipe", "folder", "absent", "file/below"])
def test_what_is_no_file_is_not_waited_for(key, path):
    with pytest.raises((ConfigError, DataError)):
        READERS[key](path)


COMMANDS: dict[str, tuple[Callable, list[str]]] = {
    "train --config_file": (train.main, ["--config_file", "@"]),
    "test --config_file": (test_command.main, ["--config_file", "@"]),
    "check --config_file": (check.main, ["--config_file", "@"]),
    "launcher --config": (run_phased_loss.main, ["--config", "@"]),
    "launcher --output-root": (run_phased_loss.main, ["--config", RECIPE, "--output-root", "@"]),
    "compare RUN_A": (compare.main, ["@", "folder"]),
    "compare RUN_B": (compare.main, ["folder", "@"]),
    "compare --json": (compare.main, ["folder", "folder", "--json", "@"]),
    "config_docs --out": (config_docs.main, ["--out", "@"]),
    "synthetic --sheet": (synthetic.main, ["--sheet", "@"]),
    "synthetic --root_dir": (synthetic.main, ["--root_dir", "@"]),
    "report FOLDER": (report.main, ["@"]),
    "extract --run": (extract.main, ["--run", "@", "--images", "file", "--out", "x.npz"]),
    "extract --weights": (extract.main, ["--weights", "@", "--images", "file", "--out", "x.npz"]),
    "extract --config": (extract.main, ["--weights", "file", "--config", "@", "--images", "file", "--out", "x.npz"]),
    "extract --images": (extract.main, ["--weights", "file", "--images", "@", "--out", "x.npz"]),
    "extract --texts": (extract.main, ["--weights", "file", "--texts", "@", "--out", "x.npz"]),
    "extract --out": (extract.main, ["--weights", "file", "--images", "file", "--out", "@"]),
    "search --query": (search.main, ["--weights", "file", "--query", "@", "--gallery", "folder"]),
    "search --gallery": (search.main, ["--weights", "file", "--query", "file", "--gallery", "@"]),
    "search --index": (search.main, ["--weights", "file", "--query", "file", "--gallery", "folder", "--index", "@"]),
    "search --out": (search.main, ["--weights", "file", "--query", "file", "--gallery", "folder", "--out", "@"]),
    "export --out": (export.main, ["--weights", "file", "--format", "onnx", "--out", "@"]),
    "export --run": (export.main, ["--run", "@", "--format", "torchscript", "--out", "x.pt"]),
    "ranks --out": (visualize.main, ["ranks", "--weights", "file", "--out", "@"]),
    "embedding --run": (visualize.main, ["embedding", "--run", "@", "--out", "x"]),
    "attention --images": (visualize.main, ["attention", "--weights", "file", "--out", "x", "--images", "@"]),
}


@pytest.mark.parametrize("name", [*NAMES, "empty"])
@pytest.mark.parametrize("flag", COMMANDS)
def test_a_name_that_no_file_has_is_refused_by_every_flag(flag, name, capsys):
    if name == "no encoding" and flag.startswith(("train", "test", "check", "launcher --config")):
        pytest.skip("as any other path")
    main, argv = COMMANDS[flag]
    path, _ = NAMES.get(name, ("", ""))
    if flag in ("train --config_file", "test --config_file", "check --config_file", "launcher --config") and path:
        path += ".yml"
    assert refusal(main, *(path if word == "@" else word for word in argv), capsys=capsys)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--tag", "a/b"], "cannot be part of a folder name"),
        (["--tag", ".."], "cannot be part of a folder name"),
        (["--tag", "../x"], "cannot be part of a folder name"),
        (["--tag", "x" * 300], "at most 150"),
        (["--tag", "a\0b"], "cannot be part of a folder name"),
        (["--tag", "a\nb"], "cannot be part of a folder name"),
        (["--tag", "a\n"], "cannot be part of a folder name"),
        (["--tag=-x"], "cannot be part of a folder name"),
        (["--tag", "-x"], "expected one argument"),
        (["--tag", ""], "cannot be part of a folder name"),
        (["--tag", "é"], "cannot be part of a folder name"),
        (["--tag", "x" * 5000], "more characters"),
        (["--ds-prefix", ".hidden"], "cannot be part of a folder name"),
        (["--ds-prefix", "../up"], "cannot be part of a folder name"),
        (["--ds-prefix=--x"], "cannot be part of a folder name"),
        (["--output-root", "file"], "is a file, not a folder"),
        (["--output-root", "pipe"], "is a pipe, not a folder"),
        (["--output-root", "file/below"], "cannot write there"),
        (["--output-root", ""], "is empty"),
        (["--config", "folder"], "not a .yml file"),
        (["--config", ""], "not a .yml file"),
        (["--seeds", "9" * 5000], "is too large"),
        (["--seeds", "-1"], "expected"),
        (["--gpus", "9" * 5000], "is too large"),
        (["--epochs", "9" * 5000], "invalid int value"),
        (["--epochs", "1000000000000"], "allowed: 1 to 100000"),
        (["--epochs", "0"], "allowed: 1 to 100000"),
        (["--save-every", "-3"], "allowed: 0 to 100000"),
        (["--T", "1e-300", "--supcon"], "allowed: 1e-06 to 10000"),
        (["--W", "1e38", "--supcon"], "allowed: 0 to 1000000"),
        (["--T", "nan"], "expected a number above 0"),
    ],
)
def test_a_name_or_number_of_a_launch_that_cannot_be(flags, words, capsys):
    assert words in refusal(run_phased_loss.main, "--config", RECIPE, *flags, capsys=capsys)


@pytest.mark.parametrize("stamp", ["a/b", "..", "x" * 300, "a\nb", "-x", "$(x)", "é"])
def test_a_stamp_of_the_environment_that_cannot_be_a_name(stamp, monkeypatch, capsys):
    monkeypatch.setenv("RUN_TAG_TS", stamp)
    assert "RUN_TAG_TS" in refusal(run_phased_loss.main, "--config", RECIPE, capsys=capsys) or len(stamp) == 300


def test_a_home_folder_is_meant_by_its_sign_everywhere(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert make_folder("~/runs", "OUTPUT_DIR") == tmp_path / "runs"
    assert path_flag("~/runs") == str(tmp_path / "runs") and path_flag("./a/") == "./a/"
    (tmp_path / "w.pth").write_bytes(b"no weights")
    with pytest.raises(DataError, match="w.pth"):
        load_file("~/w.pth", "MODEL.PRETRAIN_PATH")


def test_a_name_that_is_no_utf_8_is_written_with_escapes_and_the_file_stays_utf_8(tmp_path):
    odd = os.fsdecode(b"run\xff")
    folder = make_folder(str(tmp_path / odd), "OUTPUT_DIR")
    write_text_atomic(folder / "page.html", f"<p>{odd}\ud800</p>\n")
    assert (folder / "page.html").read_text(encoding="utf-8") == "<p>run\\udcff\\ud800</p>\n"
    setup_logger(folder / "log.txt")
    logging.getLogger("reid").info("in %s", folder)
    setup_logger(None)
    assert "run\\udcff" in (folder / "log.txt").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_run_in_a_folder_whose_name_is_no_utf_8_trains_and_tests(tiny_config, tmp_path):
    run_folder, tested = tmp_path / os.fsdecode(b"run\xff"), tmp_path / os.fsdecode(b"test\xff")
    argv = ["--config_file", tiny_config, "SOLVER.MAX_EPOCHS", 1]
    assert run(train.main, *argv, "OUTPUT_DIR", run_folder) == 0
    assert run(test_command.main, *argv, "TEST.WEIGHT", run_folder / "transformer_1.pth", "OUTPUT_DIR", tested) == 0
    assert (tested / "summary.json").is_file() and (tested / "report.html").is_file()


ODD_TAGS = ("a: !!int ''", "a: !!bool b", "a: !!timestamp b", "a: !!float ''", "a: &b {c: 1}\nd: {<<: *b}")
BROKEN = ("a: [", "- a", "", "a: 2024-99-99", "a: " + "9" * 5000, "[" * 300, "a: \x01", "\0", *ODD_TAGS)


@pytest.mark.parametrize("text", BROKEN)
def test_a_damaged_configuration_in_a_run_folder_is_none(tmp_path, text):
    assert plain_tree(text) is None
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "transformer_3.pth").touch()
    assert open_run(tmp_path).prefix == "transformer"


def refuse_to_open(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files of this name be such as may not be read: root, who may run these tests, reads everything."""

    def opened(path: Path, mode: str) -> IO:
        if Path(path).name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return open(path, mode)

    monkeypatch.setattr("utils.paths.open", opened, raising=False)


def commands_on(run_folder: Path, tested: Path) -> dict[str, tuple[Callable, list]]:
    config = ["--config_file", run_folder.parent / "tiny.yml"]
    return {
        "transformer_2.pth": (test_command.main, [*config, "TEST.WEIGHT", run_folder / "transformer_2.pth"]),
        "state_last.pth": (train.main, [*config, "OUTPUT_DIR", run_folder]),
        "summary.json": (report.main, [tested]),
        "per_query.npz": (compare.main, [tested, tested]),
    }


@pytest.mark.parametrize("name", ["transformer_2.pth", "state_last.pth", "summary.json", "per_query.npz"])
def test_a_file_that_may_not_be_read_is_neither_absent_nor_damaged(name, trained_run, tmp_path, monkeypatch, capsys):
    refuse_to_open(name, monkeypatch)
    run_folder, tested = tmp_path / "run", tmp_path / "test"
    shutil.copytree(trained_run, run_folder)
    shutil.copy(trained_run.parent / "tiny.yml", tmp_path)
    tested.mkdir()
    (tested / name).touch()
    main, argv = commands_on(run_folder, tested)[name]
    message = refusal(main, *argv, capsys=capsys)
    assert f"{name}' cannot be read (Permission denied); check its permissions" in message and "anew" not in message


def test_a_checkpoint_given_as_a_run_folder_is_told_the_flag_that_takes_it(trained_run):
    with pytest.raises(ConfigError, match="transformer_2.pth' is a file; .*--weights takes files"):
        find_weight(trained_run / "transformer_2.pth")


def test_a_run_folder_that_may_not_be_listed_is_no_empty_one(trained_run, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ConfigError, match="cannot be read; check its permissions"):
        find_weight(trained_run)
