"""From the configuration to the loaders: read the archives, relabel, join, sample.

torch is imported where loaders are built, so that the data set doctor answers at once.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from yacs.config import CfgNode

from configs.schedule import resolve
from configs.titles import names_of_tests
from datasets.bases import ReIDDataset, Sample, match_findings, published_findings, statistics_table
from datasets.dukemtmcreid import load_dukemtmc
from datasets.held_out import HeldOut, hold_out
from datasets.join import camera_ranges, join_training_sets, relabelled, told_labels
from datasets.market1501 import load_market1501
from datasets.msmt17 import load_msmt17, load_msmt17_v2
from datasets.occ_duke import load_occ_duke
from datasets.table import load_table
from datasets.vehicleid import load_vehicleid
from datasets.veri import load_veri
from utils.errors import DataError

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from datasets.sampler import EpochSampler, ShardSampler
    from datasets.torch_datasets import ImageDataset
    from datasets.transforms import BatchTransform
    from datasets.two_views import TwoViews

logger = logging.getLogger(__name__)


class ReIDData(NamedTuple):
    """Loaders and counts in TransReID's order; batches are the dicts of `datasets.torch_datasets.collate`."""

    train_loader: DataLoader
    train_loader_normal: DataLoader  # training images in order, as for testing
    val_loader: DataLoader  # query, then gallery
    num_query: int
    num_classes: int
    camera_num: int
    view_num: int


def make_datasets(cfg: CfgNode, names: Sequence[str]) -> list[ReIDDataset]:
    """Read data sets of these names from disk; viewpoints are required of those that training embeds them of."""
    from datasets.synthetic import load_synthetic  # here, so that python -m datasets.synthetic runs its module once

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
        "table": lambda: load_table(cfg.DATASETS.TABLE, root),
        "synthetic": lambda: load_synthetic(root, unlabelled, views("synthetic")),
    }
    return [loaders[name]() for name in names]


def make_dataloader(cfg: CfgNode, num_instance: int | None = None) -> ReIDData:
    """Return loaders and counts.

    `num_instance` is the K that training begins with, and asks for the checks of `check_training_set`; None = that of
    epoch 1 without these checks, for code that only tests. Several data sets are joined for training, identities and
    cameras kept apart, but for the identities that DATASETS.VAL_IDS holds out. The test set is the first of
    DATASETS.TESTS, or of NAMES where that is empty. Raises DataError when files are missing, when no query has a match,
    or when MODEL.SIE_CAMERA is on for a training set without cameras.
    """
    from datasets.torch_datasets import ImageDataset
    from datasets.training_set import check_training_set
    from utils.distributed import find_ranks

    datasets = make_datasets(cfg, cfg.DATASETS.NAMES)
    test, test_cameras = _find_test(cfg, names_of_tests(cfg)[0], datasets)
    _check_cameras(cfg, datasets)
    joined = join_training_sets(datasets)
    camera_num = 1 + max(sample.camid for sample in joined)
    view_num = 1 + max(0, *(sample.viewid for sample in joined))
    train = relabelled(hold_out_ids(cfg, datasets, joined).train) if cfg.DATASETS.VAL_IDS else joined
    _log_findings(datasets, test)
    decoder = cfg.INPUT.DECODER
    train_images = ImageDataset(train, cfg.INPUT.SIZE_TRAIN, cfg.INPUT.FILTER_TRAIN, decoder)
    plain_images = ImageDataset(train, cfg.INPUT.SIZE_TEST, cfg.INPUT.FILTER_TEST, decoder)
    if num_instance is not None:
        check_training_set(cfg, train, find_ranks(cfg.MODEL.DIST_TRAIN).world_size)
    sampler = _make_sampler(cfg, train, num_instance or resolve(cfg, 1).num_instance)
    if num_instance is not None:  # a test reads no training image
        train_images.use_cache(cfg.DATALOADER.CACHE, cfg.DATALOADER.NUM_WORKERS)
        plain_images.use_cache(cfg.DATALOADER.CACHE, cfg.DATALOADER.NUM_WORKERS, build=False)  # few ask for them
    share = cfg.SOLVER.IMS_PER_BATCH // sampler.world_size
    return ReIDData(
        _make_loader(cfg, train_images, share, sampler),
        _make_loader(cfg, plain_images, cfg.TEST.IMS_PER_BATCH),
        _test_loader(cfg, test, test_cameras, view_num),
        len(test.query),
        1 + max(sample.pid for sample in train),
        camera_num,
        view_num,
    )


def held_out_test(cfg: CfgNode, data: ReIDData) -> ReIDData | None:
    """Return the data with the identities that DATASETS.VAL_IDS holds out as its test set; None when it is 0."""
    if not cfg.DATASETS.VAL_IDS:
        return None
    datasets = make_datasets(cfg, cfg.DATASETS.NAMES)
    held = hold_out_ids(cfg, datasets, join_training_sets(datasets))
    logger.info(
        "held out to pick the epoch by: %d of the %d training identities, %d query and %d gallery images",
        *(len({sample.pid for sample in held.query}), data.num_classes + len({sample.pid for sample in held.query})),
        *(len(held.query), len(held.gallery)),
    )
    dataset = ReIDDataset("held-out identities", [], held.query, held.gallery)
    loader = _test_loader(cfg, dataset, range(data.camera_num), data.view_num)
    return data._replace(val_loader=loader, num_query=len(held.query))


def hold_out_ids(cfg: CfgNode, datasets: Sequence[ReIDDataset], joined: Sequence[Sample]) -> HeldOut:
    """Hold DATASETS.VAL_IDS of the joined training identities out. Raises DataError where it cannot, see `hold_out`."""
    return hold_out(joined, cfg.DATASETS.VAL_IDS, any(dataset.has_cameras for dataset in datasets))


def further_tests(cfg: CfgNode, data: ReIDData) -> dict[str, ReIDData]:
    """Return, by name, the data with each test set of DATASETS.TESTS but the first in place of that one."""
    names = names_of_tests(cfg)[1:]
    if not names:
        return {}
    trained = make_datasets(cfg, cfg.DATASETS.NAMES)
    tests = {}
    for name in names:
        dataset, cameras = _find_test(cfg, name, trained)
        _log_findings([], dataset)
        loader = _test_loader(cfg, dataset, cameras, data.view_num)
        tests[name] = data._replace(val_loader=loader, num_query=len(dataset.query))
    return tests


def _find_test(cfg: CfgNode, name: str, trained: Sequence[ReIDDataset]) -> tuple[ReIDDataset, range | None]:
    """Return a test set and the cameras of training that are its own; None: it is none of the training sets."""
    if name not in cfg.DATASETS.NAMES:
        return make_datasets(cfg, [name])[0], None
    place = cfg.DATASETS.NAMES.index(name)
    return trained[place], camera_ranges(trained)[place]


def _test_loader(cfg: CfgNode, dataset: ReIDDataset, cameras: range | None, view_num: int) -> DataLoader:
    """Return the loader of query + gallery; of several processes that train together each gets a shard of its rows.

    `cameras` are those of training that the data set's are; None: it was not trained on, and the model is told no
    camera and no viewpoint.
    """
    from datasets.sampler import ShardSampler
    from datasets.torch_datasets import ImageDataset
    from utils.distributed import num_processes, own_rank

    tested = dataset.query + dataset.gallery
    told = told_labels(tested, cameras, view_num)
    for key, side in (("SIE_CAMERA", "camid"), ("SIE_VIEW", "viewid")):
        unknown = sum(getattr(sample, side) < 0 for sample in told)
        if cfg.MODEL[key] and unknown:
            logger.warning(
                "%s: %d of %d test images have a %s unknown to training, so MODEL.%s gives them the neutral "
                "embedding, the mean of the trained ones",
                *(dataset.name, unknown, len(tested), "camera" if side == "camid" else "viewpoint", key),
            )
    images = ImageDataset(
        tested,
        cfg.INPUT.SIZE_TEST,
        cfg.INPUT.FILTER_TEST,
        cfg.INPUT.DECODER,
        dataset.trials,
        dataset.notes,
        told,
    )
    images.use_cache(cfg.DATALOADER.CACHE, cfg.DATALOADER.NUM_WORKERS)
    shard = ShardSampler(len(images), own_rank(), num_processes())
    return _make_loader(cfg, images, cfg.TEST.IMS_PER_BATCH, shard)


def _log_findings(datasets: Sequence[ReIDDataset], test: ReIDDataset) -> None:
    shown = [*datasets, *([] if any(test is dataset for dataset in datasets) else [test])]
    logger.info("data sets\n%s", statistics_table(shown))
    for dataset in shown:
        for note in dataset.notes:
            logger.info("%s", note)
        differing = len(published_findings(dataset))
        if differing:
            logger.warning(
                "%s: %d figures differ from the published ones, so its scores do not compare with published scores; "
                "python -m datasets.check lists them",
                *(dataset.name, differing),
            )
    for finding in match_findings(test):
        logger.warning("%s", finding)


def make_transforms(cfg: CfgNode) -> tuple[BatchTransform | TwoViews, BatchTransform]:
    """Return the device transforms of training (two views of each image when self-supervised) and of testing."""
    from datasets.transforms import BatchTransform
    from datasets.two_views import TwoViews

    mean, std = cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD
    if cfg.MODEL.TRAINING_MODE == "self_supervised":
        train = TwoViews(
            mean,
            std,
            cfg.INPUT.PROB,
            cfg.INPUT.SSL.CROP_SCALE,
            cfg.INPUT.SSL.CROP_RATIO,
            cfg.INPUT.SSL.JITTER,
            cfg.INPUT.SSL.JITTER_PROB,
            cfg.INPUT.SSL.GREY_PROB,
        )
    else:
        train = BatchTransform(mean, std, cfg.INPUT.PROB, cfg.INPUT.PADDING, cfg.INPUT.RE_PROB)
    return train, BatchTransform(mean, std)


def _check_cameras(cfg: CfgNode, datasets: Sequence[ReIDDataset]) -> None:
    for dataset in datasets:
        if cfg.MODEL.SIE_CAMERA and not dataset.has_cameras:
            raise DataError(f"{dataset.name}: the data set has no camera ids, so set MODEL.SIE_CAMERA False")


def _make_sampler(cfg: CfgNode, train: list[Sample], num_instance: int) -> EpochSampler:
    from datasets.sampler import RandomIdentitySampler, ShuffleSampler
    from utils.distributed import find_ranks

    ranks = find_ranks(cfg.MODEL.DIST_TRAIN)
    batch_size, seed = cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.SEED
    if "triplet" in cfg.DATALOADER.SAMPLER:
        sampler = RandomIdentitySampler(train, batch_size, num_instance, seed, ranks.rank, ranks.world_size)
    else:
        drop_last = cfg.DATALOADER.SAMPLER == "random"
        sampler = ShuffleSampler(train, batch_size, seed, ranks.rank, ranks.world_size, drop_last)
    logger.info("sampler: %s", sampler.describe())
    return sampler


def _make_loader(
    cfg: CfgNode, dataset: ImageDataset, batch_size: int, sampler: EpochSampler | ShardSampler | None = None
) -> DataLoader:
    """Return a loader; workers start at the first iteration and are kept."""
    import torch
    from torch.utils.data import DataLoader

    from datasets.torch_datasets import collate
    from utils.workers import leave_interrupts_to_the_parent, num_workers

    workers = num_workers(cfg.DATALOADER.NUM_WORKERS, math.ceil(len(dataset) / batch_size))
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=leave_interrupts_to_the_parent,
        pin_memory=cfg.MODEL.DEVICE in ("auto", "cuda") and torch.cuda.is_available(),
        persistent_workers=workers > 0,
        generator=torch.Generator(),  # the loader's own draws leave the training's random state alone
    )
