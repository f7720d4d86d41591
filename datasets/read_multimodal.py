"""From archives of several modalities to records and tests: read, number, join, hold out. No torch."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from yacs.config import CfgNode

from configs.keys.multimodal import NAME as MULTIMODAL
from configs.modalities import MODALITIES, TEXT, VIS
from datasets.archives.llcm import load_llcm
from datasets.archives.regdb import load_regdb
from datasets.archives.sysu_mm01 import load_sysu_mm01
from datasets.archives.table_modalities import load_modality_table
from datasets.bases import fingerprint
from datasets.held_out import draw_identities
from datasets.multimodal import MultiModalDataset, Record, SearchTest
from datasets.multimodal_checks import items_of_records, modal_table, published_modal_findings, search_findings
from datasets.orbench import load_orbench
from datasets.read import HELD_OUT_TITLE, Counts, TellCounts, check_trainable, log_data_sets
from datasets.search_tests import make_search_test, pool_of, test_of_pool
from datasets.synthetic_orbench import load_synthetic_orbench
from utils.errors import DataError

logger = logging.getLogger(__name__)

READ_MODALITIES = (MULTIMODAL,)  # by MODEL.NAME: systems that train and test on several modalities


class TestedModalities(NamedTuple):
    """What is searched with what, and what to say of it."""

    title: str
    test: SearchTest
    notes: tuple[str, ...] = ()


class ModalSamples(NamedTuple):
    """What a run trains and tests on."""

    train: list[Record]  # of all training sets, persons 0..C-1, cameras kept apart, without those held out; [] for none
    counts: Counts
    tests: dict[str, TestedModalities]  # by name, the one that decides first
    held_out: TestedModalities | None  # where DATASETS.VAL_IDS is above 0
    fingerprint: str  # of `train`, '' for none


def make_multimodal_datasets(cfg: CfgNode, names: Sequence[str]) -> list[MultiModalDataset]:
    """Read data sets of several modalities of these names from disk."""
    root = cfg.DATASETS.ROOT_DIR
    loaders = {
        "orbench": lambda: load_orbench(root),
        "synthetic_orbench": lambda: load_synthetic_orbench(root),
        "sysu_mm01": lambda: load_sysu_mm01(root),
        "regdb": lambda: load_regdb(root, cfg.DATASETS.TRIAL),
        "llcm": lambda: load_llcm(root),
        "table": lambda: load_modality_table(cfg.DATASETS.TABLE, root),
    }
    return [loaders[name]() for name in names]


def model_modalities(cfg: CfgNode) -> tuple[str, ...]:
    """Return the modalities of the model, in the order of MODALITIES."""
    return tuple(name for name in MODALITIES if name in cfg.MODEL.MULTIMODAL.MODALITIES)


def arrange_multimodal(
    cfg: CfgNode,
    datasets: Mapping[str, MultiModalDataset],
    titles: Mapping[str, str],
    counts: TellCounts | None = None,
) -> ModalSamples:
    """Return the records to train on, joined, and the tests of `titles`, by name; log what was found.

    The number of persons is that which a checkpoint tells by `counts`, else that of the records. A data set without a
    test is tested on the persons that DATASETS.VAL_IDS holds out. Raises DataError where a test has nothing to find,
    no record has one of the model's modalities, too few persons are left, or there is nothing to train on and no
    `counts`.
    """
    modalities, trained = model_modalities(cfg), [datasets[name] for name in cfg.DATASETS.NAMES]
    log_data_sets([*datasets.values()], modal_table, published_modal_findings)
    told = counts and counts()
    train, held_out = [], None
    if any(dataset.no_train for dataset in trained):
        if told is None:
            check_trainable(trained)
        why = "; ".join(dataset.no_train for dataset in trained if dataset.no_train)
        logger.info("no records to train on: %s", why)
    else:
        train = join_records([dataset.train for dataset in trained])
        check_modalities(train, modalities)
        if cfg.DATASETS.VAL_IDS:
            train, held_out = hold_out_records(cfg, train)
    own = Counts(len({record.pid for record in train}), 1 + max((record.camid for record in train), default=0), 1)
    return ModalSamples(
        train,
        told.counts if told else own,
        {
            name: _tested(cfg, datasets[name], title, held_out if name in cfg.DATASETS.NAMES else None)
            for name, title in titles.items()
        },
        held_out,
        records_fingerprint(train) if train else "",
    )


def join_records(datasets: Sequence[Sequence[Record]]) -> list[Record]:
    """Return the records of all data sets, one after the other.

    Persons are numbered 0, 1, ... in ascending order of their numbers within a data set, those of later data sets after
    those of the earlier ones; cameras of later sets are counted on.
    """
    joined, first_pid, first_camera = [], 0, 0
    for records in datasets:
        numbers = sorted({record.pid for record in records})
        place = {pid: row for row, pid in enumerate(numbers, start=first_pid)}
        joined += [
            record._replace(pid=place[record.pid], camid=first_camera + record.camid, others=dict(record.others))
            for record in records
        ]
        first_pid += len(place)
        first_camera += 1 + max((record.camid for record in records), default=-1)
    return joined


def check_modalities(train: Sequence[Record], modalities: Sequence[str]) -> None:
    """Raise DataError where no record has one of the model's modalities, so that this could not learn."""
    found = {VIS, *(TEXT for record in train if record.caption.strip())}
    found.update(name for record in train for name, paths in record.others.items() if paths)
    lacking = [name for name in modalities if name not in found]
    if lacking:
        left = ", ".join(name for name in modalities if name in found)
        raise DataError(
            f"DATASETS.NAMES: no person to train on has {' or '.join(lacking)}, of which MODEL.MULTIMODAL.MODALITIES "
            f"would learn nothing; set it to {left}" + (" and another one" if left == VIS else "")
        )


def hold_out_records(cfg: CfgNode, train: Sequence[Record]) -> tuple[list[Record], TestedModalities]:
    """Return the records that are left to train on, numbered anew, and the test of those of DATASETS.VAL_IDS.

    Persons are drawn once and for all among those that have something to search with. Raises DataError when fewer than
    two can be held out or trained on.
    """
    modalities, share = model_modalities(cfg), cfg.DATASETS.VAL_IDS
    items = [item for item in items_of_records(train) if item.modality in modalities]
    fits = sorted({item.pid for item in items if item.modality != VIS})
    need = " or ".join(name for name in modalities if name != VIS)
    drawn = draw_identities(fits, len({record.pid for record in train}), share, need)
    pool = pool_of(item for item in items if item.pid in drawn)
    test = test_of_pool(HELD_OUT_TITLE, pool, modalities, cfg.TEST.QUERY_SETS, cfg.TEST.GALLERY_SET)
    search_findings(HELD_OUT_TITLE, test)
    left = [record for record in train if record.pid not in drawn]
    place = {pid: row for row, pid in enumerate(sorted({record.pid for record in left}))}
    return [record._replace(pid=place[record.pid]) for record in left], TestedModalities(HELD_OUT_TITLE, test)


def _tested(
    cfg: CfgNode, dataset: MultiModalDataset, title: str, held_out: TestedModalities | None
) -> TestedModalities:
    """Return the test of a data set; that of the persons held out where it has none; None: it was not trained on."""
    test = make_search_test(dataset, model_modalities(cfg), cfg.TEST.QUERY_SETS, cfg.TEST.GALLERY_SET)
    if test is not None:
        for finding in search_findings(dataset.name, test):
            logger.warning("%s", finding)
        return TestedModalities(title, test, dataset.notes)
    if held_out is None:
        raise DataError(
            f"{dataset.name}: there is no test; hold persons out of its training with DATASETS.VAL_IDS, e.g. 0.1, or "
            "name another data set in DATASETS.TESTS"
        )
    note = f"{dataset.name} has no test: these are persons held out of training, by which its epoch may be picked too"
    return TestedModalities(f"{title}, {HELD_OUT_TITLE}", held_out.test, (*dataset.notes, note))


def records_fingerprint(records: Iterable[Record]) -> str:
    """Return the fingerprint of records, see `datasets.bases.fingerprint`: of all images, captions and persons."""
    train: list[tuple[str, int, int, str]] = []
    partners: dict[tuple[str, int, str], None] = {}
    for record in records:
        train.append((record.vis, record.pid, record.camid, record.caption))
        for modality, paths in record.others.items():
            partners.update(dict.fromkeys((path, record.pid, modality) for path in paths))
    return fingerprint({"train": train, "partner": ((path, pid, 0, modality) for path, pid, modality in partners)})
