"""A captioned archive and the run of a tiny IRRA of random weights on it."""

from pathlib import Path

from datasets.make_dataloader import make_dataloader
from processor.provenance import describe_run
from tests.datasets.captioned import entries_of, write_captioned
from tests.model.clip_reids import VIT, write_clip
from tests.model.irras import irra_cfg, make_irra
from utils.checkpoint import save_weights

IDS = {"train": (9, 2, 1, 4, 5, 6), "test": (7, 3, 60, 8)}  # as many to train on as the model has classes
NAME = "irra_3.pth"


def write_captioned_run(folder: Path, *opts: object) -> Path:
    """Write folder/data and the checkpoint of epoch 3 in folder/run, which knows where the data lies; return that."""
    run = folder / "run"
    run.mkdir()
    entries = entries_of(IDS, images=(2, 3, 1, 2))
    opts = (
        *("DATASETS.NAMES", ("RSTPReid",), "DATASETS.ROOT_DIR", str(write_captioned(folder / "data", entries))),
        *("DATALOADER.NUM_WORKERS", 0, "TEST.IMS_PER_BATCH", 5, "SOLVER.IMS_PER_BATCH", 4, *opts),
    )
    cfg = irra_cfg(write_clip(run, VIT), *opts)
    save_weights(make_irra(run, *opts).state_dict(), run / NAME, describe_run(cfg, 3, make_dataloader(cfg)))
    return run


def captions_of(run: Path) -> list[tuple[str, int, str]]:
    """Return (caption, identity, path of its own image) of the test split, in order."""
    return [
        (caption, one["id"], str(run.parent / "data" / "RSTPReid" / "imgs" / one["img_path"]))
        for one in entries_of(IDS, images=(2, 3, 1, 2))
        if one["split"] == "test"
        for caption in one["captions"]
    ]
