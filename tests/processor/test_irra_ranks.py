"""Two processes see the losses of the whole batch, and their mean gradient is that of one process."""

import torch

from tests.processor.irra_stages import ALL, irra_stage, ready_batch
from tests.processor.stage_runs import assert_ranks_alike, share_of, step_on_share
from tests.ranks import results_of_ranks

ROWS = 10  # five a process, with 4 and 5 masked words
LASTS = (ROWS, ROWS // 2)  # rows before which words are masked
OPTS = ("LOSS.TEXT.NAMES", ALL, "LOSS.TEXT.SOFT_LABEL", 0.3, "LOSS.TEXT.MLM_W", 0.25)


def step(last: int, rank: int = 0, world_size: int = 1) -> dict[str, torch.Tensor]:
    """Return parts, readings and gradients of one step on a share of the batch."""
    stage, batch = irra_stage(*OPTS), ready_batch(ROWS)
    batch["mlm_labels"][last:] = 0
    found, _, whole = step_on_share(stage, share_of(batch, rank, world_size), world_size)
    assert len(whole["image_ids"]) == ROWS
    return found


def steps(rank: int) -> list[dict[str, torch.Tensor]]:
    return [step(last, rank, 2) for last in LASTS]


def test_two_processes_have_the_losses_and_the_gradients_of_one(tmp_path):
    for last, first, second in zip(LASTS, *results_of_ranks(steps, tmp_path), strict=True):
        own = [first["mlm"], second["mlm"]]
        assert not torch.equal(*own)  # words are guessed where they are
        assert last == ROWS or own[1] == 0
        assert_ranks_alike({name: (first[name] + second[name]) / 2 for name in first}, step(last))
        assert_ranks_alike(first, {name: second[name] for name in ("sdm", "itc", "cmpm", "id", "acc", "text_acc")})
