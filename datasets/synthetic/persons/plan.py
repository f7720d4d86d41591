"""Which persons are photographed where and when."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from datasets.synthetic import Stream
from datasets.synthetic.persons.looks import PersonLook, make_person
from datasets.synthetic.persons.photos import PersonPhoto, photograph
from datasets.synthetic.persons.places import CAMERAS

NUM_TRAIN_IDS, NUM_TEST_IDS = 150, 75
HIGHEST_PID = 1501  # Market-1501's
CAMERAS_PER_ID = (4, 6)
SHOTS_PER_CAMERA = 2
FAMILY_SIZE = 3
QUERIES_PER_ID = 3


class Person(NamedTuple):
    """One person of the plan."""

    pid: int
    split: str  # "train" or "test"
    family: int
    member: int


class PersonShot(NamedTuple):
    """One image of the plan; `index` counts the shots of the identity."""

    pid: int
    camera: int  # 0-based
    frame: int
    index: int
    folder: str  # of Market-1501's layout

    @property
    def name(self) -> str:
        """Market-1501's file name: identity, camera and its sequence counted from 1, frame, box in the frame."""
        return f"{self.pid:04d}_c{self.camera + 1}s1_{self.frame:06d}_01.jpg"


def plan_persons(seed: int, num_train_ids: int, num_test_ids: int) -> list[Person]:
    """Return the identities, ascending; the families (hard negatives) never span both splits.

    Raises ValueError for more identities than Market-1501's numbers 1..1501 can name.
    """
    total = num_train_ids + num_test_ids
    if total > HIGHEST_PID:
        raise ValueError(f"{num_train_ids} + {num_test_ids} identities asked for, at most {HIGHEST_PID} can be named")
    rng = np.random.default_rng((seed, Stream.PERSON_IDENTITIES))
    pids = 1 + rng.permutation(HIGHEST_PID)[:total]
    persons, family = [], 0
    for split, rest in (("train", pids[:num_train_ids]), ("test", pids[num_train_ids:])):
        for start in range(0, len(rest), FAMILY_SIZE):
            members = rest[start : start + FAMILY_SIZE]
            persons += [Person(int(pid), split, family, member) for member, pid in enumerate(members)]
            family += 1
    return sorted(persons)


def plan_person_shots(seed: int, person: Person) -> list[PersonShot]:
    """Return when and where a person is photographed: twice by each of several cameras.

    Of a person to test with, the first picture of each of three cameras is a query; the gallery holds all others.
    """
    rng = np.random.default_rng((seed, Stream.PERSON_SHOTS, person.pid))
    low, high = CAMERAS_PER_ID
    cameras = rng.permutation(len(CAMERAS))[: rng.integers(low, high + 1)]
    frame = int(rng.integers(1_000, 90_000))
    shots = []
    for rank, camera in enumerate(cameras):
        for repeat in range(SHOTS_PER_CAMERA):
            frame += int(rng.integers(5, 60))
            folder = "bounding_box_train"
            if person.split == "test":
                folder = "query" if rank < QUERIES_PER_ID and repeat == 0 else "bounding_box_test"
            shots.append(PersonShot(person.pid, int(camera), frame, len(shots), folder))
    return shots


def person_of(seed: int, person: Person) -> PersonLook:
    """Return what an identity looks like."""
    return make_person(seed, person.pid, person.family, person.member)


def take_person_shots(
    look: PersonLook, shots: Iterable[PersonShot], seed: int
) -> Iterator[tuple[PersonShot, PersonPhoto]]:
    """Yield each shot of a person with its photograph, drawn by random numbers of (seed, identity, index) alone."""
    for shot in shots:
        rng = np.random.default_rng((seed, Stream.PERSON_PHOTO, shot.pid, shot.index))
        yield shot, photograph(look, shot.camera, seed, rng)
