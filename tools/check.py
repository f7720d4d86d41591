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
from utils.errors import run_command
from utils.progress import progress

if TYPE_CHECKING:
    from yacs.config import CfgNode

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


def do_check(cfg: "CfgNode") -> list[str]:
    """Load the data of `cfg`, print table and notes, and return one line per finding.

    Training images of all data sets and the test images of those that a run evaluates are examined. Raises
    DataError when the data cannot be loaded, not a single query can be evaluated, or DATASETS.VAL_IDS holds too many
    identities out.
    """
    from tools.examined import examine

    findings, parts, train_paths, test_paths = examine(cfg)
    reports = read_files(sorted(train_paths | test_paths))
    findings += shorten([report.finding for report in reports if report.finding], "files that cannot be read")
    findings += shorten(shared_images(reports, train_paths, test_paths), "images shared by train and test")
    findings += shorten(doubted_images(reports, parts), "images of several identities")
    return findings


def read_files(paths: Sequence[str]) -> list[FileReport]:
    """Read and decode every image completely, several at a time."""
    reports = []
    with ThreadPoolExecutor() as pool, progress("read", len(paths), "image") as bar:
        for start in range(0, len(paths), SLICE):
            part = [*pool.map(read_file, paths[start : start + SLICE])]
            reports += part
            bar.update(len(part))
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
