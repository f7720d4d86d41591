"""The CUDA devices of --gpus: what a process on one of them sees, and what contradicts the flag."""

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from yacs.config import CfgNode

from utils.errors import ConfigError

VISIBLE = "CUDA_VISIBLE_DEVICES"
DEVICE_ID = "MODEL.DEVICE_ID"


class Place(NamedTuple):
    """Where the processes of a seed run: on a device of --gpus, or wherever their configuration says."""

    gpu: int | None = None  # as --gpus numbers it
    visible: str = ""  # the device in the terms of CUDA_VISIBLE_DEVICES

    def environment(self) -> Mapping[str, str]:
        """Return the environment of a process here; on a device of --gpus it sees that one alone."""
        if self.gpu is None:
            return os.environ
        return os.environ | {VISIBLE: self.visible}

    def opts(self) -> tuple[str, ...]:
        """Return the KEY VALUE pairs of a process here: the one device that it sees is its first."""
        return () if self.gpu is None else (DEVICE_ID, "0")

    def prefix(self, name: str) -> str:
        """Return what stands before each line of the process called `name`; nothing where it has the terminal."""
        return "" if self.gpu is None else f"[gpu {self.gpu} | {name}] "


def find_places(gpus: Sequence[int] | None) -> list[Place]:
    """Return a place for each number of --gpus, None = one place without a device of its own.

    The numbers count the devices that CUDA_VISIBLE_DEVICES leaves, as cuda:0, cuda:1, ... do. Raises ConfigError for a
    device that is not there.
    """
    if gpus is None:
        return [Place()]
    import torch  # which --help does without

    words, visible, count = " ".join(map(str, gpus)), os.environ.get(VISIBLE), torch.cuda.device_count()
    under = "" if visible is None else f" (CUDA_VISIBLE_DEVICES is '{visible}')"
    if not count:
        raise ConfigError(
            f"--gpus {words}: found no CUDA device{under}; see what nvidia-smi and `python -c 'import torch; "
            "print(torch.version.cuda)'` say, or drop --gpus to run one after the other on what is here"
        )
    absent = next((gpu for gpu in gpus if gpu >= count), None)
    if absent is not None:
        there = "device 0 alone is" if count == 1 else f"devices 0 to {count - 1} are"
        raise ConfigError(f"--gpus {words}: there is no device {absent}, {there} here{under}; leave it out")
    # an entry may be a number or a UUID; CUDA numbers the entries in their order
    entries = [str(gpu) for gpu in range(count)] if visible is None else visible.split(",")
    return [Place(gpu, entries[gpu].strip()) for gpu in gpus]


def check_gpus(cfg: CfgNode, opts: Sequence[str], gpus: Sequence[int] | None) -> None:
    """Raise ConfigError where `cfg`, a YAML with the KEY VALUE pairs `opts`, contradicts --gpus.

    A MODEL.DEVICE_ID of the YAML itself does not: it gives way, as the printed commands show.
    """
    if gpus is None:
        return
    flag = f"--gpus {' '.join(map(str, gpus))}"
    if cfg.MODEL.DIST_TRAIN:
        raise ConfigError(
            f"{flag} runs one process per device, but MODEL.DIST_TRAIN True trains each run on all of them; drop "
            "--gpus, or set MODEL.DIST_TRAIN False"
        )
    if cfg.MODEL.DEVICE not in ("auto", "cuda"):
        raise ConfigError(
            f"{flag} needs CUDA, but MODEL.DEVICE is {cfg.MODEL.DEVICE}; drop --gpus, or set MODEL.DEVICE auto"
        )
    if DEVICE_ID in opts[::2] and cfg.MODEL.DEVICE_ID != "0":
        raise ConfigError(
            f"{flag} contradicts MODEL.DEVICE_ID {cfg.MODEL.DEVICE_ID} on the same command line; drop one of the two"
        )
