"""The inner loop: accumulation, clipping, the meter and its guard."""

import math

import pytest
import torch
from torch import nn

from model import ModelOutput
from processor.epoch import Meter, StepSettings, train_epoch
from processor.phases import Phase
from processor.stage import Stage
from utils.errors import RunError

CPU = torch.device("cpu")
PHASE = Phase(1, 0, "static", {"id": 1.0, "triplet": 0.0, "tripletx": 0.0, "supcon": 0.0}, 2, False)


class Toy(nn.Module):
    """Logits are a linear function of the mean colour."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 4)

    def forward(self, images):
        return ModelOutput([self.fc(images.mean((2, 3)))], [], [])


class Mean(nn.Module):
    """Cross-entropy, in the criterion's form; NaN once a batch holds identity `poison`."""

    def __init__(self, poison=None):
        super().__init__()
        self.center = None
        self.poison = poison

    def forward(self, output, batch, phase):
        loss = nn.functional.cross_entropy(output.logits[0], batch["pids"])
        if self.poison is not None and (batch["pids"] == self.poison).any():
            loss = loss * math.nan
        return loss, {"id": loss.detach()}


def make_stage(criterion, lr=0.1):
    torch.manual_seed(0)
    model = Toy()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    return Stage("main", model, lambda m, batch: m(batch["images"]), criterion, optimizer, None, None, None, 1)


def make_batches(count, pid=None):
    generator = torch.Generator().manual_seed(1)
    return [
        {
            "images": torch.rand(6, 3, 4, 4, generator=generator),
            "pids": torch.full((6,), pid) if pid is not None else torch.randint(0, 4, (6,), generator=generator),
        }
        for _ in range(count)
    ]


def run(stage, batches, accum_steps=1, grad_clip=0.0, log_period=100):
    logged = []
    settings = StepSettings(CPU, None, grad_clip, accum_steps, log_period, 0.0)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    train_epoch(
        *(stage, stage.model, PHASE, batches, lambda images: images, scaler, settings),
        lambda step, means: logged.append((step, means)),
    )
    return logged


@pytest.mark.parametrize(("batches", "accum_steps"), [(4, 2), (5, 2), (3, 8)])
def test_accumulated_batches_step_with_their_mean_gradient(batches, accum_steps):
    stage = make_stage(Mean())
    expected = make_stage(Mean())
    data = make_batches(batches)
    run(stage, data, accum_steps)
    for start in range(0, batches, accum_steps):
        group = data[start : start + accum_steps]
        images, pids = torch.cat([b["images"] for b in group]), torch.cat([b["pids"] for b in group])
        expected.optimizer.zero_grad()
        nn.functional.cross_entropy(expected.model(images).logits[0], pids).backward()
        expected.optimizer.step()
    for a, b in zip(stage.model.parameters(), expected.model.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_clipping_bounds_the_update():
    stage = make_stage(Mean(), lr=1.0)
    before = torch.cat([p.detach().flatten().clone() for p in stage.model.parameters()])
    run(stage, make_batches(1), grad_clip=1e-3)
    after = torch.cat([p.detach().flatten() for p in stage.model.parameters()])
    assert (after - before).norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_readings_are_means_since_the_last_one():
    stage = make_stage(Mean(), lr=0.0)
    data = make_batches(5)
    logged = run(stage, data, log_period=2)
    losses = [nn.functional.cross_entropy(stage.model(b["images"]).logits[0], b["pids"]).item() for b in data]
    hits = [(stage.model(b["images"]).logits[0].argmax(1) == b["pids"]).float().mean().item() for b in data]
    assert [step for step, _ in logged] == [2, 4, 5]
    for (_, means), rows in zip(logged, ([0, 1], [2, 3], [4]), strict=True):
        assert means["loss"] == pytest.approx(sum(losses[row] for row in rows) / len(rows), rel=1e-5)
        assert means["acc"] == pytest.approx(sum(hits[row] for row in rows) / len(rows))
        assert means["id"] == pytest.approx(means["loss"])


def test_a_loss_that_is_not_finite_stops_the_run_naming_epoch_iteration_and_term():
    stage = make_stage(Mean(poison=3))
    good, bad = make_batches(1, pid=1), make_batches(1, pid=3)
    with pytest.raises(RunError, match="epoch 1, iteration 3: loss, id is not finite"):
        run(stage, good * 2 + bad + good * 4)


def test_the_meter_keeps_the_first_bad_step_across_readings():
    meter = Meter(["loss"], CPU)
    meter.add([torch.tensor(1.0)])
    assert meter.read(1) == {"loss": 1.0}
    for value in (2.0, math.inf, math.nan):
        meter.add([torch.tensor(value)])
    with pytest.raises(RunError, match="epoch 7, iteration 3"):
        meter.read(7)
