"""Examine the data of a configuration before training on it: python -m tools.check --config_file F [KEY VALUE ...]

Prints the statistics table, then one line for each finding with what to do. Exit code 0: nothing found, 1: findings,
2: the data cannot be loaded at all.
"""

from utils.interrupts import take_over

if __name__ == "__main__":
    take_over()  # Ctrl-C, before the imports that take time

import hashlib
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from utils.commands import parse_config_args
from utils.errors import ConfigError, DataError, run_command

if TYPE_CHECKING:
    from yacs.config import CfgNode

    from datasets.bases import ReIDDataset, Sample
    from datasets.captions import CaptionDataset, Pair

MAX_LINES = 20  # findings of one kind that are printed one by one
SLICE = 2048  # images handed to the threads at once, so that Ctrl-C is answered soon


class FileReport(NamedTuple):
    """What reading one image file showed: the digest of its bytes, or a finding."""

    path: str
    digest: bytes
    finding: str


def main(argv: list[str] | None = None) -> int:
    """Check the data of one configuration; return 1 when there is something to do, else 0."""
    args = parse_config_args(argv, "python -m tools.check", "Check the data of a configuration.")
    from configs import load_cfg

    findings = do_check(load_cfg(args.config_file, args.opts))
    for finding in findings:
        print(f"finding: {finding}")
    print(f"{len(findings)} finding{'' if len(findings) == 1 else 's'}" if findings else "nothing found")
    return int(bool(findings))


class Examined(NamedTuple):
    """What the labels of data sets showed, and the images that are still to be read."""

    findings: list[str]
    parts: list[tuple[str, list[tuple[str, int]]]]  # data set, (path, identity) of images whose identities compare
    train_paths: set[str]
    test_paths: set[str]


def do_check(cfg: "CfgNode") -> list[str]:
    """Load the data of `cfg`, print table and notes, and return one line per finding.

    Training images of all data sets and the test images of those that a run evaluates are examined. Raises
    DataError when the data cannot be loaded, not a single query can be evaluated, or DATASETS.VAL_IDS holds too many
    identities out.
    """
    from datasets.read_captions import READ_CAPTIONS

    findings, parts, train_paths, test_paths = (
        examine_captions(cfg) if cfg.MODEL.NAME in READ_CAPTIONS else examine_samples(cfg)
    )
    reports = read_files(sorted(train_paths | test_paths))
    findings += shorten([report.finding for report in reports if report.finding], "files that cannot be read")
    findings += shorten(shared_images(reports, train_paths, test_paths), "images shared by train and test")
    findings += shorten(doubted_images(reports, parts), "images of several identities")
    return findings


def examine_samples(cfg: "CfgNode") -> Examined:
    """Load the images of `cfg`, print table and notes, and return what their labels show; errors as `do_check`."""
    from configs.titles import names_of_tests
    from datasets.bases import match_findings, published_findings, statistics_table
    from datasets.read import make_datasets, names_to_read

    names = names_to_read(cfg, names_of_tests(cfg))
    known = dict(zip(names, make_datasets(cfg, names), strict=True))
    trained = [known[name] for name in cfg.DATASETS.NAMES]
    findings = untrainable(trained) or training_findings(cfg, trained)
    datasets = list(known.values())
    print_data(statistics_table(datasets), datasets)
    findings += [line for dataset in datasets for line in published_findings(dataset)]
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
        for samples in (dataset.train, dataset.query + dataset.gallery)
    ]
    train_paths = {sample.path for dataset in trained for sample in dataset.train}
    test_paths = {sample.path for name in names_of_tests(cfg) for sample in known[name].query + known[name].gallery}
    return Examined(findings, parts, train_paths, test_paths)


def examine_captions(cfg: "CfgNode") -> Examined:
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


def print_data(table: str, datasets: "Iterable[ReIDDataset | CaptionDataset]") -> None:
    """Print the table of the data sets and their notes."""
    print(table)
    for dataset in datasets:
        for note in dataset.notes:
            print(f"note: {note}")


def untrainable(trained: "Iterable[ReIDDataset | CaptionDataset]") -> list[str]:
    """Return a line for each data set that has nothing to train on."""
    return [f"{dataset.name}: nothing to train on: {dataset.no_train}" for dataset in trained if dataset.no_train]


def training_findings(cfg: "CfgNode", trained: Sequence["ReIDDataset"]) -> list[str]:
    """Return a line where training would refuse the batches or losses of `cfg` on these data sets."""
    from datasets.join import join_training_sets
    from datasets.read import hold_out_ids

    train = join_training_sets(trained)
    if cfg.DATASETS.VAL_IDS:
        train = hold_out_ids(cfg, trained, train).train
    return refusals(cfg, train)


def caption_training_findings(cfg: "CfgNode", trained: Sequence["CaptionDataset"]) -> list[str]:
    """Return a line where training would refuse the batches of `cfg` on these captioned data sets."""
    from datasets.read_captions import hold_out_captions, join_pairs

    train = join_pairs([dataset.train for dataset in trained])
    if cfg.DATASETS.VAL_IDS:
        train, _ = hold_out_captions(train, cfg.DATASETS.VAL_IDS)
    return refusals(cfg, train)


def refusals(cfg: "CfgNode", train: "Sequence[Sample | Pair]") -> list[str]:
    """Return a line where training would refuse the batches or losses of `cfg` on these samples."""
    from datasets.training_set import check_training_set

    try:
        check_training_set(cfg, train, world_size=1)
    except (ConfigError, DataError) as error:
        return [str(error)]
    return []


def label_findings(dataset: "ReIDDataset", label: str, key: str) -> list[str]:
    """Return a line when test images have camids or viewids that no training image has.

    `label` is "camid" or "viewid", `key` the switch of the side information embedding that has no row for them.
    """
    trained = {getattr(sample, label) for sample in dataset.train}
    unseen = {getattr(sample, label) for sample in dataset.query + dataset.gallery} - trained - {-1}
    if not unseen:
        return []
    listed = ", ".join(str(value) for value in sorted(unseen)[:MAX_LINES]) + ", ..." * (len(unseen) > MAX_LINES)
    return [
        f"{dataset.name}: {label} {listed} of the test images never occurs in training (train: 0 to {max(trained)}), "
        f"so the side information embedding has no trained row for it; set {key} False or correct the {label}s"
    ]


def read_files(paths: Sequence[str]) -> list[FileReport]:
    """Read and decode every image completely, several at a time, with a progress bar when stderr is a terminal."""
    from tqdm import tqdm

    reports = []
    with ThreadPoolExecutor() as pool, tqdm(total=len(paths), unit="image", disable=None) as progress:
        for start in range(0, len(paths), SLICE):
            reports += pool.map(read_file, paths[start : start + SLICE])
            progress.update(len(reports) - progress.n)
    return reports


def read_file(path: str) -> FileReport:
    """Return the SHA-256 digest of one image file and, when it does not decode, or not to its end, the finding."""
    from datasets import image_files

    digest = b""
    try:
        content = image_files.read_file(path)
        digest = hashlib.sha256(content).digest()
        image_files.decode_whole(content)
    except FileNotFoundError:
        return FileReport(path, b"", f"'{path}' does not exist; unpack the archive again or remove it from the list")
    except image_files.ImageError as error:
        return FileReport(path, digest, f"'{path}' does not decode ({error}); copy it again or remove it")
    return FileReport(path, digest, "")


def shared_images(reports: Iterable[FileReport], train_paths: set[str], test_paths: set[str]) -> list[str]:
    """Return a line for each training file whose bytes also lie among the test files.

    Equal query and gallery files are no finding: VeRi's queries also lie in image_test.
    """
    train, test = {}, {}
    for path, digest, _ in reports:
        if digest and path in train_paths:
            train.setdefault(digest, path)
        if digest and path in test_paths:
            test.setdefault(digest, path)
    return [
        f"'{train[digest]}' (train) and '{test[digest]}' (test) are the same image; remove it from one of them"
        for digest in sorted(train.keys() & test.keys(), key=train.__getitem__)
    ]


def doubted_images(reports: Iterable[FileReport], parts: Iterable[tuple[str, Iterable[tuple[str, int]]]]) -> list[str]:
    """Return a line for each image, by its bytes, that one data set shows under several identities.

    `parts` are (data set, (path, identity) of its images); the identities of one part compare, not those of several:
    archives number those of training and test apart.
    """
    digests = {path: digest for path, digest, _ in reports if digest}
    lines = []
    for name, images in parts:
        first: dict[bytes | None, dict[int, str]] = {}
        for path, pid in images:
            first.setdefault(digests.get(path), {}).setdefault(pid, path)
        first.pop(None, None)  # of files that cannot be read
        for places in (places for places in first.values() if len(places) > 1):
            (pid, path), (other_pid, other), *_ = places.items()
            lines.append(
                f"{name}: '{path}' (identity {pid}) and '{other}' (identity {other_pid}) are the same image; keep it "
                "under the right one"
            )
    return lines


def shorten(lines: list[str], kind: str) -> list[str]:
    """Return at most MAX_LINES of the lines and one that counts the rest."""
    rest = len(lines) - MAX_LINES
    return lines[:MAX_LINES] + [f"{rest:,} more {kind}; correct the ones above and run this again"] * (rest > 0)


if __name__ == "__main__":
    sys.exit(run_command(main))
