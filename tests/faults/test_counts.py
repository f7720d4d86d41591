"""Numbers of identities, cameras and viewpoints that a checkpoint tells: within bounds, and those of its weights."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from yacs.config import CfgNode

from configs import get_cfg_defaults
from datasets.labels import MAX_IDS, MAX_LABEL, MAX_SIDE_ROWS
from datasets.read import Counts, Told
from processor.provenance import read_run
from processor.trained import told_by
from utils.checkpoint import save_weights
from utils.errors import DataError

pytestmark = pytest.mark.fault("bad input: labels")

TOLD = {"schema": 1, "config": "SOLVER: {MAX_EPOCHS: 2}"}
TOLD |= {"epoch": 3, "num_classes": 5, "camera_num": 3, "view_num": 2, "datasets": ["veri"]}
TOLD |= {"tested_on": "veri", "train_fingerprint": "a", "test_fingerprint": "b"}


def checkpoint(folder: Path, classes: int = 5, rows: int = 6, **told: Any) -> Path:
    """Write a checkpoint with heads for `classes` and a side table of `rows`, which tells TOLD and `told`."""
    weights = {"classifier.weight": torch.zeros(classes, 4), "base.sie_embed": torch.zeros(rows, 1, 4)}
    module = OrderedDict(weights)
    module._metadata = OrderedDict()
    save_weights(module, folder / "w.pth", TOLD | told)
    return folder / "w.pth"


def sides(camera: bool = True, view: bool = True) -> CfgNode:
    cfg = get_cfg_defaults()
    cfg.MODEL.SIE_CAMERA, cfg.MODEL.SIE_VIEW = camera, view
    return cfg


@pytest.mark.parametrize(
    ("told", "wrong"),
    [
        ({"num_classes": MAX_IDS + 1}, "num_classes"),
        ({"num_classes": -1}, "num_classes"),
        ({"num_classes": 5.0}, "num_classes"),
        ({"num_classes": True}, "num_classes"),
        ({"camera_num": MAX_SIDE_ROWS + 1}, "camera_num"),
        ({"camera_num": "3"}, "camera_num"),
        ({"view_num": MAX_LABEL + 2}, "view_num"),
        ({"view_num": 10**30}, "view_num"),
        ({"camera_num": None, "view_num": None}, "camera_num, view_num"),
    ],
)
def test_numbers_that_no_training_set_has_are_damage(tmp_path, told, wrong):
    with pytest.raises(DataError, match=rf"w.pth': what it tells about its training is damaged \({wrong}\)"):
        read_run(checkpoint(tmp_path, **told))


@pytest.mark.parametrize(
    ("told", "wrong"),
    [
        ({"num_classes": 6}, "classifier.weight"),
        ({"num_classes": MAX_IDS}, "classifier.weight"),
        ({"camera_num": MAX_SIDE_ROWS, "view_num": MAX_LABEL}, "base.sie_embed"),
        ({"num_classes": 0, "view_num": 1, "camera_num": 4}, "classifier.weight and base.sie_embed"),
    ],
)
def test_numbers_that_the_weights_contradict_are_refused_before_a_model_is_built_of_them(tmp_path, told, wrong):
    with pytest.raises(DataError, match=f"w.pth' tells of .* which its {wrong} contradict; copy it again"):
        told_by(sides(), checkpoint(tmp_path, **told))


def test_a_side_table_that_the_weights_do_not_have_is_not_built_of_any_size(tmp_path):
    weight = checkpoint(tmp_path, rows=100, camera_num=100, view_num=MAX_LABEL)
    assert told_by(sides(view=False), weight) == Told(Counts(5, 100, MAX_LABEL), ("veri",))
    with pytest.raises(DataError, match="exceed 100,000"):
        told_by(sides(), weight)


def test_a_checkpoint_of_other_code_tells_what_its_weights_tell(tmp_path):
    torch.save({"classifier.weight": torch.zeros(7, 4), "base.sie_embed": torch.zeros(20, 1, 4)}, tmp_path / "w.pth")
    names = tuple(sides().DATASETS.NAMES)
    assert told_by(sides(view=False), tmp_path / "w.pth") == Told(Counts(7, 20, 1), names)
    assert told_by(sides(camera=False), tmp_path / "w.pth") == Told(Counts(7, 1, 20), names)
    assert told_by(sides(), tmp_path / "w.pth") is None
