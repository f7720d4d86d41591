"""Rules and notices about adapters, frozen blocks and layer decay."""

from collections.abc import Callable
from pathlib import Path

import pytest
from yacs.config import CfgNode

from configs import find_notices, load_cfg
from utils.errors import ConfigError

RESNET = "MODEL:\n  NAME: resnet50\n"
VIT = "MODEL:\n  NAME: transformer\n  TRANSFORMER_TYPE: vit_base_patch16_224_TransReID\nDATALOADER:\n"
VIT += "  SAMPLER: softmax_triplet\nINPUT:\n  SIZE_TRAIN: [256, 128]\n  SIZE_TEST: [256, 128]\n"
LORA = ("MODEL.LORA.RANK", 8)


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., CfgNode]:
    def loader(text: str, *opts: object) -> CfgNode:
        path = tmp_path / "x.yml"
        path.write_text(text)
        return load_cfg(path, opts)

    return loader


@pytest.mark.parametrize(
    ("key", "value", "off"),
    [
        *(("MODEL.LORA.RANK", 8, "0"), ("MODEL.FREEZE_BLOCKS", 2, "0"), ("SOLVER.LAYER_DECAY", 0.75, "1.0")),
        ("MODEL.RESIDUAL", "amp", "float32"),
    ],
)
def test_what_needs_blocks_is_refused_on_a_resnet(load, key, value, off):
    with pytest.raises(ConfigError, match=f"{key} {value} needs the blocks of MODEL.NAME transformer.*set it to {off}"):
        load(RESNET, key, value)
    load(VIT, key, value)
    load(RESNET)


def test_adapters_without_targets_are_refused(load):
    with pytest.raises(ConfigError, match="MODEL.LORA.RANK 8 adapts no layer: MODEL.LORA.TARGETS is empty"):
        load(VIT, *LORA, "MODEL.LORA.TARGETS", ())
    assert load(VIT, *LORA, "MODEL.LORA.TARGETS", "attn.qkv").MODEL.LORA.TARGETS == ("attn.qkv",)
    load(VIT, "MODEL.LORA.TARGETS", ())


@pytest.mark.parametrize(
    ("key", "value"),
    [("SOLVER.LAYER_DECAY", 0.0), ("SOLVER.LAYER_DECAY", 1.1), ("MODEL.LORA.ALPHA", 0.0), ("MODEL.LORA.RANK", -1)],
)
def test_values_out_of_range_are_refused(load, key, value):
    with pytest.raises(ConfigError, match=f"{key} got {value}, allowed"):
        load(VIT, key, value)


@pytest.mark.parametrize(("key", "value"), [LORA, ("MODEL.FREEZE_BLOCKS", 2)])
def test_frozen_random_weights_are_said(load, key, value):
    words = f"{key} {value} keeps weights that MODEL.PRETRAIN_CHOICE none leaves random"
    assert find_notices(load(VIT, key, value, "MODEL.PRETRAIN_CHOICE", "none")) == [words]
    assert find_notices(load(VIT, key, value)) == []
    assert find_notices(load(VIT, "MODEL.PRETRAIN_CHOICE", "none")) == []


@pytest.mark.parametrize(("key", "value"), [("MODEL.LORA.ALPHA", 8.0), ("MODEL.LORA.TARGETS", ("mlp",))])
def test_settings_of_absent_adapters_are_said(load, key, value):
    notices = find_notices(load(VIT, key, value))
    assert notices == [f"{key} {value} is not used: MODEL.LORA.RANK 0 adds no adapter"]
    assert find_notices(load(VIT, *LORA, key, value)) == []
