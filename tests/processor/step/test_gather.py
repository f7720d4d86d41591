"""Outputs and labels of all processes come back where they were, and gradients reach each process's own rows."""

from typing import Any

import pytest
import torch

from model import OWN_ROWS, ModelOutput, map_tensors, tensors_of
from processor.step.gather import gather_batch
from tests.ranks import run_in_group
from utils.distributed import own_rank

WORLD, ROWS = 2, 3  # rows of each process
WIDTHS = {"logits": (5, 5), "pre_bn": (4, 3, 6), "bnneck": (4,)}


def make_output(rows: int, seed: int) -> ModelOutput:
    """Return branches of unequal number and width, a projection, and further outputs: of all rows and of the own."""
    draw = torch.Generator().manual_seed(seed)
    branches = {name: [torch.randn(rows, width, generator=draw) for width in WIDTHS[name]] for name in WIDTHS}
    extra = {
        "last": torch.randn(rows, 2, 3, generator=draw),
        "valid": torch.rand(rows, 4, generator=draw) > 0.5,
        "mlm_logits": torch.randn(rows, 7, generator=draw),
        "mlm_targets": torch.arange(rows),
    }
    return ModelOutput(**branches, projection=torch.randn(rows, 8, generator=draw), extra=extra)


def make_batch(rows: int) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(2)
    return {
        "images": torch.rand(rows, 3, 2, 2, generator=draw),
        "paths": [f"{row}.jpg" for row in range(rows)],
        "pids": torch.arange(rows) + 2**40,
        "camids": torch.arange(rows) % 2,
        "caption_ids": torch.arange(rows) * 3,
        "brightness": torch.rand(rows, generator=draw),
        "present": {"nir": torch.rand(rows, generator=draw) > 0.5, "text": torch.arange(rows) == 1},
        "teacher": make_output(rows, seed=3)._replace(projection=None, extra={"valid": torch.arange(rows) > 2}),
        "step": 17,
    }


def rows_of(value: Any, rows: slice) -> Any:
    """Return these rows of all that a batch or an output holds."""
    if isinstance(value, ModelOutput):
        return map_tensors(value, lambda tensor: tensor[rows])
    if isinstance(value, dict):
        return {name: rows_of(part, rows) for name, part in value.items()}
    return value if isinstance(value, int) else value[rows]


def coupled(output: ModelOutput) -> torch.Tensor:
    """Return a loss that couples every row of the floating outputs with every other."""
    shared = [tensor.flatten(1) for tensor in tensors_of(output) if tensor.is_floating_point()]
    return sum((tensor @ tensor.T).tanh().sum() for tensor in shared)


def gather_on_rank(folder: str) -> None:
    own = slice(ROWS * own_rank(), ROWS * (own_rank() + 1))
    output = rows_of(make_output(WORLD * ROWS, seed=1), own)
    output = map_tensors(output, lambda tensor: tensor.clone().requires_grad_(tensor.is_floating_point()))
    whole, labels = gather_batch(output, rows_of(make_batch(WORLD * ROWS), own))
    shared = whole._replace(extra={name: value for name, value in whole.extra.items() if name not in OWN_ROWS})
    coupled(shared).backward()
    result = {
        "whole": map_tensors(whole, torch.Tensor.detach)._asdict(),
        "teacher": labels.pop("teacher")._asdict(),
        "labels": labels,
        "grads": [tensor.grad for tensor in tensors_of(output) if tensor.grad is not None],
    }
    torch.save(result, f"{folder}/{own_rank()}.pth")


@pytest.fixture(scope="module")
def gathered(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes got."""
    folder = tmp_path_factory.mktemp("ranks")
    run_in_group(gather_on_rank, str(folder), world_size=WORLD)
    return [torch.load(folder / f"{rank}.pth", weights_only=True) for rank in range(WORLD)]


def assert_same(got: ModelOutput, expected: ModelOutput) -> None:
    for ours, theirs in zip(tensors_of(got), tensors_of(expected), strict=True):
        assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)


def test_every_process_has_the_whole_output_but_its_own_rows_of_masked_words(gathered):
    output = make_output(WORLD * ROWS, seed=1)
    for rank, result in enumerate(gathered):
        own = rows_of(output.extra, slice(ROWS * rank, ROWS * (rank + 1)))
        extra = {name: own[name] if name in OWN_ROWS else value for name, value in output.extra.items()}
        assert_same(ModelOutput(**result["whole"]), output._replace(extra=extra))


def test_every_process_has_the_labels_the_presence_and_the_teacher_of_all(gathered):
    batch = make_batch(WORLD * ROWS)
    for result in gathered:
        labels = result["labels"]
        assert labels.keys() == {"pids", "camids", "caption_ids", "brightness", "present", "step"}
        assert labels["step"] == 17
        assert all(torch.equal(labels[name], batch[name]) for name in ("pids", "camids", "caption_ids", "brightness"))
        for name, expected in batch["present"].items():
            assert labels["present"][name].dtype == torch.bool and torch.equal(labels["present"][name], expected)
        assert_same(ModelOutput(**result["teacher"]), batch["teacher"])
        assert not any(tensor.requires_grad for tensor in tensors_of(ModelOutput(**result["teacher"])))


def test_gradients_of_the_own_rows_are_those_of_one_process_times_the_number_of_processes(gathered):
    output = make_output(WORLD * ROWS, seed=1)
    output = output._replace(extra={name: value for name, value in output.extra.items() if name not in OWN_ROWS})
    learnt = [tensor.requires_grad_() for tensor in tensors_of(output) if tensor.is_floating_point()]
    coupled(output).backward()
    assert len(learnt) == 8
    for place, tensor in enumerate(learnt):
        got = torch.cat([result["grads"][place] for result in gathered]) / WORLD  # what DistributedDataParallel makes
        torch.testing.assert_close(got, tensor.grad)


def test_one_process_computes_on_its_own_tensors():
    output, batch = make_output(ROWS, seed=1), make_batch(ROWS)
    whole, labels = gather_batch(output, batch)
    assert all(x is y for x, y in zip(tensors_of(output), tensors_of(whole), strict=True))
    assert labels["pids"] is batch["pids"] and labels["present"]["nir"] is batch["present"]["nir"]
    assert all(x is y for x, y in zip(tensors_of(batch["teacher"]), tensors_of(labels["teacher"]), strict=True))


def test_what_a_model_or_a_batch_lacks_is_not_invented():
    output = ModelOutput([], [torch.rand(2, 4)], [])
    whole, labels = gather_batch(output, {"pids": torch.tensor([0, 1]), "images": torch.rand(2, 3, 2, 2)})
    assert whole.projection is None and whole.extra == {} and labels.keys() == {"pids"}
