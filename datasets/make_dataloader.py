"""From the configuration to the loaders: read the archives, relabel, join, sample.

torch is imported where loaders are built, so that the data set doctor answers at once.
"""

from __future__ import annotations

import logging
import math
import os
from typing import TYPE_CHECKING, NamedTuple

from yacs.config import CfgNode

from configs.schedule import resolve
from datasets.bases import ReIDDataset, Sample, match_findings, published_findings, statistics_table
from datasets.dukemtmcreid import load_dukemtmc
from datasets.market1501 import load_market1501
from datasets.msmt17 import load_msmt17, load_msmt17_v2
from datasets.occ_duke import load_occ_duke
from datasets.table import load_table
from datasets.vehicleid import load_vehicleid
from datasets.veri import load_veri
from utils.errors import DataError

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from datasets.sampler import EpochSampler
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


def make_datasets(cfg: CfgNode) -> list[ReIDDataset]:
    """Read the data sets of DATASETS.NAMES from disk, in that order."""
    from datasets.synthetic import load_synthetic  # here, so that python -m datasets.synthetic runs its module once

    root, unlabelled = cfg.DATASETS.ROOT_DIR, cfg.DATASETS.UNLABELLED_VIEW
    views = cfg.MODEL.SIE_VIEW
    loaders = {
        "market1501": lambda: load_market1501(root),
        "dukemtmc": lambda: load_dukemtmc(root),
        "occ_duke": lambda: load_occ_duke(root),
        "msmt17": lambda: load_msmt17(root),
        "msmt17_v2": lambda: load_msmt17_v2(root),
        "veri": lambda: load_veri(root, cfg.DATASETS.VIEW_FILES, unlabelled, views),
        "VehicleID": lambda: load_vehicleid(root, cfg.DATASETS.VEHICLEID_TEST_SIZE, cfg.TEST.VEHICLEID_TRIALS),
        "table": lambda: load_table(cfg.DATASETS.TABLE, root),
        "synthetic": lambda: load_synthetic(root, unlabelled, views),
    }
    return [loaders[name]() for name in cfg.DATASETS.NAMES]


def make_dataloader(cfg: CfgNode, num_instance: int | None = None) -> ReIDData:
    """Return loaders and counts.

    `num_instance` is the K that training begins with, and asks for the checks of `check_training_set`; None = that of
    epoch 1 without these checks, for code that only tests. Several data sets are joined for training, identities and
    cameras kept apart; the first one is the test set. Raises DataError when files are missing, when no query has a
    match, or when the test set has cameras or viewpoints that side information embeddings (MODEL.SIE_*) built on the
    training set would not cover.
    """
    from datasets.torch_datasets import ImageDataset
    from datasets.training_set import check_training_set
    from utils.distributed import find_ranks

    datasets = make_datasets(cfg)
    test = datasets[0]
    train = join_training_sets(datasets)
    camera_num = 1 + max(sample.camid for sample in train)
    view_num = 1 + max(0, *(sample.viewid for sample in train))
    _check_side_information(cfg, test, camera_num, view_num)
    _log_findings(datasets)
    workers = cfg.DATALOADER.NUM_WORKERS
    train_images = ImageDataset(train, cfg.INPUT.SIZE_TRAIN, cfg.INPUT.FILTER_TRAIN)
    plain_images = ImageDataset(train, cfg.INPUT.SIZE_TEST, cfg.INPUT.FILTER_TEST)
    tested = test.query + test.gallery
    test_images = ImageDataset(tested, cfg.INPUT.SIZE_TEST, cfg.INPUT.FILTER_TEST, test.trials, test.notes)
    if num_instance is not None:
        check_training_set(cfg, train, find_ranks(cfg.MODEL.DIST_TRAIN).world_size)
    sampler = _make_sampler(cfg, train, num_instance or resolve(cfg, 1).num_instance)
    share = cfg.SOLVER.IMS_PER_BATCH // sampler.world_size
    return ReIDData(
        _make_loader(train_images, share, workers, sampler),
        _make_loader(plain_images, cfg.TEST.IMS_PER_BATCH, workers),
        _make_loader(test_images, cfg.TEST.IMS_PER_BATCH, workers),
        len(test.query),
        1 + max(sample.pid for sample in train),
        camera_num,
        view_num,
    )


def _log_findings(datasets: list[ReIDDataset]) -> None:
    logger.info("data sets\n%s", statistics_table(datasets))
    for dataset in datasets:
        for note in dataset.notes:
            logger.info("%s", note)
        differing = len(published_findings(dataset))
        if differing:
            logger.warning(
                "%s: %d figures differ from the published ones, so its scores do not compare with published scores; "
                "python -m datasets.check lists them",
                *(dataset.name, differing),
            )
    for finding in match_findings(datasets[0]):
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


def join_training_sets(datasets: list[ReIDDataset]) -> list[Sample]:
    """Return all training samples with identities relabelled 0..C-1 (ascending within each set, sets in order).

    Cameras of later sets are counted on from those of the earlier ones; viewpoints keep their meaning.
    """
    joined = []
    first_pid = first_camid = 0
    for dataset in datasets:
        label = {pid: row for row, pid in enumerate(sorted({sample.pid for sample in dataset.train}))}
        joined += [
            sample._replace(pid=first_pid + label[sample.pid], camid=first_camid + sample.camid)
            for sample in dataset.train
        ]
        first_pid += len(label)
        first_camid += 1 + max(sample.camid for sample in dataset.train)
    return joined


def _check_side_information(cfg: CfgNode, test: ReIDDataset, camera_num: int, view_num: int) -> None:
    if cfg.MODEL.SIE_CAMERA and not test.has_cameras:
        raise DataError(f"{test.name}: the data set has no camera ids, so set MODEL.SIE_CAMERA False")
    samples = test.query + test.gallery
    for switch, on, known, values, what in (
        ("MODEL.SIE_CAMERA", cfg.MODEL.SIE_CAMERA, camera_num, [sample.camid for sample in samples], "camera"),
        ("MODEL.SIE_VIEW", cfg.MODEL.SIE_VIEW, view_num, [sample.viewid for sample in samples], "viewpoint"),
    ):
        if on and known > 1 and max(values) >= known:
            raise DataError(
                f"{test.name}: the test set has {what} number {max(values)} (from 0), the training set only 0 to "
                f"{known - 1}, so {switch} has no embedding for it; set {switch} False or train on all {what}s"
            )


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
    dataset: ImageDataset, batch_size: int, workers: int, sampler: EpochSampler | None = None
) -> DataLoader:
    """Return a loader; workers start at the first iteration and are kept."""
    import torch
    from torch.utils.data import DataLoader

    from datasets.torch_datasets import collate, leave_interrupts_to_the_parent

    workers = min(workers, os.cpu_count() or 1, math.ceil(len(dataset) / batch_size))
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=leave_interrupts_to_the_parent,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        generator=torch.Generator(),  # the loader's own draws leave the training's random state alone
    )
