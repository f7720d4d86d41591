"""The command line that train.py, test.py and the tools share."""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

from utils.errors import USER_ERROR_CODE, ConfigError, print_error

GRADIO = "'gradio>=6.31'"
PIP_NAMES = {"matplotlib": "matplotlib", "sklearn": "scikit-learn", "gradio": GRADIO}  # imported name -> package


class OneLineParser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, exit code 2, that names the flag a mistyped one may mean.

    Flags are written in full: a shortened one would change its meaning with the next flag that begins alike.
    `guide` is shown before the error of a command line without any words: what the command does, with examples.
    """

    _words: Sequence[str] = ()

    def __init__(self, guide: str = "", **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)
        self._guide = guide

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        self._words = sys.argv[1:] if args is None else list(args)
        if self._guide and not self._words:
            with suppress(OSError):  # as for errors, stderr may lie on the disk that is full
                print(self._guide, file=sys.stderr)
        return super().parse_known_args(self._words, namespace)

    def error(self, message: str) -> NoReturn:
        print_error(f"{self.prog}: {message}{self._slip()}; {self.prog} --help lists the arguments")
        raise SystemExit(USER_ERROR_CODE)

    def _slip(self) -> str:
        """Return which flag the first unknown one may mean: argparse may tell of the lack of that flag alone."""
        import difflib  # which --help does without

        known = self._option_string_actions
        flags = [word.split("=")[0] for word in self._words if word.startswith("--") and word != "--"]
        slip = next((flag for flag in flags if flag not in known), None)
        near = difflib.get_close_matches(slip.lower(), known, n=1) if slip else []
        return f"; '{slip}' is unknown, did you mean {near[0]}?" if near else ""


def config_parser(prog: str, description: str, guide: str = "") -> OneLineParser:
    """Return a parser of `--config_file F [KEY VALUE ...]` with the attributes config_file and opts."""
    parser = OneLineParser(prog=prog, description=description, guide=guide)
    parser.add_argument(
        "--config_file", "--config", required=True, type=path_flag, metavar="F", help="YAML of the experiment"
    )
    # torch.distributed.launch and TransReID's scripts pass it; torchrun's environment is what counts
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="keys that override the YAML")
    return parser


def parse_config_args(argv: list[str] | None, prog: str, description: str) -> argparse.Namespace:
    """Parse the command line of a `config_parser` without further flags."""
    return config_parser(prog, description).parse_args(argv)


def need_packages(*names: str) -> None:
    """Raise ConfigError that says what to install where a package of PIP_NAMES is missing."""
    missing = [PIP_NAMES[name] for name in names if not is_installed(name)]
    if missing:
        raise ConfigError(f"this command needs {' and '.join(missing)}: pip install {' '.join(missing)}")


def is_installed(name: str) -> bool:
    """Return whether a package can be imported; a folder of its name in the working directory is none."""
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None


def path_flag(text: str) -> str:
    """Return a path given on the command line, ~ expanded; argparse's error for one that no file can have."""
    from utils.paths import user_path

    if not text:
        raise argparse.ArgumentTypeError("is empty; name a path")
    try:
        path = user_path(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return str(path) if text.startswith("~") else text


def whole_number(text: str) -> int:
    """Return a number of at least 1 given on the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got '{text}', need a whole number of at least 1")
    return int(text)
