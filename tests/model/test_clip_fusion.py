"""The fusions: formulas against a slow reference, what a training step moves, and what is left when CLIP is ignored."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from losses import TripletLoss
from model.layers.fusion import FeatureEnhancement
from model.transreid import TransReID
from tests.model import clips
from tests.model.builds import images, make_tiny
from tests.model.clips import CALM, FROZEN, FUSED, HF_WIDTH, JPM, OPEN_CLIP_WIDTH, RANDOM, TRUNK_WIDTH, build
from tests.reference import slow_clip
from tests.tolerance import bounds
from utils.errors import ConfigError

GLOBAL_ONLY = ("MODEL.JPM", False)
TERMS = 1000  # numbers added up one after the other: about 300 in each of three blocks
ALL = (*FUSED, "concat", "hf concat")


def expected_branches(
    variant: str, model: nn.Module, own: list[torch.Tensor], clip: list[torch.Tensor]
) -> list[torch.Tensor]:
    state = {name: value.detach().double() for name, value in model.state_dict().items() if value.is_floating_point()}
    if variant == "minimal":
        return slow_clip.minimal(state, own, clip)
    if variant == "quickwin":
        return slow_clip.quickwin(state, own, clip)
    afem, refined = variant == "hf", variant != "hf without refine"
    return slow_clip.refine(state, own, clip, afem, refined, model.training)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("opts", [(), GLOBAL_ONLY])
@pytest.mark.parametrize("variant", FUSED)
@torch.no_grad()
def test_branches_are_those_of_the_formulas(variant, opts, training, sources):
    model = clips.redraw(build(sources, variant, *opts)).double()
    for layer in model.modules():  # of AFEM too
        if isinstance(layer, torch.nn.BatchNorm1d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    model.train(training)
    batch = images(4).double()
    own, clip = TransReID._branches(model, batch, None, None), model.clip_features(batch)
    expected = expected_branches(variant, copy.deepcopy(model), own, clip)
    fused = model._branches(batch, None, None)
    assert len(fused) == (1 if opts else 5)
    for ours, theirs in zip(fused, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("opts", [(), GLOBAL_ONLY])
@pytest.mark.parametrize("variant", ["concat", "hf concat"])
@torch.no_grad()
def test_concat_joins_the_unit_embeddings_at_test_only(variant, opts, sources):
    model = clips.redraw(build(sources, variant, *opts, "MODEL.CLIP_CONCAT_WEIGHT", 0.7)).double()
    batch = images(4).double()
    assert [tuple(logits.shape) for logits in model(batch).logits] == [(4, 5)] * (1 if opts else 5)
    model.eval()
    plain = TransReID._embedding(model, batch, None, None)
    torch.testing.assert_close(model(batch), slow_clip.concat(plain, model.clip_features(batch), 0.7))


def test_concat_does_not_run_the_tower_in_training(sources):
    model = build(sources, "concat")

    def fail(*args: object) -> None:
        raise AssertionError("the tower ran")

    model.clip_model.register_forward_pre_hook(fail)
    model(images(4))
    with pytest.raises(AssertionError, match="the tower ran"):
        model.eval()(images(4))


@pytest.mark.parametrize("variant", ALL)
def test_outputs_have_the_shapes_of_a_model_without_clip(variant, sources):
    model, plain = build(sources, variant), make_tiny(*JPM)
    ours, theirs = model(images(4)), plain(images(4))
    for field in ("logits", "pre_bn", "bnneck"):
        assert [x.shape for x in getattr(ours, field)] == [x.shape for x in getattr(theirs, field)]
    extra = {"concat": OPEN_CLIP_WIDTH, "hf concat": HF_WIDTH}.get(variant, 0)
    width = 5 * TRUNK_WIDTH + extra
    assert model.eval()(images()).shape == (3, width) and sum(model.branches.values()) == width


@pytest.mark.parametrize("neck_feat", ["before", "after"])
def test_neck_classifier_losses_and_embedding_all_see_the_fused_feature(neck_feat, sources):
    supcon = ("LOSS.SUPCON.ENABLE", True, "LOSS.SUPCON.FEAT_SRC", "pre_bn")
    model = build(sources, "minimal", *supcon, "TEST.NECK_FEAT", neck_feat)
    with torch.no_grad():
        model.fuse_proj_global_min.weight.zero_()
        model.fuse_proj_global_min.bias.copy_(torch.arange(TRUNK_WIDTH).float())
    output, constant = model(images(4)), torch.arange(TRUNK_WIDTH).float().expand(4, -1)
    assert torch.equal(output.pre_bn[0], constant)
    torch.testing.assert_close(output.projection, model.supcon_head(constant))
    torch.testing.assert_close(output.bnneck[0], torch.zeros(4, TRUNK_WIDTH), atol=1e-3, rtol=0)
    embedding = model.eval()(images(4))[:, :TRUNK_WIDTH]
    expected = constant if neck_feat == "before" else model.bottleneck(constant)
    torch.testing.assert_close(embedding, expected)


@pytest.mark.parametrize("opts", [(), FROZEN])
@pytest.mark.parametrize("variant", ALL)
def test_one_step_moves_what_is_trained_and_nothing_else(variant, opts, sources):
    still = {"hf without afem": ("afem.",), "hf without refine": ("afem.", "sem_refine_proj.")}.get(variant, ())
    if opts == FROZEN or variant not in FUSED:
        still += ("clip_model.",)
    model = build(sources, variant, *opts)
    weights = dict(model.named_parameters())
    of_clip = {name for name in weights if name.startswith(("clip_model.", "fuse_", "afem.", "sem_refine_proj."))}
    trained = {name for name, weight in weights.items() if weight.requires_grad}
    assert trained & of_clip == {name for name in of_clip if not name.startswith(still or ("nothing",))}
    before = copy.deepcopy(weights | dict(model.named_buffers()))
    optimizer = torch.optim.SGD([weights[name] for name in trained], lr=0.5, momentum=0.9)
    output, labels, metric = model(images(4)), torch.tensor([0, 0, 1, 1]), TripletLoss()
    identity = sum(F.cross_entropy(logits, labels) for logits in output.logits)
    (identity + sum(metric(feat, labels) for feat in output.pre_bn)).backward()
    assert {name for name, weight in weights.items() if weight.grad is not None} == trained
    optimizer.step()
    changed = {name for name, value in (weights | dict(model.named_buffers())).items() if not value.equal(before[name])}
    assert changed & set(weights) <= trained and "base.blocks.0.attn.qkv.weight" in changed
    assert not any(name.startswith(("to_clip.", *still)) for name in changed)
    assert any(name.startswith("clip_model.") for name in changed) == ("clip_model." not in still)
    assert ("afem.linear.1.running_mean" in changed) == (variant == "hf")


def test_buffers_of_a_frozen_tower_stay_too(tmp_path):
    resnet = clips.write_description(
        tmp_path / "resnet.json", layers=[1, 1, 1, 1], width=16, head_width=64, image_size=32, patch_size=None
    )
    opts = ("MODEL.USE_CLIP", True, "MODEL.CLIP_BACKBONE", resnet, "MODEL.CLIP_PRETRAIN", "", *FROZEN)
    model = make_tiny(*opts, "MODEL.CLIP_INPUT_SIZE", (32, 32))
    before = copy.deepcopy(model.clip_model.state_dict())
    assert any(name.endswith("running_mean") for name in before)
    model.train()(images(4)).pre_bn[0].sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in model.clip_model.state_dict().items())


@pytest.mark.parametrize("opts", [(), FROZEN])
def test_only_a_frozen_tower_stays_in_evaluation_mode(opts, sources):
    model = build(sources, "minimal", *opts)
    assert model.training and model.clip_model.training != bool(opts)
    for switch in (model, torch.nn.ModuleList([model])):
        switch.train()
        assert model.training and model.base.training
        assert all(module.training != bool(opts) for module in model.clip_model.modules())
    model.eval()
    assert not any(module.training for module in model.modules())


def ignore_clip(model: nn.Module) -> None:
    """Set the fusion to weights that leave CLIP out: projections [I | 0], gates 0, no refine branch."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.startswith(("fuse_proj", "fuse_fc")):
                weight.copy_(torch.eye(*weight.shape) if weight.dim() == 2 else torch.zeros_like(weight))
            elif name.startswith("sem_refine_proj"):
                weight.zero_()
            elif name.startswith("fuse_gate") and name.endswith("2.bias"):
                weight.fill_(-1e4)  # its sigmoid is 0


@pytest.mark.parametrize("opts", [(), GLOBAL_ONLY])
@pytest.mark.parametrize("variant", ["minimal", "hf", "hf without afem"])
def test_fusion_that_ignores_clip_is_the_model_without_it(variant, opts, sources):
    plain, model = make_tiny(*JPM, *CALM, *opts), build(sources, variant, *opts)
    ignore_clip(model)
    torch.testing.assert_close(model.eval()(images()), plain.eval()(images()), **bounds(TERMS))


def test_closed_gates_leave_the_layer_norms_of_the_own_features(sources):
    plain, model = make_tiny(*JPM, *CALM).eval(), build(sources, "quickwin").eval()
    ignore_clip(model)
    with torch.no_grad():
        clips.redraw(plain)  # other statistics than a layer norm gives
        model.load_state_dict(plain.state_dict(), strict=False)
        own = plain._branches(images(), None, None)
        fused = model._branches(images(), None, None)
    for ours, theirs in zip(fused, own, strict=True):
        torch.testing.assert_close(ours, F.layer_norm(theirs, (TRUNK_WIDTH,)), **bounds(TERMS))


def test_fresh_quickwin_with_closed_gates_is_the_model_without_clip(sources):
    """A fresh trunk ends in a layer norm of scale 1; a second one changes no more than the first one's epsilon did."""
    plain, model = make_tiny(*JPM, *CALM), build(sources, "quickwin")
    ignore_clip(model)
    torch.testing.assert_close(model.eval()(images()), plain.eval()(images()), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("variant", ALL)
def test_a_seed_gives_trunk_and_heads_the_first_weights_of_a_model_without_clip(variant, sources):
    opts = ("LOSS.SUPCON.ENABLE", True)
    plain, model = make_tiny(*JPM, *opts, seed=5).state_dict(), build(sources, variant, *opts, seed=5).state_dict()
    assert all(torch.equal(value, model[name]) for name, value in plain.items())


def test_a_seed_gives_the_same_random_tower_and_fusion(sources):
    first, again, other = (build(sources, "minimal", *RANDOM, seed=seed).state_dict() for seed in (3, 3, 4))
    drawn = "clip_model.visual.conv1.weight", "fuse_proj_global_min.weight"
    assert all(torch.equal(first[name], again[name]) and not torch.equal(first[name], other[name]) for name in drawn)


def test_enhancement_needs_a_width_of_32_groups(sources, tmp_path):
    assert FeatureEnhancement(64).group_weight.shape == (32,)
    folder = str(clips.write_hf(tmp_path / "odd", hidden_size=48))
    with pytest.raises(ConfigError, match=r"MODEL.CLIP_USE_AFEM True: .*width 48 do not divide into 32 groups"):
        build(sources, "hf", "MODEL.CLIP_LOCAL_PATH", folder)
    model = build(sources, "hf", "MODEL.CLIP_LOCAL_PATH", folder, "MODEL.CLIP_USE_AFEM", False)
    assert model(images(4)).pre_bn[0].shape == (4, TRUNK_WIDTH)


def test_first_group_weights_are_standard_normal():
    torch.manual_seed(0)
    drawn = torch.cat([FeatureEnhancement(32).group_weight.detach() for _ in range(60)])
    assert abs(drawn.mean()) < 0.07 and abs(drawn.std() - 1) < 0.05


def test_fusion_of_another_library_is_refused(sources):
    with pytest.raises(ConfigError, match="MODEL.CLIP_FUSION got 'quickwin' with CLIP_IMPL 'hf'"):
        build(sources, "hf", "MODEL.CLIP_FUSION", "quickwin")
