"""A residual network of half a million weights for images of some 64 x 32 pixels, learnt from scratch within minutes.

Its block is that of He et al., Deep Residual Learning for Image Recognition, CVPR 2016.
"""

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, conv1x1

from model.layers.memory import in_fast_layout
from model.parts import Part

KIND = "tiny"
WIDTHS, STRIDES = (24, 48, 96, 128), (1, 2, 2)  # of the four blocks; the last stride is an argument


class TinyCNN(nn.Module):
    """Images [B, 3, H, W] -> map [B, 128, h, w] by `forward_map`; called as a ResNet, whose contract it keeps.

    A 3x3 convolution of stride 2, then one block a stage, without a max-pool: with a `last_stride` of 1 the map has an
    8th of the image's rows and columns, rounded up.
    """

    def __init__(self, last_stride: int = 1) -> None:
        super().__init__()
        self.kind, self.feat_dim, self.grid, self.depth = KIND, WIDTHS[-1], None, 0
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.relu = nn.ReLU(inplace=True)
        narrower = (WIDTHS[0], *WIDTHS)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(_block(*sizes)) for sizes in zip(narrower, WIDTHS, (*STRIDES, last_stride), strict=False)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(
        self, images: torch.Tensor, cam_label: torch.Tensor | None = None, view_label: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return features [B, 128]; the labels are accepted, so that all backbones are called alike, and unused."""
        return self.forward_map(images).mean(dim=(2, 3))

    def forward_map(self, images: torch.Tensor) -> torch.Tensor:
        """Return the map [B, 128, h, w] of the last stage, its ReLU included."""
        return self.layer4(self.before_last_stage(images))

    def before_last_stage(self, images: torch.Tensor) -> torch.Tensor:
        """Return the map [B, 96, h', w'] that the last stage, `layer4`, takes."""
        x = self.relu(self.bn1(self.conv1(in_fast_layout(images))))
        return self.layer3(self.layer2(self.layer1(x)))

    def part_of(self, name: str) -> Part:
        """Return the part of a parameter."""
        return Part("trunk", self.depth + 1)

    def deciding_keys(self, name: str) -> str:
        """Return what decides presence and shape of a weight, or '' when the features do not depend on it."""
        return "" if name.endswith("num_batches_tracked") else f"MODEL.PCB.TRUNK {self.kind} decides it"


def _block(width_in: int, width: int, stride: int) -> BasicBlock:
    """Return a block [B, width_in, h, w] -> [B, width, h / stride, w / stride]."""
    if stride == 1 and width_in == width:
        return BasicBlock(width_in, width)
    shortcut = nn.Sequential(conv1x1(width_in, width, stride), nn.BatchNorm2d(width))
    return BasicBlock(width_in, width, stride, shortcut)
