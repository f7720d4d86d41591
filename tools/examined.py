"""What the labels of the data sets of a configuration show, for the data set doctor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from utils.errors import ConfigError, DataError

if TYPE_CHECKING:
    from yacs.config import CfgNode

    from datasets.bases import ReIDDataset, Sample
    from datasets.captions import CaptionDataset, Pair
    from datasets.multimodal import MultiModalDataset, Record

MAX_LABELS = 20  # labels that a line lists


class Examined(NamedTuple):
    """What the labels of data sets showed, and the images that are still to be read."""

    findings: list[str]
    parts: list[tuple[str, list[tuple[str, int]]]]  # data set, (path, identity) of images whose identities compare
    train_paths: set[str]
    test_paths: set[str]


def examine(cfg: CfgNode) -> Examined:
    """Load the data of `cfg` as its system reads them, print table and notes; errors as `tools.check.do_check`."""
    from datasets.read_captions import READ_CAPTIONS
    from datasets.read_multimodal import READ_MODALITIES

    readers = dict.fromkeys(READ_CAPTIONS, examine_captions) | dict.fromkeys(READ_MODALITIES, examine_modalities)
    return readers.get(cfg.MODEL.NAME, examine_samples)(cfg)


def examine_samples(cfg: CfgNode) -> Examined:
    """Load the images of `cfg`, print table and notes, and return what their labels show; errors as `do_check`."""
    from configs.titles import names_of_tests
    from datasets.bases import match_findings, published_findings, split_findings, statistics_table
    from datasets.read import make_datasets, names_to_read

    names = names_to_read(cfg, names_of_tests(cfg))
    known = dict(zip(names, make_datasets(cfg, names), strict=True))
    trained = [known[name] for name in cfg.DATASETS.NAMES]
    findings = untrainable(trained) or training_findings(cfg, trained)
    datasets = list(known.values())
    print_data(statistics_table(datasets), datasets)
    findings += [line for dataset in datasets for line in (*published_findings(dataset), *split_findings(dataset))]
    for name in names_of_tests(cfg):
        tested = known[name]
        findings += match_findings(tested)
        if name not in cfg.DATASETS.NAMES or tested.no_train:  # the model is told none of its labels
            continue
        if cfg.MODEL.SIE_CAMERA:
            findings += label_findings(tested, "camid", "MODEL.SIE_CAMERA")
        if cfg.MODEL.SIE_VIEW:
            findings += label_findings(tested, "viewid", "MODEL.SIE_VIEW")
    parts = [
        (dataset.name, [(sample.path, sample.pid) for sample in samples])
        for dataset in datasets
        for samples in (dataset.train, dataset.tested)
    ]
    train_paths = {sample.path for dataset in trained for sample in dataset.train}
    test_paths = {
        sample.path
        for tested in (known[name] for name in names_of_tests(cfg))
        for sample in tested.images_of(tested.query + ([] if tested.trains_on_gallery else tested.gallery))
    }
    return Examined(findings, parts, train_paths, test_paths)


def examine_captions(cfg: CfgNode) -> Examined:
    """Load the captioned images of `cfg`, print table and notes, and return what captions and labels show.

    The images of val splits count as tested. Errors as `do_check`.
    """
    from configs.titles import names_of_tests
    from datasets.caption_checks import (
        caption_match_findings,
        caption_table,
        doubtful_captions,
        images_of_split,
        published_caption_findings,
    )
    from datasets.read import names_to_read
    from datasets.read_captions import make_caption_datasets

    names = names_to_read(cfg, names_of_tests(cfg))
    known = dict(zip(names, make_caption_datasets(cfg, names), strict=True))
    trained, datasets = [known[name] for name in cfg.DATASETS.NAMES], list(known.values())
    findings = untrainable(trained) or caption_training_findings(cfg, trained)
    print_data(caption_table(datasets), datasets)
    val_split = cfg.DATASETS.EVAL_SPLIT == "val" and not cfg.DATASETS.VAL_IDS
    if val_split and not any(dataset.val for dataset in trained):
        print(f"note: {', '.join(cfg.DATASETS.NAMES)} has no val split, so training looks at the test split")
    for dataset in datasets:
        findings += [*published_caption_findings(dataset), *doubtful_captions(dataset, cfg.INPUT.TEXT.LENGTH)]
    for name in names_of_tests(cfg):
        findings += caption_match_findings(known[name])
    parts = [
        (dataset.name, [image for split in splits for image in images_of_split(dataset, split)])
        for dataset in datasets
        for splits in (("train",), ("val", "test"))
    ]
    train_paths = {path for dataset in trained for path, _ in images_of_split(dataset, "train")}
    test_paths = {path for name in names_of_tests(cfg) for path, _ in images_of_split(known[name], "test")}
    test_paths |= {path for dataset in trained for path, _ in images_of_split(dataset, "val")}
    return Examined(findings, parts, train_paths, test_paths)


def examine_modalities(cfg: CfgNode) -> Examined:
    """Load the records of `cfg`, print table and notes, and return what their lists show. Errors as `do_check`."""
    from configs.modalities import TEXT
    from configs.titles import names_of_tests
    from datasets.multimodal_checks import (
        doubtful_records,
        images_of_split,
        modal_table,
        published_modal_findings,
        search_findings,
    )
    from datasets.read import names_to_read
    from datasets.read_multimodal import make_multimodal_datasets, model_modalities
    from datasets.search_tests import make_search_test

    names, modalities = names_to_read(cfg, names_of_tests(cfg)), model_modalities(cfg)
    known = dict(zip(names, make_multimodal_datasets(cfg, names), strict=True))
    trained, datasets = [known[name] for name in cfg.DATASETS.NAMES], list(known.values())
    findings = untrainable(trained) or modal_training_findings(cfg, trained)
    print_data(modal_table(datasets), datasets)
    for dataset in datasets:
        findings += published_modal_findings(dataset)
        findings += doubtful_records(dataset, cfg.INPUT.TEXT.LENGTH) if TEXT in modalities else []
    for name in names_of_tests(cfg):
        test = make_search_test(known[name], modalities, cfg.TEST.QUERY_SETS, cfg.TEST.GALLERY_SET)
        if test is not None:
            findings += search_findings(name, test)
        elif not cfg.DATASETS.VAL_IDS:
            findings.append(
                f"{name}: there is no test; hold persons out of its training with DATASETS.VAL_IDS, e.g. 0.1, or name "
                "another data set in DATASETS.TESTS"
            )
    parts = [(dataset.name, images_of_split(dataset, split)) for dataset in datasets for split in ("train", "test")]
    train_paths = {path for dataset in trained for path, _ in images_of_split(dataset, "train")}
    test_paths = {path for name in names_of_tests(cfg) for path, _ in images_of_split(known[name], "test")}
    return Examined(findings, parts, train_paths, test_paths)


def print_data(table: str, datasets: Iterable[ReIDDataset | CaptionDataset | MultiModalDataset]) -> None:
    """Print the table of the data sets and their notes."""
    print(table)
    for dataset in datasets:
        for note in dataset.notes:
            print(f"note: {note}")


def untrainable(trained: Iterable[ReIDDataset | CaptionDataset | MultiModalDataset]) -> list[str]:
    """Return a line for each data set that has nothing to train on."""
    return [f"{dataset.name}: nothing to train on: {dataset.no_train}" for dataset in trained if dataset.no_train]


def training_findings(cfg: CfgNode, trained: Sequence[ReIDDataset]) -> list[str]:
    """Return a line where training would refuse the batches or losses of `cfg` on these data sets."""
    from datasets.join import join_training_sets
    from datasets.read import hold_out_ids

    train = join_training_sets(trained)
    if cfg.DATASETS.VAL_IDS:
        train = hold_out_ids(cfg, trained, train).train
    return refusals(cfg, train)


def caption_training_findings(cfg: CfgNode, trained: Sequence[CaptionDataset]) -> list[str]:
    """Return a line where training would refuse the batches of `cfg` on these captioned data sets."""
    from datasets.read_captions import hold_out_captions, join_pairs

    train = join_pairs([dataset.train for dataset in trained])
    if cfg.DATASETS.VAL_IDS:
        train, _ = hold_out_captions(train, cfg.DATASETS.VAL_IDS)
    return refusals(cfg, train)


def modal_training_findings(cfg: CfgNode, trained: Sequence[MultiModalDataset]) -> list[str]:
    """Return a line where training would refuse the batches or modalities of `cfg` on these data sets."""
    from datasets.read_multimodal import check_modalities, hold_out_records, join_records, model_modalities

    train = join_records([dataset.train for dataset in trained])
    try:
        check_modalities(train, model_modalities(cfg))
    except DataError as error:
        return [str(error)]
    if cfg.DATASETS.VAL_IDS:
        train, _ = hold_out_records(cfg, train)
    return refusals(cfg, train)


def refusals(cfg: CfgNode, train: Sequence[Sample | Pair | Record]) -> list[str]:
    """Return a line where training would refuse the batches or losses of `cfg` on these samples."""
    from datasets.training_set import check_training_set

    try:
        check_training_set(cfg, train, world_size=1)
    except (ConfigError, DataError) as error:
        return [str(error)]
    return []


def label_findings(dataset: ReIDDataset, label: str, key: str) -> list[str]:
    """Return a line when test images have camids or viewids that no training image has.

    `label` is "camid" or "viewid", `key` the switch of the side information embedding that has no row for them.
    """
    trained = {getattr(sample, label) for sample in dataset.train}
    unseen = {getattr(sample, label) for sample in dataset.query + dataset.gallery} - trained - {-1}
    if not unseen:
        return []
    listed = ", ".join(str(value) for value in sorted(unseen)[:MAX_LABELS]) + ", ..." * (len(unseen) > MAX_LABELS)
    return [
        f"{dataset.name}: {label} {listed} of the test images never occurs in training (train: 0 to {max(trained)}), "
        f"so the side information embedding has no trained row for it; set {key} False or correct the {label}s"
    ]
