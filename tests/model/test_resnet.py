"""ResNet-50 as a backbone."""

import pytest
import torch
from torchvision.models import get_model, resnet50

from model.backbones.resnet import KINDS, ResNet50, ResNetTrunk
from tests.model.builds import images, make_outline
from tests.tolerance import bounds
from utils.errors import ConfigError

TERMS = 50_000  # numbers added up one after the other: 53 convolutions of up to 4608


def test_standard_stem_and_stride_2_give_torchvisions_features():
    torch.manual_seed(0)
    theirs = resnet50(weights=None).eval()
    ours = ResNet50(last_stride=2).eval()
    weights = {name: value for name, value in theirs.state_dict().items() if not name.startswith("fc.")}
    ours.load_state_dict(weights)
    theirs.fc = torch.nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(ours(images(1, (64, 32))), theirs(images(1, (64, 32))), **bounds(TERMS))


@pytest.mark.parametrize(("stride", "rows"), [(1, 4), (2, 2)])
def test_last_stride_sets_the_size_of_the_last_map(stride, rows):
    model = ResNet50(last_stride=stride).eval()
    shapes = []
    model.layer4.register_forward_hook(lambda module, args, output: shapes.append(output.shape))
    with torch.no_grad():
        model(images(1, (64, 64)))
    assert shapes == [(1, 2048, rows, rows)]


def test_transreid_stem_has_no_relu_and_pools_two_by_two():
    torch.manual_seed(0)
    model = ResNet50(stem="transreid").eval()
    inputs = []
    model.layer1.register_forward_hook(lambda module, args, output: inputs.append(args[0]))
    with torch.no_grad():
        model(images(1, (32, 32)))
        stem = model.bn1(model.conv1(images(1, (32, 32))))
    blocks = stem.reshape(1, 64, 8, 2, 8, 2).amax(dim=(3, 5))
    torch.testing.assert_close(inputs[0], blocks)
    assert blocks.min() < 0


def test_unknown_stem_is_refused():
    with pytest.raises(ConfigError, match="MODEL.RESNET_STEM got 'wide', allowed: standard, transreid"):
        ResNet50(stem="wide")


def test_labels_are_accepted_and_ignored():
    model = ResNet50().eval()
    labels = torch.tensor([3])
    with torch.no_grad():
        batch = images(1, (32, 32))
        assert torch.equal(model(batch, cam_label=labels, view_label=labels), model(batch))


def test_neck_can_be_left_out():
    names = make_outline("MODEL.NAME", "resnet50", "MODEL.NECK", "no").state_dict().keys()
    assert not any(name.startswith("bottleneck") for name in names)
    assert "classifier.weight" in names


@pytest.mark.parametrize("kind", KINDS)
def test_every_depth_has_the_weights_of_torchvisions(kind):
    with torch.device("meta"):
        theirs, ours = get_model(kind, weights=None), ResNetTrunk(kind)
    expected = {name: value.shape for name, value in theirs.state_dict().items() if not name.startswith("fc.")}
    assert {name: value.shape for name, value in ours.state_dict().items()} == expected
    assert ours.feat_dim == theirs.fc.in_features


@pytest.mark.parametrize(("stride", "rows"), [(1, 4), (2, 2)])
def test_last_stride_sets_the_map_of_a_trunk_of_plain_blocks(stride, rows):
    with torch.device("meta"):
        trunk = ResNetTrunk("resnet18", last_stride=stride).eval()
        assert trunk.forward_map(torch.empty(1, 3, 64, 64)).shape == (1, 512, rows, rows)


def test_the_features_are_the_average_of_the_map():
    torch.manual_seed(0)
    trunk = ResNetTrunk("resnet18").eval()
    with torch.no_grad():
        maps = trunk.forward_map(images(2, (32, 32)))
        assert torch.equal(trunk(images(2, (32, 32))), torch.nn.functional.adaptive_avg_pool2d(maps, 1).flatten(1))


def test_unknown_depth_is_refused():
    with pytest.raises(ConfigError, match="MODEL.PCB.TRUNK got 'resnet19', allowed: resnet18, resnet34"):
        ResNetTrunk("resnet19")
