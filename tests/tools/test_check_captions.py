from pathlib import Path

import pytest

from tests.datasets.trees import captioned, write_captions, write_image, write_images, write_text
from tools.check import main
from utils.errors import run_command

ENTRIES = [
    captioned("a.jpg", 3, ["a man in red", "tall man"], "train"),
    captioned("b.jpg", 5, ["a woman in blue", "tall woman"], "train"),
    captioned("v.jpg", 7, ["a boy", "small boy"], "val"),
    captioned("t.jpg", 8, ["a girl", "small girl"], "test"),
]


def config(tmp_path: Path, *datasets: str) -> list[str]:
    """Return the command line for a configuration of these data sets."""
    model = ("MODEL: {NAME: irra, CLIP_BACKBONE: ViT-B-16-quickgelu, CLIP_PRETRAIN: openai}", "SOLVER: {BASE_LR: 1e-5}")
    path = write_text(tmp_path / "check.yml", *model, "DATALOADER: {SAMPLER: softmax}", "DATASETS:", *datasets)
    return ["--config_file", str(path)]


def archive(tmp_path: Path, entries: list[dict] = ENTRIES) -> Path:
    return write_captions(tmp_path / "RSTPReid", entries)


def rstp(tmp_path: Path) -> list[str]:
    return config(tmp_path, "  NAMES: RSTPReid", f"  ROOT_DIR: {tmp_path}")


@pytest.fixture
def table(tmp_path: Path) -> list[str]:
    """The command line for a captioned table that is in order."""
    write_images(tmp_path / "images", ["a.jpg", "b.jpg", "t.jpg"])
    rows = ("a.jpg,1,train,red", "a.jpg,1,train,a man", "b.jpg,2,train,blue", "t.jpg,3,test,green")
    csv = write_text(tmp_path / "images" / "table.csv", "path,pid,split,caption", *rows)
    return config(tmp_path, "  NAMES: table", f"  TABLE: {csv}")


def test_captions_in_order_give_exit_code_zero_and_the_table(table, capsys):
    assert run_command(main, table) == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["data", "set", "split", "ids", "images", "captions"]
    assert ["table", "train", "2", "2", "3"] in lines and ["table", "test", "1", "1", "1"] in lines
    assert out.endswith("nothing found\n")


def test_each_finding_on_captions_is_one_line_and_the_exit_code_is_one(tmp_path, capsys):
    more = [
        captioned("absent.jpg", 5, ["a man in red", ""], "train"),
        captioned("copy.jpg", 3, ["x", "red " * 80], "train"),
        captioned("test_copy.jpg", 9, ["y", "z"], "test"),
        captioned("cut.jpg", 9, ["y", "z"], "test"),
    ]
    images = archive(tmp_path, [*ENTRIES, *more]) / "imgs"
    (images / "absent.jpg").unlink()
    for name, source in (("copy.jpg", "b.jpg"), ("test_copy.jpg", "a.jpg")):
        (images / name).write_bytes((images / source).read_bytes())
    (images / "cut.jpg").write_bytes(b"")
    assert run_command(main, rstp(tmp_path)) == 1
    found = [line for line in capsys.readouterr().out.splitlines() if line.startswith("finding: ")]
    for part in (
        "RSTPReid train: expected 3,701 ids (published), found 2;",
        "RSTPReid train: 2 of 2 identities do not have 5 images, as published;",
        f"RSTPReid train: 1 captions are empty, e.g. of '{images}/absent.jpg';",
        f"1 of 8 captions have more than 77 tokens and lose their last words, e.g. of '{images}/copy.jpg';",
        f"'{images}/absent.jpg' does not exist;",
        f"'{images}/cut.jpg' does not decode (empty file);",
        f"'{images}/a.jpg' (train) and '{images}/test_copy.jpg' (test) are the same image;",
        f"'{images}/b.jpg' (identity 1) and '{images}/copy.jpg' (identity 0) are the same image;",
    ):
        assert sum(part in line for line in found) == 1, part


def test_captions_are_cut_at_the_length_of_the_configuration(table, capsys):
    assert run_command(main, [*table, "INPUT.TEXT.LENGTH", "3"]) == 1
    out = capsys.readouterr().out
    assert "table train: 1 of 3 captions have more than 3 tokens" in out and "\n1 finding\n" in out


def test_batches_that_the_pairs_cannot_fill_are_a_finding(table, capsys):
    argv = [*table, "DATALOADER.SAMPLER", "softmax_triplet", "DATALOADER.NUM_INSTANCE", "2"]
    assert run_command(main, [*argv, "SOLVER.IMS_PER_BATCH", "16"]) == 1
    assert "needs 8 identities, the training set has 2" in capsys.readouterr().out


def test_images_of_val_count_as_tested(tmp_path, capsys):
    images = archive(tmp_path) / "imgs"
    (images / "v.jpg").write_bytes((images / "a.jpg").read_bytes())
    run_command(main, rstp(tmp_path))
    assert f"'{images}/a.jpg' (train) and '{images}/v.jpg' (test) are the same image" in capsys.readouterr().out


def test_a_val_split_that_is_asked_for_and_absent_is_told(tmp_path, table, capsys):
    told = "has no val split, so training looks at the test split"
    for split, said in (("val", True), ("test", False)):
        run_command(main, [*table, "DATASETS.EVAL_SPLIT", split])
        assert (told in capsys.readouterr().out) is said
    archive(tmp_path)
    run_command(main, [*rstp(tmp_path), "DATASETS.EVAL_SPLIT", "val"])
    assert told not in capsys.readouterr().out


def test_data_for_tests_alone_are_a_finding(tmp_path, capsys):
    archive(tmp_path, ENTRIES[3:])
    assert run_command(main, rstp(tmp_path)) == 1
    assert "finding: RSTPReid: nothing to train on: no entry of '" in capsys.readouterr().out


@pytest.mark.parametrize("absent", ["", "imgs", "data_captions.json"])
def test_what_is_missing_of_an_archive_is_one_line_and_exit_code_two(tmp_path, capsys, absent):
    missing = archive(tmp_path) / absent
    missing.rename(tmp_path / "elsewhere")
    assert run_command(main, rstp(tmp_path)) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: RSTPReid: '{missing}' does not exist") and error.count("\n") == 1


def test_a_table_without_captions_is_one_line_and_exit_code_two(tmp_path, table, capsys):
    csv = tmp_path / "images" / "table.csv"
    csv.write_text("path,pid,split\na.jpg,1,test\n")
    write_image(tmp_path / "images" / "a.jpg")
    assert run_command(main, table) == 2
    assert "column caption is missing" in capsys.readouterr().err
