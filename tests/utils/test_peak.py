"""Peaks by the names that torch gives to devices."""

import pytest
import torch

from utils import peak
from utils.peak import device_peak, find_peak


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H200", 989),
        ("NVIDIA H200 NVL", 835),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA A10", 125),
        ("NVIDIA A40", 150),
        ("NVIDIA L4", 121),
        ("NVIDIA L40", 181),
        ("NVIDIA L40S", 362),
        ("Tesla V100-SXM2-16GB", 125),
        ("Tesla V100-PCIE-32GB", 112),
        ("Tesla T4", 65),
        ("NVIDIA RTX A6000", 155),
        ("NVIDIA RTX 6000 Ada Generation", 364),
        ("NVIDIA GeForce RTX 3090", 71),
        ("NVIDIA GeForce RTX 3090 Ti", 80),
        ("NVIDIA GeForce RTX 4090", 165),
        ("AMD Instinct MI300X", 1307),
    ],
)
def test_a_known_name_has_its_peak(name, tflops):
    assert find_peak(name, half=True) == tflops * 1e12


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 4080 SUPER",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "NVIDIA RTX PRO 6000 Blackwell Workstation Edition",
        "NVIDIA T400",
        "",
    ],
)
def test_another_product_of_a_like_name_has_none(name):
    assert find_peak(name, half=True) is None


def test_float32_has_the_peak_without_tensor_cores():
    assert find_peak("NVIDIA A100-SXM4-40GB", half=False) == 19.5e12


def test_half_precision_is_never_slower_than_float32():
    assert all(row.half > row.single for row in peak.PEAKS.values())


def test_a_cpu_has_no_peak_and_a_gpu_that_of_its_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA L4")
    assert device_peak(torch.device("cpu"), half=True) is None
    assert device_peak(torch.device("cuda"), half=True) == 121e12
