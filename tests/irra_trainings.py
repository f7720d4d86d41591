"""Trainings of IRRA on a tiny captioned archive and a tiny CLIP."""

from pathlib import Path

from tests.datasets.captioned import entries_of, write_captioned
from tests.model.clip_reids import VIT, write_clip

YAML = """\
# IRRA on a tiny CLIP
MODEL:
  NAME: irra
  CLIP_BACKBONE: {clip}
  CLIP_PRETRAIN: ''
  PRETRAIN_CHOICE: none
  STRIDE_SIZE: [16, 16]
  CMT_DEPTH: 1
  DEVICE: cpu
INPUT:
  SIZE_TRAIN: [32, 32]
  SIZE_TEST: [32, 32]
  PADDING: 2
  TEXT: {{LENGTH: 16}}
LOSS:
  TEXT: {{TEMPERATURE: 0.1}}
DATASETS:
  NAMES: RSTPReid
  ROOT_DIR: {root}
DATALOADER:
  SAMPLER: softmax
  NUM_WORKERS: 0
SOLVER:
  OPTIMIZER_NAME: Adam
  MAX_EPOCHS: 2
  BASE_LR: 0.001
  WARMUP_EPOCHS: 1
  IMS_PER_BATCH: 8
  CHECKPOINT_PERIOD: 1
  EVAL_PERIOD: 1
  LOG_PERIOD: 1
  AMP: 'off'
TEST:
  AMP: 'off'
  REFERENCE: False
  IMS_PER_BATCH: 8
OUTPUT_DIR: {output}
"""
IDS = {"train": tuple(range(1, 8)), "test": (11, 12, 13)}
STEPS = 4  # of an epoch: two captions each of two images of seven identities, in batches of 8; the last one has 4


def write_irra_yaml(folder: Path) -> Path:
    """Write the YAML, its CLIP and its data into a folder; OUTPUT_DIR is <folder>/run."""
    root = write_captioned(folder / "data", entries_of(IDS, images=(2,), captions=(2,)))
    path = folder / "irra.yml"
    path.write_text(YAML.format(clip=write_clip(folder, VIT), root=root, output=folder / "run"))
    return path
