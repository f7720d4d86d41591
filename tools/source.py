"""The arguments that say which trained model a tool uses: a run folder, or a checkpoint."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from utils.commands import OneLineParser, path_flag
from utils.errors import ConfigError

if TYPE_CHECKING:
    from processor.trained import Trained


def source_parser(prog: str, description: str) -> OneLineParser:
    """Return a parser of the arguments that say which trained model to use, for `load_source`."""
    parser = OneLineParser(prog=prog, description=description)
    group = parser.add_argument_group("the model: a run folder, or a checkpoint")
    group.add_argument("--run", type=path_flag, metavar="OUTPUT_DIR", help="run folder of a training")
    group.add_argument("--epoch", type=int, metavar="N", help="epoch of the run (default: the last one kept)")
    group.add_argument("--weights", type=path_flag, metavar="W", help="checkpoint file")
    group.add_argument(
        "--config_file",
        "--config",
        type=path_flag,
        metavar="F",
        help="YAML of a checkpoint that holds no configuration of its own",
    )
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="keys that override the configuration")
    return parser


def load_source(args: argparse.Namespace) -> Trained:
    """Return the model that the arguments of a `source_parser` name; ConfigError when they contradict each other."""
    from processor.trained import find_weight, load_trained

    if (args.run is None) == (args.weights is None):
        raise ConfigError("name the model by --run OUTPUT_DIR or by --weights FILE, one of the two")
    if args.run is None and args.epoch is not None:
        raise ConfigError(f"--epoch {args.epoch} goes with --run; --weights names the file of an epoch itself")
    weight = args.weights if args.run is None else find_weight(args.run, args.epoch)
    return load_trained(weight, args.config_file, args.opts)
