"""From the configuration to loaders and test sets.

What needs torch is in `datasets.loaders`, imported when it is called: whoever only reads archives does without it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from yacs.config import CfgNode

from configs.titles import dataset_title, names_of_tests
from datasets.read import HELD_OUT_TITLE, Samples, TellCounts, arrange, make_datasets, names_to_read
from datasets.read_captions import READ_CAPTIONS, CaptionSamples, arrange_captions, make_caption_datasets
from datasets.read_multimodal import READ_MODALITIES, ModalSamples, arrange_multimodal, make_multimodal_datasets

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from datasets.test_set import TestSet

logger = logging.getLogger(__name__)

HELD_OUT = "held_out"  # the name of that test set


@dataclass(frozen=True)
class ReIDData:
    """Loaders, counts and test sets; iterating and indexing give TransReID's seven fields in its order.

    These are train_loader, train_loader_normal, val_loader, num_query, num_classes, camera_num, view_num. Batches are
    as `datasets.batch.Batch` says.
    """

    train_loader: DataLoader | None  # None where a test does without training images
    train_loader_normal: DataLoader | None  # training images in order, as for testing
    num_classes: int
    camera_num: int
    view_num: int
    tests: dict[str, TestSet]  # by name, the one that decides first
    held_out: TestSet | None  # identities held out of training (DATASETS.VAL_IDS), or a val split (EVAL_SPLIT)
    fingerprint: str  # of the training samples, '' for none

    @property
    def test(self) -> TestSet:
        """The test set that decides."""
        return next(iter(self.tests.values()))

    @property
    def val_loader(self) -> DataLoader:
        """The (first) loader of the test set that decides: of images, query, then gallery; where there are captions
        to search with, of the gallery."""
        return self.test.loaders[0]

    @property
    def num_query(self) -> int:
        """Queries of the first trial of the test set that decides."""
        return len(self.test.trials[0].query)

    def __iter__(self) -> Iterator[Any]:
        yield from (self.train_loader, self.train_loader_normal, self.val_loader, self.num_query)
        yield from (self.num_classes, self.camera_num, self.view_num)

    def __getitem__(self, place: int | slice) -> Any:
        return tuple(self)[place]


def make_dataloader(cfg: CfgNode, num_instance: int | None = None, counts: TellCounts | None = None) -> ReIDData:
    """Return loaders, counts and test sets; each archive is read once.

    `num_instance` is the K that training begins with. It asks for the checks of `check_training_set` and for the first
    test set alone, the one that training looks at. None = the K of epoch 1 without these checks, and all of
    DATASETS.TESTS (or the first of NAMES where that is empty), for code that only tests. Several data sets are joined
    for training, identities and cameras kept apart, but for the identities that DATASETS.VAL_IDS holds out. `counts`
    tells those of a checkpoint, asked where a test has to do without training images. Raises DataError when files are
    missing and as `datasets.read.arrange`.
    """
    readers = dict.fromkeys(READ_CAPTIONS, _caption_data) | dict.fromkeys(READ_MODALITIES, _modal_data)
    make = readers.get(cfg.MODEL.NAME, _image_data)
    return make(cfg, names_of_tests(cfg)[: 1 if num_instance is not None else None], num_instance, counts)


def _image_data(cfg: CfgNode, tests: Sequence[str], num_instance: int | None, counts: TellCounts | None) -> ReIDData:
    from datasets.loaders import make_test_set, make_train_loaders

    trains = num_instance is not None
    names = names_to_read(cfg, tests)
    samples = arrange(cfg, dict(zip(names, make_datasets(cfg, names), strict=True)), tests, counts)
    loaders = make_train_loaders(cfg, samples.train, num_instance) if samples.train else (None, None)
    view_num = samples.counts.view_num
    size = cfg.DATASETS.VEHICLEID_TEST_SIZE
    test_sets = {
        name: make_test_set(cfg, name, dataset_title(name, size), tested, view_num)
        for name, tested in samples.tests.items()
    }
    held_out = None
    if samples.held_out is not None:
        if trains:
            _log_held_out(samples)
        held_out = make_test_set(cfg, HELD_OUT, HELD_OUT_TITLE, samples.held_out, view_num, use_cache=trains)
    return ReIDData(*loaders, *samples.counts, test_sets, held_out, samples.fingerprint)


def _caption_data(cfg: CfgNode, tests: Sequence[str], num_instance: int | None, counts: TellCounts | None) -> ReIDData:
    from datasets.caption_loaders import make_caption_test_set, make_pair_loaders

    trains = num_instance is not None
    names = names_to_read(cfg, tests)
    datasets = dict(zip(names, make_caption_datasets(cfg, names), strict=True))
    titles = {name: dataset_title(name, cfg.DATASETS.VEHICLEID_TEST_SIZE) for name in tests}
    samples = arrange_captions(cfg, datasets, titles, trains, counts)
    loaders = make_pair_loaders(cfg, samples.train, num_instance) if samples.train else (None, None)
    test_sets = {name: make_caption_test_set(cfg, name, tested) for name, tested in samples.tests.items()}
    held_out = None
    if samples.held_out is not None:
        if trains:
            _log_held_out_captions(samples)
        held_out = make_caption_test_set(cfg, HELD_OUT, samples.held_out, use_cache=trains)
    return ReIDData(*loaders, *samples.counts, test_sets, held_out, samples.fingerprint)


def _modal_data(cfg: CfgNode, tests: Sequence[str], num_instance: int | None, counts: TellCounts | None) -> ReIDData:
    from datasets.modal_loaders import make_modal_loaders, make_modal_test_set

    trains = num_instance is not None
    names = names_to_read(cfg, tests)
    datasets = dict(zip(names, make_multimodal_datasets(cfg, names), strict=True))
    titles = {name: dataset_title(name, cfg.DATASETS.VEHICLEID_TEST_SIZE) for name in tests}
    samples = arrange_multimodal(cfg, datasets, titles, counts)
    loaders = make_modal_loaders(cfg, samples.train, num_instance) if samples.train else (None, None)
    test_sets = {name: make_modal_test_set(cfg, name, tested) for name, tested in samples.tests.items()}
    held_out = None
    if samples.held_out is not None:
        if trains:
            _log_held_out_persons(samples)
        held_out = make_modal_test_set(cfg, HELD_OUT, samples.held_out, use_cache=trains)
    return ReIDData(*loaders, *samples.counts, test_sets, held_out, samples.fingerprint)


def _log_held_out(samples: Samples) -> None:
    dataset = samples.held_out.dataset
    num_ids = len({sample.pid for sample in dataset.query})
    logger.info(
        "held out to pick the epoch by: %d of the %d training identities, %d query and %d gallery images",
        *(num_ids, samples.counts.num_class + num_ids, len(dataset.query), len(dataset.gallery)),
    )


def _log_held_out_captions(samples: CaptionSamples) -> None:
    title, test, _ = samples.held_out
    logger.info(
        "held out to pick the epoch by: %s, %d identities, %d images and %d captions",
        *(title, len({*test.pids.tolist()}), len(test.paths), len(test.captions)),
    )


def _log_held_out_persons(samples: ModalSamples) -> None:
    test = samples.held_out.test
    kinds = Counter(item.modality for item in test.items)
    logger.info(
        "held out to pick the epoch by: %d of the %d training identities, %s, in %d query sets",
        len({item.pid for item in test.items}),
        samples.counts.num_class + len({item.pid for item in test.items}),
        ", ".join(f"{count} {name}" for name, count in kinds.items()),
        len(test.trials),
    )
