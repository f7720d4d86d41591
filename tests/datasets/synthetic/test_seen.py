"""What a photograph shows of a part: the pixels that change with its colour, and none that are hidden."""

from dataclasses import replace

import numpy as np
import pytest

from datasets.synthetic import scenes
from datasets.synthetic.looks import TRIM, Look
from datasets.synthetic.photos import Photo, photograph
from datasets.synthetic.plan import look_of, plan_identities
from datasets.synthetic.seen import Seen, labels_of, seen_parts
from datasets.synthetic.vehicles import make_vehicle

DAY_CAMERAS = (0, 2, 4, 6)
MAGENTA, GREEN = (1.0, 0.0, 1.0), (0.0, 1.0, 0.0)


def shoot(look: Look, camera: int, seed: int) -> tuple[Photo, dict[str, Seen]]:
    vehicle = make_vehicle(look)
    photo = photograph(vehicle, camera, 0, np.random.default_rng(seed))
    return photo, seen_parts(photo, vehicle.mesh, labels_of(look))


def looks(**parts: object) -> list[Look]:
    """Vehicles without a load on the roof, which would share its colours with other parts."""
    return [replace(look_of(0, identity), roof="plain", **parts) for identity in plan_identities(0, 30, 4)[:12]]


@pytest.mark.parametrize(
    ("part", "kind", "tolerance"),
    [
        ("motif_colour", {"motif": "square"}, 0.35),
        ("stripe_colour", {"stripes": "waist"}, 0.6),
    ],  # the lens widens lines
)
def test_the_share_of_a_part_is_that_of_the_pixels_that_its_colour_changes(part, kind, tolerance):
    for number, look in enumerate(looks(**kind)):
        camera = DAY_CAMERAS[number % len(DAY_CAMERAS)]
        one, seen = shoot(replace(look, **{part: MAGENTA}), camera, number)
        other, _ = shoot(replace(look, **{part: GREEN}), camera, number)
        change = np.abs(one.pixels.astype(int) - other.pixels).max(axis=2)
        changed = (change > 0.4 * np.percentile(change, 99.5)).mean() if change.any() else 0.0
        assert seen[part].share == pytest.approx(changed, rel=tolerance, abs=0.006)


def test_a_part_that_is_not_there_or_hidden_is_not_seen(monkeypatch):
    for number, look in enumerate(looks(motif="none", stripes="none")):
        _, seen = shoot(look, DAY_CAMERAS[number % len(DAY_CAMERAS)], number)
        assert (seen["motif_colour"], seen["stripe_colour"], seen["top"]) == (Seen(0.0, 0.0),) * 3

    def everything(pen: object, size: tuple[int, int], rng: np.random.Generator) -> list[scenes.Box]:
        return [(0.0, 0.0, float(size[0]), float(size[1]))]

    monkeypatch.setattr("datasets.synthetic.photos.draw_occluders", everything)
    _, seen = shoot(looks()[0], 0, 0)
    assert set(seen.values()) == {Seen(0.0, 0.0)}


def test_contrast_is_high_for_another_colour_and_low_for_the_same():
    contrasts = []
    for number, look in enumerate(looks(motif="square", stripes="none", two_tone="none", type_name="van", bumper=TRIM)):
        camera = DAY_CAMERAS[number % len(DAY_CAMERAS)]
        _, same = shoot(replace(look, motif_colour=look.paint), camera, number)
        _, other = shoot(replace(look, paint=(0.9, 0.9, 0.9), motif_colour=(0.6, 0.1, 0.1)), camera, number)
        assert same["motif_colour"].share == other["motif_colour"].share > 0
        contrasts.append((same["motif_colour"].contrast, other["motif_colour"].contrast))
    same, other = np.array(contrasts).T
    assert (same < other).all() and same.mean() < 30 < 90 < other.mean()
