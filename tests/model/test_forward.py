"""What a model returns in training and in evaluation mode."""

import pytest
import timm
import torch

from model import ModelOutput, make_model
from tests.model.builds import images, make_cfg, make_tiny
from tests.tolerance import bounds
from utils.errors import ConfigError, DataError

JPM = ("MODEL.JPM", True)
TERMS = 1000  # numbers added up one after the other: up to 300 in each block


@pytest.mark.parametrize("branches", [0, 3, 4])
def test_training_returns_every_branch(branches):
    model = make_tiny("MODEL.JPM", branches > 0, "MODEL.DEVIDE_LENGTH", max(branches, 1))
    output = model(images(6))
    assert isinstance(output, ModelOutput)
    assert [tuple(x.shape) for x in output.logits] == [(6, 5)] * (1 + branches)
    assert [tuple(x.shape) for x in output.pre_bn] == [(6, 24)] * (1 + branches)
    assert [tuple(x.shape) for x in output.bnneck] == [(6, 24)] * (1 + branches)
    assert output.projection is None and output.extra == {}
    assert model.feat_dim == 24


@pytest.mark.parametrize(("opts", "width"), [((), 24), (JPM, 5 * 24), ((*JPM, "MODEL.DEVIDE_LENGTH", 2), 3 * 24)])
@pytest.mark.parametrize("neck_feat", ["before", "after"])
def test_evaluation_returns_the_weighted_branches(opts, width, neck_feat):
    model = make_tiny(*opts, "TEST.NECK_FEAT", neck_feat, "MODEL.DROP_PATH", 0.0).eval()
    embedding = model(images(2))
    assert embedding.shape == (2, width)
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.eval()
    output = model(images(2))
    branches = output.pre_bn if neck_feat == "before" else output.bnneck
    count = len(branches) - 1
    expected = torch.cat([branches[0], *(branch / count for branch in branches[1:])], dim=1)
    torch.testing.assert_close(embedding, expected, **bounds(TERMS))


@pytest.mark.parametrize("opts", [(), JPM, (*JPM, "MODEL.DEVIDE_LENGTH", 2), ("MODEL.NAME", "resnet50")])
def test_branches_are_named_in_the_order_of_the_embedding_and_as_wide_as_it(opts):
    model = make_tiny(*opts).eval()
    names = list(model.branches)
    assert names[0] == "global" and names[1:] == [f"local_{number}" for number in range(1, len(names))]
    assert model(images(2)).shape == (2, sum(model.branches.values()))
    assert model.num_class == 5


@pytest.mark.parametrize("neck_feat", ["before", "after"])
def test_a_batch_is_embedded_as_in_evaluation(neck_feat):
    model = make_tiny(*JPM, "MODEL.SIE_CAMERA", True, "TEST.NECK_FEAT", neck_feat, cameras=4).eval()
    labels = torch.tensor([0, 3, -1])
    batch = {"images": images(3), "camids": labels, "viewids": torch.zeros(3).long(), "paths": ["a", "b", "c"]}
    assert torch.equal(model.embed_batch(batch), model(images(3), cam_label=labels))
    assert torch.equal(model.embed_batch({"images": images(3)}), model(images(3)))


def test_the_output_can_be_had_in_evaluation_mode():
    model = make_tiny(*JPM, "LOSS.SUPCON.ENABLE", True, "TEST.NECK_FEAT", "before", "MODEL.DROP_PATH", 0.0).eval()
    output = model.forward_output(images(3))
    assert isinstance(output, ModelOutput) and output.projection.shape == (3, 128)
    assert torch.equal(model(images(3))[:, :24], output.pre_bn[0])
    necks = [model.get_submodule(f"bottleneck{suffix}") for suffix in ("", "_1", "_2", "_3", "_4")]
    for neck, before, after in zip(necks, output.pre_bn, output.bnneck, strict=True):
        assert torch.equal(neck(before), after)
    assert [tuple(logits.shape) for logits in output.logits] == 5 * [(3, 5)]
    trained = model.train().forward_output(images(3))
    torch.testing.assert_close(trained.pre_bn[0], output.pre_bn[0])


def test_branches_of_one_batch_do_not_mix():
    model = make_tiny(*JPM).eval()
    batch = images(4)
    one_by_one = torch.cat([model(image[None]) for image in batch])
    torch.testing.assert_close(model(batch), one_by_one, **bounds(TERMS))


def test_evaluation_is_deterministic_with_every_kind_of_dropping():
    model = make_tiny("MODEL.DROP_PATH", 0.5, "MODEL.DROP_OUT", 0.5, "MODEL.ATT_DROP_RATE", 0.5, *JPM)
    model.eval()
    assert torch.equal(model(images()), model(images()))
    model.train()
    assert not torch.equal(model(images()).pre_bn[1], model(images()).pre_bn[1])


@pytest.mark.parametrize("jpm", [False, True])
def test_stochastic_depth_grows_linearly_from_zero(jpm):
    model = make_tiny("MODEL.DROP_PATH", 0.3, "MODEL.VIT.DEPTH", 4, "MODEL.JPM", jpm)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in model.base.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert [getattr(block.drop_path2, "drop_prob", 0.0) for block in model.base.blocks] == pytest.approx(rates)
    if jpm:
        assert model.b1[0].drop_path1.drop_prob == pytest.approx(0.3)
        assert model.b2[0].drop_path2.drop_prob == pytest.approx(0.3)


def test_dropout_rates_reach_the_jigsaw_blocks():
    model = make_tiny("MODEL.DROP_OUT", 0.25, "MODEL.ATT_DROP_RATE", 0.125, *JPM)
    assert model.base.pos_drop.p == 0.25
    for block in (*model.base.blocks, model.b1[0], model.b2[0]):
        assert (block.attn.attn_drop.p, block.attn.proj_drop.p, block.mlp.drop1.p) == (0.125, 0.25, 0.25)


def test_cosine_heads_return_cosines_of_the_neck_feature():
    for kind in ("arcface", "cosface", "amsoftmax", "circle"):
        model = make_tiny("MODEL.ID_LOSS_TYPE", kind, *JPM)
        output = model(images(4))
        for branch, logits in enumerate(output.logits):
            head = model.get_submodule("classifier" + (f"_{branch}" if branch else ""))
            classes = head.W.t() if kind == "amsoftmax" else head.weight
            expected = torch.cosine_similarity(output.bnneck[branch][:, None], classes[None], dim=2)
            torch.testing.assert_close(logits, expected, **bounds(24))


def test_cosines_stay_float32_under_autocast():
    model = make_tiny("MODEL.ID_LOSS_TYPE", "arcface")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(images(4))
    assert output.logits[0].dtype == torch.float32


def test_labels_are_ignored_without_side_information():
    model = make_tiny().eval()
    labels = torch.tensor([900, 1, 2])
    assert torch.equal(model(images(), cam_label=labels, view_label=labels), model(images()))


def test_images_of_another_size_are_refused():
    with pytest.raises(DataError, match=r"24 x 32 pixels, but the model was built for 32 x 24 \(INPUT.SIZE_TRAIN\)"):
        make_tiny()(images(2, (24, 32)))


@pytest.mark.parametrize(("name", "size", "patch"), [("test_vit", 160, 16), ("vit_tiny_patch16_224", 224, 16)])
def test_plain_timm_vit_gives_timms_own_class_token(name, size, patch):
    opts = ("INPUT.SIZE_TRAIN", [size, size], "MODEL.STRIDE_SIZE", [patch, patch], "TEST.NECK_FEAT", "before")
    model = make_model(make_cfg("MODEL.TRANSFORMER_TYPE", f"timm/{name}", *opts), 5, 0, 0).eval()
    theirs = timm.create_model(name, num_classes=0).eval()
    shared = {key: value for key, value in model.base.state_dict().items() if not key.startswith("fc.")}
    theirs.load_state_dict(shared)
    batch = images(2, (size, size))
    with torch.no_grad():
        torch.testing.assert_close(model(batch), theirs.forward_features(batch)[:, 0], **bounds(TERMS))


def test_norm_before_the_blocks_of_a_clip_vit_is_used():
    name = "vit_xsmall_patch16_clip_224"
    opts = ("MODEL.TRANSFORMER_TYPE", f"timm/{name}", "INPUT.SIZE_TRAIN", [224, 224], "TEST.NECK_FEAT", "before")
    opts = (*opts, "MODEL.VIT.DEPTH", 2)
    model = make_model(make_cfg(*opts), 5, 0, 0).eval()
    theirs = timm.create_model(name, num_classes=0, depth=2).eval()
    shared = {key: value for key, value in model.base.state_dict().items() if not key.startswith("fc.")}
    assert "norm_pre.weight" in shared
    theirs.load_state_dict(shared)
    batch = images(1, (224, 224))
    with torch.no_grad():
        torch.testing.assert_close(model(batch), theirs.forward_features(batch)[:, 0], **bounds(TERMS))


def test_timm_vit_takes_stride_side_information_and_jigsaw():
    opts = ("MODEL.TRANSFORMER_TYPE", "timm/test_vit", "MODEL.STRIDE_SIZE", [12, 12], "INPUT.SIZE_TRAIN", [64, 40])
    model = make_model(make_cfg(*opts, *JPM, "MODEL.SIE_CAMERA", True), 5, 3, 0).eval()
    assert model.base.grid == (5, 3)
    assert model(images(2, (64, 40)), cam_label=torch.tensor([0, 2])).shape == (2, 5 * model.feat_dim)


def test_bad_choices_are_refused_with_the_allowed_values():
    for key, value, words in (
        ("MODEL.NAME", "resnet51", "allowed: transformer, resnet50"),
        ("MODEL.ID_LOSS_TYPE", "sphere", "allowed: softmax, arcface"),
        ("TEST.NECK_FEAT", "behind", "allowed: before, after"),
        ("MODEL.PRETRAIN_CHOICE", "magic", "allowed: none, imagenet"),
        ("MODEL.DEVIDE_LENGTH", 13, "12 patches cannot be divided into 13"),
    ):
        with pytest.raises(ConfigError, match=words):
            make_tiny(*JPM, key, value)
