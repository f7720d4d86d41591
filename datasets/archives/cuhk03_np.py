"""CUHK03-NP: persons, each seen by two cameras, under boxes drawn by hand (labelled) or by a detector (detected).

The new protocol of 767 training and 700 test persons, in its own form of folders. The two variants do not share one
split: each has a test person that the other one trains on.
Reference: Li et al., DeepReID, CVPR 2014; Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding,
CVPR 2017 (the protocol).
"""

from pathlib import Path

from datasets.archives.folders import Archive, load_archive
from datasets.bases import Published, ReIDDataset

FOLDERS = ("cuhk03-np", "CUHK03-NP", "CUHK03_np")
QUERY = Published(images=(1_400,), ids=(700,), per_id=2)  # one under each camera
LABELLED = Archive(
    name="cuhk03_labelled",
    folders=tuple(f"{folder}/{variant}" for folder in FOLDERS for variant in ("labeled", "labelled", "Labeled")),
    published={
        "train": Published(images=(7_368,), ids=(767,)),
        "query": QUERY,
        "gallery": Published(images=(5_328,), ids=(700,)),
    },
    num_cameras=2,
)
DETECTED = Archive(
    name="cuhk03_detected",
    folders=tuple(f"{folder}/{variant}" for folder in FOLDERS for variant in ("detected", "Detected")),
    published={
        "train": Published(images=(7_365,), ids=(767,)),
        "query": QUERY,
        "gallery": Published(images=(5_332,), ids=(700,)),
    },
    num_cameras=2,
)


def load_cuhk03_labelled(root_dir: str | Path) -> ReIDDataset:
    """Load `<root_dir>/cuhk03-np/labeled`."""
    return load_archive(root_dir, LABELLED)


def load_cuhk03_detected(root_dir: str | Path) -> ReIDDataset:
    """Load `<root_dir>/cuhk03-np/detected`."""
    return load_archive(root_dir, DETECTED)
