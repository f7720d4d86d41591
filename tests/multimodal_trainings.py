"""Trainings of several modalities on a tiny ORBench and a tiny CLIP."""

from pathlib import Path

from tests.datasets.modal import write_orbench
from tests.model.clip_reids import VIT, write_clip

YAML = """\
# five modalities on a tiny CLIP
MODEL:
  NAME: multimodal
  CLIP_BACKBONE: {clip}
  CLIP_PRETRAIN: ''
  PRETRAIN_CHOICE: none
  STRIDE_SIZE: [16, 16]
  METRIC_LOSS_TYPE: none
  DROP_PATH: 0.0
  MULTIMODAL: {{HEADS: 4}}
  DEVICE: cpu
INPUT:
  SIZE_TRAIN: [32, 32]
  SIZE_TEST: [32, 32]
  PADDING: 2
  TEXT: {{LENGTH: 16, MASK_CAPTION: True}}
LOSS:
  ALIGN: {{START: 2, RAMP: 1}}
  FEAT_NORM: {{TARGET: 3.0, BAND: 0.5}}
DATASETS:
  NAMES: orbench
  ROOT_DIR: {root}
DATALOADER:
  SAMPLER: softmax_triplet
  NUM_INSTANCE: 2
  NUM_WORKERS: 0
SOLVER:
  OPTIMIZER_NAME: AdamW
  MAX_EPOCHS: 2
  BASE_LR: 0.001
  NEW_LR_FACTOR: 5
  SCHEDULER: warmup_cosine
  WARMUP_EPOCHS: 1
  GRAD_CLIP_QUANTILE: 0.7
  IMS_PER_BATCH: 4
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
CALM = (  # nothing random but the order of the records, their partners and what is dropped of them
    *("MODEL.MULTIMODAL.DROPOUT", 0.0, "MODEL.MULTIMODAL.HEAD_DROPOUT", 0.0),
    *("INPUT.PROB", 0.0, "INPUT.PADDING", 0, "INPUT.RE_PROB", 0.0),
)


def write_multimodal_yaml(folder: Path) -> Path:
    """Write the YAML, its CLIP and its data into a folder; OUTPUT_DIR is <folder>/run."""
    write_orbench(folder / "data", lacks={7: "sk"})
    path = folder / "multimodal.yml"
    path.write_text(YAML.format(clip=write_clip(folder, VIT), root=folder / "data", output=folder / "run"))
    return path
