"""Where in an image each word of a caption looks: the weights of IRRA's cross attention on the patches.

Reference: Jiang and Ye, Cross-Modal Implicit Relation Reasoning and Aligning for Text-to-Image Person Retrieval, CVPR
2023, section 3.2.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tools.loose_images import add_paths, find_images
from tools.sentences import check_quotes, sentence
from tools.source import load_source
from tools.visualize.attention import draw_maps
from tools.visualize.common import picture_parser
from tools.visualize.grid import text_stem
from utils.commands import need_packages, whole_number
from utils.errors import ConfigError, DataError
from utils.progress import over

if TYPE_CHECKING:
    import torch

    from processor.trained import Trained

    Geometry = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


class Captioned(NamedTuple):
    """A caption and the image that its words look at."""

    path: str
    caption: str


def main(argv: list[str] | None = None) -> int:
    """Write one picture per caption, with the map of each of its words; return the exit code 0."""
    parser = picture_parser("words", "Show at which patches of an image each word of a caption looks.")
    what = "a caption in quotes, of --images (default: captions of the test set)"
    parser.add_argument("--text", type=sentence, metavar='"WORDS"', help=what)
    add_paths(parser, "--images", "-i", metavar="PATH", what="files or folders, each with --text", required=False)
    how_many = "how many test captions, each with its own image (default 8)"
    parser.add_argument("--num-captions", type=whole_number, default=8, metavar="N", help=how_many)
    args = parser.parse_args(argv)
    _check_pairing(args)
    need_packages("matplotlib")

    from utils.run_folder import make_folder

    trained = load_source(args)
    check_model(trained)  # before any image is read
    folder = make_folder(args.out, "--out")
    pairs = _choose(args, trained)
    for number, pair in enumerate(over(pairs, "draw", "caption"), start=1):
        maps = word_maps(trained, pair)
        out = folder / f"{number:03d}_{text_stem(pair.caption)}.png"
        draw_maps(pair.path, maps, geometry_of(trained), out, pair.caption)
    print(f"{len(pairs)} captions in {folder}")
    return 0


def check_model(trained: "Trained") -> None:
    """Raise ConfigError for a model whose words have no weights on patches."""
    from model.irra import Irra

    if not isinstance(trained.model, Irra):
        raise ConfigError(
            f"'{trained.weight}' is of MODEL.NAME {trained.cfg.MODEL.NAME}, which reads no words; use a model with "
            "MODEL.NAME irra"
        )
    if not trained.model.cross_depth:
        raise ConfigError(
            f"'{trained.weight}' was trained without mlm (LOSS.TEXT.NAMES {'+'.join(trained.cfg.LOSS.TEXT.NAMES)}), so "
            "it has no cross attention, and its words look at no patches; use a run with mlm"
        )


def geometry_of(trained: "Trained") -> "Geometry":
    """Return (patch, stride, input size), each (y, x) in pixels."""
    conv = trained.model.base_model.visual.conv1
    return tuple(conv.kernel_size), tuple(conv.stride), tuple(trained.cfg.INPUT.SIZE_TEST)


def word_maps(trained: "Trained", pair: Captioned) -> list[tuple[str, np.ndarray]]:
    """Return each word of a caption with its map float32 [rows, columns] over its image, see `sentence_maps`.

    Raises DataError where no word is left, or naming an image that cannot be read.
    """
    from datasets.decode import read_image

    settings = trained.cfg.INPUT
    pixels = read_image(pair.path, settings.SIZE_TEST, settings.FILTER_TEST, settings.DECODER)
    maps = sentence_maps(trained, pixels[None], pair.caption, f"the caption '{pair.caption}' of '{pair.path}'")
    return [(word, values[0]) for word, values in maps]


def sentence_maps(
    trained: "Trained", pixels: "torch.Tensor", sentence: str, what: str = "the sentence"
) -> list[tuple[str, np.ndarray]]:
    """Return each word of a sentence with its maps float32 [B, rows, columns]: its weights on the patches, 0..1.

    `pixels` are images uint8 [B, 3, H, W]. Weights are means over the heads, and over the tokens of a word; what is
    missing to a sum of 1 is the class token's. Words are those of CLIP, see `datasets.tokens.spelled`; what has neither
    letter nor digit is left out. Raises DataError, which begins with `what` it is, where no word is left.
    """
    import torch

    from datasets.make_transforms import make_transforms
    from datasets.tokens import spelled, tokenize
    from model.backbones.vit import patch_grid

    length = trained.cfg.INPUT.TEXT.LENGTH
    words = [word for word in spelled(sentence, length) if any(map(str.isalnum, word[0]))]
    if not words:
        raise DataError(f"{what} has no words")
    _, transform = make_transforms(trained.cfg)
    ids = tokenize(sentence, length).expand(len(pixels), -1)
    with torch.inference_mode():
        images = transform(pixels.to(trained.device))
        weights = trained.model.word_attention(images, ids.to(trained.device)).float().cpu().numpy()  # [B, L, N]
    patch, stride, size = geometry_of(trained)
    grid = patch_grid(size, patch, stride)
    return [(word, weights[:, places].mean(1).reshape(-1, *grid)) for word, places in words]


def _check_pairing(args: argparse.Namespace) -> None:
    if (args.text is None) != (args.images is None):
        given, lacking = ("--text", "--images PATH ...") if args.images is None else ("--images", '--text "WORDS"')
        raise ConfigError(f"{given} needs {lacking} too: a caption and the images that its words look at")
    check_quotes([] if args.text is None else [args.text], args.opts)


def _choose(args: argparse.Namespace, trained: "Trained") -> Sequence[Captioned]:
    """Return the captions to draw: of the user's images, or the first of the test set that have an image of their own.

    Raises DataError where no caption of the test set has one.
    """
    if args.text is not None:
        return [Captioned(path, args.text) for path in find_images(args.images, "--images")]
    from datasets.make_dataloader import make_dataloader
    from datasets.test_set import OWN_IMAGE
    from processor.trained import told_by

    test = make_dataloader(trained.cfg, counts=partial(told_by, trained.cfg, trained.weight)).test
    own, names = test.labels.more[OWN_IMAGE], test.labels.names
    rows = [row for row in test.trials[0].query.tolist() if own[row] >= 0][: args.num_captions]
    if not rows:
        raise DataError(f"no caption of {test.title} has its own image among those that are searched; name --images")
    return [Captioned(names[own[row]], names[row]) for row in rows]
