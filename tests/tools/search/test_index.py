"""The index of a folder on disk is always what embedding the whole folder again would give."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tools.photos import NAMES
from tools.feature_extractor import BrokenImageError
from tools.search.index import Index, choose_file, read_index, update_index
from utils.errors import ConfigError, DataError, RunError

BATCH = 2


class FakeExtractor:
    """Embeds a file by the digest of its bytes, in batches of two, and remembers which files it was given."""

    feat_dim = 8

    def __init__(
        self, folder: Path, fingerprint: str = "f" * 64, precision: str = "float32", adopts: bool = True
    ) -> None:
        self.fingerprint = fingerprint
        self.precision = precision
        self.adopts = adopts
        self.weight = folder / "run" / "transformer_1.pth"
        self.seen = []

    def adopt_precision(self, name: str) -> bool:
        self.precision = name if self.adopts else self.precision
        return name == self.precision

    def stream(self, paths: Sequence[str], skip_broken: bool = False) -> Iterator[tuple[list[int], torch.Tensor]]:
        for start in range(0, len(paths), BATCH):
            rows = []
            for row in range(start, min(start + BATCH, len(paths))):
                content = Path(paths[row]).read_bytes() if os.path.exists(paths[row]) else b"broken"
                if content == b"broken" and not skip_broken:
                    raise BrokenImageError(paths[row])
                if content != b"broken":
                    rows.append(row)
            self.seen += [os.path.basename(paths[row]) for row in rows]
            if rows:
                yield rows, torch.from_numpy(np.stack([embedding_of(paths[row]) for row in rows]))


def embedding_of(path: str | Path) -> np.ndarray:
    digest = hashlib.sha256(Path(path).read_bytes()).digest()
    feat = np.frombuffer(digest, dtype=np.int32).astype(np.float32)
    return feat / np.linalg.norm(feat)


def assert_whole(index: Index, folder: Path, names: Sequence[str] = tuple(NAMES)) -> None:
    assert list(index.names) == list(names)
    np.testing.assert_array_equal(index.feat, np.stack([embedding_of(folder / name) for name in names]))


@pytest.fixture
def gallery(photos: list[str], tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "photos"


@pytest.fixture
def update(gallery: Path, tmp_path: Path) -> Callable[..., tuple[Index, list[str]]]:
    """update(...) -> (index, files that were embedded) with a new extractor and the default place of the index."""

    def run(
        fingerprint: str = "f" * 64,
        folder: Path = gallery,
        wanted: str | None = None,
        extractor: FakeExtractor | None = None,
        **options: object,
    ) -> tuple[Index, list[str]]:
        extractor = extractor or FakeExtractor(tmp_path, fingerprint)
        file = choose_file(folder, extractor, wanted)
        old = read_index(file, folder, extractor)
        return update_index(extractor, folder, file, old, **options), extractor.seen

    return run


def index_files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.startswith(".reid_index")]


def test_the_second_time_nothing_is_embedded_and_nothing_written(update, gallery):
    index, seen = update()
    assert_whole(index, gallery)
    assert len(seen) == 6
    [file] = index_files(gallery)
    written = file.stat().st_mtime_ns
    again, seen = update()
    assert_whole(again, gallery)
    assert seen == [] and file.stat().st_mtime_ns == written


def test_only_new_and_changed_images_are_embedded_and_gone_ones_dropped(update, gallery):
    update()
    (gallery / "a.png").unlink()
    shutil.copy(gallery / "z.webp", gallery / "new.webp")
    changed = gallery / "trip/d.png"
    changed.write_bytes(changed.read_bytes()[::-1])  # the same size at another time
    os.utime(gallery / "z.webp", ns=(1, 1))  # the same content at another time: to be on the safe side
    index, seen = update()
    assert_whole(index, gallery, sorted({*NAMES, "new.webp"} - {"a.png"}))
    assert seen == ["new.webp", "d.png", "z.webp"]
    assert update()[1] == []


def test_images_that_go_are_dropped_from_the_file_too(update, gallery, tmp_path):
    update()
    (gallery / "a.png").unlink()
    assert_whole(update()[0], gallery, NAMES[1:])
    [file] = index_files(gallery)
    assert list(read_index(file, gallery, FakeExtractor(tmp_path)).names) == NAMES[1:]


def test_each_model_has_its_own_index(update, gallery):
    update()
    index, seen = update(fingerprint="e" * 64)
    assert_whole(index, gallery)
    assert len(seen) == 6 and len(index_files(gallery)) == 2


def test_another_models_index_is_not_used_and_this_is_said(update, gallery, tmp_path, caplog):
    wanted = str(tmp_path / "mine.npz")
    update(wanted=wanted)
    assert update(wanted=wanted)[1] == [] and not index_files(gallery)
    index, seen = update(fingerprint="e" * 64, wanted=wanted)
    assert len(seen) == 6 and "mine.npz' is of another model" in caplog.text


def test_another_folders_index_is_not_used_but_one_that_moved_with_its_folder_is(update, gallery, tmp_path, caplog):
    wanted = str(tmp_path / "mine.npz")
    update(wanted=wanted)
    update()
    moved = tmp_path / "moved"
    shutil.copytree(gallery, moved, copy_function=shutil.copy2)
    assert update(folder=moved)[1] == [] and "is not used" not in caplog.text
    assert len(update(folder=moved, wanted=wanted)[1]) == 6
    assert f"is of the folder '{gallery}'" in caplog.text


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_damaged_index_is_made_again_with_a_warning(update, gallery, caplog, share):
    update()
    [file] = index_files(gallery)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    index, seen = update()
    assert_whole(index, gallery)
    assert len(seen) == 6 and "is damaged" in caplog.text
    assert update()[1] == []


def test_a_flipped_bit_is_found(update, gallery, caplog):
    update()
    [file] = index_files(gallery)
    content = bytearray(file.read_bytes())
    place = content.find(embedding_of(gallery / "a.png").tobytes())
    content[place + 2] ^= 1
    file.write_bytes(content)
    assert_whole(update()[0], gallery)
    assert "is damaged" in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        lambda parts: {"feat": parts["feat"][:, :5]},
        lambda parts: {"feat": parts["feat"].astype(np.float64)},
        lambda parts: {"feat": parts["feat"].ravel()[: len(parts["name"])]},
        lambda parts: {"stamp": parts["stamp"][:, 0]},
        lambda parts: {"name": parts["name"][1:]},
    ],
)
def test_an_index_whose_parts_do_not_fit_is_made_again(update, gallery, caplog, change):
    update()
    (file,) = index_files(gallery)
    with np.load(file) as content:
        parts = dict(content)
    with open(file, "wb") as stream:
        np.savez(stream, **parts | change(parts))
    index, embedded = update()
    assert_whole(index, gallery)
    assert len(embedded) == len(NAMES) and "has parts of shapes" in caplog.text


def test_a_file_that_is_no_index_is_refused_and_stays(update, gallery, tmp_path):
    other = tmp_path / "feats.npz"
    for meta in ('["x"]', '{"kind": "embeddings"}'):
        np.savez(other, feat=np.zeros((2, 2)), meta=np.array(meta))
        content = other.read_bytes()
        with pytest.raises(ConfigError, match="feats.npz' is another file than an index"):
            update(wanted=str(other))
    with pytest.raises(ConfigError, match="must end in .npz"):
        update(wanted=str(tmp_path / "photo.jpg"))
    assert other.read_bytes() == content


def test_what_was_embedded_before_an_error_is_kept_and_a_half_written_file_never_read(update, gallery):
    broken = gallery / "trip/d.png"
    whole = broken.read_bytes()
    broken.write_bytes(b"broken")
    with pytest.raises(BrokenImageError, match="d.png"):
        update()
    [file] = index_files(gallery)
    file.with_name(file.name + ".77.tmp").write_bytes(file.read_bytes()[:100])
    broken.write_bytes(whole)
    index, seen = update()
    assert_whole(index, gallery)
    assert len(seen) == 6 - 2  # the first batch was kept


def test_a_full_disk_leaves_the_old_index(update, gallery, monkeypatch):
    update()
    [file] = index_files(gallery)
    content = file.read_bytes()
    (gallery / "a.png").unlink()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"cannot write '.*npz' \(No space left on device\)"):
        update()
    assert file.read_bytes() == content and len(index_files(gallery)) == 1


def test_broken_images_can_be_left_out_and_are_tried_again(update, gallery):
    broken = gallery / "trip/d.png"
    whole = broken.read_bytes()
    broken.write_bytes(b"broken")
    (gallery / "link.png").symlink_to(gallery / "gone.png")
    rest = [name for name in NAMES if name != "trip/d.png"]
    assert_whole(update(skip_broken=True)[0], gallery, rest)
    broken.write_bytes(whole)
    index, seen = update(skip_broken=True)
    assert_whole(index, gallery)
    assert seen == ["d.png"]


def test_a_link_to_itself_is_a_broken_image(update, gallery):
    (gallery / "self.png").symlink_to(gallery / "self.png")
    with pytest.raises(BrokenImageError, match="self.png"):
        update()
    assert_whole(update(skip_broken=True)[0], gallery)


def test_a_folder_without_a_whole_image_is_an_error_and_leaves_no_index(update, gallery):
    for name in NAMES:
        (gallery / name).write_bytes(b"broken")
    with pytest.raises(DataError, match="none of its 6 images can be read"):
        update(skip_broken=True)
    assert not index_files(gallery)


def test_a_folder_that_cannot_be_written_to_has_its_index_beside_the_weights(update, gallery, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != gallery)
    update()
    assert update()[1] == [] and not index_files(gallery)
    assert len(index_files(tmp_path / "run")) == 1


def test_without_any_writable_place_no_index_is_kept_and_this_is_said(update, gallery, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert_whole(update()[0], gallery)
    assert "no index is kept" in caplog.text and not index_files(gallery) and not index_files(tmp_path / "run")


def test_an_index_keeps_its_precision_and_the_extractor_follows_it(update, gallery, tmp_path):
    assert update(extractor=FakeExtractor(tmp_path, precision="bfloat16"))[0].precision == "bfloat16"
    (gallery / "a.png").touch()
    extractor = FakeExtractor(tmp_path)
    index, seen = update(extractor=extractor)
    assert index.precision == extractor.precision == "bfloat16" and seen == ["a.png"]
    assert update()[0].precision == "bfloat16"


def test_an_index_in_a_precision_that_cannot_be_followed_is_made_again(update, gallery, tmp_path, caplog):
    update(extractor=FakeExtractor(tmp_path, precision="float16"))
    index, seen = update(extractor=FakeExtractor(tmp_path, adopts=False))
    assert len(seen) == 6 and index.precision == "float32"
    assert "was embedded in float16, this search embeds in float32" in caplog.text


def test_an_index_that_names_no_precision_is_of_float32(update, gallery, tmp_path):
    update()
    (file,) = index_files(gallery)
    with np.load(file) as content:
        parts = dict(content)
    meta = json.loads(str(parts["meta"]))
    assert meta.pop("precision") == "float32"
    with open(file, "wb") as stream:
        np.savez(stream, **parts | {"meta": np.array(json.dumps(meta))})
    index, seen = update(extractor=FakeExtractor(tmp_path, precision="bfloat16"))
    assert seen == [] and index.precision == "float32"
