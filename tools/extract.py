"""Embed loose images, or sentences where the model was trained on captions:

python -m tools.extract --run logs/my_run --images photos --out feats.npz
python -m tools.extract --run logs/my_run --texts captions.txt --out texts.npz
python -m tools.extract --run logs/my_run --modality nir --images photos --out feats.npz

The last one takes the images for infrared ones, for a model that was trained on these (MODEL.NAME multimodal).

The file holds feat [N, D] float32, L2-normalised, and meta, a JSON text that names the model; of images path [N]
unicode, of sentences text [N] unicode and line [N] int64, their lines from 1. Read it with
numpy.load(file, allow_pickle=False).
"""

from __future__ import annotations

from utils.interrupts import take_over

if __name__ == "__main__":
    take_over()  # Ctrl-C, before the imports that take time

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.keys.multimodal import NAME as MULTIMODAL
from configs.modalities import TEXT, VIS
from tools.loose_images import SKIP_HINT, add_paths, add_skip_broken, find_images
from tools.queries import modality_flag
from tools.source import load_source, source_parser
from utils.commands import path_flag
from utils.errors import ConfigError, DataError, run_command
from utils.text_files import lines_of

if TYPE_CHECKING:
    import numpy as np

    from tools.feature_extractor import FeatureExtractor

logger = logging.getLogger(__name__)

MAX_TEXT = 10_000  # characters of a sentence: the file gives each sentence the room of the longest


def main(argv: list[str] | None = None) -> int:
    """Embed the images or sentences and write the file. Returns the exit code 0."""
    args = _parse(argv)
    from utils.logger import log_to_stderr
    from utils.run_folder import make_folder

    log_to_stderr()
    file = Path(args.out)
    if file.suffix != ".npz" or file.is_dir():
        raise ConfigError(f"--out '{args.out}' must name a file that ends in .npz")
    paths = find_images(args.images, "--images") if args.images else []
    captions = read_captions(args.texts) if args.texts else {}
    from tools.feature_extractor import BrokenImageError, FeatureExtractor

    extractor = FeatureExtractor(load_source(args), args.modality or VIS)
    make_folder(str(file.parent), "--out")
    try:
        written = (
            extract_images(file, extractor, paths, args.skip_broken)
            if args.images
            else extract_texts(file, extractor, captions)
        )
    except BrokenImageError as error:
        raise DataError(f"{error}; {SKIP_HINT}") from error
    left_out = f", {len(paths) - len(written)} left out" if len(written) < len(paths) else ""
    print(f"{file}: {len(written)} {'images' if args.images else 'texts'} x {written.shape[1]} values{left_out}")
    logger.info("embedded in %s on %s", extractor.precision, extractor.device)
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = source_parser("python -m tools.extract", "Write the embeddings of images, or of sentences, to a file.")
    what = "folders, each with all folders below it, and single files"
    add_paths(parser, "--images", metavar="PATH", what=what, required=False)
    parser.add_argument(
        "--modality",
        type=modality_flag,
        metavar="M",
        help="what the images are (default: vis, RGB), for a model of several modalities",
    )
    parser.add_argument(
        "--texts",
        type=path_flag,
        metavar="FILE.txt",
        help="UTF-8 text with a sentence on each line, for a model that was trained on captions",
    )
    parser.add_argument(
        "--out", required=True, type=path_flag, metavar="FILE.npz", help="file that takes the embeddings"
    )
    add_skip_broken(parser)
    args = parser.parse_args(argv)
    if (args.images is None) == (args.texts is None):
        parser.error("name what to embed: --images PATH ... or --texts FILE.txt, one of the two")
    if args.texts is not None and args.skip_broken:
        parser.error("--skip-broken goes with --images")
    if args.modality is not None and (args.texts is not None or args.modality == TEXT):
        parser.error("--modality says of what modality --images are; sentences go with --texts FILE.txt, without it")
    return args


def read_captions(path: str) -> dict[int, str]:
    """Return the sentences of a text file by their lines, from 1; blank lines are left out, which is logged.

    Raises DataError for a file that is missing, no UTF-8 text, or holds no sentence, or one over MAX_TEXT characters.
    """
    lines = lines_of(path, "--texts")
    while lines and not lines[-1].strip():
        lines.pop()  # what follows the last sentence is no line
    captions = {number: line.strip() for number, line in enumerate(lines, start=1) if line.strip()}
    if not captions:
        raise DataError(f"--texts '{path}' holds no sentence; write one on each line")
    long = next((number for number, text in captions.items() if len(text) > MAX_TEXT), None)
    if long is not None:
        raise DataError(f"{path}:{long}: has {len(captions[long]):,} characters; a sentence has at most {MAX_TEXT:,}")
    blank = [number for number in range(1, len(lines) + 1) if number not in captions]
    if blank:
        logger.warning(
            "'%s': %d blank lines are left out, the first is line %d; `line` in the file numbers the others",
            *(path, len(blank), blank[0]),
        )
    return captions


def extract_images(file: Path, extractor: FeatureExtractor, paths: Sequence[str], skip_broken: bool) -> np.ndarray:
    """Write the embeddings of image files to an npz and return them, float32 [N, D].

    With `skip_broken` images that cannot be read are logged and left out. Raises DataError when none is left.
    """
    import numpy as np

    rows, parts = [], []
    for batch_rows, feat in extractor.stream(paths, skip_broken=skip_broken):
        rows += batch_rows
        parts.append(feat.numpy())
    if not rows:
        raise DataError(f"--images: none of the {len(paths)} images can be read")
    settings = extractor.cfg.INPUT
    of_images = {"size": list(settings.SIZE_TEST), "filter": settings.FILTER_TEST, "flip": extractor.flip}
    if extractor.cfg.MODEL.NAME == MULTIMODAL:
        of_images["modality"] = extractor.modality
    return _save(file, extractor, np.concatenate(parts), {"path": np.array(paths)[rows]}, of_images)


def extract_texts(file: Path, extractor: FeatureExtractor, captions: dict[int, str]) -> np.ndarray:
    """Write the embeddings of sentences, by their lines, to an npz and return them, float32 [N, D]."""
    import numpy as np

    texts, lines = list(captions.values()), np.array(list(captions), dtype=np.int64)
    feat = extractor.embed_texts(texts).numpy()
    of_texts = {"length": extractor.cfg.INPUT.TEXT.LENGTH}
    return _save(file, extractor, feat, {"text": np.array(texts), "line": lines}, of_texts)


def _save(
    file: Path, extractor: FeatureExtractor, feat: np.ndarray, rows: dict[str, np.ndarray], how: dict[str, Any]
) -> np.ndarray:
    """Write embeddings, what their rows are, and meta with `how` they were made; return the embeddings."""
    from utils.atomic import save_arrays
    from utils.digest import sha256_of

    meta = {
        "kind": "embeddings",
        "weight": str(extractor.weight),
        "weight_sha256": sha256_of(extractor.weight),
        "fingerprint": extractor.fingerprint,
        **how,
        "precision": extractor.precision,
    }
    save_arrays(file, {"feat": feat, **rows}, meta)
    return feat


if __name__ == "__main__":
    sys.exit(run_command(main))
