"""SupCon's projection head: its names, its input, and that nothing else changes with it."""

import pytest
import torch

from tests.model.builds import images, make_outline, make_tiny, save
from tests.reference.slow_transreid import Shape, embed, make_state
from tests.tolerance import assert_rounded
from utils.errors import ConfigError

SUPCON = ("LOSS.SUPCON.ENABLE", True)
JPM = ("MODEL.JPM", True)
HEAD = {
    "supcon_head.0.weight": (2048, 768),
    "supcon_head.0.bias": (2048,),
    "supcon_head.2.weight": (128, 2048),
    "supcon_head.2.bias": (128,),
}


@pytest.mark.parametrize("opts", [(), JPM, ("MODEL.NAME", "resnet50")])
def test_head_has_model_bs_names_whatever_the_model(opts):
    plain, model = make_outline(*opts), make_outline(*opts, *SUPCON)
    width = model.feat_dim
    added = {name: value for name, value in model.state_dict().items() if name not in plain.state_dict()}
    expected = {name: tuple(width if side == 768 else side for side in shape) for name, shape in HEAD.items()}
    assert {name: tuple(value.shape) for name, value in added.items()} == expected
    if width == 768:
        assert sum(value.numel() for value in added.values()) == 1_837_184


@pytest.mark.parametrize("source", ["pre_bn", "bnneck"])
@pytest.mark.parametrize("opts", [(), JPM])
def test_projection_is_the_head_of_the_global_feature_that_feat_src_names(source, opts):
    model = make_tiny(*opts, *SUPCON, "LOSS.SUPCON.FEAT_SRC", source)
    output = model(images(4))
    feature = {"pre_bn": output.pre_bn, "bnneck": output.bnneck}[source][0]
    first, _, second = model.supcon_head
    hidden = (feature @ first.weight.t() + first.bias).clamp(min=0)
    torch.testing.assert_close(output.projection, hidden @ second.weight.t() + second.bias)
    assert output.projection.shape == (4, 128)


def test_without_supcon_there_is_no_projection():
    assert make_tiny()(images(4)).projection is None


def test_other_first_weights_do_not_depend_on_the_head():
    plain, model = make_tiny(*JPM).state_dict(), make_tiny(*JPM, *SUPCON).state_dict()
    assert all(torch.equal(plain[name], model[name]) for name in plain)


def test_embedding_does_not_depend_on_the_head(tmp_path):
    trained = make_tiny(*JPM, *SUPCON, seed=1)
    plain, with_head = make_tiny(*JPM, seed=2), make_tiny(*JPM, *SUPCON, seed=3)
    state = trained.state_dict()
    report = plain.load_param(save(state, tmp_path))
    assert set(report.surplus) == set(HEAD) and not report.missing
    del state["supcon_head.0.weight"]
    report = with_head.load_param(save(state, tmp_path))
    assert report.missing == ("supcon_head.0.weight",)
    wanted = trained.eval()(images())
    assert torch.equal(plain.eval()(images()), wanted) and torch.equal(with_head.eval()(images()), wanted)


def test_model_b_checkpoint_gives_the_embedding_that_its_formulas_give(tmp_path):
    shape = Shape(width=24, depth=3, heads=2, hidden=96, rows=4, columns=3, patch=8, stride=8, branches=4)
    state = make_state(shape, 5)
    generator = torch.Generator().manual_seed(1)
    for name, size in HEAD.items():
        state[name] = torch.randn(*(24 if side == 768 else side for side in size), generator=generator)
    model = make_tiny(*JPM, *SUPCON, classes=5)
    report = model.load_param(save(state, tmp_path))
    assert not (report.missing or report.surplus or report.misshaped)
    expected = embed(state, shape, images(), after_neck=True)
    assert_rounded(model.eval()(images()), expected, terms=1000)  # about 300 in each of three blocks


@pytest.mark.parametrize("choice", ["self", "finetune"])
def test_only_finetuning_takes_the_head_over(choice, tmp_path):
    trained = make_tiny(*SUPCON, seed=1)
    path = save(trained.state_dict(), tmp_path)
    model = make_tiny(*SUPCON, "MODEL.PRETRAIN_CHOICE", choice, "MODEL.PRETRAIN_PATH", str(path), seed=2)
    same = torch.equal(model.supcon_head[0].weight, trained.supcon_head[0].weight)
    assert same == (choice == "finetune")
    assert torch.equal(model.base.pos_embed, trained.base.pos_embed)


def test_unknown_source_lists_the_choices():
    with pytest.raises(ConfigError, match="LOSS.SUPCON.FEAT_SRC got 'after', allowed: pre_bn, bnneck"):
        make_tiny(*SUPCON, "LOSS.SUPCON.FEAT_SRC", "after")


def test_model_b_embeds_an_image_in_3840_numbers():
    model = make_outline(*JPM, *SUPCON, "INPUT.SIZE_TRAIN", [256, 256], "INPUT.SIZE_TEST", [256, 256]).eval()
    assert model(torch.empty(2, 3, 256, 256, device="meta")).shape == (2, 5 * 768)
