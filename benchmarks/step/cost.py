"""What a training step costs beside time: work, memory, where it goes, and how fast its matrix products could be."""

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.step.lineage_model import Sizes

KINDS = {  # parts of the names of operations and kernels -> how the table of `where_time_goes` calls them
    "attention": ("scaled_dot_product", "flash", "fmha", "attention", "softmax"),
    "matrix products": ("mm", "gemm", "matmul", "cutlass", "conv", "cublas", "nvjet", "linear"),
    "optimizer": ("sgd", "adam", "foreach", "multi_tensor", "optimizer"),
    "copies": ("memcpy", "memset", "copy", "cat", "contiguous", "to_copy", "index_select", "gather"),
}
REST = "elementwise, norms and rest"


def count_flop(step: Callable[[], object]) -> int:
    """Return the floating point operations of the matrix products and convolutions of one call.

    Fused attention counts as the products that it stands for, without its second run in the backward pass.
    """
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        step()
    return counter.get_total_flops()


def layer_products(sizes: Sizes, batch_size: int, device: torch.device, dtype: torch.dtype) -> tuple[Callable, int]:
    """Return a function that runs torch.mm on the layer shapes of one block, and its floating point operations.

    Forward and both backward products of qkv, proj, fc1 and fc2, with a row for every token of the batch, and those of
    attention, for each head of each image.
    """
    tokens, width = 1 + sizes.patches, sizes.width
    rows, head, heads = batch_size * tokens, width // sizes.heads, batch_size * sizes.heads
    layers = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=device).to(dtype)

    operands = []
    for inputs, outputs in layers:
        x, weight, gradient = draw(rows, inputs), draw(outputs, inputs), draw(rows, outputs)
        operands += [(x, weight.t()), (gradient, weight), (gradient.t(), x)]
    for _ in range(heads):
        query, key, value, weights = (draw(tokens, size) for size in (head, head, head, tokens))
        both_ways = [(weights, key), (weights.t(), query), (weights, value), (weights.t(), value)]
        operands += [(query, key.t()), (query, value.t()), *both_ways]

    def multiply() -> None:
        for left, right in operands:
            torch.mm(left, right)

    return multiply, sum(2 * left.shape[0] * left.shape[1] * right.shape[1] for left, right in operands)


def held_bytes(step: Callable[[], object], model: nn.Module, inputs: Iterable[torch.Tensor]) -> int:
    """Return the bytes that autograd holds between forward and backward, weights and inputs left out."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers(), *inputs)}
    held: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    return sum(held.values())


def peak_bytes(step: Callable[[], object], device: torch.device) -> int:
    """Return the peak of what one call allocates beyond what was there before."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    changes = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for change in sorted(changes, key=lambda event: event.start_ns()):
        now += change.nbytes()
        peak = max(peak, now)
    return peak


def where_time_goes(step: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Return the share of the device's time in each kind of operation, the largest first."""
    cuda = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as recorded:
        step()
        if cuda:
            torch.cuda.synchronize()
    shares = dict.fromkeys((*KINDS, REST), 0.0)
    for event in recorded.key_averages():
        if cuda and (event.device_type != torch.autograd.DeviceType.CUDA or event.is_user_annotation):
            continue  # kernels have entries of their own; those of calls and ranges would count them twice
        spent = event.self_device_time_total if cuda else event.self_cpu_time_total
        shares[_kind(event.key)] += spent
    total = sum(shares.values())
    return {kind: spent / total for kind, spent in sorted(shares.items(), key=lambda item: -item[1])}


def _kind(name: str) -> str:
    name = name.lower()
    if name.startswith("triton_") and not name.startswith("triton_tem"):
        return REST  # the compiler's elementwise kernels carry the names of all that they join
    return next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), REST)
