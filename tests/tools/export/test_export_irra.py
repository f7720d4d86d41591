"""Exported towers of IRRA: two files that embed images and captions by the formulas in float64."""

import json
from pathlib import Path

import onnxruntime
import pytest
import torch

from processor.trained import Trained
from tests.model.builds import images
from tests.model.clip_reids import EMBED, assert_near, in_float64
from tests.model.irras import HEADS, SIZE, captions, irra_cfg, make_irra
from tests.reference import slow_irra as slow
from tests.tools.export.exports import PROVENANCE
from tests.tools.export.test_export import LOADERS
from tests.tools.export.test_export_clip_reid import names_in
from tools.export import exporter, graphs
from tools.export.__main__ import main
from tools.export.exporter import export_model
from utils.checkpoint import save_weights
from utils.digest import sha256_of
from utils.errors import ConfigError, RunError

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated:FutureWarning")

LENGTH = 20
LENGTHS = (5, 12, 3, 20)  # tokens of the captions
OPTS = ("INPUT.TEXT.LENGTH", LENGTH, "MODEL.STRIDE_SIZE", [12, 12])


def make_trained(folder: Path, *opts: object) -> Trained:
    """Return a tiny IRRA as `load_trained` does, and write its checkpoint."""
    model = make_irra(folder, *OPTS, *opts)
    weight = folder / "irra_7.pth"
    cfg = irra_cfg(str(folder / "clip.json"), *OPTS, *opts)
    save_weights(model.state_dict(), weight, PROVENANCE | {"config": cfg.dump()})
    return Trained(cfg, model, torch.device("cpu"), weight, PROVENANCE)


def in_unit(features: torch.Tensor) -> torch.Tensor:
    return features / features.norm(dim=1, keepdim=True)


@pytest.mark.parametrize(("fmt", "unit", "flip"), [("onnx", "yes", True), ("torchscript", "no", False)])
def test_both_towers_give_the_embeddings_of_the_formulas_in_any_batch(fmt, unit, flip, tmp_path):
    trained = make_trained(tmp_path, "TEST.FEAT_NORM", unit, "TEST.FLIP", flip)
    before = set(trained.model.state_dict())
    parities = export_model(trained, tmp_path / "model.bin", fmt)
    assert {path.name: parity.inputs for path, parity in parities.items()} == {
        "model.bin": "images",
        "model_text.bin": "caption_ids",
    }
    assert all(parity.width == EMBED and parity.rows == 20 for parity in parities.values())
    assert set(trained.model.state_dict()) == before
    state, batch, ids = in_float64(trained.model), images(4, SIZE), captions(LENGTHS, LENGTH)
    seen = [batch.double(), batch.double().flip(3)] if flip else [batch.double()]
    features = [slow.image_tokens(state, pixels, (12, 12), HEADS["image"])[:, 0] for pixels in seen]
    expected = {
        "model.bin": (batch, sum(features) / len(features)),
        "model_text.bin": (ids, slow.text_features(state, ids.tolist(), HEADS["text"])),
    }
    for name, (rows, exact) in expected.items():
        run = onnx_run(tmp_path / name) if fmt == "onnx" else torch.jit.load(tmp_path / name)
        for count in (1, 3, 4):
            assert_near(run(rows[:count]), (in_unit(exact) if unit == "yes" else exact)[:count], f"{name} {count}")


def onnx_run(path: Path) -> object:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    first = session.get_inputs()[0].name
    return lambda rows: torch.from_numpy(session.run(["embedding"], {first: rows.numpy()})[0])


@pytest.mark.parametrize("fmt", LOADERS)
def test_each_file_holds_its_own_tower_alone(fmt, tmp_path):
    export_model(make_trained(tmp_path), tmp_path / "model", fmt)
    image, text = names_in(tmp_path / "model", fmt), names_in(tmp_path / "model_text", fmt)
    assert [name for name in image if "visual" in name] and not [name for name in text if "visual" in name]
    assert [name for name in text if "token_embedding" in name]
    assert not [name for name in image if "token_embedding" in name or "text_projection" in name]
    assert not [name for name in image + text if "cross" in name or "classifier" in name or "mlm_head" in name]


def test_metadata_of_the_text_tower_says_how_captions_become_tokens(tmp_path):
    trained = make_trained(tmp_path)
    export_model(trained, tmp_path / "model.pt", "torchscript")
    extra = {graphs.METADATA: ""}
    torch.jit.load(tmp_path / "model_text.pt", _extra_files=extra)
    assert json.loads(extra[graphs.METADATA]) == PROVENANCE | {
        "schema": 1,
        "tokenizer": "open_clip SimpleTokenizer without its last merge",
        "length": LENGTH,
        "start": 49406,
        "end": 49407,
        "padding": 0,
        "feature_norm": True,
        "weight": "irra_7.pth",
        "weight_sha256": sha256_of(trained.weight),
        "torch": torch.__version__,
        "project": "0.1.0",
    }


def test_neither_file_is_kept_where_one_differs(monkeypatch, tmp_path):
    write = graphs.write_torchscript

    def spoil(embedder: torch.nn.Module, *rest: object) -> None:
        if isinstance(embedder, graphs.TextEmbedder):
            embedder.model.base_model.positional_embedding.data.mul_(1.5)
            write(embedder, *rest)
            embedder.model.base_model.positional_embedding.data.div_(1.5)
        else:
            write(embedder, *rest)

    monkeypatch.setitem(exporter.WRITERS, "torchscript", spoil)
    trained, out = make_trained(tmp_path), tmp_path / "out"
    out.mkdir()
    (out / "model.pt").write_text("an older file")
    with pytest.raises(RunError, match=r"model_text.pt' was not written: .* smallest cosine"):
        export_model(trained, out / "model.pt", "torchscript")
    assert [path.name for path in out.iterdir()] == ["model.pt"]
    assert (out / "model.pt").read_text() == "an older file"


def test_a_folder_in_the_place_of_the_text_tower_is_named(tmp_path):
    (tmp_path / "model_text.pt").mkdir()
    with pytest.raises(ConfigError, match=r"model_text.pt' is a folder; name the file to write"):
        export_model(make_trained(tmp_path), tmp_path / "model.pt", "torchscript")
    assert not (tmp_path / "model.pt").exists()


def test_captions_of_another_length_are_refused(tmp_path):
    export_model(make_trained(tmp_path), tmp_path / "model.pt", "torchscript")
    run = torch.jit.load(tmp_path / "model_text.pt")
    with pytest.raises(RuntimeError, match="size of tensor"):
        run(captions((5,), LENGTH + 1))


def test_command_names_both_files(tmp_path, capsys):
    trained = make_trained(tmp_path)
    (tmp_path / "config.yaml").write_text(trained.cfg.dump())
    torch.save(trained.model.state_dict(), trained.weight)
    out = tmp_path / "new" / "model.pt"
    assert main(["--format", "torchscript", "--run", str(tmp_path), "--out", str(out), "--normalise"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{out}: torchscript, images -> embedding [batch, {EMBED}]; 20 random images against")
    text = (
        f"{out.with_name('model_text.pt')}: torchscript, caption_ids -> embedding [batch, {EMBED}]; 20 random captions"
    )
    assert second.startswith(text)
