"""Two processes see the losses of the whole batch, and their mean gradient is that of one process."""

from pathlib import Path

import pytest
import torch

from tests.processor.modal_stages import modal_stage, ready_batch
from tests.processor.stage_runs import assert_ranks_alike, share_of, step_on_share
from tests.processor.test_multimodal_stage import loader_batch, real_stage
from tests.ranks import results_of_ranks

ROWS = 10  # five a process
PAIRS = ("DATALOADER.SAMPLER", "softmax_triplet", "DATALOADER.NUM_INSTANCE", 4, "MODEL.METRIC_LOSS_TYPE", "triplet")
FORMS = {"ce": PAIRS, "kl": ("LOSS.ALIGN.FORM", "kl")}


def step(form: str, rank: int = 0, world_size: int = 1) -> dict[str, torch.Tensor]:
    """Return parts, readings and gradients of one step on a share of the batch, half of which has no sketch."""
    stage, batch = modal_stage(*FORMS[form]), ready_batch(ROWS)
    batch["present"]["sk"][ROWS // 2 :] = False
    found, output, whole = step_on_share(stage, share_of(batch, rank, world_size), world_size, epoch=4)
    assert len(whole["pids"]) == len(output.extra["valid"]) == ROWS and output.extra["valid"].dtype == torch.bool
    assert torch.equal(whole["present"]["sk"], batch["present"]["sk"])
    return found


def real_step(folder: Path, rank: int = 0, world_size: int = 1) -> dict[str, torch.Tensor]:
    """As `step`, with the model that the stage is for and float64 images; of the second half no sample has infrared."""
    stage, batch = real_stage(folder), loader_batch({"nir": [2, 3], "text": [0]})
    stage.model.double()
    inputs = {name: x if name == "text" else x.double() / 255 for name, x in batch["modalities"].items()}
    own = share_of(batch | {"modalities": inputs}, rank, world_size)
    return step_on_share(stage, own, world_size, epoch=2)[0]


def steps(rank: int, folder: Path) -> list[dict[str, torch.Tensor]]:
    own = folder / str(rank)
    own.mkdir()
    return [*(step(form, rank, 2) for form in FORMS), real_step(own, rank, 2)]


@pytest.fixture(scope="module")
def shares(tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, torch.Tensor]]]:
    """Of each process, what its steps gave."""
    return results_of_ranks(steps, tmp_path_factory.mktemp("ranks"), tmp_path_factory.mktemp("models"))


def test_two_processes_have_the_losses_and_the_gradients_of_one(shares):
    for place, form in enumerate(FORMS):
        alone = step(form)
        assert {"id", "align", "norm", "acc", "query_acc", "classifier.weight"} <= alone.keys()
        assert ("triplet" in alone) == (form == "ce")
        for share in shares:
            assert_ranks_alike(share[place], alone)


def test_two_processes_of_the_whole_model_have_the_gradients_and_statistics_of_one(shares, tmp_path):
    alone = real_step(tmp_path)
    assert any(".nir" in name and bool(value.any()) for name, value in alone.items())
    assert any("running" in name for name in alone)
    for share in shares:
        assert_ranks_alike(share[-1], alone)
