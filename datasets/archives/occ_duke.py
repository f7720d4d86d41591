"""Occluded-Duke: DukeMTMC-reID's images, split so that every query is occluded; Market-1501's layout.

Reference: Miao et al., Pose-Guided Feature Alignment for Occluded Person Re-identification, ICCV 2019.
"""

from pathlib import Path

from datasets.archives.folders import Archive, load_archive
from datasets.bases import Published, ReIDDataset

FOLDERS = (
    *("Occluded_Duke", "Occluded-DukeMTMC", "Occluded-Duke", "Occluded-DukeMTMC-reID", "occluded_duke"),
    "dukemtmcreid/Occluded_Duke",
)
NUM_CAMERAS = 8
PUBLISHED = {
    "train": Published(images=(15_618,), ids=(702,)),
    "query": Published(images=(2_210,), ids=(519,)),
    "gallery": Published(images=(17_661,), ids=(1_110,)),
}


def load_occ_duke(root_dir: str | Path) -> ReIDDataset:
    """Load `<root_dir>/Occluded_Duke`."""
    return load_archive(root_dir, Archive("occ_duke", FOLDERS, PUBLISHED, NUM_CAMERAS))
