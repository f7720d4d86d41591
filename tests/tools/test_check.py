import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageFile

from datasets.bases import ReIDDataset, Sample
from tests.datasets.trees import (
    EMOJI,
    needs_emoji,
    write_image,
    write_images,
    write_person_archive,
    write_text,
    write_veri,
)
from tools.check import MAX_LINES, main, read_file, read_files, shared_images, shorten
from tools.examined import label_findings
from utils.errors import run_command

REPOSITORY = Path(__file__).resolve().parents[2]


def config(tmp_path: Path, **datasets: object) -> str:
    lines = [f"  {key}: {value}" for key, value in datasets.items()]
    model = ("MODEL:", "  NAME: transformer", "  TRANSFORMER_TYPE: vit_tiny_patch16_224_TransReID")
    return str(write_text(tmp_path / "check.yml", *model, "DATASETS:", *lines))


@pytest.fixture
def table(tmp_path: Path) -> str:
    """The configuration of a table whose data is in order."""
    write_images(tmp_path / "images", ["a.jpg", "b.jpg", "c.jpg"])
    rows = ("a.jpg,1,0,0,train", "b.jpg,2,0,0,query", "c.jpg,2,1,0,gallery")
    csv = write_text(tmp_path / "images" / "table.csv", "path,pid,camid,viewid,split", *rows)
    return config(tmp_path, NAMES="table", TABLE=csv)


def findings_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("finding: ")]


def test_data_in_order_gives_exit_code_zero_and_the_table(table, capsys):
    assert run_command(main, ["--config_file", table]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["data", "set", "split", "ids", "images", "cameras", "views"]
    assert out.endswith("nothing found\n")


def test_batches_that_training_could_not_draw_are_a_finding(table, capsys):
    argv = ["--config_file", table, "DATALOADER.SAMPLER", "softmax_triplet", "DATALOADER.NUM_INSTANCE", "2"]
    assert run_command(main, [*argv, "SOLVER.IMS_PER_BATCH", "16"]) == 1
    (found,) = findings_of(capsys)
    assert "a batch of 16 images with K 2" in found and "needs 8 identities, the training set has 1" in found


def test_each_finding_is_one_line_and_the_exit_code_is_one(tmp_path, capsys):
    folder = write_person_archive(tmp_path / "market1501")
    (folder / "query" / "0003_c1s1_000151_00.jpg").write_bytes(b"")
    train, gallery = folder / "bounding_box_train", folder / "bounding_box_test"
    (gallery / "0003_c6s2_000153_00.jpg").write_bytes((train / "0007_c2s1_000451_01.jpg").read_bytes())
    write_image(folder / "query" / "0009_c1s1_000151_00.jpg")
    argv = ["--config_file", config(tmp_path, NAMES="market1501", ROOT_DIR=tmp_path)]
    assert run_command(main, [*argv, "MODEL.SIE_CAMERA", "True"]) == 1
    found = findings_of(capsys)
    for part in (
        "market1501 train: expected 12,936 images (published), found 2;",
        "market1501 gallery: expected 751 ids (published), found 2;",
        "1 of 2 queries have no match of another camera",
        "camid 2, 5 of the test images never occurs in training (train: 0 to 1)",
        "0003_c1s1_000151_00.jpg' does not decode (empty file)",
        "0007_c2s1_000451_01.jpg' (train) and",
    ):
        assert sum(part in line for line in found) == 1, part


def test_missing_view_files_that_nobody_needs_are_a_note_and_no_finding(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = write_veri(tmp_path / "VeRi")
    (root / "keypoint_train.txt").unlink()
    main(["--config_file", config(tmp_path, NAMES="veri", ROOT_DIR=tmp_path)])
    out = capsys.readouterr().out
    assert "note: veri: keypoint_train.txt not found" in out
    assert "finding: veri: keypoint" not in out


def test_missing_view_files_that_are_needed_are_a_user_error(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = write_veri(tmp_path / "VeRi")
    (root / "keypoint_train.txt").unlink()
    argv = ["--config_file", config(tmp_path, NAMES="veri", ROOT_DIR=tmp_path), "MODEL.SIE_VIEW", "True"]
    assert run_command(main, argv) == 2
    assert capsys.readouterr().err.startswith("error: veri: keypoint_train.txt not found, searched ")


def test_a_query_image_that_also_lies_in_the_gallery_is_no_finding(tmp_path, capsys):
    root = write_veri(tmp_path / "VeRi")
    name = "0002_c002_00030600_0.jpg"
    (root / "image_test" / name).write_bytes((root / "image_query" / name).read_bytes())
    main(["--config_file", config(tmp_path, NAMES="veri", ROOT_DIR=tmp_path)])
    assert not [line for line in findings_of(capsys) if name in line]


def test_a_wrong_root_is_one_line_and_exit_code_two(tmp_path, capsys):
    argv = ["--config_file", config(tmp_path, NAMES="veri", ROOT_DIR=tmp_path)]
    assert run_command(main, argv) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("label", ["camid", "viewid"])
def test_test_labels_without_a_trained_row_are_named(label):
    def sample(value: int) -> Sample:
        return Sample("x.jpg", 1, 0, 0)._replace(**{label: value})

    data = ReIDDataset("toy", [sample(0), sample(3)], [sample(3), sample(2)], [sample(-1), sample(7)])
    (line,) = label_findings(data, label, "MODEL.SIE")
    assert line.startswith(f"toy: {label} 2, 7 of the test images never occurs in training (train: 0 to 3)")
    assert "set MODEL.SIE False" in line
    assert label_findings(ReIDDataset("toy", data.train, [sample(3)], [sample(-1)]), label, "MODEL.SIE") == []


def test_files_that_do_not_decode_are_told_apart(tmp_path):
    image = tmp_path / "whole.jpg"
    write_image(image)
    cases = {"cut.jpg": image.read_bytes()[:-40], "empty.jpg": b"", "text.jpg": b"not an image at all"}
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
    finding = {path: read_file(str(tmp_path / path)).finding for path in ("whole.jpg", "absent.jpg", *cases)}
    assert finding["whole.jpg"] == ""
    assert "absent.jpg' does not exist" in finding["absent.jpg"]
    assert "cut.jpg' does not decode (" in read_files([str(tmp_path / "cut.jpg")])[0].finding
    assert "(empty file)" in finding["empty.jpg"]
    assert "(not an image, or none of JPEG, PNG" in finding["text.jpg"]


def test_reading_keeps_the_order_and_the_tolerance_of_training(tmp_path):
    paths = [str(tmp_path / f"{row}.png") for row in range(5)]
    for row, path in enumerate(paths):
        write_image(Path(path), seed=row % 2)
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    reports = read_files(paths)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is before
    assert [report.path for report in reports] == paths
    assert [report.digest == reports[0].digest for report in reports] == [True, False, True, False, True]


def test_only_images_shared_by_train_and_test_are_named(tmp_path):
    seeds = {"train/a.png": 1, "train/b.png": 2, "query/c.png": 3, "gallery/d.png": 3, "gallery/e.png": 2}
    for name, seed in seeds.items():
        write_image(tmp_path / name, seed)
    paths = [str(tmp_path / name) for name in seeds]
    (line,) = shared_images(read_files(paths), set(paths[:2]), set(paths[2:]))
    assert line.startswith(f"'{paths[1]}' (train) and '{paths[4]}' (test) are the same image")


def test_long_lists_are_cut_and_the_rest_is_counted():
    lines = [str(row) for row in range(MAX_LINES + 3)]
    assert shorten(lines, "files")[:-1] == lines[:MAX_LINES]
    assert shorten(lines, "files")[-1].startswith("3 more files")
    assert shorten(lines[:MAX_LINES], "files") == lines[:MAX_LINES]


def test_help_answers_without_loading_torch():
    command = [sys.executable, "-X", "importtime", "-m", "tools.check", "--help"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "--config_file" in done.stdout
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "argparse" in modules
    assert not modules & {"torch", "torchvision", "timm", "PIL.Image"}


@needs_emoji
def test_the_real_veri_layout_differs_from_veri_776_in_its_counts_alone(tmp_path, capsys):
    argv = ["--config_file", config(tmp_path, NAMES="veri", ROOT_DIR=EMOJI)]
    assert main([*argv, "MODEL.SIE_VIEW", "True", "MODEL.SIE_CAMERA", "True"]) == 1
    found = findings_of(capsys)
    assert len(found) == 3
    assert all("images (published), found" in line for line in found)


def test_a_grey_image_with_a_palette_is_in_order(tmp_path):
    path = tmp_path / "palette.png"
    Image.new("P", (4, 4)).save(path)
    assert read_file(str(path)).finding == ""


def test_held_out_identities_that_training_would_refuse_are_refused(table, tmp_path, capsys):
    path = Path(table)
    path.write_text(path.read_text() + "\n  VAL_IDS: 0.5\nSOLVER: {EVAL_PERIOD: 1}")
    assert run_command(main, ["--config_file", table]) == 2
    assert "DATASETS.VAL_IDS 0.5 asks for 2 held-out identities, but 0 of the 1" in capsys.readouterr().err
