"""How fast training is, and could be: the work of a step, its line in the log, and a hint when data holds it up."""

import copy
import logging
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from model import tensors_of
from processor.stage import Stage
from processor.step.clock import READINGS
from utils.distributed import own_rank
from utils.peak import TERA, device_peak
from utils.workers import usable_cores

logger = logging.getLogger(__name__)

MAX_DATA_SHARE = 0.3  # of the step; above it the log says what to do
JUDGED_STEPS = 10  # at least: a single step says little, and the first one of an epoch waits for its workers
COUNTED_IMAGES = 2  # batch norms need two


def images_at_peak(
    stage: Stage, image_size: tuple[int, int], device: torch.device, half: bool, peak_tflops: float
) -> float:
    """Return the images/s that one device would train at its peak FLOP/s, 0 where that is not known; log both.

    `image_size` is (y, x) in pixels; `half` says that matrix products are in bf16 or fp16. The peak is `peak_tflops`,
    or by the device's name where that is 0.
    """
    peak = peak_tflops * TERA or device_peak(device, half)
    if not peak:
        if device.type == "cuda":
            name = torch.cuda.get_device_name(device)
            logger.info("the peak of %s is not known, so no MFU is logged; SOLVER.PEAK_TFLOPS can give it", name)
        return 0.0
    work = count_step(stage, image_size)
    logger.info("a training step takes %.4g GFLOP an image; MFU is relative to %.4g TFLOP/s", work / 1e9, peak / TERA)
    return peak / work


def count_step(stage: Stage, image_size: tuple[int, int]) -> float:
    """Return the floating point operations of one image in a training step: the model, forward and backward.

    Counted are matrix products, convolutions and attention, a multiply-add as two, none twice: fused attention's second
    run in the backward pass is no work of the model. What is frozen has no backward pass, or a part of it. The model
    is in training mode; neither it nor any memory for weights is touched.
    """
    model = _outline(stage.model)
    labels = torch.zeros(COUNTED_IMAGES, dtype=torch.int64, device="meta")
    images = torch.empty(COUNTED_IMAGES, 3, *image_size, device="meta")
    # by formula, not by what the device's fused kernel would be
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
        output = stage.forward_batch(model, {"images": images, "pids": labels, "camids": labels, "viewids": labels})
        learnt = [tensor.sum() for tensor in tensors_of(output) if tensor.requires_grad]
        torch.stack(learnt).sum().backward()
    return counter.get_total_flops() / COUNTED_IMAGES


def _outline(model: nn.Module) -> nn.Module:
    """Return a copy of the model in training mode whose weights and buffers have a shape, but no values."""
    weights = {
        id(weight): nn.Parameter(torch.empty_like(weight, device="meta"), requires_grad=weight.requires_grad)
        for weight in model.parameters()
    }
    buffers = {id(buffer): torch.empty_like(buffer, device="meta") for buffer in model.buffers()}
    return copy.deepcopy(model, weights | buffers).train()


def describe_speed(readings: Mapping[str, float]) -> str:
    """Return the READINGS for the log, e.g. `data 0.003 s, step 0.210 s, 305 images/s, MFU 41.2 %, 7,310 MiB`."""
    parts = [f"data {readings['data_time']:.3f} s, step {readings['step_time']:.3f} s"]
    parts.append(f"{readings['images_per_s']:.0f} images/s")
    if "mfu" in readings:
        parts.append(f"MFU {100 * readings['mfu']:.1f} %")
    if "max_memory" in readings:
        parts.append(f"{readings['max_memory']:,.0f} MiB")
    return ", ".join(parts)


class SpeedLog:
    """Follows the readings of a run: the means of each epoch, and one hint where data holds the steps up.

    The run's first window is no cause for the hint: workers start in it, and the device warms up. Those that follow are
    judged JUDGED_STEPS iterations or more at a time. `workers` are those of the train loader in each process; `cached`
    says that decoded images are kept.
    """

    def __init__(self, workers: int, cached: bool) -> None:
        self._workers, self._cached = workers, cached
        self._is_first, self._has_warned = True, False
        self._windows: list[tuple[int, Mapping[str, float]]] = []  # of the epoch: iterations, readings
        self._last_step = 0
        self._restart_judging()

    def _restart_judging(self) -> None:
        self._steps, self._waited, self._seconds = 0, 0.0, 0.0

    def add(self, step: int, readings: Mapping[str, float]) -> None:
        """Take the readings of a window that ended at iteration `step` of the epoch; on rank 0, warn if need be."""
        count = step - self._last_step
        self._windows.append((count, readings))
        self._last_step = step
        if not self._is_first and not self._has_warned and own_rank() == 0:
            self._judge(count, readings)
        self._is_first = False

    def _judge(self, count: int, readings: Mapping[str, float]) -> None:
        """Warn where data took too much of the last windows, which together have at least JUDGED_STEPS iterations."""
        self._steps += count
        self._waited += count * readings["data_time"]
        self._seconds += count * readings["step_time"]
        if self._steps < JUDGED_STEPS:
            return
        data_time, step_time = self._waited / self._steps, self._seconds / self._steps
        self._restart_judging()
        if data_time > MAX_DATA_SHARE * step_time:
            self._has_warned = True
            logger.warning("%s", self._hint(data_time, step_time))

    def end_epoch(self) -> str:
        """Return the means over the epoch's iterations as `describe_speed` writes them, and forget them."""
        seconds = [steps * readings["step_time"] for steps, readings in self._windows]
        iterations = [steps for steps, _ in self._windows]
        means = {}
        for name in READINGS:
            values = [readings[name] for _, readings in self._windows if name in readings]
            if not values:
                continue
            if name == "max_memory":
                means[name] = max(values)
            else:
                weights = iterations if name in ("data_time", "step_time") else seconds
                means[name] = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
        self._windows, self._last_step = [], 0
        return describe_speed(means)

    def _hint(self, data_time: float, step_time: float) -> str:
        cores = usable_cores()
        ways = []
        if self._workers < cores:
            ways.append(f"raise DATALOADER.NUM_WORKERS ({self._workers} now, this machine has {cores} cores)")
        if not self._cached:
            ways.append("set DATALOADER.CACHE to a folder, which then keeps the decoded images")
        if not ways:
            ways.append(
                f"a machine with more than {cores} cores or a faster disk for DATALOADER.CACHE would help "
                f"({self._workers} workers, cache on)"
            )
        return (
            f"loading the images takes {100 * data_time / step_time:.0f} % of the time ({data_time:.3f} s of the "
            f"{step_time:.3f} s of a step): {', or '.join(ways)}"
        )
