"""Two processes train part branches as one does: losses, draws, gradients and running statistics."""

import pytest
import torch

from losses.spectral import spectral_transform
from processor.step.speed import count_step
from processor.systems.pcb import transformed
from tests.losses.batches import random_features
from tests.processor.pcb_stages import EVERYTHING, SIZE, pcb_stage, ready_batch
from tests.processor.stage_runs import RANKS, assert_ranks_alike, share_of, step_on_share
from tests.ranks import results_of_ranks
from utils.distributed import shared_rows

ROWS = 8  # four a process
FEATS = ("pooled", "embedding")


def step(feat: str, rank: int = 0, world_size: int = 1) -> dict[str, torch.Tensor]:
    """Return parts, readings, gradients and statistics of a step on a share of the batch."""
    stage, batch = pcb_stage(*EVERYTHING, "LOSS.SPECTRAL.FEAT", feat), ready_batch(ROWS, step=3)
    found, output, whole = step_on_share(stage, share_of(batch, rank, world_size), world_size)
    assert len(output.extra["spectral_logits"]) == len(whole["pids"]) == ROWS
    return found


def coupled(rows: torch.Tensor, rank: int) -> torch.Tensor:
    """Return a loss that differs between processes."""
    return ((rank + 1) * rows @ rows.t()).tanh().sum()


def steps(rank: int) -> dict:
    feat = random_features(ROWS)
    own = feat[4 * rank : 4 * rank + 4].clone().requires_grad_()
    rows = shared_rows(own)
    coupled(rows, rank).backward()
    kept = {feat: step(feat, rank, 2) for feat in FEATS}
    kept |= {"rows": rows.detach(), "gradient": own.grad}
    kept |= {"gathered": transformed(own, 0.2, gather=True), "apart": transformed(own, 0.2, gather=False)}
    return kept | {"work": count_step(pcb_stage(*EVERYTHING, double=False), SIZE)}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What each of two processes got."""
    return results_of_ranks(steps, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("feat", FEATS)
def test_two_processes_have_the_losses_the_gradients_and_the_statistics_of_one(kept, feat):
    alone = step(feat)
    assert any("running" in name for name in alone)
    for one in kept:
        assert_ranks_alike(one[feat], alone)


def test_shared_rows_are_those_of_all_and_every_process_adds_to_their_gradient(kept):
    feat = random_features(ROWS).requires_grad_()
    (coupled(feat, 0) + coupled(feat, 1)).backward()
    assert all(torch.equal(one["rows"], feat.detach()) for one in kept)
    torch.testing.assert_close(torch.cat([one["gradient"] for one in kept]), feat.grad, **RANKS)


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
    torch.testing.assert_close(whole, spectral_transform(feat, 0.2), **RANKS)
    shares = [spectral_transform(share, 0.2) for share in feat.split(ROWS // 2)]
    torch.testing.assert_close(apart, torch.cat(shares), **RANKS)
    assert not torch.allclose(whole, apart)
