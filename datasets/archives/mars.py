"""MARS: tracklets of persons, 6 cameras. A test searches all tracklets, queries among them, with some of them.

Person -1 (folder 00-1) is junk and left out, which is as good as removing it from each ranking; person 0 are
distractors of the gallery. A query's own person under its own camera is junk, and so is the query itself. Training
takes single frames.
Reference: Zheng et al., MARS: A Video Benchmark for Large-Scale Person Re-Identification, ECCV 2016.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from datasets.archives.common import check_listed
from datasets.archives.find import does_not_exist, find_folder
from datasets.archives.matlab import read_whole_numbers
from datasets.bases import Published, ReIDDataset, Sample
from datasets.labels import JUNK_PID
from utils.errors import DataError
from utils.text_files import lines_of

NAME, FOLDERS = "mars", ("mars", "MARS")
TRAIN, TEST, INFO = "bbox_train", "bbox_test", "info"
DISTRACTOR_PID = 0
PID_LENGTH = 4  # characters of a name, as of its folder
NUM_CAMERAS = 6
TRACKLETS = {"train": 8_298, "test": 12_180}
FRAMES = {"train": 509_914, "test": 681_089}
PUBLISHED = {
    "train": Published(images=(509_914,), ids=(625,)),
    "query": Published(images=(1_980,), ids=(626,)),
    "gallery": Published(images=(11_310,), ids=(635,)),
}


def load_mars(root_dir: str | Path) -> ReIDDataset:
    """Load `<root_dir>/mars`: the frames of info/train_name.txt to train on, the tracklets of info/*test* to test with.

    Raises DataError where lists, tables or frames are absent, a range lies beyond its list, or names belie a table.
    """
    folder = find_folder(root_dir, FOLDERS, (TRAIN, TEST, INFO), spare=(TRAIN,))
    tables = {split: folder / INFO / f"tracks_{split}_info.mat" for split in TRACKLETS}
    names = folder / INFO / _names_file("train")
    absent = [str(path) for path in (folder / TRAIN, tables["train"], names) if not path.exists()]
    train, train_frames = ([], {}) if absent else _read(folder, TRAIN, "train", tables["train"])
    test, frames = _read(folder, TEST, "test", tables["test"])
    query = read_whole_numbers(folder / INFO / "query_IDX.mat", "query_IDX").ravel() - 1
    if query.min() < 0 or query.max() >= len(test) or len({*query.tolist()}) < len(query):
        raise DataError(
            f"'{folder / INFO / 'query_IDX.mat'}' names other tracklets than those of the test; get it again"
        )
    nobody = [row for row in query.tolist() if test[row].pid in (JUNK_PID, DISTRACTOR_PID)]
    if nobody:
        raise DataError(
            f"'{folder / INFO / 'query_IDX.mat'}' asks for tracklet {nobody[0] + 1}, which is junk or a distractor "
            f"(pid {test[nobody[0]].pid}); get it again"
        )
    known = [sample for sample in test if sample.pid != JUNK_PID]
    found = {"train": train_frames, "test": frames}
    return ReIDDataset(
        name=NAME,
        train=[sample._replace(path=path) for sample in train for path in train_frames[sample.path]],
        query=[test[row] for row in query.tolist()],
        gallery=known,
        published=PUBLISHED,
        findings=tuple(line for split, own in found.items() for line in _findings(split, own)),
        notes=(f"{NAME} gallery: {len(test) - len(known):,} junk tracklets (pid -1) are ignored",) * (known != test),
        searches_itself=True,
        tests_new_ids=True,
        num_cameras=NUM_CAMERAS,
        no_train=f"there is no {' and no '.join(absent)}" if absent else "",
        frames={sample.path: frames[sample.path] for sample in known},
    )


def _read(folder: Path, below: str, split: str, table: Path) -> tuple[list[Sample], dict[str, tuple[str, ...]]]:
    """Return the tracklets of a part by their first frames, and the frames of each."""
    names_file = folder / INFO / _names_file(split)
    if not names_file.exists():
        raise DataError(f"list {does_not_exist(names_file)}")
    names = [line.strip() for line in lines_of(names_file) if line.strip()]
    samples, frames = [], {}
    for first, last, pid, camera in read_whole_numbers(table, f"track_{split}_info", columns=4).tolist():
        where = f"'{table}': tracklet {len(samples) + 1}"
        if not 1 <= first <= last <= len(names):
            raise DataError(f"{where}: frames {first} to {last} of {len(names):,} in '{names_file}'; get both again")
        own = names[first - 1 : last]
        _check_names(own, f"{pid:04d}C{camera}" if pid >= 0 else f"00{pid}C{camera}", where)
        paths = tuple(f"{folder}/{below}/{name[:PID_LENGTH]}/{name}" for name in own)
        samples.append(Sample(paths[0], pid if pid >= 0 else JUNK_PID, camera - 1, 0))
        frames[paths[0]] = paths
    if len(frames) < len(samples):
        raise DataError(f"'{table}': tracklets share their first frame; get it again")
    check_listed([Sample(path, 0, 0, 0) for own in frames.values() for path in own], names_file)
    return samples, frames


def _names_file(split: str) -> str:
    return f"{split}_name.txt"


def _check_names(names: Sequence[str], begin: str, where: str) -> None:
    wrong = next((name for name in names if not name.startswith(begin) or "/" in name), None)
    if wrong is not None:
        raise DataError(f"{where}: frame '{wrong}' does not begin with {begin}, as the table says; get both again")


def _findings(split: str, frames: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield a line where the tracklets of a part, if there are any, are not the published ones."""
    found = len(frames), sum(map(len, frames.values()))
    if frames and found != (TRACKLETS[split], FRAMES[split]):
        yield (
            f"{NAME} {split}: expected {TRACKLETS[split]:,} tracklets of {FRAMES[split]:,} frames (published), found "
            f"{found[0]:,} of {found[1]:,}; get the tables again, or do not compare the scores with published ones"
        )
