"""One log for the terminal and the run folder, in TransReID's line format."""

import logging
import sys
from pathlib import Path

import torch

LINE_FORMAT = "%(asctime)s %(name)s %(levelname)s: %(message)s"
HANDLER_MARK = "reid"  # tells our handlers from those of the host program


def setup_logger(log_file: Path | None, rank: int = 0) -> None:
    """Log INFO and above to stdout and to `log_file` (appended to); ranks above 0 log warnings only, to stdout."""
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if handler.name == HANDLER_MARK]:
        root.removeHandler(handler)
        handler.close()
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
    if rank == 0 and log_file is not None:
        handlers.append(logging.FileHandler(log_file, encoding="utf-8"))
    for handler in handlers:
        handler.name = HANDLER_MARK
        handler.setFormatter(logging.Formatter(LINE_FORMAT))
        root.addHandler(handler)
    root.setLevel(logging.INFO if rank == 0 else logging.WARNING)


def log_start(command: str, config: str, device: str, notices: list[str]) -> None:
    """Log what runs: command line, device, the configuration, and what the user should hear about it."""
    logger = logging.getLogger("reid")
    logger.info("%s on %s, torch %s", command, device, torch.__version__)
    logger.info("configuration\n%s", config)
    for notice in notices:
        logger.info("%s", notice)
