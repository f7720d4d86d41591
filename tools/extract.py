"""Embed loose images: python -m tools.extract --run logs/my_run --images photos --out feats.npz

The file holds feat [N, D] float32, L2-normalised, path [N] unicode, and meta, a JSON text that names the model. Read it
with numpy.load(file, allow_pickle=False).
"""

from __future__ import annotations

from utils.interrupts import take_over

if __name__ == "__main__":
    take_over()  # Ctrl-C, before the imports that take time

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tools.loose_images import SKIP_HINT, add_paths, add_skip_broken, find_images
from tools.source import load_source, source_parser
from utils.commands import path_flag
from utils.errors import ConfigError, DataError, run_command

if TYPE_CHECKING:
    from tools.feature_extractor import FeatureExtractor

logger = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Embed the images and write the file. Returns the exit code 0."""
    parser = source_parser("python -m tools.extract", "Write the embeddings of images to a file.")
    add_paths(parser, "--images", metavar="PATH", what="folders, each with all folders below it, and single files")
    parser.add_argument(
        "--out", required=True, type=path_flag, metavar="FILE.npz", help="file that takes the embeddings"
    )
    add_skip_broken(parser)
    args = parser.parse_args(argv)
    from utils.logger import log_to_stderr
    from utils.run_folder import make_folder

    log_to_stderr()
    file = Path(args.out)
    if file.suffix != ".npz" or file.is_dir():
        raise ConfigError(f"--out '{args.out}' must name a file that ends in .npz")
    paths = find_images(args.images, "--images")
    make_folder(str(file.parent), "--out")
    from tools.feature_extractor import BrokenImageError, FeatureExtractor

    extractor = FeatureExtractor(load_source(args))
    try:
        num_images = extract_to(file, extractor, paths, args.skip_broken)
    except BrokenImageError as error:
        raise DataError(f"{error}; {SKIP_HINT}") from error
    left_out = f", {len(paths) - num_images} left out" if num_images < len(paths) else ""
    print(f"{file}: {num_images} images x {extractor.feat_dim} values{left_out}")
    logger.info("embedded in %s on %s", extractor.precision, extractor.device)
    return 0


def extract_to(file: Path, extractor: FeatureExtractor, paths: Sequence[str], skip_broken: bool) -> int:
    """Write the embeddings of image files to an npz and return their number.

    With `skip_broken` images that cannot be read are logged and left out. Raises DataError when none is left.
    """
    import numpy as np

    from utils.atomic import save_arrays
    from utils.digest import sha256_of

    rows, parts = [], []
    for batch_rows, feat in extractor.stream(paths, skip_broken=skip_broken):
        rows += batch_rows
        parts.append(feat.numpy())
    if not rows:
        raise DataError(f"--images: none of the {len(paths)} images can be read")
    meta = {
        "kind": "embeddings",
        "weight": str(extractor.weight),
        "weight_sha256": sha256_of(extractor.weight),
        "fingerprint": extractor.fingerprint,
        "size": list(extractor.cfg.INPUT.SIZE_TEST),
        "filter": extractor.cfg.INPUT.FILTER_TEST,
        "flip": extractor.flip,
        "precision": extractor.precision,
    }
    save_arrays(file, {"feat": np.concatenate(parts), "path": np.array(paths)[rows]}, meta)
    return len(rows)


if __name__ == "__main__":
    sys.exit(run_command(main))
