"""P-DukeMTMC-reID: images of DukeMTMC-reID picked for occlusion; every occluded test image searches all whole ones.

No published protocol reads cameras, so nothing is junk. Training takes occluded and whole images together.
Reference: Zhuo et al., Occluded Person Re-identification, ICME 2018.
"""

import re
from pathlib import Path

from datasets.archives.common import Naming
from datasets.archives.folders import Archive, load_archive
from datasets.bases import ALL, Published, ReIDDataset

ARCHIVE = Archive(
    name="p_dukemtmc",
    folders=("P-DukeMTMC-reid", "P-DukeMTMC-reID"),
    published={
        ALL: Published(images=(24_143,), ids=(1_299,)),
        "train": Published(images=(12_927,), ids=(665,)),
        "query": Published(images=(2_163,), ids=(634,)),
        "gallery": Published(images=(9_053,), ids=(634,)),
    },
    layouts=(
        {
            "train": ("train/occluded_body_images", "train/whole_body_images"),
            "query": ("test/occluded_body_images",),
            "gallery": ("test/whole_body_images",),
        },
    ),
    naming=Naming(re.compile(r"(?P<pid>\d+)_", re.ASCII), "<pid>_..., e.g. 0001_c2_f0046182.jpg"),
    nested=True,
)


def load_p_dukemtmc(root_dir: str | Path) -> ReIDDataset:
    """Load `<root_dir>/P-DukeMTMC-reid`; persons go by the names of files."""
    return load_archive(root_dir, ARCHIVE)
