"""RegDB: persons, a visible and a thermal camera side by side; ten trials, each with lists to train and to test on.

References: Nguyen et al., Person Recognition System Based on a Combination of Body Images from Visible Light and
Thermal Cameras, Sensors 17(3), 2017; Ye et al., Hierarchical Discriminative Learning for Visible Thermal Person
Re-Identification, AAAI 2018 (the lists).
"""

from pathlib import Path

from configs.modalities import VIS
from datasets.archives.cross_modal import (
    NIR,
    as_items,
    check_apart,
    column,
    paired_records,
    read_image_list,
    unpaired_notes,
)
from datasets.archives.find import does_not_exist, find_folder
from datasets.bases import Sample
from datasets.labels import MAX_PID, whole_number
from datasets.multimodal import MultiModalDataset, SearchTest
from datasets.test_set import Trial
from utils.errors import DataError

NAME, FOLDERS, LISTS = "RegDB", ("RegDB",), "idx"
KINDS = {VIS: ("Visible", "visible", 0), NIR: ("Thermal", "thermal", 1)}  # folder, word in the name of a list, camid
TRIALS = 10
DECIDES, OTHER = "visible to thermal", "thermal to visible"
PUBLISHED = {split: {"ids": (206,), "vis": (2_060,), "nir": (2_060,)} for split in ("train", "test")}  # each trial


def load_regdb(root_dir: str | Path, trial: int = 1) -> MultiModalDataset:
    """Load `<root_dir>/RegDB` by the lists of one of its ten trials, idx/{train,test}_{visible,thermal}_<trial>.txt.

    Training and test have other persons in each trial, so a model is tested on the trial that it was trained on. All
    visible test images search all thermal ones, which is the score, and the other way round; nothing is junk. Raises
    DataError for absent folders and lists, lists that name absent images, and persons in training and test.
    """
    if not 1 <= trial <= TRIALS:
        raise DataError(f"DATASETS.TRIAL got {trial}, {NAME} has the trials 1 to {TRIALS}")
    folder = find_folder(root_dir, FOLDERS, (*(name for name, *_ in KINDS.values()), LISTS))
    absent = [path for path in (_list(folder, "train", kind, trial) for kind in KINDS) if not path.exists()]
    no_train = does_not_exist(absent[0]) if absent else ""
    test = {kind: _read(folder, "test", kind, trial) for kind in KINDS}
    train = {kind: [] if absent else _read(folder, "train", kind, trial) for kind in KINDS}
    parts = {"the training lists": train, "the test lists": test}
    check_apart(
        {part: {sample.pid for own in lists.values() for sample in own} for part, lists in parts.items()},
        f"{NAME} trial {trial}",
    )
    items, vis, nir = as_items(test[VIS], test[NIR])
    trials = Trial(DECIDES, 0, column(vis), column(nir)), Trial(OTHER, 0, column(nir), column(vis))
    return MultiModalDataset(
        name=NAME,
        train=paired_records(train[VIS], train[NIR]),
        test=SearchTest(items, trials, groups={DECIDES: (DECIDES,)}),
        notes=(
            *unpaired_notes(train[VIS], train[NIR], f"{NAME} train"),
            f"{NAME}: trial {trial} of {TRIALS}; published scores are means over a model for each (DATASETS.TRIAL)",
        ),
        no_train=no_train,
        published=PUBLISHED,
    )


def _list(folder: Path, split: str, kind: str, trial: int) -> Path:
    return folder / LISTS / f"{split}_{KINDS[kind][1]}_{trial}.txt"


def _read(folder: Path, split: str, kind: str, trial: int) -> list[Sample]:
    """Return the images of a list, `Visible/<pid>/<image> <label>`: the folder is the person, the label is not."""
    below, _, camid = KINDS[kind]

    def labels_of(image: str, what: str) -> tuple[int, int]:
        return whole_number(Path(image).parent.name, MAX_PID, f"{what}: folder of the person"), camid

    return read_image_list(folder, _list(folder, split, kind, trial), below, labels_of)
