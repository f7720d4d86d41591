"""A page on this machine to play with a trained model; needs gradio:

python -m tools.demo --run logs/my_run --gallery photos

Drop an image, or type a sentence where the model was trained on captions, and see the most similar images of the folder
with their similarities; choose cameras and the number of results, look where the model looks. Ctrl-C ends it.
"""

from __future__ import annotations

from utils.interrupts import at_end, take_over

if __name__ == "__main__":
    take_over()  # Ctrl-C, before the imports that take time

import argparse
import logging
import os
import signal
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import NoReturn

from tools.demo.guard import check_address, is_local
from tools.loose_images import add_skip_broken, list_images
from tools.source import load_source, source_parser
from utils.commands import GRADIO, need_packages, path_flag, whole_number
from utils.errors import ConfigError, run_command

logger = logging.getLogger(__name__)

PORT, LAST_PORT = 7860, 65535
ENDS = ("SIGTERM", "SIGHUP")  # the latter where the terminal is closed
OLDEST = (6, 31)  # gradio, the first numbers of its version


def main(argv: list[str] | None = None) -> int:
    """Serve the page until Ctrl-C. Returns the exit code 0."""
    args = _parse(argv)
    need_packages("matplotlib", "gradio")
    _check_version(metadata.version("gradio"))
    from utils.logger import log_to_stderr
    from utils.run_folder import make_folder

    log_to_stderr()
    list_images(args.gallery, "--gallery")
    from tools.demo.engine import Engine
    from tools.demo.gallery import open_gallery
    from tools.feature_extractor import FeatureExtractor
    from tools.modalities import gallery_modality
    from tools.search.index import check_file

    if args.index is not None:
        check_file(args.index)  # before the gallery is embedded
    trained = load_source(args)
    check_address(args.host, args.port)  # before the gallery is embedded
    extractor = FeatureExtractor(trained, gallery_modality(trained.cfg))
    place = make_folder(args.uploads, "--uploads")
    gallery = open_gallery(extractor, Path(args.gallery), args.index, args.skip_broken)
    engine = Engine(trained, extractor, gallery)
    if not is_local(args.host):
        logger.warning(
            "--host %s: everybody who reaches this machine may search '%s' and see its images; there is no password",
            *(args.host, args.gallery),
        )
    for name in ENDS:
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is not signal.SIG_IGN:  # nohup
            signal.signal(getattr(signal, name), _leave)
    uploads = tempfile.TemporaryDirectory(prefix="uploads_", dir=place, ignore_cleanup_errors=True)
    with uploads as folder, at_end(uploads.cleanup):
        _set_up_gradio(folder)
        from tools.demo.page import serve

        serve(engine, args.host, args.port, Path(folder), lambda address: print(f"open {address}", flush=True))
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = source_parser(
        "python -m tools.demo",
        "Serve a page on this machine: drop an image or type a sentence, see the most similar images of a folder.",
    )
    parser.add_argument(
        "--gallery", required=True, type=path_flag, metavar="DIR", help="folder of images, with all folders below it"
    )
    parser.add_argument(
        "--index",
        type=path_flag,
        metavar="FILE.npz",
        help="file that keeps the gallery's embeddings, as of tools.search (default: a hidden file in DIR, or beside "
        "the weights)",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="H", help="where to listen; 0.0.0.0 opens it to others (%(default)s)"
    )
    parser.add_argument("--port", type=port, default=PORT, metavar="N", help="port to listen on (%(default)s)")
    parser.add_argument(
        "--uploads",
        default="logs/demo",
        type=path_flag,
        metavar="DIR",
        help="folder in which an upload lies until it has been read (%(default)s)",
    )
    add_skip_broken(parser)
    return parser.parse_args(argv)


def port(text: str) -> int:
    """Return a port given on the command line."""
    number = whole_number(text)
    if number > LAST_PORT:
        raise argparse.ArgumentTypeError(f"got '{text}', need a port of 1 to {LAST_PORT}")
    return number


def _leave(number: int, frame: object) -> NoReturn:
    """End the process as a signal asks, by way of every block that cleans up."""
    raise SystemExit(128 + number)


def _check_version(found: str) -> None:
    """Raise ConfigError for a gradio whose calls are others."""
    numbers = tuple(int(part) for part in found.split(".")[:2] if part.isdecimal())
    if numbers < OLDEST:
        raise ConfigError(f"gradio {found} is too old for this command: pip install {GRADIO}")


def _set_up_gradio(folder: str) -> None:
    """Let gradio know nothing but what this command tells it: no statistics, no link, uploads in `folder`."""
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]
    os.environ |= {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_RUN_HISTORY": "False",
        "GRADIO_TEMP_DIR": folder,
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    logging.getLogger("httpx").setLevel(logging.WARNING)  # gradio asks its own server whether it is there


if __name__ == "__main__":
    sys.exit(run_command(main))
