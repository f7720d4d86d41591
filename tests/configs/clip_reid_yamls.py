"""The YAMLs of CLIP-ReID's code, rebuilt from their published values in their own spelling."""

from typing import NamedTuple

COMMENTED = """DATASETS:
#   NAMES: ('market1501')
#   ROOT_DIR: ('your_dataset_dir')
# OUTPUT_DIR: 'your_output_dir'
# CUDA_VISIBLE_DEVICES=0 python train_clipreid.py --config_file configs/file.yml
"""


class Original(NamedTuple):
    """What the files differ in; prompts is (epochs, batch) of stage 1, None for a baseline."""

    folder: str
    file: str
    tower: str
    smooth: str
    id_weight: str
    rate: str
    prompts: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """The name of our copy."""
        return f"{self.folder}_{self.file}"

    @property
    def is_vit(self) -> bool:
        """Whether the tower is a ViT."""
        return self.tower == "ViT-B-16"


ORIGINALS = (
    Original("person", "cnn_base", "RN50", "on", "1.0", "0.00035"),
    Original("person", "cnn_clipreid", "RN50", "on", "1.0", "0.00035", (60, 64)),
    Original("person", "vit_base", "ViT-B-16", "on", "1.0", "0.000005"),
    Original("person", "vit_clipreid", "ViT-B-16", "on", "0.25", "0.000005", (120, 64)),
    Original("veri", "cnn_base", "RN50", "on", "1.0", "0.00035"),
    Original("veri", "cnn_prom", "RN50", "on", "1.0", "0.00035", (60, 64)),
    Original("veri", "vit_base", "ViT-B-16", "on", "1.0", "0.000005"),
    Original("veri", "vit_prom", "ViT-B-16", "on", "0.25", "0.000005", (60, 64)),
    Original("VehicleID", "cnn_base", "RN50", "off", "1.0", "0.00035"),
    Original("VehicleID", "cnn_clipreid", "RN50", "off", "1.0", "0.00035", (60, 256)),
    Original("VehicleID", "vit_base", "ViT-B-16", "off", "1.0", "0.00005"),
    Original("VehicleID", "vit_clipreid", "ViT-B-16", "on", "0.25", "0.00005", (60, 256)),
)


def text_of(row: Original) -> str:
    """Return the file as its users have it: quoted words and lists, 1e-6, an empty DATASETS above comments."""
    size = "[256, 128]" if row.folder == "person" else "[256, 256]"
    mean, sd = ("[0.5, 0.5, 0.5]",) * 2 if row.is_vit else ("[0.485, 0.456, 0.406]", "[0.229, 0.224, 0.225]")
    vit = "  I2T_LOSS_WEIGHT: 1.0\n  STRIDE_SIZE: [16, 16]\n  # SIE_CAMERA: True\n  # SIE_COE : 1.0\n"
    return f"""MODEL:
  PRETRAIN_CHOICE: 'imagenet'
  METRIC_LOSS_TYPE: 'triplet'
  IF_LABELSMOOTH: '{row.smooth}'
  IF_WITH_CENTER: 'no'
  NAME: '{row.tower}'
  ID_LOSS_WEIGHT : {row.id_weight}
  TRIPLET_LOSS_WEIGHT : 1.0
{vit if row.is_vit else ""}
INPUT:
  SIZE_TRAIN: {size}
  SIZE_TEST: {size}
  PROB: 0.5 # random horizontal flip
  RE_PROB: 0.5 # random erasing
  PADDING: 10
  PIXEL_MEAN: {mean}
  PIXEL_STD: {sd}

DATALOADER:
  SAMPLER: 'softmax_triplet'
  NUM_INSTANCE: 4
  NUM_WORKERS: 8

SOLVER:
{_solver(row)}
TEST:
  EVAL: True
  IMS_PER_BATCH: 64
  RE_RANKING: False
  WEIGHT: ''
  NECK_FEAT: 'before'
  FEAT_NORM: 'yes'

{COMMENTED}"""


def _solver(row: Original) -> str:
    epochs, factor, decay, steps = (
        (60, "0.1", "0.0001", "[30, 50]") if row.is_vit else (120, "0.01", "0.0005", "[40, 70]")
    )
    lines = f"""IMS_PER_BATCH: 64
OPTIMIZER_NAME: "Adam"
BASE_LR: {row.rate}
WARMUP_METHOD: 'linear'
WARMUP_ITERS: 10
WARMUP_FACTOR: {factor}
WEIGHT_DECAY:  {decay}
WEIGHT_DECAY_BIAS: {decay}
LARGE_FC_LR: False
MAX_EPOCHS: {epochs}
CHECKPOINT_PERIOD: {epochs}
LOG_PERIOD: 50
EVAL_PERIOD: {epochs}
BIAS_LR_FACTOR: 2
STEPS: {steps}
GAMMA: 0.1
"""
    if row.prompts is None:
        return _indented(lines, 2)
    prompts = f"""IMS_PER_BATCH: {row.prompts[1]}
OPTIMIZER_NAME: "Adam"
BASE_LR: 0.00035
WARMUP_LR_INIT: 0.00001
LR_MIN: 1e-6
WARMUP_METHOD: 'linear'
WEIGHT_DECAY:  1e-4
WEIGHT_DECAY_BIAS: 1e-4
MAX_EPOCHS: {row.prompts[0]}
CHECKPOINT_PERIOD: {row.prompts[0]}
LOG_PERIOD: 50
WARMUP_EPOCHS: 5
"""
    return f"  STAGE1:\n{_indented(prompts, 4)}  STAGE2:\n{_indented(lines, 4)}"


def _indented(lines: str, by: int) -> str:
    return "".join(" " * by + line for line in lines.splitlines(keepends=True))
