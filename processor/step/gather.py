"""What the losses see with several processes: the batch of all of them."""

from typing import Any

import torch

from model import OWN_ROWS, ModelOutput, map_tensors, tensors_of
from utils.distributed import whole_batch

STEP = "step"  # the entry of a batch that all processes share


def gather_batch(output: ModelOutput, batch: dict[str, Any]) -> tuple[ModelOutput, dict[str, Any]]:
    """Return model output and labels of the batch of all processes, in rank order; gradients flow to the own rows.

    `output` has b rows here and world_size * b in the result, of at least float32; what OWN_ROWS names of its `extra`
    stays the own process's. Of the batch come its one-dimensional tensors [b], the dict of tensors `present` and the
    ModelOutput `teacher`, gathered alike, and the number of its step; images, paths and all else that no loss reads of
    other processes do not. What is `present` may be on the CPU, and comes to the others' device. One process gets its
    own tensors back.
    """
    own = {name: output.extra[name] for name in OWN_ROWS if name in output.extra}
    shared = output._replace(extra={name: value for name, value in output.extra.items() if name not in own})
    labels = {name: value for name, value in batch.items() if isinstance(value, torch.Tensor) and value.dim() == 1}
    device = tensors_of(shared)[0].device
    present = {name: there.to(device, non_blocking=True) for name, there in batch.get("present", {}).items()}
    teacher = [batch["teacher"]] if "teacher" in batch else []
    taught = [tensor for outputs in teacher for tensor in tensors_of(outputs)]
    rest = iter(whole_batch([*tensors_of(shared), *labels.values(), *present.values(), *taught]))
    shared = map_tensors(shared, lambda _: next(rest))
    whole: dict[str, Any] = {name: next(rest) for name in labels}
    if "present" in batch:
        whole["present"] = {name: next(rest) for name in present}
    for outputs in teacher:
        whole["teacher"] = map_tensors(outputs, lambda _: next(rest))
    if STEP in batch:
        whole[STEP] = batch[STEP]
    return shared._replace(extra=shared.extra | own), whole
