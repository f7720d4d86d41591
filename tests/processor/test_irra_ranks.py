"""Two processes see the losses of the whole batch, and their mean gradient is that of one process."""

from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from processor.step.gather import gather_batch
from processor.step.wrapping import wrap
from tests.processor.irra_stages import ALL, irra_stage, ready_batch
from tests.ranks import run_in_group

ROWS = 10  # five a process, with 4 and 5 masked words
OPTS = ("LOSS.TEXT.NAMES", ALL, "LOSS.TEXT.SOFT_LABEL", 0.3, "LOSS.TEXT.MLM_W", 0.25)
CLOSE = {"rtol": 1e-9, "atol": 1e-10}


def step(rank: int = 0, world_size: int = 1, last: int = ROWS) -> dict[str, torch.Tensor]:
    """Return parts, readings and gradients of one step on a share of the batch; words are masked before row `last`."""
    stage, batch = irra_stage(*OPTS), ready_batch(ROWS)
    batch["mlm_labels"][last:] = 0
    share = ROWS // world_size
    own = {name: value[rank * share : (rank + 1) * share] for name, value in batch.items()}
    trained: nn.Module = wrap(stage.model.train(), torch.device("cpu"), world_size, False)
    output = stage.forward_batch(trained, own)
    assert stage.settings.gather
    output, whole = gather_batch(output, own)
    assert len(whole["image_ids"]) == ROWS
    total, parts = stage.criterion(output, whole, stage.plan.at(1))
    found = parts | {"total": total.detach()} | stage.criterion.readings(output, whole, stage.plan.at(1))
    total.backward()
    return found | {name: weight.grad for name, weight in stage.model.named_parameters()}


def keep_steps(folder: Path) -> None:
    rank = dist.get_rank()
    torch.save([step(rank, 2, last) for last in (ROWS, ROWS // 2)], folder / f"{rank}.pth")


def test_two_processes_have_the_losses_and_the_gradients_of_one(tmp_path):
    run_in_group(keep_steps, tmp_path)
    shares = [torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in range(2)]
    for last, first, second in zip((ROWS, ROWS // 2), *shares, strict=True):
        alone = step(last=last)
        own = [first["mlm"], second["mlm"]]
        assert not torch.equal(*own)  # words are guessed where they are
        assert last == ROWS or own[1] == 0
        for name, expected in alone.items():
            mean = (first[name] + second[name]) / 2
            torch.testing.assert_close(mean, expected, **CLOSE, msg=lambda text, name=name: f"{name} {text}")
        for name in ("sdm", "itc", "cmpm", "id", "acc", "text_acc"):
            torch.testing.assert_close(first[name], second[name], **CLOSE)
