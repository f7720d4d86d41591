"""Two processes learn from a teacher as one does: the term of the whole batch, and the gradients of one process."""

from pathlib import Path

import pytest
import torch

from model.outputs import map_tensors
from processor.step.gather import gather_batch
from processor.step.wrapping import wrap
from tests.processor.test_distill import ALL, BATCH, JPM, WIDE, loader_batch, student_stage
from tests.ranks import results_of_ranks
from tests.teachers import write_teacher
from tests.tolerance import bounds

OPTS = (*ALL, *JPM, "MODEL.DROP_PATH", 0.0)


def step(teacher: str, rank: int = 0, world_size: int = 1, gather: bool = True) -> dict[str, torch.Tensor]:
    """Return the term and the gradients of one step on a process's share of the batch, the student in float64."""
    stage, share = student_stage(Path(teacher), *OPTS), BATCH // world_size
    stage.model.double()
    stage.criterion.double()
    own = {name: value[rank * share : (rank + 1) * share] for name, value in loader_batch().items()}
    batch = stage.prepare(own)
    batch |= {"images": batch["images"].double(), "teacher": map_tensors(batch["teacher"], torch.Tensor.double)}
    trained = wrap(stage.model.train(), torch.device("cpu"), world_size, True)
    output = stage.forward_batch(trained, batch)
    if gather:
        output, batch = gather_batch(output, batch)
        assert len(batch["teacher"].logits[0]) == len(batch["teacher"].extra["embedding"]) == BATCH
    total, parts = stage.criterion(output, batch, stage.plan.at(1))
    stage.updater.backward(total, 1, 1)
    gradients = {name: weight.grad for name, weight in stage.model.named_parameters() if weight.requires_grad}
    return gradients | {"projection": stage.criterion.distill.projection.weight.grad, "term": parts["distill"]}


def steps(rank: int, teacher: str) -> dict[str, dict[str, torch.Tensor]]:
    """Return what a process of two has where losses see the batch of both, and where each sees its own share."""
    return {name: step(teacher, rank, 2, name == "whole") for name in ("whole", "share")}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The checkpoint of a wider teacher with local branches; read only."""
    return str(write_teacher(tmp_path_factory.mktemp("teacher"), *WIDE, *JPM))


@pytest.fixture(scope="module")
def ranks(teacher: str, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, torch.Tensor]]]:
    """What each of two processes found."""
    return results_of_ranks(steps, tmp_path_factory.mktemp("ranks"), teacher)


def test_two_processes_have_the_term_and_the_gradients_of_one(teacher, ranks):
    expected = step(teacher)
    for found in (rank["whole"] for rank in ranks):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            scale = max(value.abs().max().item(), 1e-2)
            torch.testing.assert_close(
                found[name], value, **bounds(8000, scale), msg=lambda text, n=name: f"{n}: {text}"
            )
    assert expected["projection"].abs().max() > 1e-4


def test_losses_of_each_share_move_the_projection_by_their_mean(ranks):
    one, two = (rank["share"] for rank in ranks)
    assert torch.equal(one["projection"], two["projection"]) and one["term"] != two["term"]
