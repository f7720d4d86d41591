"""python -m tools.extract: one file with the embeddings of loose images."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import commands
from tests.tolerance import bounds, rounding
from tools import extract
from tools.feature_extractor import FeatureExtractor
from utils.digest import sha256_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(photos: list[str], tmp_path: Path) -> Path:
    return tmp_path / "photos"


run = partial(commands.run, extract.main)


def read(file: Path) -> tuple[np.ndarray, list[str], dict]:
    with np.load(file, allow_pickle=False) as content:
        return content["feat"], list(content["path"]), json.loads(str(content["meta"]))


def test_a_folder_becomes_a_file_of_embeddings_and_paths(trained_run, photos, folder, tmp_path, capsys):
    out = tmp_path / "new" / "feats.npz"
    assert run("--run", trained_run, "--images", folder, "--out", out) == 0
    assert capsys.readouterr().out == f"{out}: 6 images x 160 values\n"
    feat, paths, meta = read(out)
    assert feat.dtype == np.float32 and paths == photos
    extractor = FeatureExtractor.from_run(trained_run)
    torch.testing.assert_close(torch.from_numpy(feat), extractor(photos), **bounds(1000, 0.1))
    np.testing.assert_allclose(np.linalg.norm(feat, axis=1), 1, atol=rounding(160))
    assert meta["weight_sha256"] == sha256_of(trained_run / "transformer_2.pth")
    assert meta["fingerprint"] == extractor.fingerprint and meta["size"] == [32, 32]
    assert meta["precision"] == "float32"
    assert [path.name for path in out.parent.iterdir()] == ["feats.npz"]


def test_files_an_earlier_epoch_and_keys_before_the_images(trained_run, photos, tmp_path):
    out = tmp_path / "feats.npz"
    words = ["--run", trained_run, "--epoch", 1, "TEST.FLIP", "True", "--images", photos[3], photos[0], "--out", out]
    assert run(*words) == 0
    feat, paths, meta = read(out)
    assert paths == [photos[3], photos[0]] and meta["flip"] and meta["weight"].endswith("transformer_1.pth")
    expected = FeatureExtractor.from_run(trained_run, 1, ["TEST.FLIP", "True"])(paths)
    torch.testing.assert_close(torch.from_numpy(feat), expected, **bounds(1000, 0.1))


def test_a_broken_image_is_an_error_and_leaves_the_old_file(trained_run, photos, folder, tmp_path, capsys):
    (folder / "k.jpg").write_bytes(b"not a picture")
    out = tmp_path / "feats.npz"
    out.write_bytes(b"old")
    assert run("--run", trained_run, "--images", folder, "--out", out) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: image '") and "k.jpg' does not decode" in error and "--skip-broken" in error
    assert out.read_bytes() == b"old"


def test_broken_images_are_left_out_named_and_counted_on_request(trained_run, photos, folder, tmp_path, capsys, caplog):
    (folder / "k.jpg").write_bytes(b"not a picture")
    (folder / "l.png").symlink_to(folder / "gone.png")
    out = tmp_path / "feats.npz"
    assert run("--run", trained_run, "--images", folder, "--out", out, "--skip-broken") == 0
    assert capsys.readouterr().out.endswith("6 images x 160 values, 2 left out\n")
    assert read(out)[1] == photos
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(said) == 2 and "k.jpg" in said[0] and "l.png" in said[1]


def test_a_folder_of_broken_images_is_an_error(trained_run, tmp_path, capsys):
    (tmp_path / "k.jpg").write_bytes(b"not a picture")
    words = ["--run", trained_run, "--images", tmp_path, "--out", tmp_path / "f.npz", "--skip-broken"]
    assert run(*words) == 2
    assert "none of the 1 images can be read" in capsys.readouterr().err
    assert not (tmp_path / "f.npz").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--run", "RUN", "--images", "nowhere"], "--images: no file 'nowhere'"),
        (["--run", "RUN", "--images", "PHOTOS", "TEST.FLIP", "True"], "KEY VALUE pairs stand before --images"),
        (["--run", "RUN", "--images", "EMPTY"], "holds no image (.jpg, .jpeg, .png, .bmp, .webp, .tif, .tiff)"),
        (["--run", "RUN", "--weights", "w.pth", "--images", "PHOTOS"], "one of the two"),
        (["--images", "PHOTOS"], "--run OUTPUT_DIR or by --weights"),
        (["--run", "no_run", "--images", "PHOTOS"], "run folder 'no_run': no such folder"),
        (["--run", "EMPTY", "--images", "PHOTOS"], "holds no checkpoint"),
        (["--run", "RUN", "--epoch", "7", "--images", "PHOTOS"], "holds epochs 1, 2"),
        (["--weights", "w.pth", "--images", "PHOTOS"], "no file 'w.pth'"),
        (["--run", "RUN", "TEST.FLIPP", "True", "--images", "PHOTOS"], "did you mean TEST.FLIP?"),
        (["--run", "RUN", "--images", "PHOTOS", "--out", "feats.npy"], "must name a file that ends in .npz"),
        (["--run", "RUN", "--images", "PHOTOS", "--out", "/proc/x/feats.npz"], "--out '/proc/x': cannot write there"),
    ],
)
def test_mistakes_are_one_line_and_code_2(trained_run, photos, folder, tmp_path, capsys, words, message):
    (tmp_path / "empty").mkdir()
    places = {"RUN": trained_run, "PHOTOS": folder, "EMPTY": tmp_path / "empty"}
    given = [places.get(word, word) for word in words]
    assert run(*given, *([] if "--out" in words else ["--out", tmp_path / "f.npz"])) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error


def test_help_waits_for_no_heavy_library():
    code = (
        "import sys, tools.extract, tools.search.__main__\n"
        "for tool in (tools.extract, tools.search.__main__):\n"
        "    try: tool.main(['--help'])\n"
        "    except SystemExit: pass\n"
        "print([name for name in ('torch', 'numpy', 'PIL', 'matplotlib') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.endswith("[]\n") and "--skip-broken" in result.stdout
