"""Damaged texts: whatever stands in a table, list, key point file or file name, it is read soundly or refused."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from datasets.archives.common import read_labelled_list, read_named_images
from datasets.archives.msmt17 import load_msmt17
from datasets.archives.table import load_table
from datasets.archives.vehicleid import load_vehicleid
from datasets.archives.veri import read_views
from datasets.bases import ReIDDataset
from datasets.labels import MAX_LABEL, MAX_PID
from tests.datasets.trees import view_line, write_msmt17, write_vehicleid
from tests.faults.tally import Count
from utils.errors import DataError

KIND = "fuzzed texts of data sets"
TOKENS = [
    "\ufeff",
    "\0",
    '"',
    "'",
    "\r",
    "\n",
    "\r\n",
    ",",
    ";",
    "\t",
    " ",
    "\u200b",
    "\u0661",
    "\u00b2",
    "\uff11",
    "-1",
]
TOKENS += [
    "nan",
    "None",
    "?",
    "1.0",
    "+1",
    "1E+11",
    "9" * 25,
    "9" * 5000,
    "x" * 70_000,
    "../",
    "~",
    "%s",
    "{}",
    "\x1b[2J",
]
TOKENS += [
    "c192168011",
    "-2",
    "0x1",
    "\u2028",
    "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
    "inf",
]


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Return the text with one to four faults: bytes flipped, cut out, doubled, or odd tokens put in."""
    for _ in range(rng.randint(1, 4)):
        start, stop = sorted(rng.randrange(len(content) + 1) for _ in range(2))
        match rng.randrange(5):
            case 0:
                content = content[:start] + bytes([rng.randrange(256)]) + content[start + 1 :]
            case 1:
                content = content[:start] + content[min(stop, start + 8) :]
            case 2:
                content = content[:stop]
            case 3:
                content = content[:stop] + content[start:stop] + content[stop:]
            case 4:
                content = content[:start] + rng.choice(TOKENS).encode() + content[start:]
    return content


def is_sound(data: ReIDDataset) -> bool:
    """Return whether all labels are within their bounds, and the splits of a test hold images."""
    samples = data.train + data.query + data.gallery
    bounded = all(
        0 <= pid <= MAX_PID and 0 <= camid <= MAX_LABEL and -1 <= viewid <= MAX_LABEL
        for _, pid, camid, viewid in samples
    )
    return bounded and bool(data.query and data.gallery)


def table(folder: Path) -> tuple[Path, Callable[[], bool]]:
    for name in "abcd":
        (folder / f"{name}.jpg").touch()
    path = folder / "t.csv"
    rows = ["a.jpg,1,0,0,train", "b.jpg,2,0,1,query", "c.jpg,2,1,,gallery", "d.jpg,10,2,-1,gallery"]
    path.write_text("\n".join(["path,pid,camid,viewid,split", *rows]))
    return path, lambda: is_sound(load_table(path, folder))


def labelled_list(folder: Path) -> tuple[Path, Callable[[], bool]]:
    path = folder / "l.txt"
    path.write_text("0000/a.jpg 1\n0000/b.jpg 2\n0001/c.jpg 10\n")
    return path, lambda: all(0 <= pid <= MAX_PID and image for image, pid in read_labelled_list(path)[0])


def views(folder: Path) -> tuple[Path, Callable[[], bool]]:
    path = folder / "v.txt"
    path.write_text("\n".join(view_line("image_test", f"{number:04d}_c001.jpg", number) for number in range(4)))
    return path, lambda: all(0 <= view <= MAX_LABEL for view in read_views(path).values())


def msmt17(folder: Path) -> tuple[Path, Callable[[], bool]]:
    root = write_msmt17(folder / "MSMT17", "train", "test")
    return root / "list_gallery.txt", lambda: is_sound(load_msmt17(folder))


def vehicleid(folder: Path) -> tuple[Path, Callable[[], bool]]:
    root = write_vehicleid(folder / "VehicleID")
    path = root / "train_test_split" / "test_list_800.txt"
    return path, lambda: is_sound(load_vehicleid(folder, trials=2)) or not load_vehicleid(folder, trials=2).query


def held(path: Path, read: Callable[[], bool], tries: int) -> list[str]:
    """Return what went wrong of `tries` damaged copies of a sound text, each read: nothing, where all held."""
    sound, rng, wrong = path.read_bytes(), random.Random(path.name), []
    assert read()
    for number in range(tries):
        path.write_bytes(damaged(sound, rng))
        try:
            if not read():
                wrong.append(f"{number}: labels out of bounds")
        except DataError as error:
            if not str(error) or str(path.parent) not in str(error):
                wrong.append(f"{number}: {error}")
        except Exception as error:
            wrong.append(f"{number}: {error!r}")
    return wrong


READERS = [table, labelled_list, views, msmt17, vehicleid]


@pytest.mark.parametrize("make", READERS)
@pytest.mark.parametrize("tries", [120, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_damaged_text_is_read_soundly_or_refused_by_its_name(tmp_path, tally: Count, make, tries):
    wrong = held(*make(tmp_path), tries)
    tally(KIND, tries, tries - len(wrong))
    assert wrong == []


@pytest.mark.parametrize("tries", [150, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_damaged_name_is_read_soundly_or_refused_by_itself(tmp_path, tally: Count, tries):
    rng, wrong, tried = random.Random(0), [], 0
    for _ in range(tries):
        name = damaged(b"0002_c3s1_000451_03.jpg", rng).replace(b"/", b"").replace(b"\0", b"")
        if name in (b"", b".", b"..") or len(name) > 255:
            continue
        path = tmp_path / Path(name.decode("utf-8", "surrogateescape"))
        path.touch()
        tried += 1
        try:
            samples, junk = read_named_images(tmp_path)
            if len(samples) + junk.total() != 1 or any(
                s.pid > MAX_PID or not 0 <= s.camid <= MAX_LABEL for s in samples
            ):
                wrong.append(repr(name))
        except DataError as error:
            if str(tmp_path) not in str(error):
                wrong.append(str(error))
        path.unlink()
    tally(KIND, tried, tried - len(wrong))
    assert wrong == []


def test_a_list_of_a_hundred_thousand_lines_is_read_in_one_pass(tmp_path):
    path = tmp_path / "l.txt"
    path.write_text("".join(f"{number:07d} {number // 4}\n" for number in range(100_000)))
    rows, junk = read_labelled_list(path)
    assert len(rows) == 100_000 and rows[-1] == ("0099999", 24_999) and not junk
