"""Trunks of timm: equal to timm when nothing is asked of them, and with stride, size, SIE and JPM."""

import logging
import math

import pytest
import torch
from timm.layers import resample_abs_pos_embed

from model import make_model
from model.backbones.timm_trunks import _obstacle
from tests.model.builds import images, make_outline, save
from tests.model.trunks import KINDS, SIZES, as_clip, as_dinov2, as_dinov3, kind_cfg, make_timm
from tests.tolerance import bounds
from utils.errors import ConfigError, DataError

JPM = ("MODEL.JPM", True, "MODEL.DEVIDE_LENGTH", 3, "MODEL.SHIFT_NUM", 2)
TERMS = 2000  # numbers added up one after the other: 768 pixels, up to 600 numbers in each of two blocks


def build(kind: str, *opts: object, cameras: int = 0, **grid: int) -> torch.nn.Module:
    torch.manual_seed(0)
    return make_model(kind_cfg(kind, *opts, **grid), 5, cameras, 0).eval()


def with_weights_of(theirs: torch.nn.Module, kind: str, *opts: object, **grid: int) -> torch.nn.Module:
    """Return our model of a kind with timm's weights in its trunk, loaded strictly: all names are timm's."""
    model = build(kind, *opts, **grid)
    model.base.load_state_dict(theirs.state_dict())
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_trunk_gives_timms_own_tokens_and_feature(kind):
    theirs = make_timm(kind)
    model = with_weights_of(theirs, kind)
    batch = images(2, model.base.image_size)
    with torch.no_grad():
        expected = theirs.forward_features(batch)
        torch.testing.assert_close(theirs.norm(model.base.forward_tokens(batch)), expected, **bounds(TERMS))
        pooled = expected[:, 0] if KINDS[kind].pooling == "token" else theirs.forward_head(expected, pre_logits=True)
        torch.testing.assert_close(model(batch), pooled, **bounds(TERMS))
    assert expected.shape == (2, KINDS[kind].prefix + 12, 48)


@pytest.mark.parametrize("kind", KINDS)
def test_trunk_takes_stride_size_side_information_and_jigsaw(kind):
    patch = KINDS[kind].patch
    stride = ("MODEL.STRIDE_SIZE", [patch - 4, patch - 2], "MODEL.SIE_CAMERA", True)
    model = build(kind, *JPM, *stride, cameras=3, rows=5, columns=3).train()
    grid = (4 * patch // (patch - 4) + 1, 2 * patch // (patch - 2) + 1)
    assert model.base.grid == grid
    labels = torch.tensor([0, 2, 1, 0])
    output = model(images(4, model.base.image_size), cam_label=labels)
    loss = sum(tensor.square().sum() for tensor in (*output.logits, *output.pre_bn))
    loss.backward()
    learns = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert learns == {name for name, weight in model.named_parameters() if weight.grad is not None}
    dead = {"base.blocks.1", *(f"base.{name}" for name in model.base.tail_names)}
    assert {name for name, _ in model.named_parameters()} - learns == {
        name for name, _ in model.named_parameters() if name.startswith(tuple(f"{part}." for part in dead))
    } | {f"bottleneck{suffix}.bias" for suffix in ("", "_1", "_2", "_3")}
    assert model.eval()(images(2, model.base.image_size), cam_label=labels[:2]).shape == (2, 4 * 48)


@pytest.mark.parametrize(
    "kind", ["vit", "dinov2_registers", "dinov3", "eva02", "gap_registers", "siglip", "rope_mixed"]
)
def test_local_branch_equals_the_whole_block_whose_attention_is_masked(kind):
    """Tokens of a part see each other only: as a mask on all tokens, every patch keeps its own position."""
    model = build(kind, *JPM).double()
    theirs = make_timm(kind).double()
    base, prefix = model.base, KINDS[kind].prefix
    model.b2[0].load_state_dict(theirs.blocks[-1].state_dict())
    batch = images(2, base.image_size).double()
    with torch.no_grad():
        tokens = base.forward_tokens(batch, skip_last=1)
        local = model._branches(batch, None, None)[1:]
        for part, feature in zip(model.local_tokens.tolist(), local, strict=True):
            assert part[:prefix] == [*range(prefix)] and len(part) == prefix + 4
            seen = torch.zeros(tokens.shape[1], dtype=torch.bool)
            seen[part] = True
            rotation = base.rotations()[1]
            extra = {} if rotation is None else {"rope": rotation}
            mixed = theirs.blocks[-1](tokens, attn_mask=seen.expand(len(seen), -1)[None, None], **extra)
            rows = mixed[:, part]
            _, norm, *attention = model.b2
            if KINDS[kind].pooling == "token":
                expected = norm(rows[:, 0])
            elif attention:
                expected = attention[0](norm(rows))
            else:
                expected = norm(rows[:, prefix:].mean(dim=1))
            torch.testing.assert_close(feature, expected)


def test_rotary_embedding_of_dinov3_follows_its_formula_on_any_grid():
    """Simeoni et al., DINOv3, 2025: angle 2 pi c / 100^(2j/d), c the patch's centre in [-1, 1] along each axis."""
    base = build("dinov3", "MODEL.STRIDE_SIZE", [12, 8], rows=5, columns=3).base
    rows, columns = base.grid
    head = SIZES["embed_dim"] // SIZES["num_heads"]
    periods = [100 ** (2 * j / (head / 2)) for j in range(head // 4)]
    angles = [
        [2 * math.pi * centre / period for centre in centres for period in periods]
        for row in range(rows)
        for column in range(columns)
        for centres in [((row + 0.5) / rows * 2 - 1, (column + 0.5) / columns * 2 - 1)]
    ]
    half = torch.tensor(angles)
    expected = torch.cat([half, half], dim=1)  # both halves of a head turn by the same angles
    torch.testing.assert_close(base.rotation, torch.cat([expected.sin(), expected.cos()], dim=1), **bounds(9))


@pytest.mark.parametrize(
    ("kind", "authors_names", "count"),
    [("dinov2_registers", as_dinov2, 37), ("dinov3", as_dinov3, 16), ("clip", as_clip, 14)],
)
def test_file_of_the_authors_fills_the_trunk(kind, authors_names, count, tmp_path, capsys):
    theirs = make_timm(kind, rows=count, columns=count).state_dict()
    path = save(authors_names(theirs), tmp_path)
    ours = build(kind, "MODEL.PRETRAIN_CHOICE", "imagenet", "MODEL.PRETRAIN_PATH", path).base.state_dict()
    if "pos_embed" in theirs:
        prefix = theirs["pos_embed"].shape[1] - count**2
        theirs["pos_embed"] = resample_abs_pos_embed(theirs["pos_embed"], [4, 3], num_prefix_tokens=prefix)
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, msg=name)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("kind", ["vit", "deit3", "siglip", "dinov2_registers", "eva02"])
def test_another_size_gives_the_feature_that_timm_gives(kind, tmp_path):
    """timm takes its own positions to the new size, bicubic with antialiasing."""
    native = make_timm(kind, rows=9, columns=9)
    path = save(native.state_dict(), tmp_path)
    model = build(kind, "MODEL.PRETRAIN_CHOICE", "imagenet", "MODEL.PRETRAIN_PATH", path)
    native.set_input_size(model.base.image_size)
    batch = images(2, model.base.image_size)
    with torch.no_grad():
        expected = native.forward_features(batch)
        torch.testing.assert_close(native.norm(model.base.forward_tokens(batch)), expected, **bounds(TERMS))


@pytest.mark.parametrize("kind", KINDS)
def test_file_at_this_very_grid_loads_bit_by_bit(kind, tmp_path):
    """As pretraining on persons leaves it: not square, and the grid must not go through any other."""
    theirs = make_timm(kind).state_dict()
    path = save(theirs, tmp_path)
    ours = build(kind, "MODEL.PRETRAIN_CHOICE", "imagenet", "MODEL.PRETRAIN_PATH", path).base.state_dict()
    assert set(ours) == set(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_distilled_deit_loses_the_slot_of_its_second_token(tmp_path):
    theirs = make_timm("vit", rows=14, columns=14).state_dict()
    second = torch.randn(1, 1, 48)
    distilled = theirs | {
        "pos_embed": torch.cat([theirs["pos_embed"][:, :1], second, theirs["pos_embed"][:, 1:]], dim=1),
        "dist_token": second,
        "head_dist.weight": torch.randn(7, 48),
    }
    opts = ("MODEL.PRETRAIN_CHOICE", "imagenet", "MODEL.PRETRAIN_PATH")
    plain, ours = (
        build("vit", *opts, save(state, tmp_path, name)).base.state_dict()
        for state, name in ((theirs, "plain.pth"), (distilled, "distilled.pth"))
    )
    assert all(torch.equal(ours[name], plain[name]) for name in plain)


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [("siglip", "vit", "b1.2.* belongs to another trunk"), ("siglip", "eva02", "b1.2.* belongs to another trunk")],
)
def test_jigsaw_checkpoint_of_another_kind_of_trunk_is_refused(first, second, words, tmp_path):
    path = save(build(first, *JPM).state_dict(), tmp_path)
    with pytest.raises(DataError, match=words):
        build(second, "MODEL.PRETRAIN_CHOICE", "self", "MODEL.PRETRAIN_PATH", path)


def test_branches_without_blocks_are_refused(tmp_path):
    state = {name: value for name, value in build("vit", *JPM).state_dict().items() if ".blocks." not in name}
    with pytest.raises(DataError, match="b1.0.* belongs to another trunk"):
        build("vit", "MODEL.PRETRAIN_CHOICE", "self", "MODEL.PRETRAIN_PATH", save(state, tmp_path))


@pytest.mark.parametrize("kind", ["siglip", "eva02", "dinov3"])
def test_next_run_starts_from_the_trained_last_block_norm_and_pooling(kind, tmp_path):
    first = build(kind, *JPM)
    with torch.no_grad():
        for weight in first.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    path = save(first.state_dict(), tmp_path)
    second = build(kind, "MODEL.PRETRAIN_CHOICE", "self", "MODEL.PRETRAIN_PATH", path)
    batch = images(2, first.base.image_size)
    with torch.no_grad():
        torch.testing.assert_close(second(batch), first(batch)[:, :48], **bounds(TERMS))


@pytest.mark.parametrize("kind", ["dinov3", "siglip", "gap_registers"])
def test_checkpoint_comes_back_whole(kind, tmp_path):
    model = build(kind, *JPM, "MODEL.SIE_CAMERA", True, cameras=3)
    path = save(model.state_dict(), tmp_path)
    torch.manual_seed(9)
    other = make_model(kind_cfg(kind, *JPM, "MODEL.SIE_CAMERA", True), 5, 3, 0).eval()
    report = other.load_param(path)
    assert report.missing == report.surplus == ()
    batch, labels = images(2, model.base.image_size), torch.tensor([1, 2])
    with torch.no_grad():
        assert torch.equal(other(batch, cam_label=labels), model(batch, cam_label=labels))


@pytest.mark.parametrize("kind", ["vit", "dinov3", "eva02"])
def test_weights_that_are_not_finite_are_refused(kind, tmp_path):
    state = make_timm(kind).state_dict()
    state["blocks.1.norm1.weight"][3] = math.nan
    with pytest.raises(DataError, match="MODEL.PRETRAIN_PATH .*blocks.1.norm1.weight holds values that are not finite"):
        build(kind, "MODEL.PRETRAIN_CHOICE", "imagenet", "MODEL.PRETRAIN_PATH", save(state, tmp_path))


@pytest.mark.parametrize("shape", [(7,), (1, 0, 48), (1, 1, 48), (13, 48)])
def test_positions_of_an_odd_shape_are_a_clear_error(shape, tmp_path):
    path = save(make_timm("vit").state_dict() | {"pos_embed": torch.zeros(shape)}, tmp_path)
    with pytest.raises(DataError, match="pos_embed is .* in the file"):
        build("vit", "MODEL.PRETRAIN_CHOICE", "imagenet", "MODEL.PRETRAIN_PATH", path)


def test_heads_that_rotary_positions_cannot_turn_are_refused():
    with pytest.raises(ConfigError, match="MODEL.VIT.EMBED_DIM 90 with 3 heads .* width 30; .* multiple of 4"):
        build("dinov3", "MODEL.VIT.EMBED_DIM", 90, "MODEL.VIT.NUM_HEADS", 3)


def test_shift_beyond_the_patches_is_refused():
    with pytest.raises(ConfigError, match="MODEL.SHIFT_NUM 13 exceeds the 12 patches"):
        build("dinov3", *JPM, "MODEL.SHIFT_NUM", 13)


def test_missing_register_tokens_are_fatal(tmp_path):
    model = build("dinov3")
    state = model.state_dict()
    del state["base.reg_token"]
    with pytest.raises(DataError, match=r"base.reg_token \[1, 4, 48\] is not in the file; MODEL.TRANSFORMER_TYPE"):
        model.load_param(save(state, tmp_path))


def test_file_of_another_kind_of_trunk_is_refused(tmp_path):
    path = save(make_timm("eva02").state_dict(), tmp_path)
    with pytest.raises(DataError, match="MODEL.PRETRAIN_PATH .*MODEL.TRANSFORMER_TYPE"):
        build("dinov3", "MODEL.PRETRAIN_CHOICE", "imagenet", "MODEL.PRETRAIN_PATH", path)


def test_input_statistics_that_differ_from_the_weights_are_said(tmp_path, caplog):
    path = save(make_timm("clip", rows=14, columns=14).state_dict(), tmp_path)
    opts = ("MODEL.PRETRAIN_CHOICE", "imagenet", "MODEL.PRETRAIN_PATH", path)
    openai = {"MEAN": [0.48145466, 0.4578275, 0.40821073], "STD": [0.26862954, 0.26130258, 0.27577711]}
    with caplog.at_level(logging.WARNING):
        build("clip", *opts, "INPUT.PIXEL_MEAN", openai["MEAN"], "INPUT.PIXEL_STD", openai["STD"])
        assert "PIXEL_MEAN" not in caplog.text
        build("clip", *opts)
    assert "INPUT.PIXEL_MEAN [0.485, 0.456, 0.406]" in caplog.text and "0.48145466" in caplog.text


@pytest.mark.parametrize(
    ("name", "patch", "width", "million"),
    [
        ("vit_base_patch14_reg4_dinov2", 14, 768, 86.6),
        ("vit_base_patch16_dinov3", 16, 768, 85.6),
        ("eva02_base_patch14_224", 14, 768, 85.8),
        ("vit_base_patch16_siglip_256", 16, 768, 92.9),
        ("deit3_base_patch16_224", 16, 768, 85.8),
        ("vit_base_patch16_clip_224", 16, 768, 85.8),
        ("vit_large_patch16_dinov3", 16, 1024, 303.1),
    ],
)
def test_true_sizes_build_with_everything_on(name, patch, width, million):
    """The sizes are those of timm's model cards; ours differ by the positions of another grid."""
    size = [18 * patch, 9 * patch]
    opts = ("MODEL.TRANSFORMER_TYPE", f"timm/{name}", "MODEL.STRIDE_SIZE", [12, 12], "MODEL.JPM", True)
    sized = ("INPUT.SIZE_TRAIN", size, "INPUT.SIZE_TEST", size)
    model = make_outline(*opts, *sized, "MODEL.SIE_CAMERA", True, cameras=6)
    assert model.feat_dim == width and len(model.classifier_4.weight) == 751
    weights = sum(weight.numel() for key, weight in model.base.named_parameters() if "sie" not in key) / 1e6
    assert weights == pytest.approx(million, rel=0.02)


def test_sizes_that_timm_cannot_build_are_a_clear_error():
    odd = ("MODEL.VIT.EMBED_DIM", 30, "MODEL.VIT.NUM_HEADS", 3)  # a rotary head needs a multiple of 4
    with pytest.raises(ConfigError, match="timm cannot build eva02_tiny_patch14_224 with .*embed_dim 30.*leave MODEL"):
        make_outline("MODEL.TRANSFORMER_TYPE", "timm/eva02_tiny_patch14_224", *odd)


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_layers_do_not_learn_and_do_not_drop(kind):
    opts = ("MODEL.FREEZE_BLOCKS", 1, "MODEL.DROP_PATH", 0.3, "MODEL.DROP_OUT", 0.1, "MODEL.SIE_CAMERA", True)
    model = build(kind, *JPM, *opts, cameras=3).train()
    base = model.base
    assert not (base.pos_drop.training or base.blocks[0].training) and base.blocks[1].training and model.b1.training
    start = ("cls_token", "reg_token", "pos_embed", "patch_embed.", "norm_pre.", "rope.", "blocks.0.")
    dead = ("blocks.1.", *(f"{name}." for name in base.tail_names))  # JPM trains copies of them
    frozen = {name for name, weight in base.named_parameters() if not weight.requires_grad}
    assert frozen == {name for name, _ in base.named_parameters() if name.startswith((*start, *dead))}
    assert frozen == {name for name, _ in base.named_parameters()} - {"sie_embed"}
    output = model(images(4, base.image_size), cam_label=torch.tensor([0, 1, 2, 0]))
    sum(logits.square().sum() for logits in output.logits).backward()
    assert all(base.get_parameter(name).grad is None for name in frozen)
    assert base.sie_embed.grad is not None and all(weight.grad is not None for weight in model.b1.parameters())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda model: setattr(model, "fc_norm", torch.nn.LayerNorm(48)), "two norms behind its blocks"),
        (lambda model: setattr(model, "global_pool", "max"), "max pooling"),
        (lambda model: setattr(model, "patch_embed", torch.nn.Identity()), "another stem"),
        (lambda model: setattr(model.blocks[0], "mlp", torch.nn.Identity()), "an MLP of another kind"),
    ],
)
def test_what_a_future_timm_may_bring_is_refused_rather_than_left_out(change, words):
    model = make_timm("vit")
    assert _obstacle(model) == ""
    change(model)
    assert words in _obstacle(model)


@pytest.mark.parametrize(("opts", "most"), [((), 2), (JPM, 1), (("MODEL.LORA.RANK", 2), 1)])
def test_more_frozen_blocks_than_can_be_are_refused(opts, most):
    build("vit", *opts, "MODEL.FREEZE_BLOCKS", most)
    with pytest.raises(
        ConfigError, match=f"MODEL.FREEZE_BLOCKS got {most + 1}, allowed: 0 to {most} for timm/vit_tiny"
    ):
        build("vit", *opts, "MODEL.FREEZE_BLOCKS", most + 1)


@pytest.mark.parametrize("kind", ["vit", "dinov3", "eva02", "siglip"])
def test_adapters_alone_learn_beside_heads_necks_and_side_information(kind):
    opts = (*JPM, "MODEL.SIE_CAMERA", True)
    plain = build(kind, *opts, cameras=3)
    model = build(kind, *opts, "MODEL.LORA.RANK", 2, cameras=3)
    batch, labels = images(4, model.base.image_size), torch.tensor([0, 1, 2, 0])
    model.load_state_dict(plain.state_dict(), strict=False)
    with torch.no_grad():
        before, start = plain(batch, cam_label=labels), model(batch, cam_label=labels)
        torch.testing.assert_close(start, before, **bounds(TERMS))  # B = 0
    learns = {name for name, weight in model.named_parameters() if weight.requires_grad}
    others = {name for name in learns if ".lora_a" not in name and ".lora_b" not in name}
    heads = {f"{part}{suffix}.weight" for part in ("classifier", "bottleneck") for suffix in ("", "_1", "_2", "_3")}
    assert others == heads | {"base.sie_embed"}
    assert {name.split(".")[0] for name in learns - others} == {"base", "b1", "b2"}
    output = model.train()(batch, cam_label=labels)
    sum(logits.square().sum() for logits in output.logits).backward()
    assert {name for name, weight in model.named_parameters() if weight.grad is not None} == learns


def test_first_frozen_blocks_get_no_adapters():
    model = build("vit", "MODEL.LORA.RANK", 2, "MODEL.FREEZE_BLOCKS", 1)
    assert {name.split(".")[2] for name in model.state_dict() if "lora" in name} == {"1"}


@pytest.mark.parametrize("kind", ["vit", "eva02"])
def test_adapted_checkpoint_gives_the_same_embedding_without_adapters(kind, tmp_path):
    model = build(kind, *JPM, "MODEL.LORA.RANK", 2)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora" in name:
                weight.add_(0.2 * torch.randn_like(weight))
    path = save(model.state_dict(), tmp_path)
    plain = build(kind, *JPM)
    report = plain.load_param(path)
    assert report.missing == report.surplus == ()
    batch = images(2, model.base.image_size)
    with torch.no_grad():
        torch.testing.assert_close(plain(batch), model(batch), **bounds(TERMS))
    again = build(kind, "MODEL.PRETRAIN_CHOICE", "self", "MODEL.PRETRAIN_PATH", path, "MODEL.LORA.RANK", 3)
    with torch.no_grad():
        torch.testing.assert_close(again(batch), model(batch)[:, :48], **bounds(TERMS))


def test_adapters_of_another_rank_are_fatal(tmp_path):
    path = save(build("vit", "MODEL.LORA.RANK", 2).state_dict(), tmp_path)
    with pytest.raises(DataError, match=r"lora_a is \[2, 48\] in the file, but \[3, 48\].*MODEL.LORA"):
        build("vit", "MODEL.LORA.RANK", 3).load_param(path)


def test_adapters_of_other_layers_are_fatal(tmp_path):
    path = save(build("vit", "MODEL.LORA.RANK", 2).state_dict(), tmp_path)
    other = build("vit", "MODEL.LORA.RANK", 2, "MODEL.LORA.TARGETS", ("attn.qkv",))
    with pytest.raises(DataError, match=r"attn.proj.lora_a is in the file, but not in this model; set MODEL.LORA.TARG"):
        other.load_param(path)


def test_unknown_target_of_adapters_names_what_there_is():
    with pytest.raises(ConfigError, match="MODEL.LORA.TARGETS got 'attn.qvk'.*did you mean attn.qkv"):
        build("vit", "MODEL.LORA.RANK", 2, "MODEL.LORA.TARGETS", ("attn.qvk",))
