"""The work that benchmarks/trunks.py counts against formulas by hand: 2 FLOP for each multiply-add of a product."""

import pytest

from benchmarks.trunks import TRUNKS, count_work, describe
from tests.configs.recipes import ROOT, load

D = 768  # width of all these trunks, with an MLP of 4 D or a gated one of 3 matrices D x 8/3 D
DEPTH, HEADS = 12, 12


def transformer_flop(patches: int, prefix: int, patch: int = 16, last: str = "all tokens") -> int:
    """Return the work of patch embedding and blocks: q, k, v, output and MLP are 12 D x D, then scores and values.

    The `last` block computes `all tokens`; only the class token, for which it `reads` them, a query of D values for
    each head; or only the class token, with `keys` and values of all.
    """
    tokens = patches + prefix
    block = 2 * tokens * 12 * D * D + 2 * 2 * tokens * tokens * D
    last_block = {
        "all tokens": block,
        "reads": 2 * (12 * D * D + 2 * HEADS * tokens * D),
        "keys": 2 * ((10 + 2 * tokens) * D * D + 2 * tokens * D),
    }[last]
    return 2 * patches * (3 * patch * patch) * D + (DEPTH - 1) * block + last_block


def attention_pool_flop(patches: int) -> int:
    """Return the work of one learnt query on all patches: q, k, v and output, scores and values, MLP of one token."""
    return 2 * (D * D + patches * 2 * D * D + 2 * patches * D + D * D + 8 * D * D)


@pytest.mark.parametrize(
    ("kind", "size", "stride", "patches", "prefix", "last"),
    [
        ("deit_base_patch16_224_TransReID", (256, 128), None, 16 * 8, 1, "reads"),
        ("deit_base_patch16_224_TransReID", (256, 256), 12, 21 * 21, 1, "reads"),
        ("timm/vit_base_patch16_dinov3", (256, 128), None, 16 * 8, 5, "keys"),
        ("timm/eva02_base_patch16_clip_224", (256, 128), None, 16 * 8, 1, "keys"),
    ],
)
def test_count_is_that_of_the_matrix_products_attention_included(kind, size, stride, patches, prefix, last):
    assert count_work(kind, size, stride).flop == transformer_flop(patches, prefix, last=last)


def test_patches_of_14_pixels_see_the_next_smaller_size():
    assert count_work("timm/vit_base_patch14_reg4_dinov2", (256, 128)).flop == transformer_flop(18 * 9, 5, 14, "reads")


def test_attention_pooling_is_counted():
    flop = transformer_flop(16 * 8, 0) + attention_pool_flop(16 * 8)
    assert count_work("timm/vit_base_patch16_siglip_256", (256, 128)).flop == flop


def test_parameters_are_those_of_a_vit_without_a_head():
    per_block = 12 * D * D + (3 + 1 + 4 + 1) * D + 4 * D  # weights, biases, two norms
    outside = 3 * 16 * 16 * D + D + (1 + 16 * 8) * D + D + 2 * D  # patches, positions, class token, last norm
    assert count_work("deit_base_patch16_224_TransReID", (256, 128)).parameters == DEPTH * per_block + outside


def test_each_row_names_the_recipe_on_its_trunk():
    assert {kind: load(f"VeRi/{recipe}").MODEL.TRANSFORMER_TYPE for kind, recipe in TRUNKS.items()} == {
        kind: kind for kind in TRUNKS
    }


@pytest.mark.parametrize("kind", TRUNKS)
def test_the_page_of_recipes_has_the_row_that_the_benchmark_prints(kind):
    assert f"| {' | '.join(describe(kind, TRUNKS[kind]))} |" in (ROOT / "docs" / "recipes.md").read_text()
