"""VeRi-776: vehicles, 20 cameras, viewpoints from the key point files of Wang et al.

Reference: Liu et al., A Deep Learning-Based Approach to Progressive Vehicle Re-identification for Urban Surveillance,
ECCV 2016; viewpoints: Wang et al., Orientation Invariant Feature Embedding and Spatial Temporal Regularization for
Vehicle Re-identification, ICCV 2017.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets.archives.common import read_splits
from datasets.archives.find import find_folder
from datasets.bases import Published, ReIDDataset, Sample
from datasets.labels import MAX_LABEL, UNKNOWN_VIEW, whole_number
from utils.errors import DataError
from utils.paths import user_path
from utils.text_files import numbered_lines

FOLDERS = ("VeRi", "VeRi_with_plate", "VeRi-776", "VeRi776")
IMAGE_FOLDERS = {"train": "image_train", "query": "image_query", "gallery": "image_test"}
TRAIN_VIEWS, TEST_VIEWS = VIEW_FILES = ("keypoint_train.txt", "keypoint_test.txt")
VIEW_FILES_SOURCE = "github.com/Zhongdao/VehicleReIDKeyPointData"
# 37,715 / 1,677 / 11,578 are left of 37,778 / 1,678 / 11,579 when images without a viewpoint are dropped.
NUM_CAMERAS = 20
PUBLISHED = {
    "train": Published(images=(37_778, 37_746, 37_715), ids=(576, 575)),
    "query": Published(images=(1_678, 1_677), ids=(200,)),
    "gallery": Published(images=(11_579, 11_578), ids=(200,)),
}


def load_veri(
    root_dir: str | Path,
    view_files: Sequence[str] = (),
    unlabelled_view: str = "drop",
    require_views: bool = True,
) -> ReIDDataset:
    """Load `<root_dir>/VeRi`; the arguments are those of `load_veri_folder`."""
    folder = find_folder(root_dir, FOLDERS, tuple(IMAGE_FOLDERS.values()), spare=(IMAGE_FOLDERS["train"],))
    return load_veri_folder(
        folder, view_files, unlabelled_view, require_views, published=PUBLISHED, num_cameras=NUM_CAMERAS
    )


def load_veri_folder(
    folder: str | Path,
    view_files: Sequence[str] = (),
    unlabelled_view: str = "drop",
    require_views: bool = True,
    name: str = "veri",
    published: Mapping[str, Published] | None = None,
    num_cameras: int = 0,
) -> ReIDDataset:
    """Load a folder in VeRi's layout: image_train, image_query, image_test with "<pid>_c<camera>..." images.

    keypoint_train.txt and keypoint_test.txt are searched in the folder, its parent, ./datasets and `view_files` (paths
    of the files or of folders with them). An image without a viewpoint line is dropped (`unlabelled_view` "drop") or
    kept with viewid -1 ("neutral"). Without the files every viewid is 0, unless `require_views`: then DataError.
    """
    if unlabelled_view not in ("drop", "neutral"):
        raise ValueError(f"unlabelled_view must be drop or neutral, got {unlabelled_view!r}")
    folder = Path(folder)
    found, searched = find_view_files(folder, view_files)
    samples, notes, no_train = read_splits(folder, name, IMAGE_FOLDERS)
    missing = [view_file for view_file in VIEW_FILES if view_file not in found]
    if no_train:  # nothing is looked up in its file
        missing = [view_file for view_file in missing if view_file != TRAIN_VIEWS]
    if missing and require_views:
        raise DataError(
            f"{name}: {' and '.join(missing)} not found, searched {', '.join(searched)}; get the files from "
            f"{VIEW_FILES_SOURCE} and put them into '{os.path.abspath(folder)}', or train without: MODEL.SIE_VIEW False"
        )
    if missing:
        notes.append(f"{name}: {' and '.join(missing)} not found ({VIEW_FILES_SOURCE}), every viewpoint is 0")
    else:
        # As in TransReID, an image is looked up among the training lines first.
        views = read_views(found[TEST_VIEWS]) | (read_views(found[TRAIN_VIEWS]) if TRAIN_VIEWS in found else {})
        for split in (split for split in samples if samples[split]):
            samples[split], note = _with_views(samples[split], views, unlabelled_view, f"{name} {split}")
            notes += note
    figures = {"published": dict(published or {}), "num_cameras": num_cameras, "tests_new_ids": True}
    return ReIDDataset(name=name, **samples, **figures, notes=tuple(notes), no_train=no_train)


def find_view_files(folder: Path, view_files: Sequence[str] = ()) -> tuple[dict[str, Path], list[str]]:
    """Return {file name: first path found} and the places searched, in order, for both viewpoint files.

    Raises DataError for an entry of `view_files` that does not exist or has another name.
    """
    places = [folder, folder.parent, Path("datasets")]
    for entry in view_files:
        path = user_path(entry, "DATASETS.VIEW_FILES", DataError)
        if not path.exists():
            raise DataError(f"DATASETS.VIEW_FILES: '{entry}' does not exist; correct the path")
        if path.is_file() and path.name not in VIEW_FILES:
            raise DataError(f"DATASETS.VIEW_FILES: '{entry}' is not called {' or '.join(VIEW_FILES)}; rename it")
        places.append(path)
    found = {}
    for name in VIEW_FILES:
        candidates = [place if place.is_file() else place / name for place in places]
        hits = [path for path in candidates if path.name == name and path.is_file()]
        if hits:
            found[name] = hits[0]
    return found, [f"'{os.path.abspath(place)}'" for place in places]


def read_views(view_file: Path) -> dict[str, int]:
    """Return {image file name: viewpoint >= 0} of lines "<path> x1 y1 ... x20 y20 <viewpoint>"; the last line wins.

    Raises DataError with file and line, also where a line has fewer or more fields than the first: it was cut.
    """
    views = {}
    length = 0
    for where, line in numbered_lines(view_file):
        fields = line.split()
        length = length or len(fields)
        if len(fields) != length or length == 1 or not (fields[-1].isascii() and fields[-1].isdigit()):
            raise DataError(
                f"{where}: expected '<image> x1 y1 ... x20 y20 <viewpoint>', got '{line.strip()[:60]}'; "
                f"get the file from {VIEW_FILES_SOURCE} again"
            )
        views[fields[0].rsplit("/", 1)[-1]] = whole_number(fields[-1], MAX_LABEL, f"{where}: viewpoint")
    return views


def _with_views(
    samples: Sequence[Sample], views: Mapping[str, int], unlabelled_view: str, what: str
) -> tuple[list[Sample], list[str]]:
    """Return the samples with their viewpoints and a note on those that have none."""
    labelled = [sample._replace(viewid=views.get(os.path.basename(sample.path), UNKNOWN_VIEW)) for sample in samples]
    num_unknown = sum(sample.viewid == UNKNOWN_VIEW for sample in labelled)
    if not num_unknown:
        return labelled, []
    count = f"{what}: {num_unknown:,} of {len(samples):,} images have no viewpoint line"
    if unlabelled_view == "neutral":
        return labelled, [f"{count} and keep viewid {UNKNOWN_VIEW} (DATASETS.UNLABELLED_VIEW neutral)"]
    kept = [sample for sample in labelled if sample.viewid != UNKNOWN_VIEW]
    if not kept:
        raise DataError(
            f"{what}: no image has a line in {' or '.join(VIEW_FILES)}, so all {len(samples):,} would be dropped; use "
            "the files that belong to these images, or DATASETS.UNLABELLED_VIEW neutral"
        )
    return kept, [f"{count} and were dropped (DATASETS.UNLABELLED_VIEW drop)"]
