"""Nothing in a training step asks the device for a value: tensors of the meta device have none and raise when asked."""

from contextlib import nullcontext

import pytest
import torch

from losses import make_loss
from processor.phases import PhasePlan
from tests.losses.model_b import PHASED, ROUTING, SUPCON, TRIPLETX, make_cfg
from tests.model.builds import TINY_VIT, make_outline

BATCH, CLASSES = 8, 5
SIDES = ("MODEL.SIE_CAMERA", True, "MODEL.SIE_VIEW", True)
LOSSES = {
    "triplet with a margin": ("MODEL.NO_MARGIN", False),
    "TripletX and SupCon": (*TRIPLETX, *SUPCON),
    "hard routing": (*ROUTING["hard"], *SUPCON, "LOSS.SUPCON.DARK_GAMMA", 1.8),
    "soft routing": ROUTING["soft"],
    "phases": PHASED,
    "centres": ("MODEL.METRIC_LOSS_TYPE", "triplet_center"),
    "arcface": ("MODEL.ID_LOSS_TYPE", "arcface"),
    "circle": ("MODEL.ID_LOSS_TYPE", "circle"),
}


def make_batch() -> dict[str, torch.Tensor]:
    labels = {name: torch.zeros(BATCH, dtype=torch.int64, device="meta") for name in ("pids", "camids", "viewids")}
    return labels | {"brightness": torch.rand(BATCH, device="meta")}


@pytest.mark.parametrize("name", LOSSES)
def test_no_loss_and_no_part_of_the_model_waits_for_the_device(name, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no meta device
    cfg = make_cfg(*LOSSES[name])
    head = ("MODEL.ID_LOSS_TYPE", cfg.MODEL.ID_LOSS_TYPE, "LOSS.SUPCON.ENABLE", cfg.LOSS.SUPCON.ENABLE)
    model = make_outline(*TINY_VIT, *SIDES, "MODEL.JPM", True, *head, classes=CLASSES, cameras=3, views=2)
    criterion = make_loss(cfg, CLASSES, model.feat_dim).to("meta")
    plan, batch = PhasePlan(cfg), make_batch()
    for epoch in (1, 15, 25):
        images = torch.randn(BATCH, 3, 32, 24, device="meta")
        output = model(images, cam_label=batch["camids"], view_label=batch["viewids"])
        total, parts = criterion(output, batch, plan.at(epoch))
        total.backward()
        assert parts and total.device.type == "meta"
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    with pytest.raises((RuntimeError, NotImplementedError)):
        norm.item()  # what any such question comes to
