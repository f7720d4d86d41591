"""Two processes train part branches as one does: losses, draws, gradients and running statistics."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from losses.spectral import spectral_transform
from processor.step.gather import gather_batch
from processor.step.speed import count_step
from processor.step.wrapping import wrap
from processor.systems.pcb import transformed
from tests.losses.batches import random_features
from tests.processor.pcb_stages import EVERYTHING, SIZE, pcb_stage, ready_batch
from tests.ranks import run_in_group
from utils.distributed import shared_rows

ROWS = 8  # four a process
CLOSE = {"rtol": 1e-9, "atol": 1e-10}
FEATS = ("pooled", "embedding")


def step(feat: str, rank: int = 0, world_size: int = 1) -> dict[str, torch.Tensor]:
    """Return parts, readings, gradients and statistics of a step on a share of the batch."""
    stage, batch = pcb_stage(*EVERYTHING, "LOSS.SPECTRAL.FEAT", feat), ready_batch(ROWS, step=3)
    share = slice(rank * ROWS // world_size, (rank + 1) * ROWS // world_size)
    own = {name: value if name == "step" else value[share] for name, value in batch.items()}
    trained = wrap(stage.model.train(), torch.device("cpu"), world_size, sync_bn=True)
    output = stage.forward_batch(trained, own)
    output, whole = gather_batch(output, own)
    assert len(output.extra["spectral_logits"]) == len(whole["pids"]) == ROWS
    total, parts = stage.criterion(output, whole, stage.plan.at(1))
    found = parts | {"total": total.detach()} | stage.criterion.readings(output, whole, stage.plan.at(1))
    total.backward()
    statistics = {name: value for name, value in stage.model.named_buffers() if "num_batches" not in name}
    return found | statistics | {name: weight.grad for name, weight in stage.model.named_parameters()}


def coupled(rows: torch.Tensor, rank: int) -> torch.Tensor:
    """Return a loss that differs between processes."""
    return ((rank + 1) * rows @ rows.t()).tanh().sum()


def keep_steps(folder: Path) -> None:
    rank = dist.get_rank()
    feat = random_features(ROWS)
    own = feat[4 * rank : 4 * rank + 4].clone().requires_grad_()
    rows = shared_rows(own)
    coupled(rows, rank).backward()
    kept = {feat: step(feat, rank, 2) for feat in FEATS}
    kept |= {"rows": rows.detach(), "gradient": own.grad}
    kept |= {"gathered": transformed(own, 0.2, gather=True), "apart": transformed(own, 0.2, gather=False)}
    kept |= {"work": count_step(pcb_stage(*EVERYTHING, double=False), SIZE)}
    torch.save(kept, folder / f"{rank}.pth")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What each of two processes got."""
    folder = tmp_path_factory.mktemp("ranks")
    run_in_group(keep_steps, folder)
    return [torch.load(folder / f"{rank}.pth", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("feat", FEATS)
def test_two_processes_have_the_losses_the_gradients_and_the_statistics_of_one(kept, feat):
    first, second = (one[feat] for one in kept)
    for name, expected in step(feat).items():
        torch.testing.assert_close(first[name], expected, **CLOSE, msg=lambda text, name=name: f"{name} {text}")
        torch.testing.assert_close(second[name], expected, **CLOSE, msg=lambda text, name=name: f"{name} {text}")


def test_shared_rows_are_those_of_all_and_every_process_adds_to_their_gradient(kept):
    feat = random_features(ROWS).requires_grad_()
    (coupled(feat, 0) + coupled(feat, 1)).backward()
    assert all(torch.equal(one["rows"], feat.detach()) for one in kept)
    torch.testing.assert_close(torch.cat([one["gradient"] for one in kept]), feat.grad, **CLOSE)


def test_the_work_of_a_step_is_counted_with_the_second_pass_wherever_it_is_asked(kept):
    runs = (EVERYTHING, (), (*EVERYTHING, "MODEL.ID_LOSS_TYPE", "amsoftmax"))
    with_transform, without, with_margin = (count_step(pcb_stage(*opts, double=False), SIZE) for opts in runs)
    assert with_transform == with_margin > without and all(one["work"] == with_transform for one in kept)


def test_a_process_alone_shares_its_rows_with_nobody():
    feat = random_features(3).bfloat16()
    assert shared_rows(feat) is feat


def test_features_are_transformed_by_the_whole_batch_or_by_each_share_alone(kept):
    feat = random_features(ROWS)
    whole, apart = (torch.cat([one[name] for one in kept]) for name in ("gathered", "apart"))
    torch.testing.assert_close(whole, spectral_transform(feat, 0.2), **CLOSE)
    shares = [spectral_transform(share, 0.2) for share in feat.split(ROWS // 2)]
    torch.testing.assert_close(apart, torch.cat(shares), **CLOSE)
    assert not torch.allclose(whole, apart)
