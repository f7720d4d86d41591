"""Small trees in the exact layouts of archives whose folders are the splits; loaders read names, so files are empty."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.datasets.vis_nir_trees import touch

CUHK03 = {
    "bounding_box_train": ["0001_c1_1.png", "0001_c2_6.png", "0002_c1_11.png"],
    "query": ["0003_c1_22.png", "0003_c2_27.png"],
    "bounding_box_test": ["0003_c1_21.png", "0003_c2_26.png"],
}
P_DUKE = {
    "train/occluded_body_images/0001": ["0001_c2_f0046182.jpg"],
    "train/whole_body_images/0001": ["0001_c1_f0046302.jpg", "0001_c3_f0046303.jpg"],
    "test/occluded_body_images/0005": ["0005_c2_f0046985.jpg"],
    "test/whole_body_images/0005": ["0005_c2_f0047105.jpg", "0005_c4_f0047106.jpg"],
}
LAST = {
    "train/000051": ["000051_003_00013_0270_04_001.jpg"],
    "train/000052": ["000052_001_00013_0271_01_002.jpg"],
    "val/query": ["000101_001_00001_0001_01_000.jpg"],
    "val/gallery/000101": ["000101_002_00001_0002_01_000.jpg"],
    "val/gallery/000000": ["000000_001_00002_0001_01_000.jpg"],
    "test/query": ["005859_001_00003_0001_01_000.jpg"],
    "test/gallery/005895": ["005859_002_00003_0002_01_000.jpg", "005859__003_00003_0002_01_000.jpg"],
    "test/gallery/000000": ["000000_001_00004_0001_01_000.jpg"],
}
PRAI_PARTS = {
    "train": ["00000003_0002_00000007.jpg", "00000003_0001_00000001.jpg"],
    "query": ["00000009_0001_00000001.jpg"],
    "gallery": ["00000009_0002_00000002.jpg", "00000009_0001_00000003.jpg"],
}


def write_folders(root: Path, layout: Mapping[str, Iterable[str]]) -> Path:
    """Write empty files by folder; return the root."""
    for folder, names in layout.items():
        touch(root / folder, names)
    return root


def write_occluded_reid(folder: Path, persons: int = 200, each: int = 5) -> Path:
    """Write Occluded-REID of so many persons."""
    for side in ("occluded_body_images", "whole_body_images"):
        for pid in range(1, persons + 1):
            touch(folder / side / f"{pid:03d}", [f"{pid:03d}_{number:02d}.tif" for number in range(1, each + 1)])
    touch(folder, ["Readme.txt"])
    return folder


def write_partial_reid(folder: Path, persons: int = 60, each: int = 5) -> Path:
    """Write Partial-REID of so many persons."""
    for side in ("whole", "occluded", "partial"):
        names = [f"{pid:03d}_{number:03d}.jpg" for pid in range(1, persons + 1) for number in range(1, each + 1)]
        touch(folder / f"{side}_body_images", names)
    return folder
