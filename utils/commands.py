"""The command line that train.py, test.py and the tools share."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from typing import TYPE_CHECKING, NoReturn

from utils.errors import USER_ERROR_CODE, ConfigError

if TYPE_CHECKING:
    from processor.trained import Trained

PIP_NAMES = {"matplotlib": "matplotlib", "sklearn": "scikit-learn"}  # imported name -> package


class OneLineParser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {self.prog}: {message}; {self.prog} --help lists the arguments", file=sys.stderr)
        raise SystemExit(USER_ERROR_CODE)


def config_parser(prog: str, description: str) -> OneLineParser:
    """Return a parser of `--config_file F [KEY VALUE ...]` with the attributes config_file and opts."""
    parser = OneLineParser(prog=prog, description=description, allow_abbrev=False)
    parser.add_argument("--config_file", "--config", required=True, metavar="F", help="YAML of the experiment")
    # torch.distributed.launch and TransReID's scripts pass it; torchrun's environment is what counts
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="keys that override the YAML")
    return parser


def parse_config_args(argv: list[str] | None, prog: str, description: str) -> argparse.Namespace:
    """Parse the command line of a `config_parser` without further flags."""
    return config_parser(prog, description).parse_args(argv)


def need_packages(*names: str) -> None:
    """Raise ConfigError that says what to install where a package of PIP_NAMES is missing."""
    missing = [PIP_NAMES[name] for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"this command needs {' and '.join(missing)}: pip install {' '.join(missing)}")


def whole_number(text: str) -> int:
    """Return a number of at least 1 given on the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got '{text}', need a whole number of at least 1")
    return int(text)


def source_parser(prog: str, description: str) -> OneLineParser:
    """Return a parser of the arguments that say which trained model to use, for `load_source`."""
    parser = OneLineParser(prog=prog, description=description, allow_abbrev=False)
    group = parser.add_argument_group("the model: a run folder, or a checkpoint")
    group.add_argument("--run", metavar="OUTPUT_DIR", help="run folder of a training")
    group.add_argument("--epoch", type=int, metavar="N", help="epoch of the run (default: the last one kept)")
    group.add_argument("--weights", metavar="W", help="checkpoint file")
    group.add_argument(
        "--config_file", "--config", metavar="F", help="YAML of a checkpoint that holds no configuration of its own"
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
