"""Commands on a CLIP-ReID: embeddings of both stages' checkpoints by the formulas, and what has no picture."""

from pathlib import Path

import numpy as np
import pytest
import torch

from processor.provenance import PROVENANCE_SCHEMA
from tests import commands
from tests.model.clip_reids import (
    CLASSES,
    HEADS,
    VIT,
    assert_near,
    clip_reid_cfg,
    make_clip_reid,
    write_clip,
)
from tests.reference import slow_clip_reid as slow
from tests.tools.test_feature_extractor import naive_pixels
from tools import extract
from tools.search import __main__ as search
from tools.visualize import attention
from utils.checkpoint import read_weights, save_weights

CAMERAS, COE = 3, 1.5
OPTS = (
    *("SOLVER.STAGES", ["stage1", "stage2"], "TEST.NECK_FEAT", "before"),
    *("MODEL.SIE_CAMERA", True, "MODEL.SIE_COE", COE),
)
FILES = {"clip_reid_stage1_2.pth": ("stage1", 2, 5), "clip_reid_3.pth": ("", 3, 6)}  # stage, epoch, seed


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of both stages, with other random weights in the checkpoint of each."""
    folder = tmp_path_factory.mktemp("run")
    cfg = clip_reid_cfg(write_clip(folder, VIT), *OPTS)
    told = {"num_classes": CLASSES, "camera_num": CAMERAS, "view_num": 1, "datasets": ["veri"], "tested_on": "veri"}
    told |= {"schema": PROVENANCE_SCHEMA, "config": cfg.dump(), "train_fingerprint": "01", "test_fingerprint": "23"}
    for name, (stage, epoch, seed) in FILES.items():
        model = make_clip_reid(cfg, CAMERAS, seed=seed)
        save_weights(model.state_dict(), folder / name, told | {"epoch": epoch, "stage": stage})
    return folder


def expected(weights: Path, photos: list[str], flip: bool = False) -> torch.Tensor:
    """Return the embeddings of photographs by the formulas, of unit length; their cameras are unknown."""
    state = {name: value.double() for name, value in read_weights(weights, "checkpoint").items()}
    cfg = clip_reid_cfg("", *OPTS)
    pixels = torch.cat([naive_pixels(photo, cfg) for photo in photos]).double()
    side = COE * slow.side_row(state["cv_embed"], CAMERAS, 0, -1, -1).expand(len(photos), -1)
    mean = 0
    for images in [pixels, pixels.flip(3)] if flip else [pixels]:
        mean = mean + slow.embedding(state, slow.vit(state, images, (16, 16), HEADS, side=side), "before")
    return mean / mean.norm(dim=1, keepdim=True)


def extracted(file: Path, *words: object) -> torch.Tensor:
    """Return the embeddings that tools.extract writes."""
    assert commands.run(extract.main, *words, "--out", file) == 0
    with np.load(file, allow_pickle=False) as content:
        return torch.from_numpy(content["feat"])


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("name", FILES)
def test_extracted_embeddings_of_either_stage_are_those_of_the_formulas(name, flip, run, photos, tmp_path):
    words = ("--weights", run / name, "TEST.FLIP", flip, "--images", *photos)
    assert_near(extracted(tmp_path / "f.npz", *words), expected(run / name, photos, flip))


def test_a_run_folder_stands_for_its_last_stage(run, photos, tmp_path):
    feats = extracted(tmp_path / "f.npz", "--run", run, "--images", *photos)
    assert_near(feats, expected(run / "clip_reid_3.pth", photos))


def test_search_finds_a_photograph_in_its_own_folder(run, photos, tmp_path, capsys):
    words = ("--run", run, "--query", photos[2], "--gallery", tmp_path / "photos", "--topk", 1)
    assert commands.run(search.main, *words, "--index", tmp_path / "i.npz", "--out", tmp_path / "found") == 0
    assert "1.0000" in capsys.readouterr().out


def test_attention_is_one_line_that_names_the_model(run, photos, tmp_path, capsys):
    assert commands.run(attention.main, "--run", run, "--images", photos[0], "--out", tmp_path / "maps") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error == "error: the attention of ClipReID cannot be rolled out; use a model with MODEL.NAME transformer"
