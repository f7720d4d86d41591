"""The data set doctor on several modalities: the table, and one line for each finding."""

import shutil
from pathlib import Path

import pytest

from tests.datasets.modal import (
    TEST_FILE,
    annotations,
    paths_of,
    queries_of,
    write_competition,
    write_json,
    write_orbench,
)
from tests.datasets.trees import write_text
from tools.check import main
from utils.errors import run_command

MODEL = (
    "MODEL: {NAME: multimodal, CLIP_BACKBONE: ViT-B-16-quickgelu, CLIP_PRETRAIN: openai}",
    "SOLVER: {BASE_LR: 1e-5}",
)
BATCHES = ["SOLVER.IMS_PER_BATCH", "4", "DATALOADER.NUM_INSTANCE", "2"]


def config(root: Path) -> list[str]:
    lines = ("DATALOADER: {SAMPLER: softmax_triplet}", "DATASETS:", "  NAMES: orbench", f"  ROOT_DIR: {root}")
    return ["--config_file", str(write_text(root / "check.yml", *MODEL, *lines)), *BATCHES]


def findings_of(argv: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    run_command(main, argv)
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("finding: ")]


def test_the_table_counts_each_modality_and_published_figures_are_compared(tmp_path, capsys):
    write_orbench(tmp_path)
    assert run_command(main, config(tmp_path)) == 1
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["data", "set", "split", "ids", "vis", "nir", "sk", "cp", "text"]
    assert ["orbench", "train", "4", "12", "8", "12", "8", "12"] in lines
    assert ["orbench", "test", "3", "9", "6", "9", "6", "9"] in lines
    assert ["orbench", "on", "disk", "7", "21", "14", "21", "14", "0"] in lines
    found = [line for line in out.splitlines() if line.startswith("finding: ")]
    published = (("train", "600", "ids", "4"), ("test", "400", "ids", "3"), ("on disk", "1,000", "ids", "7"))
    published += (("on disk", "45,113", "vis", "21"), ("on disk", "26,071", "nir", "14"))
    published += (("on disk", "18,000", "sk", "21"), ("on disk", "18,000", "cp", "14"))
    assert len(found) == len(published)
    for split, expected, what, got in published:
        start = f"finding: orbench {split}: expected {expected} {what} (published), found {got};"
        assert sum(line.startswith(start) for line in found) == 1


def test_each_doubt_is_one_line(tmp_path, capsys):
    folder = write_orbench(tmp_path)
    entries = annotations()
    entries[2]["caption"] = " "
    entries[3]["caption"] = "red " * 80
    write_json(folder / "train_annos.json", [*entries, entries[5] | {"caption": "other words"}])
    content = queries_of()
    content["RGB_GALLERY"] = content["RGB_GALLERY"][3:]  # person 21 cannot be found
    write_json(folder / TEST_FILE, content)
    train, test, other = (folder / paths_of(pid)["cp"][0] for pid in (3, 5, 7))
    shutil.copy(train, test)
    shutil.copy(train, other)
    (folder / paths_of(12)["sk"][0]).write_bytes(b"")
    found = findings_of(config(tmp_path), capsys)
    images = folder / "vis"
    for part in (
        f"orbench train: 1 of 13 captions are empty, e.g. that of '{images}/0003/0003_cam5_vis.jpg';",
        f"1 of 13 captions have more than 77 tokens and lose their last words, e.g. that of '{images}/0007/",
        "orbench train: 2 of 13 records have an image of another one,",
        "queries have no image of their person in the gallery and are left out of the scores, e.g.",
        f"'{train}' (train) and '{test}' (test) are the same image;",
        f"'{train}' (identity 3) and '{other}' (identity 7) are the same image;",
        "0012_front_0_sk.jpg' does not decode (empty file);",
    ):
        assert sum(part in line for line in found) == 1, part


def test_a_set_without_a_test_or_a_modality_is_told(tmp_path, capsys):
    root = write_competition(tmp_path)
    assert any("orbench: there is no test; hold persons out" in line for line in findings_of(config(root), capsys))
    assert not any(
        "there is no test" in line for line in findings_of([*config(root), "DATASETS.VAL_IDS", "0.5"], capsys)
    )
    shutil.rmtree(root / "train" / "sk")
    found = findings_of(config(root), capsys)
    assert any(
        "no person to train on has sk, of which MODEL.MULTIMODAL.MODALITIES would learn" in line for line in found
    )


def test_batches_that_the_records_cannot_fill_are_a_finding(tmp_path, capsys):
    write_orbench(tmp_path)
    found = findings_of([*config(tmp_path), "SOLVER.IMS_PER_BATCH", "16"], capsys)
    assert any("needs 8 identities, the training set has 4" in line for line in found)


def test_what_cannot_be_read_is_one_line_and_exit_code_two(tmp_path, capsys):
    folder = write_orbench(tmp_path)
    (folder / paths_of(3)["vis"][0]).unlink()
    assert run_command(main, config(tmp_path)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and "1 of 12 images do not exist" in error
