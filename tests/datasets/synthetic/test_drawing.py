"""The vehicles and photographs of synthetic VeRi: labels that are true of the pixels, families, light."""

from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from datasets.synthetic import scenes
from datasets.synthetic.photos import photograph
from datasets.synthetic.plan import look_of, plan_identities, plan_shots, take_shots
from datasets.synthetic.vehicles import make_vehicle
from tests.datasets.synthetic.drawn import keypoints, labels

LEFT, RIGHT, FRONT, REAR = {2, 3, 4}, {5, 6, 7}, {0, 3, 6}, {1, 4, 7}  # viewpoints that show that side


def test_a_photograph_does_not_depend_on_the_others():
    identity = plan_identities(0, 4, 4)[2]
    look, shots = look_of(0, identity), plan_shots(0, identity)
    alone = [next(take_shots(look, [shot], 0))[1].pixels for shot in reversed(shots)]
    together = [photo.pixels for _, photo in take_shots(look, shots, 0)]
    assert all(np.array_equal(a, b) for a, b in zip(reversed(alone), together, strict=True))


def test_key_points_show_the_side_that_the_viewpoint_names(drawn):
    seen = Counter()
    for points, viewpoint in keypoints(drawn).values():
        visible = points[:, 0] >= 0
        seen[viewpoint] += 1
        assert not (viewpoint in LEFT and visible[2:4].any()), "right wheels seen from the left"
        assert not (viewpoint in RIGHT and visible[:2].any()), "left wheels seen from the right"
        assert not (viewpoint in FRONT and visible[16:].any()), "rear lamps seen from the front"
        assert not (viewpoint in REAR and visible[4:10].any()), "headlamps seen from the rear"
        if viewpoint in LEFT and visible[:2].all():
            assert points[0, 0] < points[1, 0], "seen from the left, the front is on the left"
        if viewpoint in RIGHT and visible[2:4].all():
            assert points[2, 0] > points[3, 0]
        if viewpoint in FRONT and visible[6:8].all():
            assert points[6, 0] < points[7, 0], "the right headlamp is on the left of the picture"
        if visible[:4].any() and visible[12:16].any():
            assert points[:4, 1].max() > points[12:16][visible[12:16], 1].min(), "the roof is above the wheels"
    assert set(seen) == set(range(8))


def test_the_plates_key_point_lies_on_the_plate(monkeypatch):
    monkeypatch.setattr(scenes, "OCCLUDED_SHARE", 0.0)
    look = replace(look_of(0, plan_identities(0, 4, 4)[0]), plate=(1.0, 0.0, 1.0), glyphs=())
    vehicle, found = make_vehicle(look), 0
    for camera, plate in ((0, 9), (5, 9), (3, 19), (4, 19)):
        for shot in range(4):
            photo = photograph(vehicle, camera, 0, np.random.default_rng((camera, shot)))
            x, y = photo.keypoints[plate]
            if x >= 0:
                red, green, blue = photo.pixels[y, x].astype(int)
                assert min(red, blue) > green + 30
                found += 1
    assert found > 8


def test_members_of_a_family_share_shape_and_paint_and_differ_in_the_motif():
    families = {}
    for identity in plan_identities(0, 60, 20):
        families.setdefault(identity.family, []).append((identity, look_of(0, identity)))
    pairs = [pair for members in families.values() for pair in combinations(members, 2)]
    assert len(pairs) > 20
    for (one, a), (other, b) in pairs:
        assert one.split == other.split
        assert (a.shape, a.paint, a.second) == (b.shape, b.paint, b.second)
        assert a.motif != b.motif
    looks = [members[0][1] for members in families.values()]
    assert len({(look.type_name, look.colour_name) for look in looks}) > len(looks) / 2


def test_more_identities_than_numbers_are_refused():
    with pytest.raises(ValueError, match="700 \\+ 77 identities asked for, at most 776"):
        plan_identities(0, 700, 77)


def test_night_cameras_are_dark_day_cameras_are_not_and_a_third_of_the_images_is_dark(drawn):
    brightness = {}
    for path in (*drawn.glob("image_train/*.jpg"), *drawn.glob("image_test/*.jpg")):
        with Image.open(path) as image:
            brightness.setdefault(labels(path.name)[1], []).append(np.asarray(image.convert("L")).mean() / 255)
    for camera, values in brightness.items():
        if scenes.CAMERAS[camera - 1].night:
            assert np.mean(values) < 0.30
        else:
            assert np.mean(values) > 0.38
    everything = np.concatenate(list(brightness.values()))
    assert len(brightness) == len(scenes.CAMERAS)
    assert 0.28 < (everything < 0.35).mean() < 0.42
