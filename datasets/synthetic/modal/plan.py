"""Which pictures there are of a vehicle in each modality, and the pictures."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from datasets.synthetic import Stream
from datasets.synthetic.looks import Look
from datasets.synthetic.modal.drawings import STYLES, draw_by_hand
from datasets.synthetic.modal.infrared import infrared
from datasets.synthetic.plan import Identity, Shot, plan_identities, plan_shots, take_shots
from datasets.synthetic.vehicles import make_vehicle

NUM_TRAIN_IDS, NUM_TEST_IDS = 180, 70  # those of synthetic VeRi
INFRARED_SHARE = 3  # of so many shots one is infrared
DRAWN_FROM = ((35, "front"), (60, "side"), (90, "side"), (145, "back"))  # degrees, 0 = the vehicle's front; in words
AZIMUTH_SPREAD = 6.0  # standard deviation, degrees


class Numbered(NamedTuple):
    """A vehicle of synthetic VeRi and its number here: from 1, those to train on first."""

    number: int
    identity: Identity


def plan_numbered(seed: int, num_train_ids: int, num_test_ids: int) -> list[Numbered]:
    """Return the vehicles of synthetic VeRi by their numbers here. Raises ValueError for more than 776."""
    identities = plan_identities(seed, num_train_ids, num_test_ids)
    identities.sort(key=lambda identity: identity.split != "train")
    return [Numbered(number, identity) for number, identity in enumerate(identities, start=1)]


def plan_photos(seed: int, identity: Identity) -> tuple[list[Shot], list[Shot]]:
    """Return the shots of a vehicle that are RGB, and those that are infrared: none is both."""
    shots = plan_shots(seed, identity)
    rng = np.random.default_rng((seed, Stream.INFRARED_SHOTS, identity.pid))
    chosen = {*rng.permutation(len(shots))[: round(len(shots) / INFRARED_SHARE)].tolist()}
    return [shot for shot in shots if shot.index not in chosen], [shot for shot in shots if shot.index in chosen]


def take_infrared(look: Look, shots: list[Shot], seed: int) -> Iterator[tuple[Shot, np.ndarray]]:
    """Yield each shot of a vehicle with its infrared photograph, uint8 [H, W]."""
    for shot, photo in take_shots(look, shots, seed):
        rng = np.random.default_rng((seed, Stream.INFRARED, shot.pid, shot.index))
        yield shot, infrared(photo.pixels, rng)


def take_drawings(look: Look, pid: int, modality: str, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the drawings of a vehicle in a modality of STYLES: the word of the viewpoint and uint8 [H, W, 3]."""
    vehicle = make_vehicle(look)
    for number, (azimuth, view) in enumerate(DRAWN_FROM):
        rng = np.random.default_rng((seed, Stream.DRAWING, pid, [*STYLES].index(modality), number))
        turned = (azimuth + rng.normal(0, AZIMUTH_SPREAD)) * rng.choice((-1, 1))
        yield view, draw_by_hand(vehicle, STYLES[modality], turned, rng)
