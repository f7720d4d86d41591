"""What load_param accepts, what it refuses, and what it says."""

import logging

import pytest
import torch

from model import make_model
from tests.model.builds import TINY_VIT, images, make_cfg, make_tiny, save
from tests.model.refusal import refuse
from utils.errors import ConfigError

JPM = ("MODEL.JPM", True)
CAMERA = ("MODEL.SIE_CAMERA", True)
BEFORE = ("TEST.NECK_FEAT", "before")


@pytest.mark.parametrize("opts", [(), BEFORE, JPM, (*JPM, *CAMERA), ("MODEL.ID_LOSS_TYPE", "amsoftmax", *JPM)])
def test_checkpoint_survives_the_round_trip(opts, tmp_path):
    trained, fresh = make_tiny(*opts, cameras=4, seed=1), make_tiny(*opts, cameras=4, seed=2)
    trained(images(4))  # moves the running statistics
    report = fresh.load_param(save(trained.state_dict(), tmp_path))
    assert len(report.matched) == len(trained.state_dict())
    assert not (report.missing or report.surplus or report.resized or report.misshaped or report.warnings)
    labels = torch.tensor([0, 1, 3])
    assert torch.equal(trained.eval()(images(), cam_label=labels), fresh.eval()(images(), cam_label=labels))


def test_wrappers_and_prefixes_of_a_file_are_removed(tmp_path):
    trained, fresh = make_tiny(seed=1), make_tiny(seed=2)
    state = {"state_dict": {f"module.{name}": value for name, value in trained.state_dict().items()}, "epoch": 3}
    fresh.load_param(save(state, tmp_path))
    assert torch.equal(trained.eval()(images()), fresh.eval()(images()))


def test_report_is_logged(tmp_path, caplog):
    model = make_tiny()
    with caplog.at_level(logging.INFO):
        model.load_param(save(model.state_dict(), tmp_path))
    assert f"{len(model.state_dict())} weights matched" in caplog.text


def test_classifier_of_other_classes_is_reported_and_left_out(tmp_path):
    trained, other = make_tiny(*JPM, classes=9, seed=1), make_tiny(*JPM, classes=5, seed=2)
    report = other.load_param(save(trained.state_dict(), tmp_path))
    assert set(report.misshaped) == {f"classifier{suffix}.weight" for suffix in ("", "_1", "_2", "_3", "_4")}
    assert "classifier.weight [9, 24] for [5, 24]" in str(report)
    assert torch.equal(trained.eval()(images()), other.eval()(images()))


@pytest.mark.parametrize("prefix", ["classifier", "base.fc.", "bottleneck.num_batches_tracked"])
def test_weights_that_no_embedding_needs_may_be_absent(prefix, tmp_path):
    trained, fresh = make_tiny(*JPM, seed=1), make_tiny(*JPM, seed=2)
    state = {name: value for name, value in trained.state_dict().items() if not name.startswith(prefix)}
    report = fresh.load_param(save(state, tmp_path))
    assert set(report.missing) == set(trained.state_dict()) - set(state) != set()
    assert torch.equal(trained.eval()(images()), fresh.eval()(images()))


def test_dead_weights_of_the_jigsaw_module_may_be_absent(tmp_path):
    trained, fresh = make_tiny(*JPM, seed=1), make_tiny(*JPM, seed=2)
    dead = ("base.blocks.2.", "base.norm.", "base.fc.")
    state = {name: value for name, value in trained.state_dict().items() if not name.startswith(dead)}
    fresh.load_param(save(state, tmp_path))
    assert torch.equal(trained.eval()(images()), fresh.eval()(images()))


def test_necks_may_be_absent_when_the_feature_before_them_is_used(tmp_path):
    trained, fresh = make_tiny(*JPM, *BEFORE, seed=1), make_tiny(*JPM, *BEFORE, seed=2)
    state = {name: value for name, value in trained.state_dict().items() if not name.startswith("bottleneck")}
    report = fresh.load_param(save(state, tmp_path))
    assert "MODEL.DEVIDE_LENGTH 4" in report.warnings[0]
    assert torch.equal(trained.eval()(images()), fresh.eval()(images()))


@pytest.mark.parametrize(
    ("opts", "name", "key"),
    [
        ((), "base.cls_token", "MODEL.TRANSFORMER_TYPE"),
        ((), "base.pos_embed", "MODEL.VIT.EMBED_DIM"),
        ((), "base.patch_embed.proj.weight", "MODEL.VIT.PATCH_SIZE"),
        ((), "base.blocks.2.attn.qkv.weight", "MODEL.VIT"),
        (JPM, "base.blocks.1.mlp.fc2.bias", "DEPTH"),
        ((), "base.norm.bias", "MODEL.TRANSFORMER_TYPE"),
        (JPM, "b1.0.norm1.weight", "MODEL.JPM"),
        (JPM, "b2.1.weight", "MODEL.JPM"),
        (CAMERA, "base.sie_embed", "MODEL.SIE_CAMERA"),
        ((), "bottleneck.running_mean", "TEST.NECK_FEAT after"),
        (JPM, "bottleneck_3.weight", "TEST.NECK_FEAT after"),
    ],
)
def test_absence_or_another_shape_of_what_the_embedding_needs_is_refused(opts, name, key, tmp_path):
    model = make_tiny(*opts, cameras=4)
    state = model.state_dict()
    ours = list(state[name].shape)
    absent = {key: value for key, value in state.items() if key != name}
    shown = name.replace(".", r"\.") + " " + str(ours).replace("[", r"\[").replace("]", r"\]")
    refuse(model, absent, tmp_path, rf"{shown} is not in the file; .*{key}")
    odd = {**state, name: torch.zeros(7, *ours[1:-1], 2)}
    refuse(model, odd, tmp_path, rf"{name} is \[7,.* in the file, but .* in this model; .*{key}")


def test_other_number_of_cameras_names_both_counts(tmp_path):
    trained = make_tiny(*CAMERA, "MODEL.SIE_VIEW", True, cameras=20, views=8)
    model = make_tiny(*CAMERA, cameras=6)
    words = r"base.sie_embed is \[160, 1, 24\] in the file, .*the data gives 6 cameras x 0 views \(MODEL.SIE_CAMERA"
    refuse(model, trained.state_dict(), tmp_path, words)


def test_side_information_that_is_off_here_is_a_warning(tmp_path, caplog):
    trained, model = make_tiny(*CAMERA, cameras=4), make_tiny()
    with caplog.at_level(logging.WARNING):
        report = model.load_param(save(trained.state_dict(), tmp_path))
    assert report.surplus == ("base.sie_embed",)
    assert "set MODEL.SIE_CAMERA / MODEL.SIE_VIEW as in its training" in caplog.text


def test_jigsaw_must_be_on_as_in_training(tmp_path):
    with_jpm, without = make_tiny(*JPM).state_dict(), make_tiny().state_dict()
    refuse(make_tiny(), with_jpm, tmp_path, "set MODEL.JPM True")
    refuse(make_tiny(*JPM), without, tmp_path, "b1.0.norm1.weight .* is not in the file; MODEL.JPM")


def test_deeper_checkpoint_is_refused(tmp_path):
    deeper = make_tiny("MODEL.VIT.DEPTH", 4).state_dict()
    refuse(make_tiny(), deeper, tmp_path, "base.blocks.3.norm1.weight is in the file.*MODEL.VIT.DEPTH")


def test_shallower_checkpoint_with_jigsaw_is_refused_though_only_its_untrained_block_would_tell(tmp_path):
    depth = len(make_tiny(*JPM).base.blocks)
    shallower = make_tiny(*JPM, "MODEL.VIT.DEPTH", depth - 1).state_dict()
    refuse(make_tiny(*JPM), shallower, tmp_path, "fewer blocks than this model; .*MODEL.VIT.DEPTH")


def test_checkpoint_with_jigsaw_may_lack_its_untrained_block_and_norm(tmp_path):
    trained, fresh = make_tiny(*JPM, seed=1), make_tiny(*JPM, seed=2)
    dead = (f"base.blocks.{len(trained.base.blocks) - 1}.", "base.norm.")
    fresh.load_param(save({k: v for k, v in trained.state_dict().items() if not k.startswith(dead)}, tmp_path))
    assert torch.equal(trained.eval()(images()), fresh.eval()(images()))


def test_wider_checkpoint_is_refused_with_both_shapes(tmp_path):
    wider = make_tiny("MODEL.VIT.EMBED_DIM", 32).state_dict()
    words = r"base.cls_token is \[1, 1, 32\] in the file, but \[1, 1, 24\] in this model; MODEL.TRANSFORMER_TYPE"
    refuse(make_tiny(), wider, tmp_path, words)
    narrower = make_tiny("MODEL.VIT.EMBED_DIM", 16, *BEFORE).state_dict()
    refuse(make_tiny(*BEFORE), narrower, tmp_path, r"base.cls_token is \[1, 1, 16\] in the file")


def test_position_embedding_of_another_grid_is_resized_and_said(tmp_path):
    trained = make_tiny()
    cfg = make_cfg(*TINY_VIT, "MODEL.STRIDE_SIZE", [4, 4])
    model = make_model(cfg, 5, 0, 0)
    report = model.load_param(save(trained.state_dict(), tmp_path))
    assert report.resized == ("base.pos_embed",)
    assert "1 resized (base.pos_embed)" in str(report) and "7 x 5" in report.warnings[0]
    source = trained.base.pos_embed[0, 1:].reshape(1, 4, 3, 24).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(source, (7, 5), mode="bilinear").permute(0, 2, 3, 1).reshape(35, 24)
    torch.testing.assert_close(model.base.pos_embed[0, 1:], expected)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("visual.conv1.weight", "visual.class_embedding"), "holds a CLIP model"),
        (("cls_token", "pos_embed", "blocks.0.norm1.weight"), "holds a plain ViT, .*PRETRAIN_CHOICE imagenet"),
        (("conv1.weight", "layer1.0.conv1.weight", "fc.weight"), "holds a plain ResNet"),
        (("base.conv1.weight", "bottleneck.weight", "classifier.weight"), "holds a ResNet ReID checkpoint"),
    ],
)
def test_file_of_another_kind_is_described(names, words, tmp_path):
    state = {name: torch.tensor(1) for name in names}
    refuse(make_tiny(), state, tmp_path, words)


def test_absent_file_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="TEST.WEIGHT: no file"):
        make_tiny().load_param(tmp_path / "nothing.pth")
