"""Run folders of tiny models of every family, with random weights, and what they embed."""

from pathlib import Path

import torch

from model import make_model
from processor.provenance import PROVENANCE_SCHEMA
from tests.model.clip_reids import CLASSES, VIT, clip_reid_cfg, make_clip_reid, write_clip
from tests.model.clips import redraw
from tests.model.pcbs import tiny_cfg
from tests.tools.irra_runs import write_irra_run
from tests.tools.modal_runs import write_modal_run
from tools.feature_extractor import FeatureExtractor
from utils.checkpoint import save_weights

TEXTS = ["a red pickup on a bridge", "a yellow bus"]


def told_of(cfg: object, epoch: int, **more: object) -> dict[str, object]:
    """Return the provenance of a checkpoint of CLASSES identities."""
    told = {"num_classes": CLASSES, "camera_num": 3, "view_num": 1, "datasets": ["veri"], "tested_on": "veri"}
    told |= {"schema": PROVENANCE_SCHEMA, "config": cfg.dump(), "train_fingerprint": "01", "test_fingerprint": "23"}
    return told | {"epoch": epoch, **more}


def write_pcb_run(folder: Path) -> Path:
    """Write the checkpoint of epoch 4 of a PCB of four stripes into a new folder and return that."""
    folder.mkdir()
    cfg = tiny_cfg("TEST.FLIP", True)
    torch.manual_seed(0)
    model = redraw(make_model(cfg, CLASSES, 1, 1))
    save_weights(model.state_dict(), folder / "pcb_4.pth", told_of(cfg, 4))
    return folder


def write_clip_reid_run(folder: Path) -> Path:
    """Write the checkpoint of epoch 3 of a CLIP-ReID of both stages, with side information, and return its folder."""
    folder.mkdir()
    opts = ("SOLVER.STAGES", ["stage1", "stage2"], "MODEL.SIE_CAMERA", True, "TEST.NECK_FEAT", "before")
    cfg = clip_reid_cfg(write_clip(folder, VIT), *opts)
    save_weights(make_clip_reid(cfg, 3, 1).state_dict(), folder / "clip_reid_3.pth", told_of(cfg, 3))
    return folder


def write_family(name: str, folder: Path, trained_run: Path) -> Path:
    """Return the run folder of a family; that of TransReID is `trained_run`."""
    if name == "transreid":
        return trained_run
    writers = {"pcb": write_pcb_run, "clip_reid": write_clip_reid_run, "irra": write_irra_run}
    writers["multimodal"] = lambda place: write_modal_run(place.parent)
    return writers[name](folder / "run")


def embeddings(extractor: FeatureExtractor, photos: list[str]) -> torch.Tensor:
    """Return all that a model embeds of photographs and of TEXTS, [N, D]."""
    parts = [extractor(photos)]
    if "text" in extractor.reads:
        parts.append(extractor.embed_texts(TEXTS))
    if "nir" in extractor.reads:
        parts.append(extractor.embed_queries([{"nir": photos[0], "text": TEXTS[0]}, {"sk": photos[1]}]))
    return torch.cat(parts)
