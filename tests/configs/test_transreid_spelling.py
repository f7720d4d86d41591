"""YAMLs in TransReID's own spelling load unchanged and mean what our recipe of the same name means."""

from pathlib import Path

import pytest

from configs import load_cfg
from tests.configs.recipes import flat
from utils.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]

# Parentheses, quotes, whole numbers for rates, 1e-4, absolute paths, keys nobody reads
SOLVER_AND_TEST = """
DATALOADER:
  NUM_WORKERS: 8
  SAMPLER: 'softmax_triplet'
  NUM_INSTANCE: 4
SOLVER:
  BIAS_LR_FACTOR: 2
  LARGE_FC_LR: False
  WEIGHT_DECAY:  1e-4
  WEIGHT_DECAY_BIAS: 1e-4
  WARMUP_METHOD: 'linear'
  OPTIMIZER_NAME: 'SGD'
  MAX_EPOCHS: 120
  BASE_LR: {rate}
  IMS_PER_BATCH: {batch}
  CHECKPOINT_PERIOD: 120
  EVAL_PERIOD: 120
  LOG_PERIOD: 50
TEST:
  EVAL: True
  NECK_FEAT: 'before'
  FEAT_NORM: {norm}
  RE_RANKING: False
  IMS_PER_BATCH: 256
  WEIGHT: '../logs/some_run/transformer_120.pth'
OUTPUT_DIR: '../logs/some_run'
"""
MODEL_LINES = """
MODEL:
  NAME: 'transformer'
  PRETRAIN_CHOICE: 'imagenet'
  PRETRAIN_PATH: '/home/someone/weights/{weights}'
  TRANSFORMER_TYPE: '{kind}_patch16_224_TransReID'
  METRIC_LOSS_TYPE: 'triplet'
  IF_LABELSMOOTH: {smooth}
  IF_WITH_CENTER: 'no'
  NO_MARGIN: True
  DEVICE_ID: ('0')
"""
INPUT_LINES = """
INPUT:
  PROB: 0.5 # flip
  PADDING: 10
  RE_PROB: {erasing}
  SIZE_TRAIN: {size}
  SIZE_TEST: {size}
  PIXEL_MEAN: {mean}
  PIXEL_STD: {std}
DATASETS:
  NAMES: ('{data}')
  ROOT_DIR: ('../../data')
"""
VIT_FILE = "jx_vit_base_p16_224-80ecf9dd.pth"
DEIT_FILE = "deit_base_distilled_patch16_224-df68dfff.pth"
HALF = {"mean": "[0.5, 0.5, 0.5]", "std": "[0.5, 0.5, 0.5]"}
IMAGENET = {"mean": "[0.485, 0.456, 0.406]", "std": "[0.229, 0.224, 0.225]"}
FOREIGN = {  # recipe of ours that means the same: (extra lines of MODEL, values of the texts above)
    "Market/vit_base": (
        "  STRIDE_SIZE: [16, 16]",
        {"weights": VIT_FILE, "kind": "vit_base", "smooth": "'off'", "data": "market1501", "size": "[256, 128]"}
        | {"erasing": 0.5, "rate": 0.008, "batch": 64, "norm": "'yes'"}
        | HALF,
    ),
    "VeRi/deit_transreid_stride": (
        "  STRIDE_SIZE: [12, 12]\n  SIE_CAMERA: True\n  SIE_VIEW: True\n  SIE_COE: 3.0\n  JPM: True\n"
        "  SHIFT_NUM: 8\n  RE_ARRANGE: True",
        {"weights": DEIT_FILE, "kind": "vit_base", "smooth": "'off'", "data": "veri", "size": "[256, 256]"}
        | {"erasing": 0.8, "rate": 0.01, "batch": 64, "norm": "'yes'"}
        | IMAGENET,
    ),
    "VehicleID/deit_transreid": (
        "  STRIDE_SIZE: [16, 16]\n  JPM: True\n  SHIFT_NUM: 8\n  RE_ARRANGE: True\n  DIST_TRAIN: True",
        {"weights": DEIT_FILE, "kind": "vit_base", "smooth": "off", "data": "VehicleID", "size": "[256, 256]"}
        | {"erasing": 0.8, "rate": "3e-2", "batch": 256, "norm": "yes"}
        | IMAGENET,
    ),
    "MSMT17/deit_small": (
        "  STRIDE_SIZE: [16, 16]",
        {"weights": "deit_small_distilled_patch16_224-649709d9.pth", "kind": "deit_small", "smooth": '"off"'}
        | {"data": "msmt17", "size": "(256, 128)", "erasing": 0.8, "rate": "5e-3", "batch": 64, "norm": '"yes"'}
        | HALF,
    ),
}
# where a user's files lie, and a key that nothing reads; the type may differ too: one network under two names
MAY_DIFFER = {"MODEL.PRETRAIN_PATH", "DATASETS.ROOT_DIR", "TEST.WEIGHT", "TEST.EVAL", "OUTPUT_DIR"}


@pytest.mark.parametrize("name", FOREIGN)
def test_transreids_own_spelling_loads_and_means_our_recipe(name, tmp_path):
    lines, values = FOREIGN[name]
    path = tmp_path / "theirs.yml"
    template = MODEL_LINES.rstrip("\n") + f"\n{lines}" + INPUT_LINES + SOLVER_AND_TEST.lstrip("\n")
    path.write_text(template.format(**values), encoding="utf-8")

    theirs, ours = flat(load_cfg(path)), flat(load_cfg(ROOT / "configs" / f"{name}.yml"))

    differing = {key for key in theirs if theirs[key] != ours[key]}
    assert differing - {"MODEL.TRANSFORMER_TYPE"} == MAY_DIFFER
    assert theirs["MODEL.TRANSFORMER_TYPE"] == f"{values['kind']}_patch16_224_TransReID"
    assert theirs["MODEL.PRETRAIN_PATH"] == f"/home/someone/weights/{values['weights']}"
    assert theirs["MODEL.DEVICE_ID"] == "0"
    assert theirs["DATASETS.NAMES"] == (values["data"],)
    assert theirs["DATASETS.ROOT_DIR"] == "../../data"
    assert theirs["TEST.WEIGHT"] == "../logs/some_run/transformer_120.pth"
    assert theirs["TEST.FEAT_NORM"] == "yes"
    assert theirs["TEST.EVAL"] is True
    assert isinstance(theirs["SOLVER.BIAS_LR_FACTOR"], float)
    assert theirs["SOLVER.WEIGHT_DECAY"] == pytest.approx(0.0001, rel=1e-12)


def test_a_misspelt_section_is_refused_by_its_name(tmp_path):
    path = tmp_path / "theirs.yml"
    path.write_text(
        f"_BASE_: {ROOT / 'configs/DukeMTMC/vit_transreid.yml'}\ntMODEL:\n  NAME: 'transformer'\n", encoding="utf-8"
    )
    with pytest.raises(ConfigError, match=r"tMODEL\.NAME; did you mean MODEL\.NAME\?"):
        load_cfg(path)
