"""The index of a large gallery is what embedding it again would give, whatever happened while it was made."""

import importlib.util
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from tests.tools.search.large_galleries import FOLDERS, NUMBER, assert_whole, names_in, settle, write_files
from tests.tools.search.test_index import FakeExtractor, embedding_of
from tools.feature_extractor import BrokenImageError
from tools.search import index as small
from tools.search import large_index, shards
from tools.search.index import Index, choose_file, read_kept, up_to_date
from tools.search.large_index import Update
from tools.search.nearest import nearest_in
from tools.search.shards import Shards
from utils import file_lock
from utils.errors import ConfigError, DataError, RunError

with_faiss = pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="FAISS is not installed")
Open = Callable[..., tuple[Shards | Index, list[str]]]


@pytest.fixture
def gallery(large_gallery: Path) -> Path:
    return large_gallery


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "elsewhere" / "i.shards"


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_second_search_looks_at_no_file_embeds_nothing_and_writes_nothing(opened, gallery, folder, monkeypatch):
    index, seen = opened()
    assert len(seen) == NUMBER and len(index.parts) == NUMBER // 8
    assert_whole(index, gallery)
    before = files_of(folder)
    monkeypatch.setattr(large_index, "image_folders", None)
    monkeypatch.setattr(large_index, "stamp_of", None)
    again, seen = opened()
    assert_whole(again, gallery)
    assert seen == [] and files_of(folder) == before


def test_a_gallery_that_changed_just_now_is_looked_at_once_more(opened, gallery, folder):
    os.utime(gallery / "day 1")  # a file of the same moment might not have changed the time of its folder
    first, _ = opened()
    assert first.meta["folders"]["day 1"] == large_index.UNSURE
    settle(gallery)
    again, seen = opened()
    assert seen == [] and large_index.is_fresh(again, gallery) and not large_index.is_fresh(first, gallery)


def test_only_new_and_renamed_files_are_embedded_and_gone_ones_are_not_found(opened, gallery):
    opened()
    (gallery / "day 1/00001.png").unlink()
    (gallery / "day 2/00002.png").rename(gallery / "day 2/other.png")
    write_files(gallery, NUMBER, NUMBER + 3)
    index, seen = opened()
    assert sorted(seen) == ["00040.png", "00041.png", "00042.png", "other.png"]
    assert_whole(index, gallery)
    assert len(index.gone) == 2 and len(index) == NUMBER + 4
    paths, _ = nearest_in(embedding_of(gallery / "day 0/00000.png")[None], index, 1000)
    assert sorted(paths[0]) == sorted(names_in(index)) and paths[0][0] == "day 0/00000.png"


def test_a_file_that_changed_in_place_shows_with_update(opened, gallery, caplog):
    caplog.set_level("INFO")
    opened()
    (gallery / "day 3/00003.png").write_bytes(b"other content")
    assert opened()[1] == [] and "--update looks at every file" in caplog.text
    index, seen = opened(checked=True)
    assert seen == ["00003.png"]
    assert_whole(index, gallery)
    assert opened(checked=True)[1] == []


@pytest.mark.parametrize("stage", ["feat", "name", "edge", "stamp", "gone", "index.json", "faiss"])
@pytest.mark.parametrize("times", [1, 3])
def test_a_build_that_was_broken_off_goes_on_and_is_never_taken_for_whole(
    opened, gallery, folder, monkeypatch, stage, times
):
    opened()
    write_files(gallery, NUMBER, NUMBER + 300 if stage == "faiss" else NUMBER + 30)
    (gallery / "day 1/00001.png").unlink()
    left, os_replace = [times], os.replace

    def killed(source: str | Path, target: str | Path) -> None:
        left[0] -= stage in Path(target).name
        if left[0] <= 0:  # nothing that a killed process would do afterwards succeeds either
            raise KeyboardInterrupt
        os_replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with suppress(KeyboardInterrupt):
            opened()
    kept = large_index.read_large(folder)
    assert left[0] > 0 or not large_index.is_fresh(kept, gallery)
    named = len(kept)
    index, seen = opened()
    assert_whole(index, gallery)
    assert len(seen) == len(index) - named
    assert not [name for name in files_of(folder) if name.endswith(".tmp")]


def test_what_was_embedded_before_a_broken_image_is_kept(opened, gallery, folder):
    broken = gallery / "day 3/00019.png"  # among the last
    whole = broken.read_bytes()
    broken.write_bytes(b"broken")
    with pytest.raises(BrokenImageError, match="00019.png"):
        opened()
    kept = large_index.read_large(folder)
    assert not kept.meta["whole"] and 0 < len(kept) < NUMBER
    index, seen = opened(skip_broken=True)
    assert len(seen) == NUMBER - 1 - len(kept) and len(index) == NUMBER - 1
    broken.write_bytes(whole)
    index, seen = opened(checked=True)
    assert seen == ["00019.png"]
    assert_whole(index, gallery)


def test_a_gallery_without_a_whole_image_is_an_error(opened, gallery):
    for path in gallery.rglob("*.png"):
        path.write_bytes(b"broken")
    with pytest.raises(DataError, match="none of its 40 images can be read"):
        opened(skip_broken=True)


def test_another_models_index_is_not_used_and_leaves_nothing(opened, gallery, folder, tmp_path, caplog):
    opened()
    index, seen = opened(FakeExtractor(tmp_path, "e" * 64))
    assert len(seen) == NUMBER and "is of another model" in caplog.text
    assert_whole(index, gallery)
    assert len([name for name in files_of(folder) if "feat" in name]) == NUMBER // 8


def test_another_folders_index_is_not_used_but_one_that_moved_with_its_folder_is(opened, gallery, tmp_path, caplog):
    opened(wanted=None)
    assert [path.suffix for path in gallery.glob(".reid_index*")] == [".shards"]
    moved = tmp_path / "moved"
    shutil.copytree(gallery, moved, copy_function=shutil.copy2)
    extractor = FakeExtractor(tmp_path)
    old = read_kept(choose_file(moved, extractor, None), moved, extractor)
    assert old is not None and "is not used" not in caplog.text
    opened()
    assert read_kept(tmp_path / "elsewhere" / "i.npz", moved, extractor) is None and "is of the folder" in caplog.text


def test_an_index_keeps_its_precision_and_the_extractor_follows_it(opened, tmp_path):
    opened(FakeExtractor(tmp_path, precision="bfloat16"))
    extractor = FakeExtractor(tmp_path)
    index, seen = opened(extractor)
    assert index.precision == extractor.precision == "bfloat16" and seen == []


def test_a_small_gallery_that_grows_takes_its_embeddings_along(opened, gallery, folder, monkeypatch):
    monkeypatch.setattr(small, "LARGE_FROM", NUMBER + 1)
    index, _ = opened()
    file = folder.with_suffix(".npz")
    assert isinstance(index, Index) and file.is_file() and not folder.exists()
    write_files(gallery, NUMBER, NUMBER + 5)
    index, seen = opened()
    assert len(seen) == 5 and not file.exists()
    assert_whole(index, gallery)
    assert opened()[1] == []
    np.savez(file, mine=np.arange(3))  # another file of that name is none of the index
    write_files(gallery, NUMBER + 5, NUMBER + 6)
    assert len(opened()[1]) == 1 and file.is_file()


def test_a_large_gallery_that_shrinks_keeps_its_index(opened, gallery, folder):
    opened()
    for number in range(NUMBER - 3):
        (gallery / f"day {number % FOLDERS}/{number:05d}.png").unlink()
    index, seen = opened()
    assert seen == [] and len(index.gone) == 0 and len(index) == 3  # written anew
    assert_whole(index, gallery)
    assert len([name for name in files_of(folder) if "feat" in name]) == 1


@pytest.mark.parametrize("kind", ["feat", "name", "edge", "stamp"])
@pytest.mark.parametrize("damage", [lambda data: data[:-3], lambda data: data[:-1] + bytes([data[-1] ^ 1]), None])
def test_update_finds_a_damaged_part_and_embeds_it_again(opened, gallery, folder, caplog, kind, damage):
    index, _ = opened()
    file = folder / f"{index.parts[2].number:05d}.{kind}.npy"
    content = file.read_bytes()
    file.unlink()
    if damage:
        file.write_bytes(damage(content))
    index, seen = opened(checked=True)
    assert len(seen) == 8 and "1 of its 5 parts are damaged" in caplog.text
    assert_whole(index, gallery)


def test_a_search_of_a_part_that_is_not_whole_says_so(opened, gallery, folder):
    index, _ = opened()
    file = folder / f"{index.parts[2].number:05d}.feat.npy"
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(DataError, match=r"is damaged \(.*feat.npy\); search with --update, which makes it again"):
        nearest_in(np.ones((1, 8), np.float32), opened()[0], 3)
    np.save(file, np.full((8, 8), np.nan, np.float16))
    with pytest.raises(DataError, match="an embedding"):
        index.take(np.arange(len(index)))


@pytest.mark.parametrize("rows", [[1.5], [-3], [10**6], [[0]], [8, 7], [7, 7], [5]])
def test_update_finds_damage_among_the_rows_that_are_gone(opened, gallery, folder, rows):
    opened()
    gone = gallery / "day 1/00001.png"
    content, stamp = gone.read_bytes(), gone.stat().st_mtime_ns
    gone.unlink()
    index, _ = opened()
    file = shards.file_of(folder, shards.Gone(*index.meta["gone"]).number, "gone.npy")
    np.save(file, np.array(rows))
    if rows != [5]:  # a row like any other shows in its checksum alone
        with pytest.raises(DataError, match=r"is damaged \(.*gone.npy\)"):
            nearest_in(np.ones((1, 8), np.float32), opened()[0], 3)
    gone.write_bytes(content)  # back as it was
    os.utime(gone, ns=(stamp, stamp))
    index, seen = opened(checked=True)
    assert seen == [] and large_index.read_large(folder).gone.tolist() == []
    assert_whole(index, gallery)


def test_a_search_that_another_process_overtakes_says_so(opened, gallery, folder):
    index, _ = opened()
    for number in range(NUMBER - 3):
        (gallery / f"day {number % FOLDERS}/{number:05d}.png").unlink()
    opened()  # writes the index anew
    with pytest.raises(DataError, match="was changed by another process meanwhile; search again"):
        nearest_in(np.ones((1, 8), np.float32), index, 3)


def test_what_another_process_has_made_meanwhile_is_not_made_again(opened, gallery, folder, tmp_path):
    opened()
    extractor = FakeExtractor(tmp_path)
    index = up_to_date(extractor, gallery, folder.with_suffix(".npz"), None, Update())
    assert extractor.seen == [] and len(index) == NUMBER


def test_a_number_is_never_used_twice(tmp_path):
    for name in ("00007.gone.npy", "99999.feat.npy", "100000.faiss", "100001.name.npy.12.tmp", "999999.txt"):
        (tmp_path / name).touch()
    assert shards.next_number(tmp_path) == 100_002
    shards.remove_unnamed(Shards(tmp_path, shards.new_meta("f" * 64, tmp_path, "float32", 8) | {"gone": (7, 0, 0)}))
    assert sorted(files_of(tmp_path)) == ["00007.gone.npy", "999999.txt"]


def test_a_part_of_objects_is_not_read(opened, folder):
    index, _ = opened()
    np.save(folder / f"{index.parts[0].number:05d}.feat.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="is damaged"):
        index.take(np.arange(3))


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_damaged_manifest_is_said_and_the_index_made_again(opened, gallery, folder, caplog, share):
    opened()
    text = (folder / shards.MANIFEST).read_bytes()
    (folder / shards.MANIFEST).write_bytes(text[: int(share * len(text))])
    index, seen = opened()
    assert len(seen) == NUMBER and "index.json' is damaged" in caplog.text
    assert_whole(index, gallery)


def test_a_changed_number_in_the_manifest_is_damage(opened, folder, caplog):
    opened()
    file = folder / shards.MANIFEST
    file.write_text(file.read_text().replace('"rows": 8', '"rows": 7').replace("[1, 8", "[1, 7"))
    assert len(opened()[1]) == NUMBER and "is damaged" in caplog.text


def test_another_folder_is_never_taken_for_an_index(opened, folder):
    folder.mkdir(parents=True)
    (folder / "diary.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is another folder than an index"):
        opened()
    assert files_of(folder) == {"diary.txt": b"mine"}


def test_one_process_at_a_time_updates_an_index(opened, folder, monkeypatch):
    monkeypatch.setattr(file_lock, "CHILDREN_GRACE_S", 0.1)
    opened()
    with (
        file_lock.locked(folder / large_index.LOCK, "this test"),
        pytest.raises(ConfigError, match="shards' is in use by"),
    ):
        opened(checked=True)


def test_a_full_disk_is_one_error_and_the_older_index_stays(opened, gallery, folder, monkeypatch):
    opened()
    (gallery / "day 1/00001.png").unlink()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunError, match="make room"):
            opened()
    assert_whole(opened()[0], gallery)


def test_what_a_full_disk_left_goes_before_more_is_written(opened, gallery, folder, monkeypatch):
    opened()
    write_files(gallery, NUMBER, NUMBER + 5)
    os_replace, left = os.replace, []

    def full(source: str | Path, target: str | Path) -> None:
        if Path(target).name.endswith("stamp.npy"):
            left.append(sorted(files_of(folder)))
            raise OSError(28, "No space left on device")
        os_replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        for _ in range(3):
            with pytest.raises(RunError, match="make room"):
                opened()
    assert left[0] == left[1] == left[2] and any(name.startswith("00006.") for name in left[0])
    assert_whole(opened()[0], gallery)


def test_a_large_gallery_without_a_place_for_its_index_is_refused(gallery, tmp_path):
    with pytest.raises(ConfigError, match="has 40 images, whose index needs a place: --index"):
        up_to_date(FakeExtractor(tmp_path), gallery, None, None, Update())


def test_file_names_that_are_no_unicode_are_kept(opened, gallery):
    os.rename(gallery / "day 1/00001.png", f"{gallery}/day 1/\udcff.png")
    index, _ = opened()
    assert "day 1/\udcff.png" in names_in(index)
    assert opened()[1] == []
