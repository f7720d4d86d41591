"""The synthetic persons: the same files each time, Market-1501's layout, a true list of occlusions, hard negatives."""

import os
import re
from collections import Counter, defaultdict
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets import synthetic_persons
from datasets.bases import SPLITS, ReIDDataset, valid_queries
from datasets.held_out import hold_out
from datasets.join import known_of_all
from datasets.synthetic import PERSON_FOLDER
from datasets.synthetic.once import VERSION_FILE, ensure_drawn
from datasets.synthetic.persons import places
from datasets.synthetic.persons.photos import _place
from datasets.synthetic.persons.plan import person_of, plan_person_shots, plan_persons, take_person_shots
from datasets.synthetic.persons.sheet import person_sheet
from datasets.synthetic_persons import OCCLUDED_FILE, VERSION, draw_synthetic_persons, load_synthetic_persons
from datasets.test_set import labels_of
from tests.reference.retrieval import evaluate, squared_euclidean
from tools.synthetic import main
from utils.errors import DataError
from utils.test_folder import OCCLUDED

ROOT = Path(__file__).parents[3]
NUM_TRAIN_IDS, NUM_TEST_IDS = 4, 12
FOLDERS = {"bounding_box_train": "train", "query": "query", "bounding_box_test": "gallery"}
NAME = re.compile(r"(\d{4})_c([1-6])s1_\d{6}_01\.jpg")
OF_A_FAMILY = ("build", "skin", "hair", "long_hair", "top", "legwear", "leg_colour")
RAW_SIZE = (16, 32)  # width, height of an image as raw pixels


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("persons") / PERSON_FOLDER
    small = partial(draw_synthetic_persons, num_train_ids=NUM_TRAIN_IDS, num_test_ids=NUM_TEST_IDS)
    ensure_drawn(folder, "the synthetic persons", small, VERSION)
    return folder


@pytest.fixture(scope="module")
def dataset(drawn: Path) -> ReIDDataset:
    return load_synthetic_persons(drawn.parent)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let load_synthetic_persons draw two identities for training and two for testing."""
    small = partial(draw_synthetic_persons, num_train_ids=2, num_test_ids=2)
    monkeypatch.setattr(synthetic_persons, "draw_synthetic_persons", small)


def all_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_seed_draws_the_same_files_and_another_seed_does_not(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        draw_synthetic_persons(tmp_path / name, seed, 1, 1)
    assert all_files(tmp_path / "a") == all_files(tmp_path / "b")
    assert all_files(tmp_path / "a") != all_files(tmp_path / "c")


def test_an_image_depends_on_its_own_numbers_alone():
    person = plan_persons(0, 4, 2)[0]
    look, shots = person_of(0, person), plan_person_shots(0, person)
    last_alone = next(take_person_shots(look, shots[-1:], 0))[1]
    *_, (_, last_of_all) = take_person_shots(look, shots, 0)
    assert np.array_equal(last_alone.pixels, last_of_all.pixels)


def test_folders_and_names_are_those_of_market_1501(drawn):
    assert set(os.listdir(drawn)) == {*FOLDERS, OCCLUDED_FILE, VERSION_FILE}
    for folder in FOLDERS:
        names = os.listdir(drawn / folder)
        assert names and all(NAME.fullmatch(name) for name in names)
        with Image.open(drawn / folder / names[0]) as image:
            assert (image.mode, image.size) == ("RGB", (64, 128))


def test_the_whole_plan_has_the_announced_numbers():
    persons = plan_persons(0, 150, 75)
    counts = Counter(shot.folder for person in persons for shot in plan_person_shots(0, person))
    assert Counter(person.split for person in persons) == {"train": 150, "test": 75}
    assert 1400 < counts["bounding_box_train"] < 1600 and counts["query"] == 225
    assert 450 < counts["bounding_box_test"] < 570
    names = [shot.name for person in persons for shot in plan_person_shots(0, person)]
    assert len(set(names)) == len(names) and len({person.pid for person in persons}) == 225


def test_each_identity_is_seen_twice_by_four_to_six_cameras_and_asked_for_at_three_of_them():
    for person in plan_persons(0, 20, 20):
        shots = plan_person_shots(0, person)
        assert set(Counter(shot.camera for shot in shots).values()) == {2}
        assert 4 <= len({shot.camera for shot in shots}) <= 6
        queries = [shot.camera for shot in shots if shot.folder == "query"]
        assert len(set(queries)) == len(queries) == (3 if person.split == "test" else 0)


def test_families_of_three_share_top_trousers_and_build_and_differ_in_the_rest():
    families = defaultdict(list)
    for person in plan_persons(0, 30, 30):
        families[person.split, person.family].append(asdict(person_of(0, person)))
    assert [len(members) for members in families.values()] == [3] * 20
    assert len({family for _, family in families}) == 20  # none spans both splits
    for members in families.values():
        assert all(member[name] == members[0][name] for member in members for name in OF_A_FAMILY)
        assert len({member["pattern"] for member in members}) == 3
        assert len({member["shoes"] for member in members}) == 3
    looks = [members[0] for members in families.values()]
    assert len({look["top"] for look in looks}) == len({look["build"] for look in looks}) == 20


def test_a_plan_of_more_identities_than_market_1501_can_name_is_refused():
    with pytest.raises(ValueError, match="1000 [+] 600 identities asked for, at most 1501"):
        plan_persons(0, 1000, 600)


def test_market_1501s_loader_reads_the_set_and_every_query_has_a_match(dataset):
    assert (dataset.name, dataset.notes, dataset.published) == ("synthetic_persons", (), {})
    assert dataset.num_cameras == len(places.CAMERAS) == 6
    assert {sample.pid for sample in dataset.query} == {sample.pid for sample in dataset.gallery}
    assert {sample.pid for sample in dataset.train}.isdisjoint(sample.pid for sample in dataset.query)
    assert valid_queries(dataset.query, dataset.gallery).all()


def test_the_list_of_occlusions_names_every_image_and_reaches_the_labels(drawn, dataset):
    rows = dict(line.split() for line in (drawn / OCCLUDED_FILE).read_text().splitlines())
    assert set(rows) == {f"{folder}/{name}" for folder in FOLDERS for name in os.listdir(drawn / folder)}
    for split in SPLITS:
        samples = getattr(dataset, split)
        column = labels_of(samples, dataset.more).more[OCCLUDED]
        expected = [rows["/".join(Path(sample.path).parts[-2:])] for sample in samples]
        assert column.dtype == np.int8 and column.tolist() == [int(value) for value in expected]


def test_held_out_identities_keep_the_truth_about_occlusion(dataset):
    held = hold_out(dataset.train, 0.5, has_cameras=True)
    labels = labels_of(held.query + held.gallery, known_of_all([dataset]))
    assert len(labels.more[OCCLUDED]) == len(held.query) + len(held.gallery) > 0


def test_a_label_that_some_images_lack_is_left_out(dataset):
    some = {OCCLUDED: {sample.path: 1 for sample in dataset.query[1:]}}
    assert labels_of(dataset.query, some).more == {} and labels_of(dataset.query).more == {}


def test_three_in_ten_are_occluded_and_an_occluder_hides_a_part_of_the_person_but_never_all(monkeypatch):
    monkeypatch.setattr("datasets.synthetic.persons.photos._develop", lambda pixels, camera, rng: pixels)
    photos = []
    for person in plan_persons(0, 15, 6):
        photos += [photo for _, photo in take_person_shots(person_of(0, person), plan_person_shots(0, person), 0)]
    share = np.mean([photo.occluded for photo in photos])
    assert abs(share - 0.3) < 4 * np.sqrt(0.3 * 0.7 / len(photos))
    hidden = np.array([photo.hidden for photo in photos if photo.occluded])
    assert hidden.min() > 0.05 and hidden.max() < 0.75
    assert all(photo.hidden == 0 for photo in photos if not photo.occluded)


def test_an_image_that_the_list_calls_clean_is_the_same_with_occluders_switched_off(monkeypatch):
    person = plan_persons(0, 4, 0)[0]
    shots = plan_person_shots(0, person)
    before = [photo for _, photo in take_person_shots(person_of(0, person), shots, 0)]
    monkeypatch.setattr(places, "OCCLUDED_SHARE", 0.0)
    after = [photo for _, photo in take_person_shots(person_of(0, person), shots, 0)]
    for old, new in zip(before, after, strict=True):
        assert np.array_equal(old.pixels, new.pixels) != old.occluded and not new.occluded


def test_position_size_and_side_vary_as_announced():
    corners, big = [(0.0, 0.0), (0.1, 0.0), (0.0, 1.0)], (192, 384)  # feet, one to the right of them, head
    places_of = [_place([(corners, (0, 0, 0))], big, np.random.default_rng(seed)) for seed in range(400)]
    points = np.array([polygons[0][0] for polygons, _ in places_of]) / big[1]  # [400, 3, 2] in heights of the image
    middles = np.array([middle for _, middle in places_of]) / big[1]
    heights = points[:, 0, 1] - points[:, 2, 1]
    assert np.allclose(points[:, 0, 0], middles)
    assert np.all((heights >= 0.86 * 0.9) & (heights <= 0.86 * 1.05)) and np.ptp(heights) > 0.86 * 0.14
    for offsets in (middles - 0.25, points[:, 0, 1] - 0.945):
        # a normal draw of sd 0.025, cut at two sd: sd 0.0238; 4 standard errors of the mean and of the sd
        assert abs(offsets.mean()) < 0.005 and abs(offsets.std() - 0.0238) < 0.0034
        assert np.abs(offsets).max() <= 0.05 + 1e-9
    mirrored = (points[:, 1, 0] < points[:, 0, 0]).mean()
    assert abs(mirrored - 0.5) < 4 * 0.5 / np.sqrt(400)


def test_raw_pixels_are_far_from_solving_the_set(dataset):
    def features(samples: list) -> np.ndarray:
        images = (Image.open(sample.path).resize(RAW_SIZE, Image.Resampling.BILINEAR) for sample in samples)
        flat = np.stack([np.asarray(image, dtype=float).ravel() for image in images])
        return (flat - flat.mean(axis=1, keepdims=True)) / flat.std(axis=1, keepdims=True)

    distmat = squared_euclidean(features(dataset.query), features(dataset.gallery))
    query, gallery = (
        [np.array(column) for column in list(zip(*samples, strict=True))[1:3]]
        for samples in (dataset.query, dataset.gallery)
    )
    result = evaluate(distmat, query[0], gallery[0], query[1], gallery[1], 10)
    assert 0.05 < result["mAP"] < 0.5


def test_the_set_is_drawn_once(tmp_path, tiny, monkeypatch):
    first = load_synthetic_persons(tmp_path)
    assert os.listdir(tmp_path) == [PERSON_FOLDER]
    monkeypatch.setattr(synthetic_persons, "draw_synthetic_persons", lambda folder: pytest.fail("drawn twice"))
    assert load_synthetic_persons(str(tmp_path)) == first


def test_a_folder_of_another_version_is_drawn_again(tmp_path, tiny):
    folder = tmp_path / PERSON_FOLDER
    load_synthetic_persons(tmp_path)
    complete = all_files(folder)
    (folder / OCCLUDED_FILE).unlink()
    (folder / VERSION_FILE).write_bytes(b"0\n")
    load_synthetic_persons(tmp_path)
    assert all_files(folder) == complete and os.listdir(tmp_path) == [PERSON_FOLDER]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "occluded.txt' does not exist"),
        ("query/a.jpg 2\n", "occluded.txt:1: expected '<image> <0 or 1>', got 'query/a.jpg 2'"),
        ("query/a.jpg\n", "occluded.txt:1: expected"),
        ("query/a.jpg 1\n", "does not name"),
    ],
)
def test_a_damaged_list_of_occlusions_is_one_clear_line(tmp_path, tiny, content, words):
    load_synthetic_persons(tmp_path)
    path = tmp_path / PERSON_FOLDER / OCCLUDED_FILE
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match="remove the folder .*, and it is drawn again") as error:
        load_synthetic_persons(tmp_path)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_the_sheet_in_the_pages_shows_the_present_drawing():
    path = ROOT / "configs" / "Synthetic" / "persons.png"
    with Image.open(path) as image:
        kept = np.asarray(image.convert("RGB"), dtype=float)
    fresh = np.asarray(person_sheet().convert("RGB"), dtype=float)
    assert kept.shape == fresh.shape and np.abs(kept - fresh).mean() < 4
    assert path.stat().st_size < 400_000


def test_the_command_draws_the_persons_and_their_sheet(tmp_path, tiny):
    main(["--persons", "--sheet", str(tmp_path / "sheet.png"), "--root_dir", str(tmp_path)])
    assert set(os.listdir(tmp_path)) == {PERSON_FOLDER, "sheet.png"}
