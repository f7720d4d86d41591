"""Names, shapes and numbers of weights are those of TransReID's checkpoints."""

import pytest
import torch

from tests.model.builds import make_outline, make_tiny
from tests.reference.slow_transreid import Shape, make_state

STRIDE_12 = ("MODEL.STRIDE_SIZE", [12, 12])
JPM = ("MODEL.JPM", True)
CAMERA = ("MODEL.SIE_CAMERA", True)
DEIT_SMALL = ("MODEL.TRANSFORMER_TYPE", "deit_small_patch16_224_TransReID")
VIT_SMALL = ("MODEL.TRANSFORMER_TYPE", "vit_small_patch16_224_TransReID")
SQUARE = ("INPUT.SIZE_TRAIN", [256, 256])

# options, classes, cameras, views -> entries of the state dict, parameters; specs of TransReID's released code
TABLE = {
    "vit_base": ((), 751, 0, 0, 158, 87_093_736),
    "vit_base, 6 cameras": (CAMERA, 751, 6, 0, 159, 87_098_344),
    "Market, stride 12, jigsaw": ((*STRIDE_12, *CAMERA, *JPM), 751, 6, 0, 211, 103_653_352),
    "VeRi": ((*SQUARE, *STRIDE_12, *CAMERA, "MODEL.SIE_VIEW", True, *JPM), 575, 20, 8, 211, 103_273_192),
    "VehicleID": ((*SQUARE, *JPM), 13_164, 0, 0, 210, 151_349_992),
    "deit_small": (DEIT_SMALL, 751, 0, 0, 158, 22_313_704),
    "deit_small, stride 12, jigsaw": ((*DEIT_SMALL, *STRIDE_12, *CAMERA, *JPM), 751, 6, 0, 211, 27_054_568),
    "vit_small": (VIT_SMALL, 751, 0, 0, 102, 49_280_488),
    "vit_small, jigsaw": ((*VIT_SMALL, *JPM), 751, 0, 0, 152, 63_407_080),
    "resnet50": (("MODEL.NAME", "resnet50"), 751, 0, 0, 324, 25_050_176),
}


@pytest.mark.parametrize("case", TABLE)
def test_numbers_of_weights_are_those_of_transreid(case):
    opts, classes, cameras, views, entries, parameters = TABLE[case]
    model = make_outline(*opts, classes=classes, cameras=cameras, views=views)
    assert len(model.state_dict()) == entries
    assert sum(weight.numel() for weight in model.parameters()) == parameters


def test_names_and_shapes_are_those_of_the_veri_checkpoint():
    opts = (*SQUARE, *STRIDE_12, *CAMERA, "MODEL.SIE_VIEW", True, *JPM)
    model = make_outline(*opts, classes=575, cameras=20, views=8)
    # the reference is drawn narrow and its sizes are scaled up: 8 = D, 24 = 3D, 32 = 4D
    narrow = Shape(width=8, depth=12, heads=2, hidden=32, rows=21, columns=21, side_rows=160, branches=4)
    scaled = {8: 768, 24: 3 * 768, 32: 4 * 768}
    expected = {
        name: tuple(scaled.get(side, side) for side in value.shape) for name, value in make_state(narrow, 575).items()
    }
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == expected


def test_weights_stand_in_the_order_of_transreid():
    names = list(make_tiny(*CAMERA, *JPM, cameras=4).state_dict())
    heads = ["base.cls_token", "base.pos_embed", "base.sie_embed", "base.patch_embed.proj.weight"]
    assert names[:4] == heads
    order = ["base.blocks.2.mlp.fc2.bias", "base.norm.weight", "base.fc.weight", "b1.0.norm1.weight", "b2.1.bias"]
    assert [names.index(name) for name in order] == sorted(names.index(name) for name in order)


@pytest.mark.parametrize("head", ["softmax", "arcface", "cosface", "circle"])
def test_every_branch_has_its_own_classifier(head):
    state = make_tiny(*JPM, "MODEL.ID_LOSS_TYPE", head, "MODEL.DEVIDE_LENGTH", 3).state_dict()
    classifiers = {name: tuple(value.shape) for name, value in state.items() if name.startswith("classifier")}
    assert classifiers == {f"classifier{suffix}.weight": (5, 24) for suffix in ("", "_1", "_2", "_3")}


def test_amsoftmax_keeps_its_weights_in_columns():
    state = make_tiny("MODEL.ID_LOSS_TYPE", "amsoftmax").state_dict()
    assert state["classifier.W"].shape == (24, 5)
    assert "classifier.weight" not in state


def test_jigsaw_freezes_what_it_replaced():
    model = make_tiny(*JPM, "MODEL.VIT.DEPTH", 2)
    frozen = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    dead = {name for name in model.state_dict() if name.startswith(("base.blocks.1.", "base.norm.", "base.fc."))}
    assert frozen == dead | {f"bottleneck{suffix}.bias" for suffix in ("", "_1", "_2", "_3", "_4")}


def test_without_jigsaw_only_fc_and_the_neck_bias_are_frozen():
    frozen = {name for name, weight in make_tiny().named_parameters() if not weight.requires_grad}
    assert frozen == {"base.fc.weight", "base.fc.bias", "bottleneck.bias"}


@pytest.mark.parametrize("opts", [(), JPM, (*JPM, *CAMERA), ("MODEL.ID_LOSS_TYPE", "circle", *JPM)])
def test_every_trainable_weight_gets_a_gradient(opts):
    model = make_tiny("MODEL.DROP_PATH", 0.0, *opts, cameras=4)
    output = model(torch.randn(4, 3, 32, 24), cam_label=torch.tensor([0, 1, 2, 3]))
    loss = sum(tensor.square().sum() for tensor in (*output.logits, *output.pre_bn))
    loss.backward()
    without = [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]
    assert without == []
    assert all(weight.grad is None for weight in model.parameters() if not weight.requires_grad)


def test_initial_weights_have_transreids_statistics():
    torch.manual_seed(0)
    model = make_tiny("MODEL.VIT.EMBED_DIM", 96, "MODEL.VIT.PATCH_SIZE", 16, *CAMERA, cameras=20, classes=300)
    state = model.state_dict()
    for name in ("base.pos_embed", "base.sie_embed", "base.blocks.0.attn.qkv.weight", "base.fc.weight"):
        assert abs(state[name].std().item() - 0.02) < 0.002, name
    assert abs(state["base.patch_embed.proj.weight"].std().item() - (2 / (256 * 96)) ** 0.5) < 2e-4
    assert state["base.patch_embed.proj.bias"].abs().max() <= 1 / 768**0.5
    assert state["base.patch_embed.proj.bias"].abs().max() > 0
    assert state["base.blocks.0.attn.qkv.bias"].abs().max() == 0
    assert state["classifier.weight"].std().item() == pytest.approx(0.001, rel=0.05)
    assert torch.equal(state["bottleneck.weight"], torch.ones(96))
