"""The command line that train.py, test.py and the tools share."""

import argparse
import importlib.util
from typing import NoReturn

from utils.errors import USER_ERROR_CODE, ConfigError, print_error

PIP_NAMES = {"matplotlib": "matplotlib", "sklearn": "scikit-learn"}  # imported name -> package


class OneLineParser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        print_error(f"{self.prog}: {message}; {self.prog} --help lists the arguments")
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
