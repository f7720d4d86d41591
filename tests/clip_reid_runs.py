"""Runs of CLIP-ReID on a tiny archive and a tiny CLIP."""

from pathlib import Path

import torch

from tests.model.clip_reids import VIT, write_clip
from utils.checkpoint import load_file
from utils.run_folder import read_metrics

YAML = """\
# CLIP-ReID on a tiny CLIP
MODEL:
  NAME: clip_reid
  CLIP_BACKBONE: {clip}
  CLIP_PRETRAIN: ''
  PRETRAIN_CHOICE: none
  STRIDE_SIZE: [16, 16]
  SIE_CAMERA: True
  IF_LABELSMOOTH: 'on'
  DEVICE: cpu
INPUT:
  SIZE_TRAIN: [32, 32]
  SIZE_TEST: [32, 32]
  PADDING: 2
DATASETS:
  NAMES: veri
  ROOT_DIR: {root}
DATALOADER:
  SAMPLER: softmax_triplet
  NUM_INSTANCE: 2
  NUM_WORKERS: 0
SOLVER:
  AMP: 'off'
  STAGES: [stage1, stage2]
  STAGE1:
    MAX_EPOCHS: 2
    IMS_PER_BATCH: 20
    BASE_LR: 0.02
    WARMUP_LR_INIT: 0.01
    LR_MIN: 0.001
    WARMUP_EPOCHS: 1
    CHECKPOINT_PERIOD: 1
    LOG_PERIOD: 1
  STAGE2:
    OPTIMIZER_NAME: AdamW
    MAX_EPOCHS: 2
    IMS_PER_BATCH: 16
    BASE_LR: 0.001
    WARMUP_ITERS: 1
    STEPS: [2]
    CHECKPOINT_PERIOD: 1
    EVAL_PERIOD: 1
    LOG_PERIOD: 1
TEST:
  AMP: 'off'
  NECK_FEAT: before
  IMS_PER_BATCH: 32
OUTPUT_DIR: {output}
"""
STEPS1, STEPS2 = 3, 3  # of an epoch: 48 images in batches of 20 features or 16 images
CALM = ("INPUT.PROB", 0.0, "INPUT.PADDING", 0, "INPUT.RE_PROB", 0.0)  # nothing random but the order of the images
TEXT_SIDE = ("text_encoder.", "prompt_learner.")
TIMED = ("time", "images_per_s", "data_share", "max_memory", "mfu")  # parts of the names of what no two runs share


def write_yaml(folder: Path, root: Path) -> Path:
    """Write the YAML, its CLIP beside it, for the archive below `root`; OUTPUT_DIR is <folder>/unused."""
    path = folder / "clip_reid.yml"
    path.write_text(YAML.format(clip=write_clip(folder, VIT), root=root, output=folder / "unused"))
    return path


def words(config: Path, output: Path, *opts: object) -> list[str]:
    """Return the arguments of train.py and test.py."""
    return ["--config_file", str(config), *map(str, ("OUTPUT_DIR", output, *opts))]


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a checkpoint."""
    return load_file(path, "test")


def differing(one: Path, two: Path) -> list[str]:
    """Return the names of the weights that differ by a bit between two checkpoints."""
    first, second = weights_of(one), weights_of(two)
    assert first.keys() == second.keys()
    return [name for name in first if not torch.equal(first[name], second[name])]


def records(folder: Path, kind: str = "") -> list[dict]:
    """Return what a run recorded, of all kinds or one, without speeds."""
    return [
        {name: value for name, value in record.items() if not any(word in name for word in TIMED)}
        for record in read_metrics(folder / "metrics.jsonl")
        if kind in ("", record["kind"])
    ]


def as_foreign(path: Path, target: Path, identities: int | None = None, prefix: str = "") -> Path:
    """Write a checkpoint as the original does: bare weights, no provenance; with random rows for other identities."""
    generator, state = torch.Generator().manual_seed(3), {}
    for name, value in weights_of(path).items():
        if identities is not None and name.startswith(("classifier", "prompt_learner.cls_ctx")):
            value = torch.randn(identities, *value.shape[1:], generator=generator)
        state[prefix + name] = value
    torch.save(state, target)
    return target
