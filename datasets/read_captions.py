"""From captioned archives to training pairs and tests: read, number, join, hold out. No torch, as `datasets.read`."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from yacs.config import CfgNode

from configs.keys.irra import NAME as IRRA
from datasets.archives.table_captions import load_caption_table
from datasets.bases import Sample, fingerprint
from datasets.caption_checks import caption_match_findings, caption_table, check_images, published_caption_findings
from datasets.captions import CaptionDataset, CaptionTest, Pair, load_cuhk_pedes, load_icfg_pedes, load_rstp_reid
from datasets.held_out import draw_identities
from datasets.read import HELD_OUT_TITLE, Counts, TellCounts, check_trainable, log_data_sets
from datasets.synthetic_text import load_synthetic_text

logger = logging.getLogger(__name__)

READ_CAPTIONS = (IRRA,)  # by MODEL.NAME: systems that train and test on images with captions


class TestedCaptions(NamedTuple):
    """Captions to search images with, and what to say of them."""

    title: str
    test: CaptionTest
    notes: tuple[str, ...] = ()


class CaptionSamples(NamedTuple):
    """What a run trains and tests on."""

    train: list[Pair]  # of all training sets, identities 0..C-1, images 0..I-1, without those held out; [] for none
    counts: Counts
    tests: dict[str, TestedCaptions]  # by name, the one that decides first
    held_out: TestedCaptions | None  # what training picks its epoch by, where that is not the first of the tests
    fingerprint: str  # of `train`, '' for none


def make_caption_datasets(cfg: CfgNode, names: Sequence[str]) -> list[CaptionDataset]:
    """Read captioned data sets of these names from disk."""
    root = cfg.DATASETS.ROOT_DIR
    loaders = {
        "CUHK-PEDES": lambda: load_cuhk_pedes(root),
        "ICFG-PEDES": lambda: load_icfg_pedes(root),
        "RSTPReid": lambda: load_rstp_reid(root),
        "table": lambda: load_caption_table(cfg.DATASETS.TABLE, root),
        "synthetic_text": lambda: load_synthetic_text(root),
    }
    return [loaders[name]() for name in names]


def arrange_captions(
    cfg: CfgNode,
    datasets: Mapping[str, CaptionDataset],
    titles: Mapping[str, str],
    trains: bool,
    counts: TellCounts | None = None,
) -> CaptionSamples:
    """Return the pairs to train on, joined, and the tests of `titles`, by name; log what was found.

    The number of identities is that which a checkpoint tells by `counts`, else that of the training pairs. Training
    picks its epoch by the identities that DATASETS.VAL_IDS holds out, or by the val split of the first training set
    that has one, where DATASETS.EVAL_SPLIT asks for it. Raises DataError where images are missing (not `trains`: those
    of the tests), a test has nothing to find, too few identities are left, or there is nothing to train on and no
    `counts`.
    """
    trained, tested = [datasets[name] for name in cfg.DATASETS.NAMES], [datasets[name] for name in titles]
    _log_findings(datasets.values(), tested)
    check_images([*trained, *tested] if trains else [dataset._replace(train=[], val=None) for dataset in tested])
    tests = {name: TestedCaptions(title, datasets[name].test, datasets[name].notes) for name, title in titles.items()}
    told = counts and counts()
    if any(dataset.no_train for dataset in trained):
        if told is None:
            check_trainable(trained)
        logger.info("no training pairs: %s", "; ".join(dataset.no_train for dataset in trained if dataset.no_train))
        return CaptionSamples([], told.counts, tests, None, "")
    train = join_pairs([dataset.train for dataset in trained])
    held_out = _val_split(trained) if cfg.DATASETS.EVAL_SPLIT == "val" and not cfg.DATASETS.VAL_IDS else None
    if cfg.DATASETS.VAL_IDS:
        left, test = hold_out_captions(train, cfg.DATASETS.VAL_IDS)
        train, held_out = join_pairs([left]), TestedCaptions(HELD_OUT_TITLE, test)
    own = Counts(1 + max(pair.pid for pair in train), 1, 1)
    return CaptionSamples(train, told.counts if told else own, tests, held_out, pairs_fingerprint(train))


def join_pairs(datasets: Sequence[Sequence[Pair]]) -> list[Pair]:
    """Return the training pairs of all data sets, one after the other.

    Identities and images are numbered 0, 1, ... in ascending order of their numbers within a data set, those of later
    data sets after those of the earlier ones.
    """
    joined, first_pid, first_image = [], 0, 0
    for pairs in datasets:
        pids, images = (
            _places((pair.pid for pair in pairs), first_pid),
            _places((p.image_id for p in pairs), first_image),
        )
        joined += [Pair(path, pids[pid], images[image], caption) for path, pid, image, caption in pairs]
        first_pid, first_image = first_pid + len(pids), first_image + len(images)
    return joined


def hold_out_captions(pairs: Sequence[Pair], share: float) -> tuple[list[Pair], CaptionTest]:
    """Return the pairs that are left to train on, and the test of a `share` of the identities, drawn once and for all.

    What is left is not numbered anew. Raises DataError when fewer than two identities can be held out or trained on.
    """
    pids = sorted({pair.pid for pair in pairs})
    drawn = draw_identities(pids, len(pids), share, "a caption")
    return [pair for pair in pairs if pair.pid not in drawn], as_caption_test(
        [pair for pair in pairs if pair.pid in drawn]
    )


def as_caption_test(pairs: Sequence[Pair]) -> CaptionTest:
    """Return the test that searches the images of some pairs with their captions, both in ascending order of images."""
    pairs = sorted(pairs, key=lambda pair: pair.image_id)
    images = {pair.image_id: pair for pair in pairs}
    place = _places(images, 0)
    return CaptionTest(
        paths=[pair.path for pair in images.values()],
        pids=np.array([pair.pid for pair in images.values()], dtype=np.int64),
        captions=[pair.caption for pair in pairs],
        caption_pids=np.array([pair.pid for pair in pairs], dtype=np.int64),
        caption_images=np.array([place[pair.image_id] for pair in pairs], dtype=np.int64),
    )


def images_of(pairs: Sequence[Pair]) -> list[Sample]:
    """Return the images of joined pairs, each once: image i is that of the image_id i. No camera is known: camid 0."""
    images = {pair.image_id: Sample(pair.path, pair.pid, 0, 0) for pair in pairs}
    return [images[image_id] for image_id in range(len(images))]


def pairs_fingerprint(pairs: Sequence[Pair]) -> str:
    """Return the fingerprint of training pairs, see `datasets.bases.fingerprint`: of images, pids and captions."""
    return fingerprint({"train": [(pair.path, pair.pid, 0, pair.caption) for pair in pairs]})


def captions_fingerprint(test: CaptionTest) -> str:
    """Return the fingerprint of a test, see `datasets.bases.fingerprint`: of its images, captions and identities."""
    paths = [*test.paths, ""]  # the last one for a caption whose own image is not searched
    owners = (paths[image] for image in test.caption_images.tolist())
    captions = zip(owners, test.caption_pids.tolist(), test.captions, strict=True)
    return fingerprint(
        {
            "query": [(path, pid, 0, caption) for path, pid, caption in captions],
            "gallery": [(path, pid, 0, 0) for path, pid in zip(test.paths, test.pids.tolist(), strict=True)],
        }
    )


def _places(numbers: Iterable[int], first: int) -> dict[int, int]:
    return {number: place for place, number in enumerate(sorted(set(numbers)), start=first)}


def _log_findings(datasets: Iterable[CaptionDataset], tested: Iterable[CaptionDataset]) -> None:
    """Log table and notes, and what differs from published figures; DataError where a test has nothing to find."""
    log_data_sets([*datasets], caption_table, published_caption_findings)
    for finding in (line for dataset in tested for line in caption_match_findings(dataset)):
        logger.warning("%s", finding)


def _val_split(trained: Sequence[CaptionDataset]) -> TestedCaptions | None:
    for dataset in trained:
        if dataset.val is not None:
            return TestedCaptions(f"val split of {dataset.name}", dataset.val)
    logger.warning(
        "DATASETS.EVAL_SPLIT val: %s has no val split, so training looks at the test split, and its best epoch has "
        "seen the answers; DATASETS.VAL_IDS holds training identities out instead",
        ", ".join(dataset.name for dataset in trained),
    )
    return None
