"""Weights of PCB: ours, pytorch-reid-lite's, torchreid's and ImageNet's; what loads, what is refused."""

import re

import pytest
import torch
from torch import nn

from model import make_model
from model.backbones.tiny_cnn import TinyCNN
from model.pcb import PCB
from tests.model.builds import images, save
from tests.model.pcbs import CLASSES, make_tiny_pcb, tiny_cfg
from utils.errors import ConfigError, DataError

SHOWN = images(2, (64, 32))
ONE = ("MODEL.PCB.PARTS", 0)
State = dict[str, torch.Tensor]
LITE = {  # a beginning of our names -> pytorch-reid-lite's, of stripes beside a global branch
    "base.": "model.",
    "reduction.whole.": "fc_g.0.",
    "bottleneck.whole.": "fc_g.1.",
    "classifier.whole.": "classifier_g.",
    **{f"reduction.part{number + 1}.": f"Pcb.branch.{number}.0." for number in range(4)},
    **{f"bottleneck.part{number + 1}.": f"Pcb.branch.{number}.1." for number in range(4)},
    **{f"classifier.part{number + 1}.": f"Pcb.classifier.{number}." for number in range(4)},
    "gate.": "mask_g.",
}
LITE_ALONE = {"base.": "model.", "reduction.whole.": "fc.0.", "bottleneck.whole.": "fc.1."} | {
    "classifier.whole.": "classifier.",
    "gate.": "mask.",
}


def as_lite(model: nn.Module, table: dict[str, str], prefix: str = "") -> State:
    """The weights of a model by pytorch-reid-lite's names, its linear layers as convolutions of one pixel."""
    weights = {}
    for name, value in model.state_dict().items():
        start = next(start for start in table if name.startswith(start))
        if name.startswith(("reduction.", "gate.0.")) and name.endswith("weight"):
            value = value[:, :, None, None]
        weights[prefix + table[start] + name.removeprefix(start)] = value
    return weights


def embedding_of(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(SHOWN)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize(
    ("opts", "table"),
    [
        ((), LITE),
        (("MODEL.PCB.GLOBAL_DIM", 0), LITE),
        (ONE, LITE_ALONE),
        ((*ONE, "MODEL.PCB.GATE", True), LITE_ALONE),
        (("MODEL.PCB.GATE", True), LITE),
    ],
)
def test_a_file_of_pytorch_reid_lite_gives_the_same_embedding(tmp_path, opts, table, prefix):
    theirs, ours = make_tiny_pcb(*opts), make_tiny_pcb(*opts, seed=1)
    assert not torch.allclose(embedding_of(ours), embedding_of(theirs))
    report = ours.load_param(save(as_lite(theirs, table, prefix), tmp_path))
    assert torch.equal(embedding_of(ours), embedding_of(theirs))
    assert report.missing == report.surplus == () and report.warnings == ()


@pytest.mark.parametrize(("opts", "table"), [((), LITE), (ONE, LITE_ALONE)])
def test_a_gate_that_is_off_here_is_surplus(tmp_path, opts, table):
    theirs, ours = make_tiny_pcb(*opts, "MODEL.PCB.GATE", True), make_tiny_pcb(*opts, seed=1)
    weights = as_lite(theirs, table) | {"Pcb.mask.0.weight": torch.zeros(9, 128, 1, 1)}
    report = ours.load_param(save(weights, tmp_path))
    assert {"Pcb.mask.0.weight", f"{table['gate.']}0.weight"} <= set(report.surplus) and report.warnings == ()


@pytest.mark.parametrize(
    "opts", [("MODEL.PCB.OWN_STAGE4", True, "MODEL.PCB.GATE", True, "MODEL.PCB.PART_POOL", "gem"), ONE]
)
def test_our_own_file_gives_the_same_embedding_with_other_classes(tmp_path, opts):
    trained, ours = make_tiny_pcb(*opts), make_tiny_pcb(*opts, seed=1, classes=CLASSES + 2)
    report = ours.load_param(save(trained.state_dict(), tmp_path))
    assert torch.equal(embedding_of(ours), embedding_of(trained))
    assert report.misshaped and all(name.startswith("classifier.") for name in report.misshaped)


@pytest.mark.parametrize(
    ("theirs", "ours", "words"),
    [
        (("MODEL.PCB.PARTS", 8), (), r"was trained with 8 stripes, this model has 4.*set MODEL\.PCB\.PARTS 8"),
        (("MODEL.PCB.PARTS", 2), (), r"reduction\.part3\.weight \[6, 128\] is not in the file; MODEL\.PCB\.PARTS 4"),
        (("MODEL.PCB.PART_DIM", 5), (), r"reduction\.part1\.weight is \[5, 128\] .*PART_DIM 6"),
        (("MODEL.PCB.GLOBAL_DIM", 0), (), r"reduction\.whole\.weight .*MODEL\.PCB\.GLOBAL_DIM 9"),
        (("MODEL.PCB.OWN_STAGE4", True), (), r"set MODEL\.PCB\.OWN_STAGE4 True"),
        ((), ("MODEL.PCB.OWN_STAGE4", True), r"global_stage4.* is not in the file; MODEL\.PCB\.OWN_STAGE4 True asks"),
        ((), ("MODEL.PCB.GATE", True), r"gate\.0\.weight .*MODEL\.PCB\.GATE True asks"),
        ((), ("MODEL.PCB.GLOBAL_POOL", "gem"), r"global_pool\.power .*MODEL\.PCB\.GLOBAL_POOL gem"),
        ((), ("MODEL.PCB.PART_POOL", "gem"), r"part_pool\.power .*MODEL\.PCB\.PART_POOL gem"),
    ],
)
def test_a_file_of_another_embedding_is_refused_with_the_keys_to_change(tmp_path, theirs, ours, words):
    path = save(make_tiny_pcb(*theirs).state_dict(), tmp_path)
    model = make_tiny_pcb(*ours, seed=1)
    before = embedding_of(model)
    with pytest.raises(DataError) as caught:
        model.load_param(path)
    assert re.search(words, str(caught.value))
    assert torch.equal(embedding_of(model), before)


def test_a_deeper_trunk_is_refused(tmp_path):
    weights = make_tiny_pcb().state_dict() | {"base.layer1.1.conv1.weight": torch.zeros(24, 24, 3, 3)}
    with pytest.raises(DataError, match=r"base\.layer1\.1\.conv1\.weight is in the file.*MODEL\.PCB\.TRUNK tiny"):
        make_tiny_pcb().load_param(save(weights, tmp_path))


@pytest.mark.parametrize(
    ("theirs", "ours", "words"),
    [
        (("MODEL.PCB.GATE", True), (), "MODEL.PCB.GATE True"),
        (("MODEL.PCB.PART_POOL", "gem"), (), "MODEL.PCB.PART_POOL gem"),
        ((), ("MODEL.PCB.GLOBAL_DIM", 0), "the branches global too"),
        ((), ONE, "the branches part1, part2, part3, part4 too"),
    ],
)
def test_what_is_left_out_of_a_file_is_warned_of(tmp_path, theirs, ours, words):
    report = make_tiny_pcb(*ours, seed=1).load_param(save(make_tiny_pcb(*theirs).state_dict(), tmp_path))
    assert any(words in warning for warning in report.warnings)


def started(path: str, choice: str, *opts: object) -> PCB:
    """A model whose first weights are those of a file, in evaluation mode."""
    torch.manual_seed(7)
    cfg = tiny_cfg("MODEL.PRETRAIN_CHOICE", choice, "MODEL.PRETRAIN_PATH", path, *opts)
    return make_model(cfg, CLASSES, 0, 0).eval()


def same(model: nn.Module, weights: State, start: str) -> set[str]:
    """The weights of a model that start so and are those of a file."""
    state = model.state_dict()
    return {name for name in state if name.startswith(start) and torch.equal(state[name], weights[name])}


@pytest.mark.parametrize("table", [None, LITE])
def test_self_takes_the_trunk_and_finetune_all_of_a_reid_file(tmp_path, table):
    trained = make_tiny_pcb()
    weights = trained.state_dict()
    path = save(as_lite(trained, table) if table else weights, tmp_path)
    trunk, whole = started(path, "self"), started(path, "finetune")
    names = {name for name in weights if name.startswith("base.")}
    assert same(trunk, weights, "base.") == names and not same(trunk, weights, "reduction.")
    assert same(whole, weights, "") == set(weights)


def test_a_file_of_another_system_is_named(tmp_path):
    path = save({"image_encoder.conv1.weight": torch.zeros(1)}, tmp_path)
    with pytest.raises(DataError, match="is a checkpoint of CLIP-ReID .*set MODEL.NAME clip_reid"):
        make_tiny_pcb().load_param(path)


def test_an_own_last_stage_begins_as_that_of_the_file(tmp_path):
    path = save(make_tiny_pcb().state_dict(), tmp_path)
    model = started(path, "self", "MODEL.PCB.OWN_STAGE4", True)
    trunk = torch.load(path, weights_only=True)
    for name, value in model.global_stage4.state_dict().items():
        assert torch.equal(value, trunk[f"base.layer4.{name}"])
    apart = make_tiny_pcb("MODEL.PCB.OWN_STAGE4", True)
    path = save(apart.state_dict(), tmp_path, "apart.pth")
    model = started(path, "self", "MODEL.PCB.OWN_STAGE4", True)
    assert same(model, apart.state_dict(), "global_stage4.") == {
        name for name in apart.state_dict() if name.startswith("global_stage4.")
    }


def test_imagenet_weights_of_a_file_are_the_trunk_and_its_copy(tmp_path):
    torch.manual_seed(3)
    trunk = TinyCNN().state_dict()
    weights = trunk | {"fc.weight": torch.zeros(10, 128), "fc.bias": torch.zeros(10)}
    model = started(save(weights, tmp_path), "imagenet", "MODEL.PCB.OWN_STAGE4", True)
    for name, value in trunk.items():
        assert torch.equal(model.base.state_dict()[name], value)
    assert torch.equal(model.global_stage4[0].conv2.weight, trunk["layer4.0.conv2.weight"])


def test_the_small_trunk_has_no_published_weights():
    with pytest.raises(ConfigError, match=r"MODEL\.PCB\.TRUNK tiny has no published ImageNet weights"):
        make_model(tiny_cfg("MODEL.PRETRAIN_CHOICE", "imagenet"), CLASSES, 0, 0)


def torchreid_file(stripes: int = 6, width: int = 6) -> State:
    """The weights of a pcb_p6 of torchreid, on our small trunk: one reduction for all stripes."""
    torch.manual_seed(5)
    norm = {"weight": torch.rand(width), "bias": torch.randn(width), "running_mean": torch.randn(width)}
    norm |= {"running_var": torch.rand(width), "num_batches_tracked": torch.tensor(9)}
    shared = {"0.weight": torch.randn(width, 128, 1, 1)} | {f"1.{name}": value for name, value in norm.items()}
    heads = {f"classifier.{number}.weight": torch.randn(CLASSES, width) for number in range(stripes)}
    return TinyCNN().state_dict() | {f"conv5.layers.{name}": value for name, value in shared.items()} | heads


def test_the_one_reduction_of_torchreid_becomes_that_of_every_stripe(tmp_path, caplog):
    theirs = torchreid_file()
    model = started(save(theirs, tmp_path), "self")
    assert "share one reduction, which becomes the first values of all 4 of MODEL.PCB.PARTS" in caplog.text
    assert torch.equal(model.base.conv1.weight, theirs["conv1.weight"])
    for name in ("part1", "part2", "part3", "part4"):
        assert torch.equal(model.reduction[name].weight, theirs["conv5.layers.0.weight"][:, :, 0, 0])
        assert not model.reduction[name].bias.any()
        for kind in ("weight", "bias", "running_mean", "running_var"):
            assert torch.equal(getattr(model.bottleneck[name], kind), theirs[f"conv5.layers.1.{kind}"])


def test_a_file_of_torchreid_is_no_model_to_test(tmp_path):
    with pytest.raises(DataError, match="a PCB of torchreid, whose trunk MODEL.NAME pcb takes"):
        make_tiny_pcb().load_param(save(torchreid_file(), tmp_path))
