"""Archives whose folders are the splits: each in its official layout, in usual copies, and what their names mean."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs import get_cfg_defaults
from datasets.archives.cuhk03_np import load_cuhk03_detected, load_cuhk03_labelled
from datasets.archives.last import load_last, load_last_val
from datasets.archives.occluded_reid import load_occluded_reid
from datasets.archives.p_dukemtmc import load_p_dukemtmc
from datasets.archives.partial_reid import load_partial_reid, load_partial_reid_occluded
from datasets.archives.prai1581 import load_prai1581
from datasets.bases import ReIDDataset, match_findings, published_findings, split_findings
from datasets.loaders import make_test_set
from datasets.read import Tested
from datasets.test_set import same_camera
from tests.datasets.folder_trees import (
    CUHK03,
    LAST,
    P_DUKE,
    PRAI_PARTS,
    write_folders,
    write_occluded_reid,
    write_partial_reid,
)
from tests.datasets.trees import labels, write_text
from tests.datasets.vis_nir_trees import touch
from utils.errors import DataError

Load = Callable[[Path], ReIDDataset]
PARTITIONS = "partitions.json"


@pytest.mark.parametrize(
    ("folder", "load"),
    [
        ("cuhk03-np/labeled", load_cuhk03_labelled),
        ("CUHK03-NP/Labeled", load_cuhk03_labelled),
        ("cuhk03-np/detected", load_cuhk03_detected),
    ],
)
def test_the_variants_of_cuhk03_np_are_told_apart_and_its_cameras_are_in_the_names(tmp_path, folder, load):
    write_folders(tmp_path / folder, CUHK03)
    data = load(tmp_path)
    assert labels(data.train) == [("0001_c1_1.png", 1, 0, 0), ("0001_c2_6.png", 1, 1, 0), ("0002_c1_11.png", 2, 0, 0)]
    assert labels(data.gallery) == [("0003_c1_21.png", 3, 0, 0), ("0003_c2_26.png", 3, 1, 0)]
    assert data.junk is same_camera and match_findings(data) == []
    with pytest.raises(DataError, match="expected folder"):
        (load_cuhk03_labelled if load is load_cuhk03_detected else load_cuhk03_detected)(tmp_path)


@pytest.mark.parametrize(
    ("write", "load", "number"),
    [
        (write_occluded_reid, load_occluded_reid, 1_000),
        (write_partial_reid, load_partial_reid, 300),
        (write_partial_reid, load_partial_reid_occluded, 300),
    ],
)
def test_a_test_set_in_full_has_its_published_counts_and_every_query_five_matches(tmp_path, write, load, number):
    write(tmp_path / {write_occluded_reid: "Occluded_REID", write_partial_reid: "Partial-REID_Dataset"}[write])
    data = load(tmp_path)
    assert published_findings(data) == match_findings(data) == []
    assert (len(data.query), len(data.gallery), data.junk, data.has_cameras) == (number, number, None, False)
    assert "no training images" in data.no_train
    test = make_test_set(get_cfg_defaults(), data.name, "Title", Tested(data, None), 1)
    pids = test.labels.pids
    (trial,) = test.trials
    assert test.junk is None and ((pids[trial.query][:, None] == pids[trial.gallery]).sum(axis=1) == 5).all()


def test_a_person_with_another_number_of_images_is_a_finding(tmp_path):
    folder = write_occluded_reid(tmp_path / "Occluded_REID", 9)
    (folder / "whole_body_images" / "007" / "007_05.tif").rename(folder / "whole_body_images" / "008" / "008_06.tif")
    *_, line = published_findings(load_occluded_reid(tmp_path))
    assert line.startswith("occluded_reid gallery: expected 5 images of each identity (published), 2 identities have")


def test_the_two_queries_of_partial_reid_are_other_images(tmp_path):
    write_partial_reid(tmp_path / "Partial-REID_Dataset", 2)
    partial, occluded = load_partial_reid(tmp_path), load_partial_reid_occluded(tmp_path)
    assert "partial_body_images" in partial.query[0].path and "occluded_body_images" in occluded.query[0].path
    assert partial.gallery == occluded.gallery and partial.notes != occluded.notes


def test_a_flat_copy_of_occluded_reid_in_another_format_loads_alike(tmp_path):
    write_occluded_reid(tmp_path / "one" / "Occluded_REID", 3)
    for side in ("query", "gallery"):
        names = [f"{pid:03d}_{number:02d}.jpg" for pid in (1, 2, 3) for number in range(1, 6)]
        touch(tmp_path / "two" / "OccludedREID" / side, names)
    one, two = load_occluded_reid(tmp_path / "one"), load_occluded_reid(tmp_path / "two")
    assert [sample[1:] for sample in one.query + one.gallery] == [sample[1:] for sample in two.query + two.gallery]


def test_tiff_images_are_read(tmp_path):
    folder = write_occluded_reid(tmp_path / "Occluded_REID", 1)
    pixels = np.full((128, 64, 3), (10, 200, 30), dtype=np.uint8)
    for image in folder.glob("*/*/*.tif"):
        Image.fromarray(pixels).save(image)
    cfg = get_cfg_defaults()
    cfg.DATALOADER.NUM_WORKERS = 0
    test = make_test_set(cfg, "occluded_reid", "Title", Tested(load_occluded_reid(tmp_path), None), 1)
    (batch,) = test.loaders[0]
    assert batch["images"].shape[:2] == (10, 3) and batch["images"][:, 1].eq(200).all()


def test_p_dukemtmc_joins_both_kinds_of_training_images_and_removes_nothing(tmp_path):
    data = load_p_dukemtmc(write_folders(tmp_path / "P-DukeMTMC-reid", P_DUKE).parent)
    assert [sample.pid for sample in data.train] == [1, 1, 1]
    assert [sample.pid for sample in data.query] == [5] and len(data.gallery) == 2
    assert data.junk is None and match_findings(data) == []
    (line,) = (line for line in published_findings(data) if line.startswith("p_dukemtmc all") and "images" in line[:60])
    assert "expected 24,143 images (published), found 6" in line


def test_last_takes_persons_from_the_names_of_files_and_keeps_its_distractors(tmp_path):
    write_folders(tmp_path / "last", LAST)
    data, val = load_last(tmp_path), load_last_val(tmp_path)
    assert [sample.pid for sample in data.gallery] == [0, 5859, 5859] and [sample.pid for sample in data.query] == [
        5859
    ]
    assert match_findings(data) == match_findings(val) == [] and data.junk is None
    assert [sample.pid for sample in val.gallery] == [0, 101] and val.train == data.train


@pytest.mark.parametrize("left", ["__MACOSX", "@eaDir", ".ipynb_checkpoints"])
def test_what_systems_leave_beside_the_folders_of_persons_is_no_person(tmp_path, left):
    folder = write_occluded_reid(tmp_path / "Occluded_REID", 2)
    for place in (folder, folder / "whole_body_images", folder / "whole_body_images" / "001"):
        touch(place, ["Thumbs.db", ".DS_Store", "._001_01.tif"])
        touch(place / left, ["._001_01.tif", "001_01.tif@SynoEAStream"])
    image = folder / "whole_body_images" / "001" / "001_01.tif"
    image.rename(image.with_suffix(".TIFF"))
    data = load_occluded_reid(tmp_path)
    assert (len(data.query), len(data.gallery)) == (10, 10)


@pytest.mark.parametrize(
    ("folder", "root", "hint"),
    [
        ("cuhk03-np/labeled", "cuhk03-np", "the data set itself: set DATASETS.ROOT_DIR to its parent '{top}'"),
        ("cuhk03-np/labeled", "cuhk03-np/labeled", "the data set itself: set DATASETS.ROOT_DIR to '{top}'"),
        ("cuhk03-np/labeled", "cuhk03-np/labeled/query", "the data set itself: set DATASETS.ROOT_DIR to '{top}'"),
        ("cuhk03-np/cuhk03-np/labeled", ".", "set DATASETS.ROOT_DIR {top}/cuhk03-np"),
        ("cuhk03_np_labeled_jpg", ".", "is it by another name: rename it to 'cuhk03-np/labeled'"),
        ("cuhk03-np/detected", ".", "found in '{top}/cuhk03-np': detected"),
    ],
)
def test_a_data_set_in_a_folder_of_a_folder_is_found_from_each_wrong_root(tmp_path, folder, root, hint):
    write_folders(tmp_path / folder, CUHK03)
    with pytest.raises(DataError) as error:
        load_cuhk03_labelled(tmp_path / root)
    assert str(error.value).endswith(hint.format(top=tmp_path))


def test_images_that_stand_twice_and_identities_in_both_parts_are_findings(tmp_path):
    folder = write_folders(tmp_path / "PRAI-1581", {"images": sum(PRAI_PARTS.values(), [])})
    lists = {"train": sum(PRAI_PARTS.values(), []), "query": 2 * PRAI_PARTS["query"], "gallery": PRAI_PARTS["gallery"]}
    write_text(folder / PARTITIONS, json.dumps(lists))
    twice, shared = split_findings(load_prai1581(tmp_path))
    assert "prai1581 query: 1 images stand there twice" in twice
    assert "1 of the 1 identities of the query are trained on, e.g. 9" in shared
    write_text(folder / PARTITIONS, json.dumps(PRAI_PARTS))
    assert split_findings(load_prai1581(tmp_path)) == []


@pytest.mark.parametrize(
    ("root", "hint"),
    [(".", "it lies in '.*': set DATASETS.ROOT_DIR .*/a"), ("a/PRAI-1581", "set DATASETS.ROOT_DIR to its parent")],
)
def test_the_lists_of_prai_1581_are_found_from_a_wrong_root(tmp_path, root, hint):
    folder = write_folders(tmp_path / "a" / "PRAI-1581", {"images": sum(PRAI_PARTS.values(), [])})
    write_text(folder / PARTITIONS, json.dumps(PRAI_PARTS))
    with pytest.raises(DataError, match=hint):
        load_prai1581(tmp_path / root)


@pytest.mark.parametrize("gallery", ["bounding_box_test", "gallery"])
def test_copies_of_prai_1581_in_folders_equal_its_lists(tmp_path, gallery):
    folders = {"bounding_box_train": "train", "query": "query", gallery: "gallery"}
    write_folders(tmp_path / "a" / "PRAI-1581", {folder: PRAI_PARTS[part] for folder, part in folders.items()})
    listed = write_folders(tmp_path / "b" / "PRAI-1581", {"images": sum(PRAI_PARTS.values(), [])})
    write_text(listed / PARTITIONS, json.dumps(PRAI_PARTS))
    copy, data = load_prai1581(tmp_path / "a"), load_prai1581(tmp_path / "b")
    for split in ("train", "query", "gallery"):
        assert sorted(labels(getattr(copy, split))) == sorted(labels(getattr(data, split)))
    assert labels(data.query) == [("00000009_0001_00000001.jpg", 9, 0, 0)] and match_findings(data) == []


def test_the_pickle_of_prai_1581_is_never_opened(tmp_path):
    folder = write_folders(tmp_path / "PRAI-1581", {"images": PRAI_PARTS["query"]})
    (folder / "partitions.pkl").write_bytes(b"cos\nsystem\n(S'exit 3'\ntR.")  # would end a shell
    with pytest.raises(DataError, match="partitions.pkl, which is never opened.*partitions.json"):
        load_prai1581(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "train is none"),
        ({"train": [3]}, "train is none"),
        (PRAI_PARTS | {"query": ["../a_1_2.jpg"]}, "query names '../a_1_2.jpg', which is not <pid>_<camera>"),
        (PRAI_PARTS | {"query": ["9_1_5.jpg"]}, "1 of 1 images do not exist"),
    ],
)
def test_lists_of_prai_1581_that_do_not_fit_are_one_error(tmp_path, content, message):
    folder = write_folders(tmp_path / "PRAI-1581", {"images": sum(PRAI_PARTS.values(), [])})
    write_text(folder / PARTITIONS, json.dumps(content))
    with pytest.raises(DataError, match=message):
        load_prai1581(tmp_path)


@pytest.mark.parametrize("load", [load_last, load_p_dukemtmc, load_occluded_reid])
def test_a_name_of_another_form_is_an_error_that_shows_the_form(tmp_path, load):
    trees = {load_last: ("last", LAST), load_p_dukemtmc: ("P-DukeMTMC-reid", P_DUKE)}
    if load in trees:
        name, layout = trees[load]
        folder = write_folders(tmp_path / name, layout)
    else:
        folder = write_occluded_reid(tmp_path / "Occluded_REID", 1)
    query = next(path for path in sorted(folder.rglob("*.*")) if "query" in str(path) or "occluded" in str(path))
    query.rename(query.with_name("photo.jpg"))
    with pytest.raises(DataError, match=r"photo.jpg' is not named <pid>_.*, e.g. "):
        load(tmp_path)
