"""The inner loop: accumulation, clipping, the meter and its guard."""

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from configs.phases import Phase
from losses.readings import accuracy
from model import ModelOutput
from processor import epoch
from processor.epoch import train_epoch
from processor.stage import Stage, StepSettings
from processor.step import clock, meter
from processor.step.batch import BatchSettings, prepare_batch
from processor.step.meter import Meter
from processor.step.wrapping import wrap
from solver.update import Updater, clip_norm
from tests.tolerance import rounding
from utils.errors import RunError

CPU = torch.device("cpu")
PHASE = Phase(1, 0, "static", {"id": 1.0, "triplet": 0.0, "tripletx": 0.0, "supcon": 0.0}, 2, False)


class Toy(nn.Module):
    """Logits are a linear function of the mean colour."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 4)

    def forward(self, images: torch.Tensor) -> ModelOutput:
        return ModelOutput([self.fc(images.mean((2, 3)))], [], [])


class Mean(nn.Module):
    """Cross-entropy, in the criterion's form; NaN once a batch holds identity `poison`."""

    def __init__(self, poison: int | None = None) -> None:
        super().__init__()
        self.poison = poison

    def forward(self, output: ModelOutput, batch: dict, phase: Phase) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        loss = nn.functional.cross_entropy(output.logits[0], batch["pids"])
        if self.poison is not None and (batch["pids"] == self.poison).any():
            loss = loss * math.nan
        return loss, {"id": loss.detach()}

    def readings(self, output: ModelOutput, batch: dict, phase: Phase) -> dict[str, torch.Tensor]:
        return {"acc": accuracy(output, batch)}

    def names(self, phase: Phase) -> list[str]:
        return ["id", "acc"]


class OneEpoch(NamedTuple):
    """A plan."""

    max_epochs: int = 1


def make_stage(criterion: nn.Module, lr: float = 0.1) -> Stage:
    torch.manual_seed(0)
    model = Toy()
    return Stage(
        name="main",
        plan=OneEpoch(),
        model=model,
        trained=model,
        loader=None,
        prepare=lambda batch: batch,
        forward_batch=lambda m, batch: m(batch["images"]),
        criterion=criterion,
        updater=Updater(torch.optim.SGD(model.parameters(), lr=lr)),
        scheduler=None,
        settings=StepSettings(CPU, None, log_period=100, gather=False),
    )


def make_batches(count: int, pid: int | None = None) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        {
            "images": torch.rand(6, 3, 4, 4, generator=generator),
            "pids": torch.full((6,), pid) if pid is not None else torch.randint(0, 4, (6,), generator=generator),
        }
        for _ in range(count)
    ]


def run(
    stage: Stage,
    batches: Iterable[dict],
    accum_steps: int = 1,
    clip: float | None = None,
    model: nn.Module | None = None,
    peak_images: float = 0.0,
    **settings: object,
) -> list[tuple[int, dict[str, float]]]:
    logged = []
    stage.loader, stage.settings = batches, stage.settings._replace(**settings)
    stage.updater = Updater(stage.optimizer, clip=clip, accum_steps=accum_steps)
    on_log = lambda step, means: logged.append((step, means))  # noqa: E731
    train_epoch(stage, model or stage.model, PHASE, on_log, peak_images=peak_images)
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
    run(stage, make_batches(1), clip=partial(clip_norm, largest=1e-3))
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
        assert means["loss"] == pytest.approx(sum(losses[row] for row in rows) / len(rows), rel=rounding(32))
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


def test_gradients_are_averaged_over_processes_once_for_each_update(monkeypatch):
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    step = Updater.step
    monkeypatch.setattr(Updater, "step", lambda self: done.append("update") or step(self))
    try:
        stage, expected, done = make_stage(Mean()), make_stage(Mean()), []
        model = wrap(stage.model, CPU, 2, sync_bn=False)
        model.register_comm_hook(None, lambda _, bucket: done.append("average") or allreduce_hook(None, bucket))
        run(stage, make_batches(5), 2, model=model)
    finally:
        dist.destroy_process_group()
    assert done == ["average", "update"] * 3
    run(expected, make_batches(5), 2)
    for a, b in zip(stage.model.parameters(), expected.model.parameters(), strict=True):
        torch.testing.assert_close(a, b)


class FakeRanks:
    """Two processes that read their meters one after the other: the first call fills the row, the second sums up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows = {}
        self.rank = 0
        monkeypatch.setattr(meter, "num_processes", lambda: 2)
        monkeypatch.setattr(meter, "own_rank", lambda: self.rank)
        monkeypatch.setattr(meter, "sum_over_ranks", self.sum)

    def sum(self, rows: torch.Tensor) -> torch.Tensor:
        self.rows.setdefault(self.rank, []).append(rows.clone())
        return sum(self.rows[rank][-1] for rank in self.rows)

    def read(self, meters: Sequence[Meter], number: int) -> dict[str, float]:
        """Return what rank `number` reads, once both meters have given their row."""
        for self.rank in (1 - number, number):
            try:
                reading = meters[self.rank].read(4)
            except RunError:
                if self.rank == number:
                    raise
        return reading


def two_meters(*steps: Sequence[Sequence[float]]) -> list[Meter]:
    """Return a meter for each rank; a step holds for each rank its values of loss and id."""
    meters = [Meter(["loss", "id"], CPU) for _ in range(2)]
    for step in steps:
        for one, values in zip(meters, step, strict=True):
            one.add([torch.tensor(value) for value in values])
    return meters


@pytest.mark.parametrize("rank", [0, 1])
def test_a_reading_is_the_mean_over_processes_in_one_collective(monkeypatch, rank):
    ranks = FakeRanks(monkeypatch)
    meters = two_meters(([1.0, 4.0], [3.0, 8.0]), ([2.0, 6.0], [6.0, 10.0]))
    assert ranks.read(meters, rank) == {"loss": 3.0, "id": 7.0}
    assert [len(rows) for rows in ranks.rows.values()] == [1, 1]


@pytest.mark.parametrize("rank", [0, 1])
def test_processes_agree_on_the_first_bad_step_of_any(monkeypatch, rank):
    ranks = FakeRanks(monkeypatch)
    good, bad = [1.0, 1.0], [math.inf, 1.0]
    meters = two_meters((good, good), (good, [math.nan, math.nan]), (bad, good))
    with pytest.raises(RunError, match="epoch 4, iteration 2: loss, id is not finite"):
        ranks.read(meters, rank)


@pytest.mark.parametrize("rank", [0, 1])
def test_processes_that_are_bad_in_the_same_step_name_the_terms_of_both(monkeypatch, rank):
    ranks = FakeRanks(monkeypatch)
    meters = two_meters(([math.inf, 1.0], [1.0, math.nan]))
    with pytest.raises(RunError, match="iteration 1: loss, id is"):
        ranks.read(meters, rank)


def test_the_readings_hold_times_rate_and_share_of_the_peak(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(clock, "perf_counter", lambda: now[0])

    class Loader(list):
        def __iter__(self) -> Iterator[dict]:
            for batch in super().__iter__():
                now[0] += 1.0
                yield batch

    stage = make_stage(Mean())
    forward = stage.forward_batch

    def slow_forward(model: nn.Module, batch: dict) -> ModelOutput:
        now[0] += 3.0
        return forward(model, batch)

    stage.forward_batch = slow_forward
    logged = run(stage, Loader(make_batches(3)), log_period=2, peak_images=6.0)
    assert [step for step, _ in logged] == [2, 3]
    for _, readings in logged:
        assert readings["data_time"] == pytest.approx(1.0) and readings["step_time"] == pytest.approx(4.0)
        assert readings["data_share"] == pytest.approx(0.25)
        assert readings["images_per_s"] == pytest.approx(1.5) and readings["mfu"] == pytest.approx(0.25)  # 6 images


class AllImages(Mean):
    """The sum of all logits, whatever the identities."""

    def forward(self, output: ModelOutput, batch: dict, phase: Phase) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return output.logits[0].sum(), {"id": torch.zeros(())}

    def readings(self, output: ModelOutput, batch: dict, phase: Phase) -> dict[str, torch.Tensor]:
        return {"acc": torch.zeros(())}


def test_both_views_of_an_image_count(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(clock, "perf_counter", lambda: now[0])
    stage = make_stage(Mean())
    stage.prepare = partial(
        prepare_batch, device=CPU, transform=lambda x: x.repeat(2, 1, 1, 1), settings=BatchSettings(two_views=True)
    )
    stage.criterion = AllImages()
    forward = stage.forward_batch

    def slow_forward(model: nn.Module, batch: dict) -> ModelOutput:
        now[0] += 2.0
        return forward(model, batch)

    stage.forward_batch = slow_forward
    batches = [
        batch | {"paths": [""] * 6, "camids": torch.zeros(6), "viewids": torch.zeros(6)} for batch in make_batches(1)
    ]
    ((_, readings),) = run(stage, batches)
    assert readings["images_per_s"] == pytest.approx(12 / 2)


def test_gathered_outputs_and_labels_are_what_losses_and_readings_see(monkeypatch):
    def double(output: ModelOutput, batch: dict) -> tuple[ModelOutput, dict]:
        return output._replace(logits=[output.logits[0].repeat(2, 1)]), {"pids": batch["pids"].repeat(2)}

    monkeypatch.setattr(epoch, "gather_batch", double)
    seen = []

    class Seeing(Mean):
        def forward(
            self, output: ModelOutput, batch: dict, phase: Phase
        ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            seen.append((len(output.logits[0]), len(batch["pids"])))
            return super().forward(output, batch, phase)

    ((_, alone),) = run(make_stage(Seeing(), lr=0.0), make_batches(1))
    ((_, gathered),) = run(make_stage(Seeing(), lr=0.0), make_batches(1), gather=True)
    assert seen == [(6, 6), (12, 12)]
    assert gathered["loss"] == pytest.approx(alone["loss"], rel=rounding(32))
    assert gathered["acc"] == pytest.approx(alone["acc"])
