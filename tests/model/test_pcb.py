"""PCB against its formulas in float64: stripes, pooling, gate, layout of the embedding, first values, rates."""

import pytest
import torch
from torch import nn

from model.layers.heads import HEADS
from model.make_model import make_model
from model.outputs import tensors_of
from model.pcb import PCB
from solver.make_optimizer import make_optimizer
from tests.model.builds import images
from tests.model.pcbs import CHANNELS, CLASSES, ROWS, MapBase, make_pcb, make_tiny_pcb, some_images, tiny_cfg
from tests.reference.slow_pcb import slow_branches, slow_embedding
from utils.errors import ConfigError

VARIANTS = {
    "as published": {},
    "average pooling": {"part_pool": "avg", "global_pool": "avg"},
    "gem pooling": {"part_pool": "gem", "global_pool": "gem"},
    "stripes alone": {"global_dim": 0, "parts": 6},
    "global alone": {"parts": 0, "global_pool": "avg", "gate": True},
    "gate": {"gate": True},
    "own stage 4": {"own_stage4": True, "gate": True},
    "norm of each branch": {"part_norm": True, "parts": 2},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_embedding_is_that_of_the_formulas(variant):
    model = make_pcb(**VARIANTS[variant]).eval()
    with torch.no_grad():
        embedding = model(some_images())
    torch.testing.assert_close(embedding, slow_embedding(model, some_images()))
    assert embedding.shape[1] == sum(model.branches.values())
    torch.testing.assert_close(model.embed_batch({"images": some_images(), "camids": None}), embedding)
    torch.testing.assert_close(model.embedding_of(model.forward_output(some_images())), embedding)


@pytest.mark.parametrize("variant", VARIANTS)
def test_training_gives_each_branch_before_and_after_its_norm_and_its_logits(variant):
    model = make_pcb(**VARIANTS[variant]).train()
    slow = slow_branches(model, some_images(), training=True)
    with torch.no_grad():
        output = model(some_images())
    assert list(slow) == list(model.branches) and output.projection is None and output.extra == {}
    torch.testing.assert_close(output.pre_bn, [reduced for reduced, _ in slow.values()])
    torch.testing.assert_close(output.bnneck, [normed for _, normed in slow.values()])
    heads = model.classifier.values()
    expected = [normed @ head.weight.t() + head.bias for head, (_, normed) in zip(heads, slow.values(), strict=True)]
    torch.testing.assert_close(output.logits, expected)


def test_branches_are_named_from_the_global_one_down_the_parts():
    assert make_pcb().branches == {"global": 4, "part1": 3, "part2": 3, "part3": 3}
    assert make_pcb(global_dim=0).branches == {"part1": 3, "part2": 3, "part3": 3}
    assert make_pcb(global_dim=0).feat_dim == 3 and make_pcb().feat_dim == 4


def test_a_row_of_the_image_moves_the_global_branch_and_its_own_stripe_alone():
    model, shown, changed = make_pcb(global_pool="avg").eval(), some_images(1), some_images(1)
    changed[:, :, 10] += 3.0  # row 2 of 6 in the map, so the second of 3 stripes
    with torch.no_grad():
        moved = (model(shown) != model(changed))[0].split(list(model.branches.values()))
    assert [bool(branch.any()) for branch in moved] == [True, False, True, False]


def test_a_branch_shares_its_weights_with_no_other():
    model = make_pcb().train()
    model(some_images()).logits[1].sum().backward()
    learnt = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert {name for name in learnt if not name.startswith("base.")} == {
        f"{layer}.part1.{kind}" for layer in ("reduction", "bottleneck", "classifier") for kind in ("weight", "bias")
    }


def test_output_in_evaluation_mode_has_the_embedding_in_its_branches():
    model = make_pcb(dropout=0.5).eval()
    with torch.no_grad():
        output = model.forward_output(some_images())
        assert torch.equal(torch.cat(output.bnneck, dim=1), model(some_images()))


def test_classifiers_see_the_features_after_dropout():
    model = make_pcb(dropout=0.9).train()
    output = model(some_images(8))
    for head, feature, logits in zip(model.classifier.values(), output.bnneck, output.logits, strict=True):
        assert (feature == 0).any()
        torch.testing.assert_close(logits, head(feature))


@pytest.mark.parametrize("parts", [4, 5, 12])
def test_a_map_that_the_stripes_do_not_divide_is_refused_with_both_numbers(parts):
    with pytest.raises(ConfigError, match=rf"PARTS {parts} does not divide the {ROWS} rows"):
        make_pcb(parts=parts)(some_images())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"parts": 0, "global_dim": 0}, "there is no branch"),
        ({"own_stage4": True, "global_dim": 0}, "OWN_STAGE4 True needs a global branch beside stripes"),
        ({"own_stage4": True, "parts": 0}, "OWN_STAGE4 True needs a global branch beside stripes"),
        ({"gate": True, "global_dim": 0}, "GATE True acts on the global branch"),
        ({"spectral": "pooled", "global_dim": 0}, "LOSS.SPECTRAL acts on the global branch"),
        ({"spectral": "pooled", "gate": True}, "set FEAT embedding, or GATE False"),
        ({"part_pool": "min"}, "MODEL.PCB.PART_POOL got 'min', allowed: max, avg, gem"),
        ({"global_pool": "min"}, "MODEL.PCB.GLOBAL_POOL got 'min', allowed: max, avg, gem"),
        ({"head": "focal"}, "MODEL.ID_LOSS_TYPE got 'focal'"),
    ],
)
def test_options_without_a_meaning_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        make_pcb(**options)


@pytest.mark.parametrize("head", [head for head in HEADS if head != "softmax"])
def test_every_margin_has_cosines_in_every_branch(head):
    output = make_pcb(head=head).train()(some_images())
    assert [list(logits.shape) for logits in output.logits] == [[4, CLASSES]] * 4
    assert max(logits.abs().max().item() for logits in output.logits) <= 1 + 1e-12


def spread(weight: torch.Tensor) -> float:
    return weight.double().pow(2).mean().sqrt().item()


@pytest.mark.parametrize("parts", [0, 2])
def test_first_values_of_the_global_branch(parts):
    torch.manual_seed(0)
    base = MapBase()
    base.feat_dim = 400
    model = PCB(base, 500, parts=parts, part_dim=300, global_dim=300)
    within = 5 / (2 * 300 * 400) ** 0.5  # five standard errors of a spread of 300 x 400 normal numbers
    assert spread(model.classifier["whole"].weight) == pytest.approx(0.001, rel=within)
    assert not model.classifier["whole"].bias.any()
    kaiming, usual = (2 / 300) ** 0.5, (1 / 3 / 400) ** 0.5  # fan out; even in +- 1 / sqrt(fan in)
    assert spread(model.reduction["whole"].weight) == pytest.approx(usual if parts else kaiming, rel=within)
    assert bool(model.reduction["whole"].bias.any()) == bool(parts)
    norm = model.bottleneck["whole"].weight
    if parts:
        assert torch.equal(norm, torch.ones(300))
        assert spread(model.classifier["part1"].weight) == pytest.approx((1 / 3 / 300) ** 0.5, rel=within)
    else:
        assert norm.mean().item() == pytest.approx(1, abs=5 * 0.02 / 300**0.5)
        assert norm.std().item() == pytest.approx(0.02, rel=5 / 600**0.5)


def test_an_own_last_stage_begins_as_the_trunks_and_learns_apart():
    model = make_pcb(first=True, own_stage4=True).train()
    assert torch.equal(model.global_stage4.weight, model.base.layer4.weight)
    output = model(some_images())
    output.logits[0].sum().backward()
    assert model.base.layer4.weight.grad is None and model.global_stage4.weight.grad.any()
    assert model.base.stem.weight.grad.any()


def test_the_pooled_feature_is_told_while_training_and_gives_the_same_logits_again():
    model = make_pcb(spectral="pooled").train()
    output = model(some_images())
    pooled = output.extra["global_pooled"]
    assert pooled.shape == (4, CHANNELS) and len(tensors_of(output)) == 13
    torch.testing.assert_close(model.global_logits(pooled, "pooled"), output.logits[0])
    torch.testing.assert_close(model.global_logits(output.bnneck[0], "embedding"), output.logits[0])
    model.eval()
    assert model.forward_output(some_images()).extra == {}
    with pytest.raises(ConfigError, match="LOSS.SPECTRAL.FEAT got 'map'"):
        model.global_logits(pooled, "map")


def test_a_second_pass_moves_the_running_statistics_of_the_global_norm_once_more():
    model = make_pcb(spectral="pooled").train()
    model.global_logits(model(some_images()).extra["global_pooled"], "pooled")
    norms = {name: norm.num_batches_tracked.item() for name, norm in model.bottleneck.items()}
    assert norms == {"whole": 2, "part1": 1, "part2": 1, "part3": 1}


def test_erasing_acts_while_training_alone_and_on_its_own_branches():
    plain, erased = make_pcb(), make_pcb(global_erase=0.9, part_erase=1.0)
    with torch.no_grad():
        assert torch.equal(plain.eval()(some_images()), erased.eval()(some_images()))
        output = erased.train()(some_images())
    for name, feature in zip(list(erased.branches)[1:], output.pre_bn[1:], strict=True):
        assert torch.equal(feature, erased.reduction[name].bias.detach().expand(4, -1))  # nothing is left of a stripe
    left = plain.global_pool(plain.base.forward_map(some_images()).unsqueeze(2)).squeeze(2)
    assert not torch.equal(output.pre_bn[0], plain.reduction["whole"](left))


@pytest.mark.parametrize("own", [False, True])
def test_everything_outside_the_trunk_learns_at_the_rate_of_new_layers(own):
    opts = ("SOLVER.BASE_LR", 0.01, "SOLVER.NEW_LR_FACTOR", 10.0, "SOLVER.BIAS_LR_FACTOR", 3.0, "MODEL.PCB.GATE", True)
    pools = ("MODEL.PCB.PART_POOL", "gem", "MODEL.PCB.OWN_STAGE4", own)
    cfg = tiny_cfg(*opts, *pools)
    model = make_model(cfg, CLASSES, 0, 0)
    optimizer, _ = make_optimizer(cfg, model, nn.Identity())
    rates = {id(weight): group["lr"] for group in optimizer.param_groups for weight in group["params"]}
    for name, weight in model.named_parameters():
        trunk_rate = 0.03 if "bias" in name else 0.01
        expected = trunk_rate if name.startswith(("base.", "global_stage4.")) else 0.1
        assert rates[id(weight)] == pytest.approx(expected), name
    assert {group["name"].split()[0] for group in optimizer.param_groups} == {"trunk", "new"}


def test_a_larger_rate_of_classifiers_is_that_of_no_other_new_layer():
    cfg = tiny_cfg("SOLVER.LARGE_FC_LR", True, "SOLVER.FC_LR_FACTOR", 4.0, "SOLVER.BASE_LR", 0.01)
    model = make_model(cfg, CLASSES, 0, 0)
    optimizer, _ = make_optimizer(cfg, model, nn.Identity())
    rates = {id(weight): group["lr"] for group in optimizer.param_groups for weight in group["params"]}
    for name, weight in model.named_parameters():
        assert (rates[id(weight)] == pytest.approx(0.04)) == name.startswith("classifier."), name


def test_an_embedding_needs_no_classifiers():
    model = make_tiny_pcb()
    with torch.no_grad():
        whole = model(images(2, (64, 32)))
        model.keep_embedding_only()
        assert torch.equal(model(images(2, (64, 32))), whole)
    assert not [name for name in model.state_dict() if name.startswith("classifier")]


def test_labels_of_cameras_are_accepted_and_ignored():
    model, labels = make_pcb().eval(), torch.tensor([3, 0, 1, -1])
    assert torch.equal(model(some_images(), cam_label=labels, view_label=labels), model(some_images()))
