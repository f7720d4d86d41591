"""What the commands share: the command line, the model, and images by path."""

import argparse
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from tools.source import load_source, source_parser
from utils.commands import OneLineParser, path_flag

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from datasets.bases import Sample
    from datasets.make_dataloader import ReIDData
    from datasets.test_set import Labels
    from processor.trained import Trained

LARGEST_SEED = 2**32 - 1


class Opened(NamedTuple):
    """What the arguments of a `picture_parser` stand for."""

    folder: "Path"
    trained: "Trained"
    data: "ReIDData"


def picture_parser(command: str, description: str) -> OneLineParser:
    """Return a `source_parser` with --out DIR."""
    parser = source_parser(f"python -m tools.visualize {command}", description)
    parser.add_argument("--out", required=True, type=path_flag, metavar="DIR", help="folder that takes the pictures")
    return parser


def add_seed(parser: OneLineParser) -> None:
    """Add --seed."""
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of everything random (default 0)")


def seed(text: str) -> int:
    """Return a seed that numpy and scikit-learn take, given on the command line."""
    if not text.isdecimal() or int(text) > LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"got '{text}', need a whole number of 0 to {LARGEST_SEED}")
    return int(text)


def open_test_set(args: argparse.Namespace) -> Opened:
    """Return output folder, trained model and its test data; ConfigError or DataError for what does not exist."""
    from datasets.make_dataloader import make_dataloader
    from processor.trained import told_by
    from utils.run_folder import make_folder

    trained = load_source(args)
    folder = make_folder(args.out, "--out")
    return Opened(folder, trained, make_dataloader(trained.cfg, counts=partial(told_by, trained.cfg, trained.weight)))


def samples_of(labels: "Labels", rows: "np.ndarray") -> list["Sample"]:
    """Return these rows of a test set as samples."""
    from datasets.bases import Sample

    numbers = zip(*(values[rows].tolist() for values in (labels.pids, labels.camids, labels.viewids)), strict=True)
    return [Sample(labels.names[row], *own) for row, own in zip(rows.tolist(), numbers, strict=True)]
