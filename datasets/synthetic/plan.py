"""Which vehicles are photographed where and when."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from datasets.synthetic import Stream
from datasets.synthetic.looks import Look, make_look
from datasets.synthetic.photos import Photo, photograph
from datasets.synthetic.scenes import CAMERAS
from datasets.synthetic.vehicles import make_vehicle

HIGHEST_PID = 776  # VeRi's
CAMERAS_PER_ID = (6, 9)
MAX_FAMILY = 3
MAX_QUERIES_PER_ID = 3


class Identity(NamedTuple):
    """One vehicle of the plan."""

    pid: int
    split: str  # "train", "val" or "test"
    family: int
    member: int


class Shot(NamedTuple):
    """One image of the plan; `index` counts the shots of the identity."""

    pid: int
    camera: int  # 0-based
    frame: int
    index: int
    is_query: bool

    @property
    def name(self) -> str:
        """VeRi's file name: identity, camera counted from 1, frame."""
        return f"{self.pid:04d}_c{self.camera + 1:03d}_{self.frame:08d}_0.jpg"


def plan_identities(seed: int, num_train_ids: int, num_test_ids: int, num_val_ids: int = 0) -> list[Identity]:
    """Return the identities, ascending; the families (hard negatives) never span two splits.

    Raises ValueError for more identities than VeRi's numbers 1..776 can name.
    """
    counts = {"train": num_train_ids, "val": num_val_ids, "test": num_test_ids}
    total = sum(counts.values())
    if total > HIGHEST_PID:
        asked = " + ".join(str(count) for split, count in counts.items() if count or split != "val")
        raise ValueError(f"{asked} identities asked for, at most {HIGHEST_PID} can be named")
    rng = np.random.default_rng((seed, Stream.IDENTITIES))
    pids = 1 + rng.permutation(HIGHEST_PID)[:total]
    identities, family, start = [], 0, 0
    for split, count in counts.items():
        rest, start = pids[start : start + count], start + count
        while len(rest):
            size = rng.integers(1, MAX_FAMILY + 1)
            identities += [Identity(int(pid), split, family, member) for member, pid in enumerate(rest[:size])]
            rest, family = rest[size:], family + 1
    return sorted(identities)


def plan_shots(seed: int, identity: Identity) -> list[Shot]:
    """Return when and where a vehicle is photographed: one or two shots by each of several cameras."""
    rng = np.random.default_rng((seed, Stream.SHOTS, identity.pid))
    low, high = CAMERAS_PER_ID
    cameras = rng.permutation(len(CAMERAS))[: rng.integers(low, high + 1)]
    num_queries = MAX_QUERIES_PER_ID if identity.split == "test" else 0
    frame = int(rng.integers(1_000, 90_000))
    shots = []
    for rank, camera in enumerate(cameras):
        for repeat in range(rng.integers(1, 3)):
            frame += int(rng.integers(5, 60))
            is_query = rank < num_queries and repeat == 0
            shots.append(Shot(identity.pid, int(camera), frame, len(shots), is_query))
    return shots


def look_of(seed: int, identity: Identity) -> Look:
    """Return what an identity looks like."""
    return make_look(seed, identity.pid, identity.family, identity.member)


def take_shots(look: Look, shots: Iterable[Shot], seed: int) -> Iterator[tuple[Shot, Photo]]:
    """Yield each shot of a vehicle with its photograph."""
    vehicle = make_vehicle(look)
    for shot in shots:
        rng = np.random.default_rng((seed, Stream.PHOTO, shot.pid, shot.index))
        yield shot, photograph(vehicle, shot.camera, seed, rng)
