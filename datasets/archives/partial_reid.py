"""Partial-REID: 60 persons, each five times whole, occluded and partial; a test set of models trained elsewhere.

Every partial image, or every occluded one, searches all whole ones: two queries, whose scores do not compare. The
second number of a name counts images; it is no camera.
Reference: Zheng et al., Partial Person Re-identification, ICCV 2015.
"""

import re
from pathlib import Path

from datasets.archives.common import Naming
from datasets.archives.folders import Archive, load_archive
from datasets.bases import Published, ReIDDataset

SIDE = Published(images=(300,), ids=(60,), per_id=5)
WHOLE = ("whole_body_images",)
PARTIAL = Archive(
    name="partial_reid",
    folders=("Partial-REID_Dataset", "Partial_REID"),
    published={"query": SIDE, "gallery": SIDE},
    layouts=({"query": ("partial_body_images",), "gallery": WHOLE},),
    naming=Naming(re.compile(r"(?P<pid>\d+)_\d+\.", re.ASCII), "<pid>_<number>, e.g. 001_001.jpg"),
    notes=("partial_reid: the queries are the partial images",),
)
OCCLUDED = PARTIAL._replace(
    name="partial_reid_occluded",
    layouts=({"query": ("occluded_body_images",), "gallery": WHOLE},),
    notes=("partial_reid_occluded: the queries are the occluded images",),
)


def load_partial_reid(root_dir: str | Path) -> ReIDDataset:
    """Load `<root_dir>/Partial-REID_Dataset`, searched with its partial images."""
    return load_archive(root_dir, PARTIAL)


def load_partial_reid_occluded(root_dir: str | Path) -> ReIDDataset:
    """Load `<root_dir>/Partial-REID_Dataset`, searched with its occluded images."""
    return load_archive(root_dir, OCCLUDED)
