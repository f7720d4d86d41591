"""No step waits for the device: not for one value, not for a copy, not for a shape that depends on values.

Where there is no GPU, torch's meta device stands for it: its tensors have no values, so that whatever asks for one
fails. What the meta device cannot run, loss scaling and autocast, is watched on the CPU.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from configs.phases import Phase, PhasePlan
from datasets.transforms import BatchTransform, Erasing
from datasets.two_views import TwoViews
from losses import make_loss
from model import make_model
from model.outputs import ModelOutput
from processor.epoch import train_epoch
from processor.stage import Stage, StepSettings
from processor.step.batch import BatchSettings, prepare_batch
from processor.step.meter import Meter
from processor.systems.transreid import forward_images
from solver import make_optimizer
from solver.update import Updater, clip_norm, updater_of
from tests.model.builds import TINY_VIT, make_cfg

META, CPU = torch.device("meta"), torch.device("cpu")
CLASSES, CAMERAS, VIEWS, BATCH = 5, 3, 2, 8
SCALE = 2.0**8  # of the losses in fp16, low enough that no step is skipped
PLAIN = {"id": 1.0, "triplet": 1.0, "tripletx": 0.0, "supcon": 0.0}
ALL = {"id": 1.0, "triplet": 1.0, "tripletx": 1.2, "supcon": 0.3}
SIE = ("MODEL.SIE_CAMERA", True, "MODEL.SIE_VIEW", True)
CENTER = ("MODEL.IF_WITH_CENTER", "yes", "MODEL.METRIC_LOSS_TYPE", "triplet_center")
SUPCON = ("LOSS.SUPCON.ENABLE", True)
BRIGHTNESS = ("LOSS.BRIGHTNESS.ENABLE", True)
AUGMENT = BatchTransform([0.5] * 3, [0.5] * 3, flip_prob=0.5, padding=2, erase_prob=0.5)
GREY = BatchTransform(
    *([0.5] * 3, [0.5] * 3),
    *(0.0, 0, 0.5, Erasing((0.02, 0.4), "raw_mean", 0.5), (0.2, 0.2, 0.2, 0.1)),
)
VIEWS_OF_TWO = TwoViews([0.5] * 3, [0.5] * 3, 0.5, (0.3, 1.0), (0.75, 1.33), (0.4, 0.4, 0.4, 0.1), 0.8, 0.2)
RUNS = {  # options, weights, routed, batch settings, transform
    "transreid": (("MODEL.JPM", True, *SIE, *CENTER), PLAIN, False, BatchSettings(), AUGMENT),
    "model_b": (
        ("MODEL.JPM", True, *SUPCON, *BRIGHTNESS, "LOSS.SUPCON.DARK_GAMMA", 1.8),
        *(ALL, True, BatchSettings("augmented"), AUGMENT),
    ),
    "model_b_soft": (
        (*SUPCON, *BRIGHTNESS, "LOSS.BRIGHTNESS.MODE", "soft"),
        *(ALL, True, BatchSettings("clean"), AUGMENT),
    ),
    "unrouted": (SUPCON, ALL, False, BatchSettings(), AUGMENT),
    "no metric loss": (SUPCON, {**ALL, "triplet": 0.0, "tripletx": 0.0}, False, BatchSettings(), AUGMENT),
    "arcface": (("MODEL.ID_LOSS_TYPE", "arcface"), PLAIN, False, BatchSettings(), AUGMENT),
    "circle": (("MODEL.ID_LOSS_TYPE", "circle", "MODEL.NO_MARGIN", True), PLAIN, False, BatchSettings(), AUGMENT),
    "jittered, erased to a colour": ((), PLAIN, False, BatchSettings(), GREY),
    "two_views": (SUPCON, PLAIN | {"supcon": 1.0}, False, BatchSettings(two_views=True), VIEWS_OF_TWO),
}


def make_stage(device: torch.device, *opts: object) -> Stage:
    """Return a stage with a tiny ViT on `device`, and its criterion and optimizers from the configuration."""
    cfg = make_cfg(*TINY_VIT, "SOLVER.OPTIMIZER_NAME", "SGD", *opts)
    with device:
        model = make_model(cfg, CLASSES, CAMERAS, VIEWS)
        criterion = make_loss(cfg, CLASSES, model.feat_dim)
    optimizers = make_optimizer(cfg, model, criterion)
    updater, plan = updater_of(cfg, "main", model, optimizers, device), PhasePlan(cfg)
    settings = StepSettings(device, None, log_period=100, gather=False)
    return Stage("main", plan, model, model, None, None, forward_images, criterion, updater, None, settings)


def make_batches(count: int, pin: bool = False) -> list[dict]:
    generator = torch.Generator().manual_seed(1)
    labels = {"pids": CLASSES, "camids": CAMERAS, "viewids": VIEWS}
    batches = []
    for _ in range(count):
        batch = {name: torch.randint(0, most, (BATCH,), generator=generator) for name, most in labels.items()}
        batch["images"] = torch.randint(0, 256, (BATCH, 3, 32, 24), generator=generator, dtype=torch.uint8)
        if pin:
            batch = {name: value.pin_memory() for name, value in batch.items()}
        batches.append(batch | {"paths": [""] * BATCH})
    return batches


def train(
    stage: Stage,
    device: torch.device,
    name: str,
    amp: torch.dtype | None = None,
    criterion: torch.nn.Module | None = None,
    batches: list[dict] | None = None,
) -> None:
    """Train an epoch of three steps with clipping, every second of which updates, and one reading at its end."""
    _, weights, routed, batch, transform = RUNS[name]
    if criterion is not None:
        stage.criterion = criterion
    scaled_on = "cuda" if device.type == "cuda" else "cpu"
    scaler = torch.amp.GradScaler(scaled_on, init_scale=SCALE, enabled=amp == torch.float16)
    optimizers = stage.updater.optimizer, stage.updater.center_optimizer
    stage.updater = Updater(*optimizers, scaler, partial(clip_norm, largest=1.0), accum_steps=2)
    stage.settings = stage.settings._replace(amp=amp)
    stage.prepare = partial(prepare_batch, device=device, transform=transform, settings=batch)
    stage.loader = make_batches(3) if batches is None else batches
    phase = Phase(1, 0, "static", weights | ({"center": 0.0005} if optimizers[1] else {}), 2, routed)
    train_epoch(stage, stage.model, phase, lambda *_: None)


@pytest.fixture
def valueless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a training step run on the meta device, which has no autocast, and whose meters cannot be read."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    monkeypatch.setattr(Meter, "read", lambda self, epoch: dict.fromkeys(self.names, 0.0))


@pytest.mark.parametrize("name", RUNS)
def test_a_step_runs_where_no_tensor_has_a_value(valueless, name):
    train(make_stage(META, *RUNS[name][0]), META, name)


class Asking(nn.Module):
    """A criterion that asks for something of the logits; `ask` is a function of them."""

    def __init__(self, inner: torch.nn.Module, ask: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        self.inner, self.ask = inner, ask
        self.names, self.readings = inner.names, inner.readings

    def forward(self, output: ModelOutput, batch: dict, phase: Phase) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        self.ask(output.logits[0])
        return self.inner(output, batch, phase)


@pytest.mark.parametrize(
    "ask",
    [
        lambda x: x.sum().item(),
        lambda x: x.cpu(),
        lambda x: x.tolist(),
        lambda x: bool((x > 0).any()),
        lambda x: (x > 0).nonzero(),
        lambda x: x[x > 0],
        lambda x: x.detach().numpy(),
    ],
)
def test_a_step_that_asks_for_a_value_fails_there(valueless, ask):
    stage = make_stage(META)
    with pytest.raises((RuntimeError, NotImplementedError, TypeError)):
        train(stage, META, "arcface", criterion=Asking(stage.criterion, ask))


class Watch(TorchDispatchMode):
    """Counts what would wait for a device: reading a value, and finding places."""

    waits = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default, torch.ops.aten.equal.default)

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        self.count += func in self.waits
        return func(*args, **(kwargs or {}))


def test_loss_scaling_reads_no_value_in_any_optimizer(monkeypatch):
    monkeypatch.setattr(Meter, "read", lambda self, epoch: dict.fromkeys(self.names, 0.0))
    stage = make_stage(CPU, "MODEL.JPM", True, "MODEL.DROP_PATH", 0.0, *CENTER)
    before = [weight.detach().clone() for weight in (stage.model.base.cls_token, stage.criterion.center.centers)]
    with Watch() as watch:
        train(stage, CPU, "transreid", amp=torch.float16)
    assert watch.count == 0
    after = (stage.model.base.cls_token, stage.criterion.center.centers)
    assert all(not torch.equal(one, two) for one, two in zip(before, after, strict=True))  # both have stepped


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, which tells when it is waited for")
@pytest.mark.parametrize("amp", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", RUNS)
def test_cuda_is_not_waited_for_between_readings(monkeypatch, name, amp):
    device = torch.device("cuda")
    stage = make_stage(device, *RUNS[name][0])
    batches = make_batches(3, pin=True)
    train(stage, device, name, amp, batches=batches)  # constants go to the device in the first steps
    read = Meter.read

    def read_in_peace(self, epoch: int) -> dict[str, float]:
        torch.cuda.set_sync_debug_mode("default")
        return read(self, epoch)

    monkeypatch.setattr(Meter, "read", read_in_peace)
    torch.cuda.set_sync_debug_mode("error")
    try:
        train(stage, device, name, amp, batches=batches)
    finally:
        torch.cuda.set_sync_debug_mode("default")
