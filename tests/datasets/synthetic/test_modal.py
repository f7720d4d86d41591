"""Synthetic vehicles in five modalities: the same files each time, ORBench's layout, pictures and queries that fit."""

import json
import os
import re
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets import synthetic_orbench
from datasets.synthetic import MODAL_FOLDER
from datasets.synthetic.modal.drawings import STYLES, draw_by_hand
from datasets.synthetic.modal.infrared import infrared
from datasets.synthetic.modal.plan import DRAWN_FROM, plan_numbered, plan_photos, take_drawings, take_infrared
from datasets.synthetic.modal.queries import SETS, query_sets
from datasets.synthetic.once import VERSION_FILE
from datasets.synthetic.plan import look_of, plan_identities, take_shots
from datasets.synthetic.sentences import words_of
from datasets.synthetic.vehicles import make_vehicle
from datasets.synthetic_orbench import draw_synthetic_orbench, load_synthetic_orbench
from datasets.synthetic_text import take_captioned
from tests.datasets.synthetic.truths import claims_of, is_true
from tools.synthetic import main
from utils.errors import DataError

ROOT = Path(__file__).parents[3]
NUM_TRAIN_IDS, NUM_TEST_IDS = 3, 2
TRAIN_FILE, TEST_FILE, GALLERY = "train_annos.json", "test_gallery_and_queries.json", "RGB_GALLERY"
NAME = re.compile(r"(vis|nir|sk|cp)/(\d{4})/(\d{4})_(?:cam\d+_\d{4}|(?:front|side|back)_\d)_(vis|nir|sk|cp)\.jpg")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("modal") / MODAL_FOLDER
    draw_synthetic_orbench(path, 0, NUM_TRAIN_IDS, NUM_TEST_IDS)
    return path


@pytest.fixture(scope="module")
def train(folder: Path) -> list[dict]:
    return json.loads((folder / TRAIN_FILE).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def searched(folder: Path) -> dict[str, list[list]]:
    return json.loads((folder / TEST_FILE).read_text(encoding="utf-8"))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let load_synthetic_orbench draw one identity to train on and one to test with."""
    small = partial(draw_synthetic_orbench, num_train_ids=1, num_test_ids=1)
    monkeypatch.setattr(synthetic_orbench, "draw_synthetic_orbench", small)


def all_files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_another_seed_draws_other_pictures_of_other_vehicles():
    drawn = []
    for seed in (0, 1):
        (_, identity), *_ = plan_numbered(seed, 1, 0)
        look, (_, shots) = look_of(seed, identity), plan_photos(seed, identity)
        drawn.append((look, next(take_infrared(look, shots, seed))[1], next(take_drawings(look, 1, "sk", seed))[1]))
    (one, *pictures), (other, *others) = drawn
    assert one != other and not any(map(np.array_equal, pictures, others))


def test_a_picture_depends_on_its_own_numbers_alone():
    (_, identity), *_ = plan_numbered(0, 3, 2)
    look, (_, shots) = look_of(0, identity), plan_photos(0, identity)
    *_, (_, last_of_all) = take_infrared(look, shots, 0)
    ((_, last_alone),) = take_infrared(look, shots[-1:], 0)
    assert np.array_equal(last_of_all, last_alone)
    sketches, crayons = ([*take_drawings(look, identity.pid, kind, 0)] for kind in ("sk", "cp"))
    assert [view for view, _ in sketches] == [view for view, _ in crayons]
    assert np.array_equal(next(take_drawings(look, identity.pid, "sk", 0))[1], sketches[0][1])


def test_the_folder_is_laid_out_as_orbench(folder, train):
    files = {name for name in all_files(folder) if name.endswith(".jpg")}
    assert set(os.listdir(folder)) == {"vis", "nir", "sk", "cp", TRAIN_FILE, TEST_FILE}
    for name in files:
        modality, of_folder, of_file, ending = NAME.fullmatch(name).groups()
        assert (modality, of_folder) == (ending, of_file)
        with Image.open(folder / name) as image:
            assert image.mode == ("L" if modality == "nir" else "RGB")
            assert all(64 <= side <= 96 for side in image.size)
    persons = {f"{number:04d}" for number in range(1, NUM_TRAIN_IDS + NUM_TEST_IDS + 1)}
    assert all(set(os.listdir(folder / modality)) == persons for modality in ("vis", "nir", "sk", "cp"))
    drawings = Counter((name[:2], name.split("_")[1]) for name in files if name[:2] in ("sk", "cp"))
    each = {"front": 1, "side": 2, "back": 1}
    assert drawings == {(kind, view): len(persons) * count for kind in ("sk", "cp") for view, count in each.items()}
    assert [*train[0]] == ["id", "file_path", "caption", "split"]
    assert all(entry["split"] == "train" and entry["id"] == int(entry["file_path"][4:8]) for entry in train)
    of_train = sorted(name for name in files if name.startswith("vis") and int(name[4:8]) <= NUM_TRAIN_IDS)
    assert sorted(entry["file_path"] for entry in train) == of_train


def test_the_whole_plan_has_synthetic_veris_identities_and_splits_its_shots_in_two_thirds_and_one():
    plan = plan_numbered(0, 180, 70)
    assert [number for number, _ in plan] == [*range(1, 251)]
    assert sorted(identity for _, identity in plan) == plan_identities(0, 180, 70)
    assert [identity.split for _, identity in plan] == ["train"] * 180 + ["test"] * 70
    counts = {"train": [0, 0], "test": [0, 0]}
    for _, identity in plan:
        visible, infrareds = plan_photos(0, identity)
        together = sorted(shot.index for shot in visible + infrareds)
        assert together == [*range(len(together))] and len(infrareds) >= 2
        assert abs(len(infrareds) - len(together) / 3) <= 0.5
        counts[identity.split][0] += len(visible)
        counts[identity.split][1] += len(infrareds)
    assert 1_300 < counts["train"][0] < 1_430 and 620 < counts["train"][1] < 710
    assert 500 < counts["test"][0] < 600 and 240 < counts["test"][1] < 300


def test_rgb_images_and_their_captions_are_those_of_the_sets_that_they_come_from(folder, train):
    number, identity = plan_numbered(0, NUM_TRAIN_IDS, NUM_TEST_IDS)[2]
    visible, _ = plan_photos(0, identity)
    entries = [entry for entry in train if entry["id"] == number]
    captioned = take_captioned(identity, visible, 0)
    for entry, (shot, photo), (_, _, captions) in zip(
        entries, take_shots(look_of(0, identity), visible, 0), captioned, strict=True
    ):
        assert f"cam{shot.camera + 1}_{shot.index:04d}_" in entry["file_path"] and entry["caption"] == captions[0]
        with Image.open(folder / entry["file_path"]) as image:
            assert np.abs(np.asarray(image, dtype=float) - photo.pixels).mean() < 8  # of 255: JPEG of a noisy picture


def test_every_caption_is_true_and_tests_use_words_of_training(train, searched):
    looks = {number: look_of(0, identity) for number, identity in plan_numbered(0, NUM_TRAIN_IDS, NUM_TEST_IDS)}
    said = {pid: {caption for own, caption in searched["TEXT"] if own == pid} for pid in (4, 5)}
    for pid, captions in said.items():
        for claim in (claim for caption in captions for claim in claims_of(caption)):
            assert is_true(claim, looks[pid]), claim
    words = {word for entry in train for word in words_of(entry["caption"])}
    tested = {word for captions in said.values() for caption in captions for word in words_of(caption)}
    assert tested <= words | {"vehicle"}  # of the last resort


def test_infrared_is_grey_of_the_announced_weights_gamma_gain_and_noise():
    means = []
    for colour in ((160, 0, 0), (0, 160, 0), (0, 0, 160), (200, 200, 200)):
        flat = np.full((64, 64, 3), colour, dtype=np.uint8)
        taken = np.stack([infrared(flat, np.random.default_rng(seed)) for seed in range(30)])  # [30, 64, 64]
        assert taken.dtype == np.uint8 and taken.shape == (30, 64, 64)
        grey = np.dot(colour, (0.45, 0.15, 0.40)) / 255
        per_picture = taken.mean(axis=(1, 2)) / 255
        # 1.3: six deviations of a weight; the clip at white and the rounding add a hundredth
        assert per_picture.min() > 0.8 * (grey / 1.3) ** 0.9 - 0.01
        assert per_picture.max() < min(1.15 * (1.3 * grey) ** 0.6, 1) + 0.01
        assert np.ptp(per_picture) > 0.1  # gamma and gain are drawn for each
        means.append(per_picture.mean())
    red, green, blue, _ = means
    assert red > blue > green
    noise = infrared(np.full((64, 64, 3), 90, dtype=np.uint8), np.random.default_rng(0)).std()
    assert abs(noise - 0.03 * 255) < 0.35  # 4 standard errors of the deviation of 4,096 pixels


@pytest.mark.parametrize("kind", ["sk", "cp"])
def test_a_drawing_has_its_papers_its_inks_and_its_fills_range_of_colours(kind):
    style = STYLES[kind]._replace(grain=0.0)
    for number, identity in plan_numbered(0, 6, 2):
        look = replace(look_of(0, identity), two_tone="none")
        rng = np.random.default_rng(number)
        pixels = draw_by_hand(make_vehicle(look), style, 90.0, rng).astype(int)
        paper, paint = pixels[0, 0], np.array(look.paint)
        assert len(set(paper)) == 1 and 238 <= paper[0] <= 255
        if kind == "sk":
            assert np.ptp(pixels, axis=2).max() == 0
            assert pixels.min() >= 20
            paint = np.full(3, 0.299 * paint[0] + 0.587 * paint[1] + 0.114 * paint[2])
        else:
            assert pixels.min() >= int(0.55 * 255 * 0.45)
        fill = np.array([int(255 * (0.55 * part + 0.45)) for part in paint])
        assert (np.abs(pixels - fill).max(axis=2) <= 1).mean() > 0.02


@pytest.mark.parametrize(("kind", "deviation"), [("sk", 6), ("cp", 14)])
def test_the_grain_of_a_drawing_is_grey_and_as_strong_as_announced(kind, deviation):
    vehicle = make_vehicle(look_of(0, plan_numbered(0, 6, 2)[0].identity))
    grained, plain = (
        draw_by_hand(vehicle, style, 90.0, np.random.default_rng(3)).astype(int)
        for style in (STYLES[kind], STYLES[kind]._replace(grain=0.0))
    )
    inner = (plain > 3 * 14) & (plain < 255 - 3 * 14)  # where no grain is clipped
    difference = (grained - plain)[inner]
    assert abs(difference.mean()) < 4 * deviation / np.sqrt(len(difference) / 3)
    assert abs(difference.std() / deviation - 1) < 0.15


def test_a_sketch_shows_shape_motif_and_brightness_and_no_colour():
    look = replace(look_of(0, plan_numbered(0, 6, 2)[0].identity), motif="cross")
    red, green, dark, disc = (
        draw_by_hand(make_vehicle(drawn), STYLES["sk"], 90.0, np.random.default_rng(0))
        for drawn in (
            replace(look, paint=(0.587, 0.0, 0.0)),
            replace(look, paint=(0.0, 0.299, 0.0)),  # as bright
            replace(look, paint=(0.1, 0.0, 0.0)),
            replace(look, paint=(0.587, 0.0, 0.0), motif="disc"),
        )
    )
    assert np.abs(red.astype(int) - green).max() <= 1  # rounding
    assert not np.array_equal(red, dark) and not np.array_equal(red, disc)


def test_the_word_of_a_drawing_is_the_nearest_of_the_three_directions():
    assert [view for _, view in DRAWN_FROM] == [("front", "side", "back")[round(angle / 90)] for angle, _ in DRAWN_FROM]
    look = look_of(0, plan_numbered(0, 6, 2)[0].identity)
    assert [view for view, _ in take_drawings(look, 1, "sk", 0)] == ["front", "side", "side", "back"]


def test_the_query_sets_are_those_of_orbench_each_of_items_of_one_identity(folder, searched):
    assert [*searched] == [GALLERY, *SETS] and Counter(name.count("+") + 1 for name in SETS) == {
        1: 4,
        2: 12,
        3: 12,
        4: 4,
    }
    assert len({frozenset(name.split("+")) for name in SETS}) == 15
    gallery = [path for _, path in searched[GALLERY]]
    of_test = sorted(name for name in all_files(folder) if name.startswith("vis") and int(name[4:8]) > NUM_TRAIN_IDS)
    assert sorted(gallery) == of_test
    captions = {(pid, caption) for pid, caption in searched["TEXT"]}
    for name in SETS:
        modalities = name.lower().split("+")
        for pid, *items in searched[name]:
            assert len(items) == len(modalities)
            for modality, item in zip(modalities, items, strict=True):
                if modality == "text":
                    assert item in captions or item not in {caption for other, caption in captions if other != pid}
                else:
                    assert item.split("/")[:2] == [modality, f"{pid:04d}"] and (folder / item).is_file()
        per_person = Counter((pid, items[0]) for pid, *items in searched[name] if modalities[0] != "text")
        assert all(count == 1 for count in per_person.values())
        assert max(Counter(pid for pid, *_ in searched[name]).values()) <= 4


def test_what_is_drawn_for_a_query_depends_on_its_set_and_identity_alone():
    items = {
        pid: {modality: [f"{modality}{pid}{n}" for n in range(6)] for modality in ("nir", "sk", "cp", "text")}
        for pid in (3, 5, 9)
    }
    whole, part = query_sets(items, 0), query_sets({5: items[5]}, 0)
    for name in SETS:
        assert [query for query in whole[name] if query[0] == 5] == part[name]
        assert [query[1] for query in part[name]] == [f"{name.split('+')[0].lower()}5{n}" for n in range(4)]
    drawn = {query[2] for query in whole["NIR+CP"]}
    assert len(drawn) > 4 and query_sets(items, 1) != whole


def test_more_identities_than_numbers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="700 [+] 77 identities asked for, at most 776"):
        draw_synthetic_orbench(tmp_path / "set", 0, 700, 77)


def test_the_set_is_drawn_once_and_read_as_orbench_without_a_remark(tmp_path, tiny, monkeypatch):
    dataset = load_synthetic_orbench(tmp_path)
    assert os.listdir(tmp_path) == [MODAL_FOLDER]
    entries = {"vis", "nir", "sk", "cp", TRAIN_FILE, TEST_FILE, VERSION_FILE}
    assert set(os.listdir(tmp_path / MODAL_FOLDER)) == entries
    assert (dataset.name, dataset.notes, dataset.no_train) == ("synthetic_orbench", (), "")
    assert {record.pid for record in dataset.train} == {1} and {pid for _, pid in dataset.gallery} == {2}
    assert all(record.caption and os.path.isfile(record.vis) for record in dataset.train)
    assert [*map(len, dataset.train[0].others.values())][1:] == [4, 4]
    assert sorted(dataset.queries) == sorted(SETS)
    monkeypatch.setattr(synthetic_orbench, "draw_synthetic_orbench", lambda folder: pytest.fail("drawn twice"))
    assert load_synthetic_orbench(str(tmp_path)) == dataset


def test_a_folder_of_another_version_is_drawn_again_to_the_same_files(tmp_path, tiny):
    folder = tmp_path / MODAL_FOLDER
    load_synthetic_orbench(tmp_path)
    complete = all_files(folder)
    (folder / TEST_FILE).unlink()
    (folder / VERSION_FILE).write_bytes(b"0\n")
    load_synthetic_orbench(tmp_path)
    assert all_files(folder) == complete and os.listdir(tmp_path) == [MODAL_FOLDER]


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="modalities cannot be drawn into .*Not a directory.*ROOT_DIR") as error:
        load_synthetic_orbench(tmp_path / "file" / "data")
    assert "\n" not in str(error.value)


def test_the_command_draws_the_set_and_the_sheet_which_the_pages_show(tmp_path, tiny):
    main(["--modalities", "--sheet", str(tmp_path / "sheet.png"), "--root_dir", str(tmp_path)])
    assert set(os.listdir(tmp_path)) == {MODAL_FOLDER, "sheet.png"}
    kept = ROOT / "configs" / "Synthetic" / "modalities.png"
    with Image.open(tmp_path / "sheet.png") as fresh, Image.open(kept) as shown:
        assert fresh.size == shown.size and shown.size[0] == 900
        difference = np.asarray(fresh.convert("RGB"), dtype=float) - np.asarray(shown.convert("RGB"), dtype=float)
    assert np.abs(difference).mean() < 4
    assert kept.stat().st_size < 400_000
