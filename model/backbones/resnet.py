"""ResNets as backbones: torchvision's, without their pooling and classifier.

Reference: He et al., Deep Residual Learning for Image Recognition, CVPR 2016; the last stride is that of
Sun et al., Beyond Part Models, ECCV 2018.
"""

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from model.layers.memory import in_fast_layout
from model.parts import Part
from utils.errors import ConfigError

STEMS = ("standard", "transreid")
KINDS = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}  # name -> its blocks, and how many of them each of the four stages has
HUB_NAMES = {kind: f"{kind}.tv_in1k" for kind in KINDS}  # timm's names of torchvision's first ImageNet weights


class ResNetTrunk(ResNet):
    """Images [B, 3, H, W] -> map [B, feat_dim, h, w] by `forward_map`, or its average [B, feat_dim] by a call.

    `kind` is one of KINDS, with 512 channels (18, 34) or 2048 (50, 101). `last_stride` (1 or 2) is that of the last
    stage: the map has a 16th or a 32nd of the image's rows and columns, rounded up. `stem` standard is torchvision's;
    transreid is the one of TransReID's code, without ReLU and with a 2x2 max-pool, for checkpoints trained there.
    Raises ConfigError for another kind or stem.
    """

    decided_by = "MODEL.PCB.TRUNK"  # key that names the kind

    def __init__(self, kind: str, last_stride: int = 1, stem: str = "standard") -> None:
        if kind not in KINDS:
            raise ConfigError(f"{self.decided_by} got '{kind}', allowed: {', '.join(KINDS)}")
        if stem not in STEMS:
            raise ConfigError(f"MODEL.RESNET_STEM got '{stem}', allowed: {', '.join(STEMS)}")
        block, counts = KINDS[kind]
        super().__init__(block, list(counts))
        self.kind = kind
        self.feat_dim = self.fc.in_features
        self.grid = None  # no position embedding, so nothing to resize when weights are loaded
        self.depth = 0  # it has no blocks, so all its parameters are in one layer
        del self.fc
        first = self.layer4[0]
        (first.conv2 if block is Bottleneck else first.conv1).stride = (last_stride, last_stride)
        first.downsample[0].stride = (last_stride, last_stride)
        self._plain_stem = stem == "transreid"
        if self._plain_stem:
            self.maxpool = nn.MaxPool2d(2, 2)

    def forward(
        self, images: torch.Tensor, cam_label: torch.Tensor | None = None, view_label: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return features [B, D]; the labels are accepted, so that all backbones are called alike, and unused."""
        return self.avgpool(self.forward_map(images)).flatten(1)

    def forward_map(self, images: torch.Tensor) -> torch.Tensor:
        """Return the map [B, D, h, w] of the last stage, its ReLU included."""
        return self.layer4(self.before_last_stage(images))

    def before_last_stage(self, images: torch.Tensor) -> torch.Tensor:
        """Return the map that the last stage, `layer4`, takes: [B, D / 2, h', w'] with a 16th of rows and columns."""
        x = self.bn1(self.conv1(in_fast_layout(images)))
        x = self.maxpool(x if self._plain_stem else self.relu(x))
        return self.layer3(self.layer2(self.layer1(x)))

    def part_of(self, name: str) -> Part:
        """Return the part of a parameter."""
        return Part("trunk", self.depth + 1)

    def deciding_keys(self, name: str) -> str:
        """Return what decides presence and shape of a weight, or '' when the features do not depend on it."""
        return "" if name.endswith("num_batches_tracked") else f"{self.decided_by} {self.kind} decides it"


class ResNet50(ResNetTrunk):
    """The trunk of MODEL.NAME resnet50."""

    decided_by = "MODEL.NAME"

    def __init__(self, last_stride: int = 1, stem: str = "standard") -> None:
        super().__init__("resnet50", last_stride, stem)
