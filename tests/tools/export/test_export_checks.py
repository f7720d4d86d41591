"""What keeps an exported file from being written, and the command that writes it."""

import copy
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.tools.export.exports import BOTH, small
from tools.export import exporter, graphs
from tools.export.__main__ import main
from tools.export.exporter import export_model
from utils.errors import ConfigError, RunError

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated:FutureWarning")


def replace_writer(monkeypatch: pytest.MonkeyPatch, change: Callable[[torch.nn.Module], torch.nn.Module]) -> None:
    """Let `change(embedder)` be exported instead of the model."""
    write = graphs.write_torchscript
    monkeypatch.setitem(exporter.WRITERS, "torchscript", lambda embedder, *rest: write(change(embedder), *rest))


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("factor", [1.2, float("nan")])
def test_file_that_differs_from_the_model_is_not_kept(factor, monkeypatch, tmp_path):
    def damage(embedder: torch.nn.Module) -> torch.nn.Module:
        other = copy.deepcopy(embedder)
        other.model.base.patch_embed.proj.weight.mul_(factor)
        return other

    replace_writer(monkeypatch, damage)
    trained, target = small(tmp_path), tmp_path / "out" / "model.pt"
    target.parent.mkdir()
    target.write_text("an older file")
    with pytest.raises(RunError, match=r"model.pt' was not written: .* smallest cosine .*, needed 0.9999"):
        export_model(trained, target, "torchscript")
    assert target.read_text() == "an older file"
    assert left_in(target.parent) == {"model.pt"}


def test_cosine_and_difference_are_the_worst_of_all_images(tmp_path):
    trained = small(tmp_path, *BOTH, "TEST.FEAT_NORM", "no")
    embedder = graphs.Embedder(trained.model, None, flip=False, unit=False)

    def run(batch: torch.Tensor, labels: dict[str, torch.Tensor]) -> torch.Tensor:
        feat = embedder(batch, **labels)
        if len(batch) == 3 and labels:
            feat[1] = feat[1].flip(0)
            run.cosine = F.cosine_similarity(feat[1], feat[1].flip(0), dim=0)
            run.difference = (feat[1] - feat[1].flip(0)).abs().max()
        return feat

    parity = exporter.compare(embedder, trained, run)
    assert parity[:3] == ("images, camids, viewids", 24, 20)
    np.testing.assert_allclose(parity[3:], (run.cosine, run.difference), atol=1e-5)


def test_graph_that_takes_one_batch_size_alone_is_not_kept(monkeypatch, tmp_path):
    class Fixed(torch.nn.Module):
        def __init__(self, embedder: torch.nn.Module) -> None:
            super().__init__()
            self.embedder = embedder

        def forward(self, images: torch.Tensor, camids: torch.Tensor, viewids: torch.Tensor) -> torch.Tensor:
            return self.embedder(images.reshape(2, 3, 32, 24))

    replace_writer(monkeypatch, Fixed)
    with pytest.raises(RunError, match="the exported graph fails on a batch of 1 "):
        export_model(small(tmp_path), tmp_path / "out" / "model.pt", "torchscript")
    assert left_in(tmp_path / "out") == set()


def test_full_disk_is_one_line_and_leaves_no_file(monkeypatch, tmp_path):
    def fill(embedder: torch.nn.Module, size: tuple[int, int], metadata: dict, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(exporter.WRITERS, "onnx", fill)
    with pytest.raises(RunError, match="cannot write '.*' .No space left on device") as caught:
        export_model(small(tmp_path), tmp_path / "out" / "model.onnx", "onnx")
    assert "\n" not in str(caught.value) and left_in(tmp_path / "out") == set()


def test_model_beyond_what_one_onnx_file_holds_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(graphs, "ONNX_LIMIT", 1000)
    with pytest.raises(ConfigError, match="one ONNX file holds less than 2; use --format torchscript"):
        export_model(small(tmp_path), tmp_path / "model.onnx", "onnx")


def test_missing_package_is_named_with_the_way_to_get_it(monkeypatch, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    with pytest.raises(ConfigError, match="needs onnxscript: pip install onnx onnxscript onnxruntime"):
        exporter.check_target(tmp_path / "model.onnx", "onnx")
    exporter.check_target(tmp_path / "model.pt", "torchscript")


def test_command_exports_a_checkpoint_and_says_how_exact_it_is(tmp_path, capsys):
    trained = small(tmp_path, *BOTH)
    (tmp_path / "config.yaml").write_text(trained.cfg.dump())
    torch.save(trained.model.state_dict(), trained.weight)
    out = tmp_path / "new" / "folder" / "model.pt"
    argv = ["--format", "torchscript", "--run", str(tmp_path), "--out", str(out), "--normalise", "TEST.FLIP", "True"]
    assert main(argv) == 0
    line = capsys.readouterr().out
    assert line.startswith(f"{out}: torchscript, images -> embedding [batch, 24]; 20 random images")
    assert "smallest cosine 1.0000000" in line or "smallest cosine 0.99999" in line
    extra = {graphs.METADATA: ""}
    torch.jit.load(out, _extra_files=extra)
    metadata = json.loads(extra[graphs.METADATA])
    assert (metadata["flip"], metadata["normalised_inside"], metadata["epoch"]) == (True, True, None)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--format", "onx", "--out", "{new}"], "--format got 'onx', allowed: onnx, torchscript"),
        (["--format", "onnx", "--out", "{folder}"], "--out '{folder}' is a folder; name the file to write"),
        (["--format", "torchscript", "--out", "{file}/model.pt"], "--out '{file}' is a file, not a folder"),
        (["--format", "torchscript", "--out", "{new}"], "name the model by --run OUTPUT_DIR or by --weights FILE"),
    ],
)
def test_mistakes_on_the_command_line_are_told(argv, message, tmp_path):
    (tmp_path / "file").write_text("")
    names = {"new": tmp_path / "model", "folder": tmp_path, "file": tmp_path / "file"}
    with pytest.raises(ConfigError) as caught:
        main([word.format(**names) for word in argv])
    assert str(caught.value).startswith(message.format(**names))
    assert left_in(tmp_path) == {"file"}


def test_argument_of_another_name_is_one_line(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--format", "onnx", "--run", "logs", "--output", "model.onnx"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("error: python -m tools.export: the following arguments are required")


def test_help_does_not_wait_for_torch():
    code = "import sys, tools.export.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3]).returncode == 0
