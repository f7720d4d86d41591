"""VERI-Wild: vehicles, 174 cameras, a month; three test lists of 3,000, 5,000 and 10,000 vehicles, one query of each.

Gallery images of the query's vehicle under the query's camera are junk, as the set's README says. Published figures mix
this rule and none, so a result says which it is of.
Reference: Lou et al., VERI-Wild: A Large Dataset and a New Method for Vehicle Re-Identification in the Wild, CVPR 2019.
"""

from collections.abc import Mapping
from pathlib import Path

from datasets.archives.common import camid_of, check_listed
from datasets.archives.find import does_not_exist, find_folder
from datasets.bases import Published, ReIDDataset, Sample
from datasets.labels import MAX_PID, whole_number
from utils.errors import DataError
from utils.text_files import numbered_lines

FOLDERS = ("VERI-Wild", "VERI_Wild", "VeRi-Wild", "veri-wild")
IMAGES, LISTS, TRAIN_LIST, CAMERAS = "images", "train_test_split", "train_list.txt", "vehicle_info.txt"
NUM_CAMERAS = 174
IMAGES_OF_TEST = {3_000: 41_861, 5_000: 69_389, 10_000: 138_517}  # by vehicles, query and gallery together


def load_veri_wild(root_dir: str | Path, test_size: int) -> ReIDDataset:
    """Load `<root_dir>/VERI-Wild` with the test lists of `test_size` vehicles, a key of IMAGES_OF_TEST.

    The vehicle is an image's folder, its camera stands in vehicle_info.txt. Raises DataError where a list, that file or
    images are absent, and naming the line that does not fit.
    """
    folder = find_folder(root_dir, FOLDERS, (IMAGES, LISTS))
    lists, name = folder / LISTS, f"veri_wild_{test_size}"
    cameras = read_cameras(lists / CAMERAS)
    absent = "" if (lists / TRAIN_LIST).exists() else does_not_exist(lists / TRAIN_LIST)
    query, gallery = (_read_list(folder, lists / f"test_{test_size}{end}.txt", cameras) for end in ("_query", ""))
    total = IMAGES_OF_TEST[test_size]
    return ReIDDataset(
        name=name,
        train=[] if absent else _read_list(folder, lists / TRAIN_LIST, cameras),
        query=query,
        gallery=gallery,
        published={
            "train": Published(images=(277_797,), ids=(30_671,)),
            "query": Published(images=(test_size,), ids=(test_size,), per_id=1),
            "gallery": Published(images=(total - test_size, total), ids=(test_size,)),  # sources differ on the queries
        },
        notes=(f"{name}: the query's vehicle under the query's camera is junk; some published figures keep it",),
        tests_new_ids=True,
        num_cameras=NUM_CAMERAS,
        no_train=absent,
    )


def read_cameras(file: Path) -> dict[str, int]:
    """Return {"<vehicle>/<image>": camid} of lines "<vehicle>/<image>;<camera from 1>;...", with or without a header.

    Raises DataError with file and line for another line, and for an image of two cameras.
    """
    if not file.exists():
        raise DataError(f"list {does_not_exist(file)}")
    cameras = {}
    for number, (where, line) in enumerate(numbered_lines(file)):
        image, *fields = line.split(";")
        if number == 0 and "/" in image and not image[0].isdigit():  # id/image;Camera ID;...
            continue
        if not fields or "/" not in image:
            raise DataError(
                f"{where}: expected '<vehicle>/<image>;<camera>;...', got '{line.strip()[:60]}'; correct it"
            )
        camid = camid_of(fields[0].strip(), where)
        if cameras.setdefault(_key(image), camid) != camid:
            raise DataError(f"{where}: image '{_key(image)}' has another camera than before; correct one of the lines")
    return cameras


def _read_list(folder: Path, list_file: Path, cameras: Mapping[str, int]) -> list[Sample]:
    """Return the samples of lines "<vehicle>/<image, with or without .jpg>"."""
    if not list_file.exists():
        raise DataError(f"list {does_not_exist(list_file)}")
    samples = []
    for where, line in numbered_lines(list_file):
        image = _key(line)
        vehicle, _, name = image.partition("/")
        if not name or "/" in name or " " in name:  # other projects append labels of their own
            raise DataError(
                f"{where}: expected '<vehicle>/<image>', got '{line.strip()[:60]}'; take the list of the archive itself"
            )
        if image not in cameras:
            raise DataError(f"{where}: image '{image}' has no line in '{list_file.parent / CAMERAS}'; get it again")
        pid = whole_number(vehicle, MAX_PID, f"{where}: vehicle")
        samples.append(Sample(f"{folder / IMAGES}/{image}.jpg", pid, cameras[image], 0))
    check_listed(samples, list_file)
    return samples


def _key(image: str) -> str:
    return image.strip().removesuffix(".jpg")
