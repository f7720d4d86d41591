"""LaST: persons cut out of films, who change clothes; no cameras, so nothing is junk. Person 0 are distractors.

The val part selects, the test part reports. Persons go by the names of files: a folder of the gallery holds images of
another person than it is called after.
Reference: Shu et al., Large-Scale Spatio-Temporal Person Re-identification, TCSVT 2021.
"""

import re
from pathlib import Path

from datasets.archives.common import Naming
from datasets.archives.folders import Archive, load_archive
from datasets.bases import Published, ReIDDataset

TRAIN = Published(images=(71_248,), ids=(5_000,))
TEST = Archive(
    name="last",
    folders=("last", "LaST"),
    published={
        "train": TRAIN,
        "query": Published(images=(10_176,), ids=(5_805,)),
        "gallery": Published(images=(125_353,), ids=(5_806,)),
    },
    layouts=({"train": ("train",), "query": ("test/query",), "gallery": ("test/gallery",)},),
    naming=Naming(
        re.compile(r"(?P<pid>\d+)_", re.ASCII),
        "<pid>_<image>_<video>_<frame>_<box>_<clothes>, e.g. 000051_003_00013_0270_04_001.jpg",
    ),
    nested=True,
)
VAL = TEST._replace(
    name="last_val",
    published={
        "train": TRAIN,
        "query": Published(images=(100,), ids=()),
        "gallery": Published(images=(21_279,), ids=(56,)),
    },
    layouts=({"train": ("train",), "query": ("val/query",), "gallery": ("val/gallery",)},),
)


def load_last(root_dir: str | Path) -> ReIDDataset:
    """Load `<root_dir>/last` with its test part."""
    return load_archive(root_dir, TEST)


def load_last_val(root_dir: str | Path) -> ReIDDataset:
    """Load `<root_dir>/last` with its val part, to pick a model by."""
    return load_archive(root_dir, VAL)
