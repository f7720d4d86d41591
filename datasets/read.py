"""From archives on disk to samples: read, relabel, join, hold out. No torch: the data set doctor answers at once."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from yacs.config import CfgNode

from datasets.archives.atrw import load_atrw
from datasets.archives.cuhk03_np import load_cuhk03_detected, load_cuhk03_labelled
from datasets.archives.dukemtmcreid import load_dukemtmc
from datasets.archives.ilids_vid import load_ilids_vid
from datasets.archives.last import load_last, load_last_val
from datasets.archives.market1501 import load_market1501
from datasets.archives.mars import load_mars
from datasets.archives.msmt17 import load_msmt17, load_msmt17_v2
from datasets.archives.occ_duke import load_occ_duke
from datasets.archives.occluded_reid import load_occluded_reid
from datasets.archives.p_dukemtmc import load_p_dukemtmc
from datasets.archives.partial_reid import load_partial_reid, load_partial_reid_occluded
from datasets.archives.prai1581 import load_prai1581
from datasets.archives.table import load_table
from datasets.archives.vehicleid import load_vehicleid
from datasets.archives.veri import load_veri
from datasets.archives.veri_wild import load_veri_wild
from datasets.archives.wildlife import load_wildlife
from datasets.bases import (
    ReIDDataset,
    Sample,
    fingerprint,
    match_findings,
    published_findings,
    split_findings,
    statistics_table,
)
from datasets.held_out import HeldOut, hold_out
from datasets.join import camera_ranges, join_training_sets, known_of_all, relabelled
from datasets.labels import check_side_rows
from datasets.synthetic.load import load_synthetic
from datasets.synthetic_persons import load_synthetic_persons
from utils.errors import DataError

logger = logging.getLogger(__name__)

AnyDataset = TypeVar("AnyDataset")  # with name and notes
HELD_OUT_TITLE = "held-out identities"


class Tested(NamedTuple):
    """A data set to test on, and which cameras of training are its own; None: it is none of the training sets."""

    dataset: ReIDDataset
    cameras: range | None


class Counts(NamedTuple):
    """What a training set tells a model: identities for the heads, cameras and viewpoints for side information."""

    num_class: int
    camera_num: int
    view_num: int


class Told(NamedTuple):
    """What a checkpoint tells of its training set."""

    counts: Counts
    names: tuple[str, ...]  # as DATASETS.NAMES had them


TellCounts = Callable[[], Told | None]  # None: the checkpoint does not tell


class Samples(NamedTuple):
    """What a run trains and tests on."""

    train: list[Sample]  # of all training sets, identities 0..C-1, without those held out; [] where one has none
    counts: Counts
    tests: dict[str, Tested]  # by name, the one that decides first
    held_out: Tested | None  # where DATASETS.VAL_IDS is above 0
    fingerprint: str  # of `train`, '' for none


def make_datasets(cfg: CfgNode, names: Sequence[str]) -> list[ReIDDataset]:
    """Read data sets of these names from disk; viewpoints are required of those that training embeds them of."""
    root, unlabelled = cfg.DATASETS.ROOT_DIR, cfg.DATASETS.UNLABELLED_VIEW

    def views(name: str) -> bool:
        return cfg.MODEL.SIE_VIEW and name in cfg.DATASETS.NAMES

    loaders = {
        "market1501": lambda: load_market1501(root),
        "dukemtmc": lambda: load_dukemtmc(root),
        "occ_duke": lambda: load_occ_duke(root),
        "msmt17": lambda: load_msmt17(root),
        "msmt17_v2": lambda: load_msmt17_v2(root),
        "veri": lambda: load_veri(root, cfg.DATASETS.VIEW_FILES, unlabelled, views("veri")),
        "VehicleID": lambda: load_vehicleid(root, cfg.DATASETS.VEHICLEID_TEST_SIZE, cfg.TEST.VEHICLEID_TRIALS),
        "cuhk03_labelled": lambda: load_cuhk03_labelled(root),
        "cuhk03_detected": lambda: load_cuhk03_detected(root),
        "veri_wild_3000": lambda: load_veri_wild(root, 3_000),
        "veri_wild_5000": lambda: load_veri_wild(root, 5_000),
        "veri_wild_10000": lambda: load_veri_wild(root, 10_000),
        "occluded_reid": lambda: load_occluded_reid(root),
        "p_dukemtmc": lambda: load_p_dukemtmc(root),
        "partial_reid": lambda: load_partial_reid(root),
        "partial_reid_occluded": lambda: load_partial_reid_occluded(root),
        "last": lambda: load_last(root),
        "last_val": lambda: load_last_val(root),
        "prai1581": lambda: load_prai1581(root),
        "atrw": lambda: load_atrw(root),
        "mars": lambda: load_mars(root),
        "ilids_vid": lambda: load_ilids_vid(root, cfg.DATASETS.TRIAL),
        "wildlife": lambda: load_wildlife(cfg.DATASETS.WILDLIFE, root, cfg.DATASETS.WILDLIFE_SPLIT),
        "table": lambda: load_table(cfg.DATASETS.TABLE, root),
        "synthetic": lambda: load_synthetic(root, unlabelled, views("synthetic")),
        "synthetic_persons": lambda: load_synthetic_persons(root),
    }
    return [loaders[name]() for name in names]


def names_to_read(cfg: CfgNode, tests: Sequence[str]) -> list[str]:
    """Return the names of the training sets and of `tests`, each once."""
    return list(dict.fromkeys((*cfg.DATASETS.NAMES, *tests)))


def arrange(
    cfg: CfgNode, datasets: Mapping[str, ReIDDataset], tests: Sequence[str], counts: TellCounts | None = None
) -> Samples:
    """Return the samples to train on, joined, and those to test on, of data sets by name; log what was found.

    Identities and cameras of several training sets are kept apart; the identities that DATASETS.VAL_IDS holds out
    leave the training set. `counts` tells those of a checkpoint: a test asks it where training images are missing.
    Raises DataError when no query has a match, when too few identities are left, when MODEL.SIE_CAMERA is on for a
    training set without cameras, or where there is nothing to train on and no `counts`.
    """
    trained = {name: datasets[name] for name in cfg.DATASETS.NAMES}
    _check_cameras(cfg, trained.values())
    first, *others = tests
    _log_findings([*trained.values()], datasets[first])
    for name in others:
        _log_findings([], datasets[name])
    if any(dataset.no_train for dataset in trained.values()):
        return _tests_alone(trained, {name: datasets[name] for name in tests}, counts and counts())
    joined = join_training_sets([*trained.values()])
    camera_num, view_num = 1 + max(sample.camid for sample in joined), 1 + max(0, *(s.viewid for s in joined))
    check_side_rows(camera_num * cfg.MODEL.SIE_CAMERA, view_num * cfg.MODEL.SIE_VIEW)
    cameras = dict(zip(trained, camera_ranges([*trained.values()]), strict=True))
    train, held_out = joined, None
    if cfg.DATASETS.VAL_IDS:
        held = hold_out_ids(cfg, [*trained.values()], joined)
        train = relabelled(held.train)
        more = known_of_all([*trained.values()])
        held_out = Tested(ReIDDataset(HELD_OUT_TITLE, [], held.query, held.gallery, more=more), range(camera_num))
    return Samples(
        train,
        Counts(1 + max(sample.pid for sample in train), camera_num, view_num),
        {name: Tested(datasets[name], cameras.get(name)) for name in tests},
        held_out,
        fingerprint({"train": train}),
    )


def check_trainable(datasets: Iterable[ReIDDataset]) -> None:
    """Raise DataError for the first data set without training images."""
    for dataset in datasets:
        if dataset.no_train:
            raise DataError(
                f"{dataset.name}: there is nothing to train on: {dataset.no_train} (test.py can do without, where the "
                "checkpoint tells its own numbers of identities, cameras and viewpoints)"
            )


def _tests_alone(trained: Mapping[str, ReIDDataset], tests: Mapping[str, ReIDDataset], told: Told | None) -> Samples:
    """Return the samples of tests alone, for a model whose cameras are known where it was trained on that set alone."""
    if told is None:
        check_trainable(trained.values())
    logger.info(
        "no training images: %s", "; ".join(dataset.no_train for dataset in trained.values() if dataset.no_train)
    )
    cameras = range(told.counts.camera_num) if [*trained] == [*told.names] and len(trained) == 1 else None
    tested = {name: Tested(dataset, cameras if name in trained else None) for name, dataset in tests.items()}
    return Samples([], told.counts, tested, None, "")


def hold_out_ids(cfg: CfgNode, datasets: Sequence[ReIDDataset], joined: Sequence[Sample]) -> HeldOut:
    """Hold DATASETS.VAL_IDS of the joined training identities out. Raises DataError where it cannot, see `hold_out`."""
    return hold_out(joined, cfg.DATASETS.VAL_IDS, any(dataset.has_cameras for dataset in datasets))


def _log_findings(datasets: Sequence[ReIDDataset], test: ReIDDataset) -> None:
    shown = [*datasets, *([] if any(test is dataset for dataset in datasets) else [test])]
    log_data_sets(shown, statistics_table, published_findings)
    for finding in (*(line for dataset in shown for line in split_findings(dataset)), *match_findings(test)):
        logger.warning("%s", finding)


def log_data_sets(
    datasets: Sequence[AnyDataset],
    table: Callable[[Sequence[AnyDataset]], str],
    findings_of: Callable[[AnyDataset], Sequence[str]],
) -> None:
    """Log the table of some data sets, their notes, and how many figures (`findings_of`) are not the published ones."""
    logger.info("data sets\n%s", table(datasets))
    for dataset in datasets:
        for note in dataset.notes:
            logger.info("%s", note)
        differing = len(findings_of(dataset))
        if differing:
            logger.warning(
                "%s: %d figures differ from the published ones, so its scores do not compare with published scores; "
                "python -m tools.check lists them",
                *(dataset.name, differing),
            )


def _check_cameras(cfg: CfgNode, datasets: Sequence[ReIDDataset]) -> None:
    for dataset in datasets:
        if cfg.MODEL.SIE_CAMERA and not dataset.has_cameras:
            raise DataError(f"{dataset.name}: the data set has no camera ids, so set MODEL.SIE_CAMERA False")
