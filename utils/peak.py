"""Peak of one device in floating point operations per second: what the model FLOP utilisation (MFU) is a share of.

The figures are those of the makers' data sheets at boost clock, rounded, not measured; a board with a lower power limit
or another clock than its maker's differs. SOLVER.PEAK_TFLOPS stands above them, and gives what is not listed.
"""

import re
from typing import NamedTuple

import torch

TERA = 1e12


class Peak(NamedTuple):
    """Peak of a device in TFLOP/s; a multiply-add counts as two."""

    half: float  # matrix products of bf16 or fp16 with sums in float32, without sparsity
    single: float  # float32 as this code computes it: no TF32


PEAKS = {  # words of the name that torch gives; of several that fit, the one with most words
    ("b200",): Peak(2250, 75),
    ("gb200",): Peak(2500, 80),
    ("h200",): Peak(989, 67),
    ("h200", "nvl"): Peak(835, 60),
    ("gh200",): Peak(989, 67),
    ("h100",): Peak(989, 67),
    ("h100", "pcie"): Peak(756, 51),
    ("h100", "nvl"): Peak(835, 60),
    ("h800",): Peak(989, 67),
    ("h800", "pcie"): Peak(756, 51),
    ("h20",): Peak(148, 44),
    ("a100",): Peak(312, 19.5),
    ("a800",): Peak(312, 19.5),
    ("a40",): Peak(150, 37.4),
    ("a30",): Peak(165, 10.3),
    ("a10",): Peak(125, 31.2),
    ("a10g",): Peak(70, 35),
    ("l40s",): Peak(362, 91.6),
    ("l40",): Peak(181, 90.5),
    ("l4",): Peak(121, 30.3),
    ("v100",): Peak(125, 15.7),
    ("v100", "pcie"): Peak(112, 14),
    ("t4",): Peak(65, 8.1),
    ("rtx", "6000", "ada"): Peak(364, 91.1),
    ("rtx", "a6000"): Peak(155, 38.7),
    ("rtx", "a5000"): Peak(111, 27.8),
    ("rtx", "5090"): Peak(210, 105),
    ("rtx", "4090"): Peak(165, 82.6),
    ("rtx", "4080"): Peak(97, 48.7),
    ("rtx", "3090"): Peak(71, 35.6),
    ("rtx", "3090", "ti"): Peak(80, 40),
    ("rtx", "2080", "ti"): Peak(54, 13.4),
    ("mi300x",): Peak(1307, 163),
    ("mi325x",): Peak(1307, 163),
}
OTHER_PRODUCT = {"ti", "super", "d", "laptop", "mobile", "max", "mig", "vgpu"}  # words that make it another device


def find_peak(name: str, half: bool) -> float | None:
    """Return the peak FLOP/s of a GPU by its name, in bf16 / fp16 (`half`) or float32; None where it is not listed."""
    words = set(re.findall(r"[a-z0-9]+", name.lower()))
    fitting = [keys for keys in PEAKS if words.issuperset(keys)]
    if not fitting:
        return None
    best = max(fitting, key=len)
    if words & OTHER_PRODUCT - set(best):
        return None
    return TERA * (PEAKS[best].half if half else PEAKS[best].single)


def device_peak(device: torch.device, half: bool) -> float | None:
    """Return the peak FLOP/s of a device in bf16 / fp16 (`half`) or float32; None where it is not known."""
    return find_peak(torch.cuda.get_device_name(device), half) if device.type == "cuda" else None
