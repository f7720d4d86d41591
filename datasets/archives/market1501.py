"""Market-1501: persons, 6 cameras; 0 = distractors of the gallery, -1 = junk.

Reference: Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015.
"""

from pathlib import Path

from datasets.archives.folders import Archive, load_archive
from datasets.bases import Published, ReIDDataset

FOLDERS = ("market1501", "Market-1501-v15.09.15", "Market-1501", "Market1501")
NUM_CAMERAS = 6
PUBLISHED = {
    "train": Published(images=(12_936,), ids=(751,)),
    "query": Published(images=(3_368,), ids=(750,)),
    "gallery": Published(images=(15_913,), ids=(751,)),
}


def load_market1501(root_dir: str | Path) -> ReIDDataset:
    """Load `<root_dir>/market1501`; junk is left out everywhere, distractors stay in the gallery as pid 0."""
    return load_archive(root_dir, Archive("market1501", FOLDERS, PUBLISHED, NUM_CAMERAS))
