"""Two processes see the losses of the whole batch, and their mean gradient is that of one process."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from processor.step.gather import gather_batch
from processor.step.wrapping import wrap
from tests.processor.modal_stages import modal_stage, ready_batch
from tests.processor.test_multimodal_stage import loader_batch, real_stage
from tests.ranks import run_in_group

ROWS = 10  # five a process
CLOSE = {"rtol": 1e-9, "atol": 1e-10}
PAIRS = ("DATALOADER.SAMPLER", "softmax_triplet", "DATALOADER.NUM_INSTANCE", 4, "MODEL.METRIC_LOSS_TYPE", "triplet")
FORMS = {"ce": PAIRS, "kl": ("LOSS.ALIGN.FORM", "kl")}


def share_of(batch: dict, rows: slice) -> dict:
    return {
        name: {key: part[rows] for key, part in value.items()} if isinstance(value, dict) else value[rows]
        for name, value in batch.items()
    }


def step(form: str, rank: int = 0, world_size: int = 1) -> dict[str, torch.Tensor]:
    """Return parts, readings and gradients of one step on a share of the batch, half of which has no sketch."""
    stage, batch, share = modal_stage(*FORMS[form]), ready_batch(ROWS), ROWS // world_size
    batch["present"]["sk"][ROWS // 2 :] = False
    own = share_of(batch, slice(rank * share, (rank + 1) * share))
    trained: nn.Module = wrap(stage.model.train(), torch.device("cpu"), world_size, False)
    output = stage.forward_batch(trained, own)
    assert stage.settings.gather
    output, whole = gather_batch(output, own)
    assert len(whole["pids"]) == len(output.extra["valid"]) == ROWS and output.extra["valid"].dtype == torch.bool
    assert torch.equal(whole["present"]["sk"], batch["present"]["sk"])
    total, parts = stage.criterion(output, whole, stage.plan.at(4))
    found = parts | {"total": total.detach()} | stage.criterion.readings(output, whole, stage.plan.at(4))
    total.backward()
    return found | {name: weight.grad for name, weight in stage.model.named_parameters()}


def real_step(folder: Path, rank: int = 0, world_size: int = 1) -> dict[str, torch.Tensor]:
    """As `step`, with the model that the stage is for and float64 images; of the second half no sample has infrared."""
    stage, batch = real_stage(folder), loader_batch({"nir": [2, 3], "text": [0]})
    stage.model.double()
    inputs = {name: x if name == "text" else x.double() / 255 for name, x in batch["modalities"].items()}
    share = 4 // world_size
    own = share_of(batch | {"modalities": inputs}, slice(rank * share, (rank + 1) * share))
    trained = wrap(stage.model.train(), torch.device("cpu"), world_size, True)
    output, whole = gather_batch(stage.forward_batch(trained, own), own)
    total, parts = stage.criterion(output, whole, stage.plan.at(2))
    total.backward()
    found = {name: weight.grad for name, weight in stage.model.named_parameters() if weight.requires_grad}
    return found | parts | {name: value for name, value in stage.model.named_buffers() if "running" in name}


def keep_steps(folder: Path) -> None:
    rank = dist.get_rank()
    (folder / str(rank)).mkdir()
    steps = [step(form, rank, 2) for form in FORMS] + [real_step(folder / str(rank), rank, 2)]
    torch.save(steps, folder / f"{rank}.pth")


@pytest.fixture(scope="module")
def shares(tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, torch.Tensor]]]:
    """Of each process, what its steps gave."""
    folder = tmp_path_factory.mktemp("ranks")
    run_in_group(keep_steps, folder)
    return [torch.load(folder / f"{rank}.pth", weights_only=True) for rank in range(2)]


def test_two_processes_have_the_losses_and_the_gradients_of_one(shares):
    for form, first, second in zip(FORMS, *shares, strict=False):
        alone = step(form)
        assert {"id", "align", "norm", "acc", "query_acc", "classifier.weight"} <= alone.keys()
        assert ("triplet" in alone) == (form == "ce")
        for name, expected in alone.items():
            for got in (first[name], second[name]):
                torch.testing.assert_close(got, expected, **CLOSE, msg=lambda text, name=name: f"{name} {text}")


def test_two_processes_of_the_whole_model_have_the_gradients_and_statistics_of_one(shares, tmp_path):
    alone = real_step(tmp_path)
    assert any(".nir" in name and bool(value.any()) for name, value in alone.items())
    for name, expected in alone.items():
        for share in shares:
            torch.testing.assert_close(share[-1][name], expected, **CLOSE, msg=lambda text, name=name: f"{name} {text}")
