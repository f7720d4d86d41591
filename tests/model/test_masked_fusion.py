"""The fusion of several features and the semantic head before it, against their formulas in float64."""

import pytest
import torch
from torch import nn

from model.layers.masked_fusion import MaskedFusion
from model.layers.semantic import SemanticHead
from tests.model.clip_reids import in_float64
from tests.model.clips import redraw
from tests.reference import slow_multimodal as slow
from tests.tolerance import assert_rounded, bounds
from utils.errors import ConfigError

WIDTH, HEADS, TERMS = 16, 4, 200
MASK = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 0]], dtype=torch.bool)


def make_fusion(**settings: float) -> MaskedFusion:
    torch.manual_seed(0)
    return redraw(MaskedFusion(WIDTH, HEADS, dropout=0.0, **settings))


def features() -> torch.Tensor:
    return torch.randn(*MASK.shape, WIDTH, generator=torch.Generator().manual_seed(1))


def expected_of(fusion: MaskedFusion) -> torch.Tensor:
    state = {f"fusion.{name}": value for name, value in in_float64(fusion).items()}
    rows = zip(features().double(), MASK, strict=True)
    return torch.stack([slow.fuse(row[mask], state, HEADS) for row, mask in rows])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("ratio", [2.0, 0.5])
def test_every_row_is_the_formula_on_what_is_there(training, ratio):
    fusion = make_fusion(mlp_ratio=ratio).train(training)
    with torch.set_grad_enabled(training):
        got = fusion(features(), MASK).detach()
    assert_rounded(got, expected_of(fusion), terms=TERMS)
    assert not got[3].any() and got[2].any()


def test_without_a_mask_all_are_there():
    fusion = make_fusion().train()
    torch.testing.assert_close(fusion(features()), fusion(features(), torch.ones_like(MASK)), **bounds(TERMS))


@pytest.mark.parametrize("training", [True, False])
def test_one_feature_goes_through_the_block_too(training):
    fusion, alone = make_fusion().train(training), features()[:, :1]
    with torch.no_grad():
        got = fusion(alone, torch.ones(len(alone), 1, dtype=torch.bool))
    assert not torch.allclose(got, alone[:, 0], atol=0.1)
    state = {f"fusion.{name}": value for name, value in in_float64(fusion).items()}
    assert_rounded(got, torch.stack([slow.fuse(row, state, HEADS) for row in alone.double()]), terms=TERMS)


def test_order_of_modalities_does_not_matter():
    fusion, order = make_fusion().eval(), [2, 0, 1]
    with torch.no_grad():
        got = fusion(features()[:, order], MASK[:, order])
        torch.testing.assert_close(got, fusion(features(), MASK), **bounds(TERMS))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e30])
def test_what_is_masked_changes_nothing(training, value):
    results = []
    for spoil in (False, True):
        fusion, leaf = make_fusion().train(training), features()
        leaf = torch.where(MASK[..., None], leaf, value if spoil else 0).requires_grad_()
        fused = fusion(leaf, MASK)
        fused.cos().sum().backward()
        results.append((fused.detach(), leaf.grad, *(weight.grad for weight in fusion.parameters())))
        with torch.no_grad():
            results[-1] += (fusion(leaf, MASK),)
    for clean, other in zip(*results, strict=True):
        assert torch.equal(clean, other) and clean.isfinite().all()
    assert not results[1][1][~MASK].any()


def test_names_and_first_values_are_torchs():
    torch.manual_seed(0)
    fusion = MaskedFusion(WIDTH)
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(WIDTH, 8, batch_first=True)
    for name, value in attention.state_dict().items():
        assert torch.equal(fusion.state_dict()[f"attn.{name}"], value)
    names = {name.rpartition(".")[0] for name in fusion.state_dict()} - {"attn", "attn.out_proj"}
    assert names == {"norm1", "norm2", "mlp.0", "mlp.1", "mlp.4"}
    assert fusion.mlp[1].weight.shape == (2 * WIDTH, WIDTH)
    assert {module.p for module in fusion.modules() if isinstance(module, nn.Dropout)} == {0.1}
    assert fusion.attn.dropout == 0.1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ((WIDTH, 5), "MODEL.MULTIMODAL.HEADS 5 does not divide 16, the width of features"),
        ((WIDTH, 4, 0.01), "MODEL.MULTIMODAL.MLP_RATIO 0.01 of 16, the width of features, leaves the MLP no width"),
    ],
)
def test_settings_that_do_not_fit_the_width_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        MaskedFusion(*settings)


@pytest.mark.parametrize("out_width", [None, 5])
def test_semantic_head_is_its_formula(out_width):
    torch.manual_seed(0)
    head = redraw(SemanticHead(WIDTH, out_width, dropout=0.0))
    state = {f"semantic.{name}": value for name, value in in_float64(head).items()}
    got = head(features()).detach()
    assert got.shape == (*MASK.shape, out_width or WIDTH)
    assert_rounded(got, slow.semantic(features().double(), state), terms=TERMS)


def test_semantic_head_begins_with_xavier_weights_and_without_biases():
    torch.manual_seed(0)
    head = SemanticHead(100, 60)
    assert {name.rpartition(".")[0] for name in head.state_dict()} == {"value", "out", "proj.0", "proj.1", "proj.4"}
    for layer in (head.value, head.out, head.proj[0], head.proj[4]):
        bound = (6 / sum(layer.weight.shape)) ** 0.5
        assert bound * 0.99 < layer.weight.abs().max() <= bound and not layer.bias.any()


def test_semantic_head_drops_behind_its_activation():
    torch.manual_seed(0)
    head = SemanticHead(WIDTH, dropout=0.9).train()
    seen = []
    head.proj[4].register_forward_hook(lambda module, given, result: seen.append(given[0]))
    head(features())
    assert (seen[0] == 0).float().mean() > 0.8
