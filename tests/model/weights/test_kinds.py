"""What the names in a file tell about its model."""

import pytest
import torch

from model.weights.kinds import describe


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("visual.conv1.weight", "a CLIP model"),
        ("base_model.visual.conv1.weight", "a checkpoint of IRRA, which MODEL.NAME irra takes"),
        ("bottleneck_proj.weight", "a checkpoint of CLIP-ReID, which MODEL.NAME clip_reid takes"),
        ("prompt_learner.cls_ctx", "a checkpoint of CLIP-ReID, which MODEL.NAME clip_reid takes"),
        ("dist_token", "a distilled DeiT"),
        ("cls_token", "a plain ViT"),
        ("layer1.0.conv1.weight", "a plain ResNet"),
        ("base.conv1.weight", "a ResNet ReID checkpoint"),
        ("base.cls_token", "a TransReID checkpoint"),
        ("b1.0.norm1.weight", "with JPM"),
        ("encoder.something", "an unknown model (its weights are called encoder.something"),
    ],
)
def test_files_are_described_by_their_names(name, words):
    assert words in describe({name: torch.zeros(1)})
