"""First weights: ImageNet files, the hub, other ReID checkpoints."""

import logging

import pytest
import timm
import torch
from torch import nn

from model import make_model
from model.weights.convert import resize_pos_embed
from tests.model.builds import TINY_VIT, images, make_cfg, make_tiny, save
from utils.errors import ConfigError, DataError

JPM = ("MODEL.JPM", True)


def make_pretrained(choice: str, path: str, *opts: object, classes: int = 5, cameras: int = 0) -> nn.Module:
    cfg = make_cfg(*TINY_VIT, "MODEL.PRETRAIN_CHOICE", choice, "MODEL.PRETRAIN_PATH", path, *opts)
    return make_model(cfg, classes, cameras, 0)


def imagenet_state(distilled: bool = False, seed: int = 3) -> dict[str, torch.Tensor]:
    """Return a tiny ViT's weights as an ImageNet file has them: square grid, classifier, no `base.`."""
    trunk = make_tiny(seed=seed).base.state_dict()
    state = {name: value for name, value in trunk.items() if not name.startswith("fc.")}
    state["pos_embed"] = torch.randn(1, 1 + distilled + 25, 24)
    state["head.weight"] = torch.randn(1000, 24)
    if distilled:
        state["dist_token"] = torch.randn(1, 1, 24)
        state["head_dist.weight"] = torch.randn(1000, 24)
    return state


@pytest.mark.parametrize("distilled", [False, True])
def test_imagenet_file_fills_the_trunk(distilled, tmp_path):
    state = imagenet_state(distilled)
    model = make_pretrained("imagenet", save({"model": state}, tmp_path))
    ours = model.base.state_dict()
    slots = [0, *range(2, 27)] if distilled else [*range(26)]
    torch.testing.assert_close(ours["pos_embed"], resize_pos_embed(state["pos_embed"][:, slots], (4, 3), (5, 5)))
    for name in ours:
        if not name.startswith(("fc.", "pos_embed")):
            assert torch.equal(ours[name], state[name]), name


def test_jigsaw_blocks_are_copies_of_the_pretrained_block(tmp_path):
    state = imagenet_state()
    model = make_pretrained("imagenet", save(state, tmp_path), *JPM)
    for branch in (model.b1, model.b2):
        assert torch.equal(branch[0].attn.qkv.weight, state["blocks.2.attn.qkv.weight"])
        assert torch.equal(branch[1].weight, state["norm.weight"])
        assert branch[0].attn.qkv.weight.requires_grad
    assert model.b1[0].attn.qkv.weight is not model.b2[0].attn.qkv.weight


def test_side_information_starts_fresh_with_imagenet_weights(tmp_path):
    model = make_pretrained("imagenet", save(imagenet_state(), tmp_path), "MODEL.SIE_CAMERA", True, cameras=4)
    assert model.base.sie_embed.std().item() == pytest.approx(0.02, rel=0.4)


def test_patch_projection_stored_as_a_matrix_is_reshaped(tmp_path):
    state = imagenet_state()
    expected = state["patch_embed.proj.weight"]
    state["patch_embed.proj.weight"] = expected.flatten(1)
    model = make_pretrained("imagenet", save(state, tmp_path))
    assert torch.equal(model.base.patch_embed.proj.weight, expected)


def test_imagenet_file_that_lacks_a_block_is_refused(tmp_path):
    path = save(imagenet_state(), tmp_path)
    with pytest.raises(DataError, match=r"PRETRAIN_PATH .*blocks.3.norm1.weight \[24\] is not in the file; .*DEPTH"):
        make_pretrained("imagenet", path, "MODEL.VIT.DEPTH", 4)


def test_imagenet_file_with_more_blocks_is_used_with_a_warning(tmp_path, caplog):
    path = save(imagenet_state(), tmp_path)
    with caplog.at_level(logging.WARNING):
        make_pretrained("imagenet", path, "MODEL.VIT.DEPTH", 2)
    assert "more blocks" in caplog.text and "blocks.2.norm1.weight" in caplog.text


def test_reid_checkpoint_as_imagenet_file_points_to_the_right_choice(tmp_path):
    path = save(make_tiny().state_dict(), tmp_path)
    with pytest.raises(DataError, match="holds a TransReID checkpoint, which .* self or finetune"):
        make_pretrained("imagenet", path)


def test_resnet_file_fills_the_trunk(tmp_path):
    from torchvision.models import resnet50

    theirs = resnet50(weights=None).state_dict()
    cfg = make_cfg(
        *("MODEL.NAME", "resnet50", "MODEL.PRETRAIN_CHOICE", "imagenet"),
        *("MODEL.PRETRAIN_PATH", save(theirs, tmp_path)),
    )
    ours = make_model(cfg, 5, 0, 0).base.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items() if not name.startswith("fc."))
    with pytest.raises(DataError, match="holds a plain ResNet"):
        make_pretrained("imagenet", cfg.MODEL.PRETRAIN_PATH)


def test_self_takes_the_trunk_and_leaves_the_heads(tmp_path):
    trained = make_tiny(*JPM, seed=5)
    with torch.no_grad():
        trained.bottleneck.weight.fill_(3.0)
        trained.b2[1].weight.fill_(2.0)
    model = make_pretrained("self", save(trained.state_dict(), tmp_path), *JPM, "MODEL.DROP_PATH", 0.0)
    assert torch.equal(model.b1[0].mlp.fc1.weight, trained.b1[0].mlp.fc1.weight)
    assert torch.equal(model.b2[1].weight, trained.b2[1].weight)
    assert not torch.equal(model.classifier.weight, trained.classifier.weight)
    assert torch.equal(model.bottleneck.weight, torch.ones(24))


def test_self_takes_a_trunk_without_prefix(tmp_path):
    trained = make_tiny(seed=5).base
    model = make_pretrained("self", save(trained.state_dict(), tmp_path))
    assert torch.equal(model.base.blocks[2].mlp.fc1.weight, trained.blocks[2].mlp.fc1.weight)


def test_trunk_of_a_jigsaw_checkpoint_gives_its_global_branch(tmp_path):
    trained = make_tiny(*JPM, "TEST.NECK_FEAT", "before", seed=5).eval()
    with torch.no_grad():
        for weight in trained.b1.parameters():
            weight.mul_(1.5)
    model = make_pretrained("self", save(trained.state_dict(), tmp_path), "TEST.NECK_FEAT", "before").eval()
    torch.testing.assert_close(model(images()), trained(images())[:, :24])


def test_finetune_takes_everything_but_a_classifier_of_other_classes(tmp_path, caplog):
    trained = make_tiny(*JPM, "MODEL.SIE_CAMERA", True, classes=9, cameras=6, seed=5)
    trained(images(4))
    path = save(trained.state_dict(), tmp_path)
    with caplog.at_level(logging.WARNING):
        model = make_pretrained("finetune", path, *JPM, "MODEL.SIE_CAMERA", True, cameras=4)
    theirs, ours = trained.state_dict(), model.state_dict()
    kept = {name for name in ours if torch.equal(ours[name].flatten()[:5], theirs[name].flatten()[:5])}
    changed = {name for name in ours if ours[name].shape != theirs[name].shape}
    assert changed == {"base.sie_embed", *(f"classifier{suffix}.weight" for suffix in ("", "_1", "_2", "_3", "_4"))}
    fresh = {name for name in ours if name not in kept}
    # fc and the replaced block are not read by anything
    dead = {name for name in ours if name.startswith(("base.fc.", "base.blocks.2.", "base.norm."))}
    assert fresh - dead == changed
    assert "classifier.weight [9, 24] for [5, 24]" in caplog.text and "sie_embed [6, 1, 24]" in caplog.text


def test_finetune_keeps_a_classifier_of_the_same_classes(tmp_path):
    trained = make_tiny(seed=5)
    model = make_pretrained("finetune", save(trained.state_dict(), tmp_path))
    assert torch.equal(model.classifier.weight, trained.classifier.weight)
    assert torch.equal(model.eval()(images()), trained.eval()(images()))


@pytest.mark.parametrize("choice", ["self", "finetune"])
def test_checkpoint_choices_need_a_path(choice):
    with pytest.raises(
        ConfigError, match=f"PRETRAIN_CHOICE {choice} needs the checkpoint's path in MODEL.PRETRAIN_PATH"
    ):
        make_pretrained(choice, "")


@pytest.mark.parametrize("choice", ["none", "resume"])
def test_choices_without_first_weights_read_no_file(choice):
    make_pretrained(choice, "/nowhere/at/all.pth")


def test_pretraining_can_be_left_out():
    cfg = make_cfg(*TINY_VIT, "MODEL.PRETRAIN_CHOICE", "imagenet", "MODEL.PRETRAIN_PATH", "/nowhere/at/all.pth")
    make_model(cfg, 5, 0, 0, pretrained=False)
    with pytest.raises(ConfigError, match="MODEL.PRETRAIN_PATH: no file"):
        make_model(cfg, 5, 0, 0)


def test_no_network_and_no_file_names_both_ways_out(monkeypatch):
    def offline(*args: object, **kwargs: object) -> None:
        raise FileNotFoundError("An error happened while trying to locate the file on the Hub.\nmore")

    monkeypatch.setattr(timm, "create_model", offline)
    cfg = make_cfg("MODEL.PRETRAIN_CHOICE", "imagenet")
    with pytest.raises(ConfigError) as caught:
        make_model(cfg, 5, 0, 0)
    text = str(caught.value)
    assert "\n" not in text and "vit_base_patch16_224.orig_in21k_ft_in1k could not be fetched" in text
    for words in ("set MODEL.PRETRAIN_PATH", "connect to the network", "MODEL.PRETRAIN_CHOICE none"):
        assert words in text


@pytest.mark.parametrize(
    ("kind", "source", "name"),
    [
        (
            "deit_tiny_patch16_224_TransReID",
            "deit_tiny_distilled_patch16_224",
            "deit_tiny_distilled_patch16_224.fb_in1k",
        ),
        ("timm/test_vit", "test_vit", "test_vit"),
    ],
)
def test_published_weights_go_through_the_same_conversion(kind, source, name, monkeypatch):
    create = timm.create_model
    theirs = create(source, num_classes=0)
    asked = []

    def fake(wanted: str, pretrained: bool = False, **kwargs: object) -> nn.Module:
        if pretrained:
            asked.append(wanted)
            return theirs
        return create(wanted, **kwargs)

    monkeypatch.setattr(timm, "create_model", fake)
    cfg = make_cfg("MODEL.TRANSFORMER_TYPE", kind, "MODEL.PRETRAIN_CHOICE", "imagenet", "MODEL.STRIDE_SIZE", [12, 12])
    model = make_model(cfg, 5, 0, 0)
    assert asked == [name]
    state = theirs.state_dict()
    assert torch.equal(model.base.blocks[1].mlp.fc2.weight, state["blocks.1.mlp.fc2.weight"])
    keep = state["pos_embed"]
    if "dist_token" in state:
        keep = torch.cat([keep[:, :1], keep[:, 2:]], dim=1)
    expected = resize_pos_embed(keep, (21, 10))  # as TransReID; timm's own trunks are resized as timm does it
    if kind.startswith("timm/"):
        expected = timm.layers.resample_abs_pos_embed(keep, [21, 10])
    torch.testing.assert_close(model.base.pos_embed, expected)
