"""Names of transformers: what is accepted and what is said otherwise."""

import pytest
import timm
import torch
from torch import nn

from configs.rules.model import TRANSFORMER_TYPES
from model.backbones.vit_types import VIT_TYPES, Dropping, build_trunk, published_weights
from tests.model.builds import make_outline
from utils.errors import ConfigError


def outline(kind: str, **overrides: object) -> nn.Module:
    with torch.device("meta"):
        return build_trunk(kind, overrides, Dropping())


def test_types_are_those_that_the_configuration_allows():
    assert set(VIT_TYPES) == set(TRANSFORMER_TYPES)


@pytest.mark.parametrize("kind", ["vit_tiny_patch16_224_TransReID", "deit_tiny_patch16_224_TransReID"])
def test_tiny_types_are_192_wide(kind):
    trunk = outline(kind)
    assert (trunk.embed_dim, len(trunk.blocks), trunk.blocks[0].attn.num_heads) == (192, 12, 3)


def test_overrides_win_over_the_type():
    trunk = outline("vit_base_patch16_224_TransReID", embed_dim=64, depth=5, num_heads=4, mlp_ratio=2.0, patch_size=8)
    block = trunk.blocks[0]
    assert (trunk.embed_dim, len(trunk.blocks), block.attn.num_heads, block.mlp.fc1.out_features) == (64, 5, 4, 128)
    assert trunk.patch_embed.proj.kernel_size == (8, 8)


def test_overrides_apply_to_timm_models_too():
    trunk = outline("timm/vit_tiny_patch16_224", depth=3, patch_size=8, mlp_ratio=2.0, num_heads=6)
    assert len(trunk.blocks) == 3 and trunk.patch_embed.proj.kernel_size == (8, 8)
    assert trunk.blocks[0].mlp.fc1.out_features == 384 and trunk.blocks[0].attn.num_heads == 6


def test_width_that_the_heads_do_not_divide_is_refused():
    with pytest.raises(ConfigError, match="12 heads do not divide the width 100"):
        outline("vit_base_patch16_224_TransReID", embed_dim=100)


def test_unknown_type_suggests_the_nearest():
    with pytest.raises(ConfigError, match="did you mean vit_base_patch16_224_TransReID"):
        outline("vit_base_patch16_224_TransReid")


def test_unknown_timm_model_suggests_the_nearest():
    with pytest.raises(ConfigError, match="timm has no model 'vit_bse_patch16_224'; did you mean vit_base_patch16_224"):
        outline("timm/vit_bse_patch16_224")


def test_unknown_timm_weights_list_the_published():
    with pytest.raises(ConfigError, match="no weights 'mea'; published: .*vit_base_patch16_224.mae"):
        outline("timm/vit_base_patch16_224.mea")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("vit_small_patch16_18x2_224", "blocks of another kind"),
        ("deit_tiny_distilled_patch16_224", "another architecture"),
        ("beit_base_patch16_224", "another architecture"),
        ("vit_base_r50_s16_224", "another architecture"),
        ("swin_tiny_patch4_window7_224", "another architecture"),
        ("resnet18", "another architecture"),
    ],
)
def test_timm_model_that_cannot_be_a_trunk_is_refused(name, words):
    with pytest.raises(ConfigError, match=f"timm/{name} has {words}.*e.g. vit_base_patch16_224"):
        outline(f"timm/{name}")


@pytest.mark.parametrize(
    "name", ["vit_base_patch14_dinov2", "vit_base_patch16_clip_224.openai", "deit_base_patch16_224"]
)
def test_plain_timm_vits_are_accepted(name):
    opts = ("MODEL.TRANSFORMER_TYPE", f"timm/{name}", "MODEL.STRIDE_SIZE", [12, 12], "MODEL.JPM", True)
    assert make_outline(*opts, "INPUT.SIZE_TRAIN", [224, 112]).feat_dim == 768


def test_every_type_has_published_weights_that_timm_knows_except_vit_small():
    for kind in VIT_TYPES:
        if kind.startswith("vit_small"):
            with pytest.raises(ConfigError, match="vit_small_p16_224-15ec54c9.pth"):
                published_weights(kind, {})
        else:
            name = published_weights(kind, {})
            assert name in timm.list_pretrained(name)


def test_another_architecture_has_no_published_weights():
    with pytest.raises(ConfigError, match="no published weights fit .* another MODEL.VIT.DEPTH"):
        published_weights("vit_base_patch16_224_TransReID", {"depth": 6})
    assert published_weights("vit_base_patch16_224_TransReID", {"depth": 12, "embed_dim": 0}).startswith("vit_base")


def test_timm_model_without_published_weights_says_so():
    with pytest.raises(ConfigError, match="timm publishes no weights for vit_base_patch32_plus_256"):
        published_weights("timm/vit_base_patch32_plus_256", {})


def test_stride_beyond_the_patch_is_refused():
    with pytest.raises(ConfigError, match=r"MODEL.STRIDE_SIZE \[20, 20\] does not fit the patch size \[16, 16\]"):
        make_outline("MODEL.STRIDE_SIZE", [20, 20])


def test_image_smaller_than_a_patch_is_refused():
    with pytest.raises(ConfigError, match=r"INPUT.SIZE_TRAIN \[8, 64\] is smaller than one patch"):
        make_outline("INPUT.SIZE_TRAIN", [8, 64])
