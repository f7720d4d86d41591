"""ResNet-50 as a backbone: torchvision's, without its classifier.

Reference: He et al., Deep Residual Learning for Image Recognition, CVPR 2016; the last stride is that of
Sun et al., Beyond Part Models, ECCV 2018.
"""

import torch
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet

from model.parts import Part
from utils.errors import ConfigError

STEMS = ("standard", "transreid")
HUB_NAME = "resnet50.tv_in1k"


class ResNet50(ResNet):
    """Images [B, 3, H, W] -> globally averaged features [B, 2048].

    `last_stride` (1 or 2) is that of the last stage. `stem` standard is torchvision's; transreid is the one of
    TransReID's code, without ReLU and with a 2x2 max-pool, for checkpoints trained there.
    """

    def __init__(self, last_stride: int = 1, stem: str = "standard") -> None:
        if stem not in STEMS:
            raise ConfigError(f"MODEL.RESNET_STEM got '{stem}', allowed: {', '.join(STEMS)}")
        super().__init__(Bottleneck, [3, 4, 6, 3])
        self.feat_dim = self.fc.in_features
        self.grid = None  # no position embedding, so nothing to resize when weights are loaded
        self.depth = 0  # it has no blocks, so all its parameters are in one layer
        del self.fc
        self.layer4[0].conv2.stride = (last_stride, last_stride)
        self.layer4[0].downsample[0].stride = (last_stride, last_stride)
        self._plain_stem = stem == "transreid"
        if self._plain_stem:
            self.maxpool = nn.MaxPool2d(2, 2)

    def forward(
        self, images: torch.Tensor, cam_label: torch.Tensor | None = None, view_label: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return features [B, 2048]; the labels are accepted, so that all backbones are called alike, and unused."""
        x = self.bn1(self.conv1(images))
        x = self.maxpool(x if self._plain_stem else self.relu(x))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.avgpool(x).flatten(1)

    def part_of(self, name: str) -> Part:
        """Return the part of a parameter."""
        return Part("trunk", self.depth + 1)

    def deciding_keys(self, name: str) -> str:
        """Return what decides presence and shape of a weight, or '' when the features do not depend on it."""
        return "" if name.endswith("num_batches_tracked") else "MODEL.NAME resnet50 decides it"
