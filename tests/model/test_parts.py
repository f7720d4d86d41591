"""What each model says about its parameters: trunk, new or head, and the layer from the image to the heads."""

import re

import pytest
from torch import nn

from model import make_model
from model.parts import Part
from tests.model import clips, trunks
from tests.model.builds import make_tiny
from tests.model.pcbs import make_pcb

JPM = ("MODEL.JPM", True)
SIDES = ("MODEL.SIE_CAMERA", True)
SUPCON = ("LOSS.SUPCON.ENABLE", True)
LORA = ("MODEL.LORA.RANK", 2)
BLOCKS = {f"base.blocks.{block}.": Part("trunk", block + 1) for block in range(3)}
TRUNK = {
    "base.cls_token": Part("trunk", 0),
    "base.pos_embed": Part("trunk", 0),
    "base.patch_embed.": Part("trunk", 0),
    **BLOCKS,
    "base.norm.": Part("trunk", 4),
    "base.fc.": Part("trunk", 4),
    "bottleneck": Part("new", 4),
    "classifier": Part("head", 4),
}
BRANCHES = {
    **{f"{branch}.0.": Part("trunk", 3) for branch in ("b1", "b2")},
    **{f"{branch}.1.": Part("trunk", 4) for branch in ("b1", "b2")},
}
# model -> prefix of its parameters -> part; a tiny ViT has 3 blocks, so that the heads are in layer 4
TABLE = {
    "plain": ((), TRUNK),
    "all of TransReID": (
        (*JPM, *SIDES, *SUPCON),
        TRUNK | BRANCHES | {"base.sie_embed": Part("new", 4), "supcon_head.": Part("new", 4)},
    ),
    "cosine head": (("MODEL.ID_LOSS_TYPE", "amsoftmax"), TRUNK),
    "frozen blocks": (("MODEL.FREEZE_BLOCKS", 2), TRUNK),
    "resnet": (
        ("MODEL.NAME", "resnet50"),
        {"base.": Part("trunk", 1), "bottleneck": Part("new", 1), "classifier": Part("head", 1)},
    ),
}


def check(model: nn.Module, table: dict[str, Part]) -> None:
    """Assert that every parameter has the part of the one prefix that it starts with, and that no prefix is idle."""
    met = set()
    for name, _ in model.named_parameters():
        prefixes = [prefix for prefix in table if name.startswith(prefix)]
        assert len(prefixes) == 1, (name, prefixes)
        assert model.part_of(name) == table[prefixes[0]], name
        met |= set(prefixes)
    assert met == table.keys()


@pytest.mark.parametrize("case", TABLE)
def test_every_parameter_is_in_the_part_of_the_table(case):
    opts, table = TABLE[case]
    check(make_tiny(*opts, cameras=4), table)


def test_of_part_branches_the_trunk_and_its_copied_stage_are_the_trunk():
    new = Part("new", 1, alike=True)
    table = dict.fromkeys(("global_pool.", "part_pool.", "gate.", "reduction.", "bottleneck."), new)
    table |= dict.fromkeys(("base.", "global_stage4."), Part("trunk", 1))
    model = make_pcb(own_stage4=True, gate=True, global_pool="gem", part_pool="gem")
    check(model, table | {"classifier.": Part("head", 1, alike=True)})


def test_adapters_are_new_in_the_layer_of_their_block():
    model = make_tiny(*JPM, *LORA)
    adapters = {name: model.part_of(name) for name, _ in model.named_parameters() if ".lora_" in name}
    assert {part.kind for part in adapters.values()} == {"new"}
    assert {re.match(r"base\.blocks\.\d|b\d\.0", name)[0]: part.layer for name, part in adapters.items()} == {
        **{f"base.blocks.{block}": block + 1 for block in range(3)},
        **{"b1.0": 3, "b2.0": 3},
    }
    assert model.part_of("base.blocks.1.attn.qkv.weight") == Part("trunk", 2)


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        ("vit", ("cls_token", "pos_embed", "patch_embed."), ("norm.",)),
        ("dinov2_registers", ("cls_token", "reg_token", "pos_embed", "patch_embed."), ("norm.",)),
        ("clip", ("cls_token", "pos_embed", "patch_embed.", "norm_pre."), ("norm.",)),
        ("siglip", ("pos_embed", "patch_embed."), ("norm.", "attn_pool.")),
        ("gap_registers", ("reg_token", "pos_embed", "patch_embed."), ("fc_norm.",)),
        ("rope_mixed", ("cls_token", "patch_embed.", "rope."), ("norm.",)),
    ],
)
def test_trunks_of_timm_have_their_own_beginnings_and_ends(kind, before, after):
    table = {f"base.{name}": Part("trunk", 0) for name in before} | {f"base.{name}": Part("trunk", 3) for name in after}
    table |= {f"base.blocks.{block}.": Part("trunk", block + 1) for block in range(2)}
    table |= {"bottleneck": Part("new", 3), "classifier": Part("head", 3)}
    check(make_model(trunks.kind_cfg(kind), 5, 0, 0), table)


@pytest.mark.parametrize(
    ("variant", "fusion"),
    [
        ("minimal", ("fuse_",)),
        ("quickwin", ("fuse_",)),
        ("hf", ("fuse_fc.", "afem.", "sem_refine_proj.")),
        ("concat", ()),
    ],
)
def test_a_clip_tower_is_a_trunk_beside_the_first_and_what_fuses_it_is_new(variant, fusion, sources):
    table = TRUNK | BRANCHES | {"clip_model.": Part("trunk", 4, tower=True)}
    check(clips.build(sources, variant), table | {prefix: Part("new", 4) for prefix in fusion})
