"""Text and files from strangers do nothing but what they are for: see SECURITY.md."""

import ast
import csv
import io
import json
import logging
import os
import pickle
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

import run_phased_loss
import test as test_command
import train
from configs import load_cfg
from datasets.bases import Sample
from tests.commands import args_for
from tests.faults.mistakes import refusal
from tests.pages import ROOT
from tools.report.page import table, text
from tools.search.index import read_index
from tools.visualize.embedding import coordinates
from tools.visualize.grid import file_stem
from utils.errors import ConfigError, shown
from utils.logger import setup_logger
from utils.run_folder import Position, Recorder, RunFolder, read_metrics

pytestmark = pytest.mark.fault("security")

SOURCES = ("configs", "datasets", "losses", "model", "processor", "solver", "tools", "utils")
FORBIDDEN = {  # calls that run what a file or a text says
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads", "marshal.loads"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.jit.load", "torch.hub.load", "shelve.open"),
    *("tempfile.mktemp", "joblib.load", "dill.load"),
}
NEEDED = {"np.load": ("allow_pickle", False), "torch.load": ("weights_only", True)}
NAMES = {  # hostile names of files, sets and people
    "markup": "<script>alert(1)</script>.jpg",
    "attribute": "\" onload='alert(1)' x=\".jpg",
    "entity": "&lt;img src=x onerror=alert(1)&gt;.jpg",
    "terminal": "\x1b[2J\x1b]0;title\x07.jpg",
    "reversed": "photo\u202egpj.exe",
    "lines": "a\nerror: all is well\r.jpg",
}


@cache
def calls() -> list[tuple[str, ast.Call]]:
    """Return "file:line", call of every call in the code that users run."""
    return list(_find_calls())


def _find_calls() -> Iterator[tuple[str, ast.Call]]:
    scripts = [ROOT / name for name in ("train.py", "test.py", "run_phased_loss.py")]
    for path in [*scripts, *(path for folder in SOURCES for path in sorted((ROOT / folder).rglob("*.py")))]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def test_no_call_runs_what_a_file_says():
    found = {(place.split(":")[0], name) for place, call in calls() if (name := ast.unparse(call.func)) in FORBIDDEN}
    assert found <= {("tools/export/graphs.py", "torch.jit.load")}  # of the file that was written just before


def test_arrays_are_read_without_pickles_and_weights_without_classes():
    for place, call in calls():
        if ast.unparse(call.func) in NEEDED:
            name, value = NEEDED[ast.unparse(call.func)]
            given = {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg == name}
            assert given.get(name) is value, place


def test_no_command_passes_a_shell_and_no_temporary_file_lies_where_all_may_write():
    for place, call in calls():
        words = {word.arg: ast.unparse(word.value) for word in call.keywords}
        assert words.get("shell", "False") == "False" and words.get("trust_remote_code", "False") == "False", place
        if ast.unparse(call.func).startswith("tempfile."):
            assert "dir" in words, place


@pytest.mark.parametrize("name", NAMES)
def test_a_page_shows_a_hostile_name_and_does_nothing_else(name):
    page = table([["image"], [NAMES[name]]], NAMES[name]) + text(NAMES[name])
    assert not re.search(r"<(script|img)|\x1b|\u202e|\r", page) and "onload='" not in page


@pytest.mark.parametrize("name", NAMES)
def test_a_log_and_an_error_show_a_hostile_name_on_one_line(name, tmp_path, capsys):
    setup_logger(tmp_path / "log.txt")
    logging.getLogger("x").warning("image %s is damaged", NAMES[name].replace("\n", ""))
    for printed in (capsys.readouterr().out, (tmp_path / "log.txt").read_text(), shown(NAMES[name].replace("\n", ""))):
        assert printed.strip().isprintable()


@pytest.mark.parametrize(
    "name", ["=cmd|' /C calc'!A0.jpg", "+1.jpg", "-1+1.jpg", "@SUM(A1).jpg", "\t=1.jpg", 'a","b\n=1']
)
def test_a_table_holds_no_formula_and_keeps_its_columns(name):
    rows = list(csv.reader(io.StringIO(coordinates([Sample(name, 1, 2, 0)], np.array([True]), np.zeros((1, 2))))))
    assert len(rows) == 2 and len(rows[1]) == len(rows[0])
    assert rows[1][0].removeprefix("'") == name and rows[1][0][0] not in "=+-@\t\r"


@pytest.mark.parametrize("tag", ["../x", "/tmp/x", "a/b", "..\\x", "a\0b", "$(id)", "a b", "\x1b[0m", ""])
def test_a_tag_is_part_of_a_name_and_nothing_else(tag, tmp_path, capsys):
    argv = ("--config", ROOT / "configs" / "VeRi" / "vit_base.yml", "--output-root", tmp_path / "logs", "--tag", tag)
    assert "--tag" in refusal(run_phased_loss.main, *argv, capsys=capsys)
    assert not (tmp_path / "logs").exists() and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../../x.jpg", "/etc/passwd", "..", "a\\..\\b.png", "\x1b[2J.png", "x" * 5000])
def test_the_name_of_a_picture_stays_in_its_folder(name, tmp_path):
    stem = file_stem(name)
    place = Path(os.path.normpath(tmp_path / f"1_{stem}.png"))
    assert place.parent == tmp_path and stem.isprintable() and len(place.name) < 255


@pytest.mark.parametrize(
    "yaml",
    [
        "MODEL: !!python/object/apply:os.system ['touch PLACE']",
        "MODEL: !!python/object/new:os.system ['touch PLACE']",
        "OUTPUT_DIR: !!python/name:os.system",
        "!!python/module:os",
        'SOLVER: {BASE_LR: \'__import__("os").system("touch PLACE")\'}',
        'SOLVER: {STEPS: \'(__import__("os").system("touch PLACE"),)\'}',
    ],
)
def test_a_yaml_is_data(yaml, tmp_path, capsys):
    config, place = tmp_path / "x.yml", tmp_path / "ran"
    config.write_text(yaml.replace("PLACE", str(place)) + "\n")
    refusal(train.main, *args_for(config), capsys=capsys)
    refusal(train.main, *args_for(ROOT / "configs" / "VeRi" / "vit_base.yml", "SOLVER.STEPS", yaml), capsys=capsys)
    assert not place.exists()


@pytest.mark.parametrize("base", ["/etc/passwd", "../../../../etc/passwd", "/dev/zero", "/proc/self/environ", "."])
def test_a_base_that_is_no_recipe_shows_nothing_of_its_content(base, tmp_path):
    (tmp_path / "x.yml").write_text(f"_BASE_: {base}\n")
    with pytest.raises(ConfigError) as caught:
        load_cfg(str(tmp_path / "x.yml"))
    assert "root:" not in str(caught.value) and "PATH=" not in str(caught.value)


class Evil:
    """Makes a file where it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple:
        return Path.touch, (self.place,)


@pytest.mark.parametrize("kind", ["pickle", "torch", "legacy"])
def test_a_checkpoint_with_code_is_refused_and_does_not_run(kind, tmp_path, tiny_config, capsys):
    place, weight = tmp_path / "ran", tmp_path / "x_1.pth"
    if kind == "pickle":
        weight.write_bytes(pickle.dumps({"a": torch.ones(1), "b": Evil(place)}))
    else:
        torch.save({"a": torch.ones(1), "b": Evil(place)}, weight, _use_new_zipfile_serialization=kind == "torch")
    message = refusal(test_command.main, *args_for(tiny_config, "TEST.WEIGHT", weight), capsys=capsys)
    assert "x_1.pth" in message and not place.exists()


def test_an_index_and_a_cache_with_pickles_are_not_read(tmp_path):
    place = tmp_path / "ran"
    np.savez(
        tmp_path / "i.npz", name=np.array([Evil(place)], dtype=object), meta=np.array('{"kind": "index of a gallery"}')
    )
    assert read_index(tmp_path / "i.npz", tmp_path, None) is None and not place.exists()


def test_records_from_a_stranger_are_data(tmp_path):
    run = RunFolder(tmp_path, "net")
    recorder = Recorder(run, Position(0, 0, 0))
    recorder.write("train", 1, 1, {"../../evil": 1.0, "name": NAMES["terminal"]})
    recorder.close()
    assert {path.parent for path in tmp_path.rglob("*")} == {tmp_path}
    assert read_metrics(run.metrics)[0]["name"] == NAMES["terminal"]
    assert "\x1b" not in run.metrics.read_text()


def test_an_output_folder_that_is_a_link_is_the_folder_it_names(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    from utils.atomic import write_text_atomic

    (tmp_path / "victim").write_text("kept")
    (tmp_path / "real" / "x.json").symlink_to(tmp_path / "victim")
    write_text_atomic(tmp_path / "link" / "x.json", json.dumps(1))
    assert (tmp_path / "victim").read_text() == "kept" and not (tmp_path / "real" / "x.json").is_symlink()


def test_a_table_of_images_with_paths_elsewhere_reads_images_alone(tmp_path, tiny_config, capsys):
    (tmp_path / "table.csv").write_text("split,path,pid,camid\ntrain,/etc/passwd,1,1\ntrain,../../etc/passwd,2,1\n")
    opts = ("DATASETS.NAMES", "table", "DATASETS.TABLE", tmp_path / "table.csv", "MODEL.SIE_VIEW", False)
    message = refusal(train.main, *args_for(tiny_config, *opts), capsys=capsys)
    assert "root:" not in message


def test_the_security_page_names_files_and_tests_that_exist():
    named = re.findall(r"`((?:[a-z_]+/)+(?:\w+\.py)?)`", (ROOT / "SECURITY.md").read_text(encoding="utf-8"))
    assert len(named) > 20
    assert [name for name in named if not (ROOT / name).exists() and not (ROOT / "tests" / name).exists()] == []
