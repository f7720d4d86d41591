"""Occluded-REID: 200 persons, each five times occluded and five times whole; a test set of models trained elsewhere.

Every occluded image searches all whole ones. The second number of a name counts images; it is no camera.
Reference: Zhuo et al., Occluded Person Re-identification, ICME 2018.
"""

import re
from pathlib import Path

from datasets.archives.common import Naming
from datasets.archives.folders import Archive, load_archive
from datasets.bases import Published, ReIDDataset

SIDE = Published(images=(1_000,), ids=(200,), per_id=5)
ARCHIVE = Archive(
    name="occluded_reid",
    folders=("Occluded_REID", "Occluded_ReID", "OccludedREID", "occluded-reid"),
    published={"query": SIDE, "gallery": SIDE},
    layouts=(
        {"query": ("occluded_body_images",), "gallery": ("whole_body_images",)},
        {"query": ("query",), "gallery": ("gallery",)},
    ),
    naming=Naming(re.compile(r"(?P<pid>\d+)_\d+\.", re.ASCII), "<pid>_<number>, e.g. 001_01.tif"),
    nested=True,
)


def load_occluded_reid(root_dir: str | Path) -> ReIDDataset:
    """Load `<root_dir>/Occluded_REID`: .tif files in folders by person, or a usual copy, flat and of another format."""
    return load_archive(root_dir, ARCHIVE)
