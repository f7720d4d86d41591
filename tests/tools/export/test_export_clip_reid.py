"""Exported files of CLIP-ReID: the embedding by the formulas in float64, of the image tower alone."""

from pathlib import Path

import onnx
import pytest
import torch

from processor.trained import Trained
from tests.model.builds import images
from tests.model.clip_reids import (
    HEADS,
    RESNET,
    RESNET_HEADS,
    SIZE,
    VIT,
    assert_near,
    clip_reid_cfg,
    in_float64,
    make_clip_reid,
    write_clip,
)
from tests.reference import slow_clip_reid as slow
from tests.tools.export.exports import PROVENANCE
from tests.tools.export.test_export import LOADERS
from tools.export.exporter import export_model
from utils.checkpoint import save_weights

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated:FutureWarning")

CAMERAS, VIEWS, COE = 3, 2, 1.5
SIDES = ("MODEL.SIE_CAMERA", True, "MODEL.SIE_VIEW", True, "MODEL.SIE_COE", COE)
CAMIDS, VIEWIDS = [2, -1, 0, 1], [0, 1, -1, 1]  # -1 = unknown
BOTH_STAGES = ("SOLVER.STAGES", ["stage1", "stage2"])
KINDS = {"vit": (VIT, (*SIDES, "MODEL.STRIDE_SIZE", [12, 12])), "resnet": (RESNET, ())}


def make_trained(kind: str, folder: Path) -> Trained:
    """Return a CLIP-ReID with its text side, as `load_trained` does; TEST.FEAT_NORM is off."""
    vision, opts = KINDS[kind]
    cfg = clip_reid_cfg(write_clip(folder, vision), "TEST.FEAT_NORM", "no", *BOTH_STAGES, *opts)
    model = make_clip_reid(cfg, CAMERAS, VIEWS)
    weight = folder / "clip_reid_7.pth"
    save_weights(model.state_dict(), weight, PROVENANCE)
    return Trained(cfg, model, torch.device("cpu"), weight, PROVENANCE)


def expected(kind: str, trained: Trained, batch: torch.Tensor, labels: list[tuple[int, int]]) -> torch.Tensor:
    """Return what the formulas give; `labels` are camera and viewpoint of each image."""
    state = in_float64(trained.model)
    if kind == "resnet":
        levels = slow.resnet(state, batch.double(), RESNET_HEADS)
    else:
        side = torch.stack([slow.side_row(state["cv_embed"], CAMERAS, VIEWS, *pair) for pair in labels])
        levels = slow.vit(state, batch.double(), (12, 12), HEADS, side=COE * side)
    return slow.embedding(state, levels, trained.cfg.TEST.NECK_FEAT)


@pytest.mark.parametrize("fmt", LOADERS)
@pytest.mark.parametrize("kind", KINDS)
def test_exported_image_tower_gives_the_embedding_of_the_formulas_in_any_batch(kind, fmt, tmp_path):
    trained, file = make_trained(kind, tmp_path), tmp_path / "file"
    before = set(trained.model.state_dict())
    (parity,) = export_model(trained, file, fmt).values()
    assert parity.inputs == ("images" if kind == "resnet" else "images, camids, viewids")
    assert set(trained.model.state_dict()) == before  # the file alone lacks the text
    run, batch = LOADERS[fmt](file), images(4, SIZE)
    unknown = [(-1, -1)] * 4
    assert_near(run(batch), expected(kind, trained, batch, unknown), "without labels")
    if kind == "resnet":
        return
    known = list(zip(CAMIDS, VIEWIDS, strict=True))
    exact = expected(kind, trained, batch, known)
    for count in (1, 4):
        labels = {"camids": torch.tensor(CAMIDS[:count]), "viewids": torch.tensor(VIEWIDS[:count])}
        assert_near(run(batch[:count], **labels), exact[:count], f"{count} labelled")


def names_in(path: Path, fmt: str) -> list[str]:
    """Return the names of the weights in a file."""
    if fmt == "onnx":
        return [weight.name for weight in onnx.load(str(path)).graph.initializer]
    return list(torch.jit.load(str(path)).state_dict())


@pytest.mark.parametrize("fmt", LOADERS)
def test_the_file_holds_no_text_tower_no_prompts_and_no_classifier(fmt, tmp_path):
    export_model(make_trained("vit", tmp_path), tmp_path / "file", fmt)
    held = names_in(tmp_path / "file", fmt)
    assert [name for name in held if "image_encoder" in name]
    assert not [name for name in held if "text" in name or "prompt" in name or "classifier" in name]
