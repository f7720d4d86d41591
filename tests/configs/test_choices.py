"""The choices of a key are those that the code behind it knows."""

import pytest
import torch

from configs import get_cfg_defaults
from configs.keys import KEYS
from configs.loss_weights import WEIGHTS
from configs.rules.branches import LAYOUTS
from configs.rules.model import DEFAULT_PATCH_SIZE, TIMM_PREFIX, TRANSFORMER_TYPES
from datasets import decode
from datasets.archives import vehicleid
from losses import branches
from losses.margin_softmax import MARGINS
from model import transreid
from model.backbones import resnet, tiny_cnn, vit_types
from model.families.clip_fusion import FUSIONS
from model.layers import kernel, map_pooling, packed
from model.layers.heads import HEADS
from model.make_model import FAMILIES
from model.outputs import ModelOutput
from model.weights import pretrained
from processor.evaluation import store
from processor.systems import SYSTEMS
from solver import scheduler
from solver.make_optimizer import build_optimizer
from tools import onnx_example
from utils.device import resolve_amp
from utils.errors import ConfigError

FEAT_SRCS = ("LOSS.TRIPLET.FEAT_SRC", "LOSS.TRIPLETX.FEAT_SRC", "LOSS.SUPCON.FEAT_SRC")
TABLES = [
    ("MODEL.NAME", FAMILIES),
    ("TEST.FEATURES", store.STORES),
    ("MODEL.NAME", SYSTEMS),
    ("MODEL.NAME", WEIGHTS),
    ("MODEL.NAME", LAYOUTS),
    ("LOSS.TRIPLET.BRANCHES", branches.VIEWS),
    ("MODEL.RESNET_STEM", resnet.STEMS),
    ("TEST.LINEAR", (packed.AUTO, packed.PLAIN, packed.PACKED)),
    ("MODEL.ATTENTION", (kernel.AUTO, kernel.FUSED, kernel.WRITTEN_OUT)),
    ("MODEL.PRETRAIN_CHOICE", pretrained.CHOICES),
    ("MODEL.PCB.TRUNK", (*resnet.KINDS, tiny_cnn.KIND)),
    ("MODEL.PCB.PART_POOL", map_pooling.KINDS),
    ("MODEL.PCB.GLOBAL_POOL", map_pooling.KINDS),
    ("MODEL.ID_LOSS_TYPE", HEADS),
    ("MODEL.ID_LOSS_TYPE", ("softmax", *MARGINS)),
    ("MODEL.CLIP_IMPL", {impl for impl, _ in FUSIONS}),
    ("MODEL.CLIP_FUSION", {fusion for _, fusion in FUSIONS}),
    ("INPUT.FILTER_TRAIN", decode.FILTERS),
    ("INPUT.FILTER_TEST", decode.FILTERS),
    ("INPUT.FILTER_TEST", onnx_example.FILTERS),
    ("DATASETS.VEHICLEID_TEST_SIZE", vehicleid.TEST_SIZES),
    ("SOLVER.WARMUP_METHOD", scheduler.WARMUP_METHODS),
    ("TEST.NECK_FEAT", transreid.NECK_FEATS),
    *((name, transreid.PROJECTION_SOURCES) for name in FEAT_SRCS),
]


@pytest.mark.parametrize(("name", "table"), TABLES, ids=[name for name, _ in TABLES])
def test_choices_are_the_entries_of_the_code_table(name, table):
    assert sorted(KEYS[name].choices) == sorted(table)


def test_feature_sources_are_fields_of_the_model_output():
    assert set(KEYS["LOSS.TRIPLET.FEAT_SRC"].choices) <= set(ModelOutput._fields)


def test_types_of_transformers_are_those_that_the_rules_know():
    assert vit_types.TIMM_PREFIX == TIMM_PREFIX and set(vit_types.VIT_TYPES) == set(TRANSFORMER_TYPES)
    assert {kind.patch_size for kind in vit_types.VIT_TYPES.values()} == {DEFAULT_PATCH_SIZE}


@pytest.mark.parametrize("name", KEYS["SOLVER.OPTIMIZER_NAME"].choices)
def test_every_optimizer_of_the_choices_can_be_built(name):
    group = {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.1, "weight_decay": 0.0}
    assert type(build_optimizer(name, [group], 0.1)).__name__ == name


def test_schedules_are_the_choices():
    cfg = get_cfg_defaults()
    choices = KEYS["SOLVER.SCHEDULER"].choices
    assert choices[0] == ""  # the system's own
    for name in choices:
        cfg.SOLVER.SCHEDULER = name
        assert scheduler.make_schedule(cfg)(1, cfg.SOLVER.BASE_LR) >= 0
    cfg.SOLVER.SCHEDULER = "step"
    with pytest.raises(ConfigError, match=f"allowed: {', '.join(choices[1:])}$"):
        scheduler.make_schedule(cfg)


@pytest.mark.parametrize("name", ["SOLVER.AMP", "TEST.AMP"])
def test_precisions_are_the_choices(name):
    for mode in KEYS[name].choices:
        if mode != "fp16":  # of CUDA alone
            assert resolve_amp(mode, torch.device("cpu"), name) in (None, torch.bfloat16)
    with pytest.raises(ConfigError, match=f"{name} fp16 needs a CUDA device"):
        resolve_amp("fp16", torch.device("cpu"), name)
