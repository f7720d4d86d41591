"""A user's own images to embeddings, with exactly the pre-processing of the tests:

extractor = FeatureExtractor.from_run("logs/my_run")
feat = extractor(["a.jpg", Image.open("b.png")])  # [2, D]

Stands with the commands above processor, which it imports; nothing below may import it.
"""

import hashlib
import json
import logging
import math
import os
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from yacs.config import CfgNode

from configs.compare import flatten
from configs.keys import affects
from datasets.decode import read_image, resize
from datasets.loader import Loader
from datasets.torch_datasets import NUM_EXAMPLES, damage_line, damaged_image
from model.layers.sie import NEUTRAL_ROWS
from processor.evaluation.embed import embed_batch, in_precision, make_embedding, precision_name
from processor.trained import Trained, find_weight, load_trained
from utils.digest import sha256_of
from utils.errors import DataError
from utils.workers import num_workers

logger = logging.getLogger(__name__)

FilePath = str | os.PathLike
ImageLike = FilePath | Image.Image | np.ndarray | torch.Tensor
Labels = Sequence[int | None] | np.ndarray | torch.Tensor
SIDES = ("camera", "view")
ANY_PRECISION = "TEST.AMP"  # an index says itself in which precision it was made


class BrokenImageError(DataError):
    """An image that is missing, does not decode, or is none; the message names it."""


class FeatureExtractor:
    """Embeds images with a trained model; they need no labels and may have any size.

    An image is a path, a PIL image, a numpy array uint8 [H, W, 3] or a tensor uint8 [3, H, W], RGB. It is resized and
    normalised by the code that test.py runs, with INPUT.SIZE_TEST, FILTER_TEST, DECODER and TEST.FLIP of the model's
    configuration; as there, an EXIF orientation is not applied. The model runs in the precision of TEST.AMP, which
    `precision` names, embeddings are float32. They are always L2-normalised, whatever TEST.FEAT_NORM says. Raises
    ConfigError for a TEST.AMP that the device cannot compute in.
    """

    def __init__(self, trained: Trained) -> None:
        self.cfg, self.model, self.device, self.weight = trained.cfg, trained.model, trained.device, trained.weight
        self._how = make_embedding(self.cfg, self.device)._replace(unit=False)  # normalised on the CPU, when checked
        self._counts = self.model.side_counts
        self._is_divided = self.model.side_rows != NEUTRAL_ROWS
        self._told: set[str] = set()

    @classmethod
    def from_run(cls, output_dir: str | Path, epoch: int | None = None, opts: Sequence[str] = ()) -> "FeatureExtractor":
        """Return the extractor of a run folder's checkpoint of `epoch`, None = the last one; `opts` as in train.py."""
        return cls(load_trained(find_weight(output_dir, epoch), None, opts))

    @classmethod
    def from_checkpoint(
        cls, path: str | Path, config_file: str | Path | None = None, opts: Sequence[str] = ()
    ) -> "FeatureExtractor":
        """Return the extractor of a weight file; `config_file` is needed where neither it nor its folder holds one."""
        return cls(load_trained(path, config_file, opts))

    @cached_property
    def feat_dim(self) -> int:
        """The number of values D of an embedding, those of all branches together."""
        black = torch.zeros(1, 3, *self.cfg.INPUT.SIZE_TEST, dtype=torch.uint8)
        return self._embed(black, None, None).shape[1]

    @property
    def flip(self) -> bool:
        """Whether the embeddings of each image and its mirror are averaged."""
        return self._how.flip

    @property
    def precision(self) -> str:
        """The name of the type in which the model runs, a key of `processor.evaluation.embed.PRECISIONS`."""
        return precision_name(self._how.amp)

    def adopt_precision(self, name: str) -> bool:
        """Run the model in `name` from here on where TEST.AMP auto leaves that open; return whether it runs so now."""
        self._how = in_precision(self._how, self.cfg, self.device, name)
        return name == self.precision

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (64 hex digits) of the weight file and of all settings that an embedding depends on but TEST.AMP."""
        keys = flatten(self.cfg)
        settings = {key: keys[key] for key in keys if affects(key, "embedding") and key != ANY_PRECISION}
        content = json.dumps([sha256_of(self.weight), settings], sort_keys=True, default=str)
        return hashlib.sha256(content.encode()).hexdigest()

    def __call__(
        self,
        images: ImageLike | Sequence[ImageLike],
        camids: Labels | int | None = None,
        viewids: Labels | int | None = None,
    ) -> torch.Tensor:
        """Return the L2-normalised embeddings float32 [N, D], on the CPU, of one image or of a sequence of N.

        `camids` and `viewids` are the training set's numbers from 0, one per image; None, negative or beyond those of
        training = unknown, which gets the neutral side information, the mean of the trained rows; this is logged once.
        A model without side information ignores them. Raises BrokenImageError naming the first image that cannot be
        read, and DataError for labels of another number, or labels that this checkpoint cannot place.
        """
        if isinstance(images, (FilePath, Image.Image)) or getattr(images, "ndim", 0) == 3:
            images = [images]
            camids, viewids = (
                [label] if label is not None and np.ndim(label) == 0 else label for label in (camids, viewids)
            )
        parts = [feat for _, feat in self.stream(list(images), camids, viewids)]
        return torch.cat(parts) if parts else torch.empty(0, self.feat_dim)

    def stream(
        self,
        images: Sequence[ImageLike],
        camids: Labels | None = None,
        viewids: Labels | None = None,
        skip_broken: bool = False,
    ) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Yield (rows of `images`, their embeddings [B, D]) batch by batch, as `__call__` returns them.

        With `skip_broken` an image that cannot be read is logged and left out. So is a damaged one where
        INPUT.BROKEN_IMAGES is error; by default these are counted in one warning at the end.
        """
        labels = [
            self._labels(values, side, count, len(images))
            for values, side, count in zip((camids, viewids), SIDES, self._counts, strict=True)
        ]
        hidden, damaged = not sys.stderr.isatty(), []
        with tqdm(total=len(images), desc="embed", unit="image", disable=hidden, leave=False) as progress:
            for rows, pixels, broken, incomplete in self._loader(images):
                damaged += incomplete
                if broken and not skip_broken:
                    raise BrokenImageError(broken[0])
                for message in broken:
                    logger.warning("left out: %s", message)
                if rows:
                    yield rows, self._embed(pixels, *(None if values is None else values[rows] for values in labels))
                progress.update(len(rows) + len(broken))
        if damaged:
            logger.warning("%s", damage_line(len(damaged), len(images), damaged[:NUM_EXAMPLES]))

    def _labels(self, values: Labels | None, side: str, count: int, num_images: int) -> torch.Tensor | None:
        """Return int64 [N] with -1 for unknown, or None where the model has no side information of this kind."""
        if values is not None and len(values) != num_images:
            raise DataError(f"got {len(values)} {side} ids for {num_images} images; give one per image, -1 = unknown")
        if values is not None and not self._is_divided:
            raise DataError(
                f"'{self.weight}' does not tell how the rows of its side information divide into cameras and views, "
                f"so {side} ids cannot be used; leave them out for the neutral row"
            )
        if not count:
            return None
        given = [-1] * num_images if values is None else [-1 if value is None else int(value) for value in values]
        labels = torch.tensor(given, dtype=torch.int64)
        known = (labels >= 0) & (labels < count)
        if not known.all() and side not in self._told:
            self._told.add(side)
            logger.info(
                "%d of %d images have no %s id that training knew (0 to %d): they get the neutral side information, "
                "the mean of the trained rows (said once)",
                *(int((~known).sum()), num_images, side, count - 1),
            )
        return torch.where(known, labels, -1)

    def _loader(self, images: Sequence[ImageLike]) -> DataLoader:
        """Return a loader of what `gather` returns; worker processes decode where there are many files."""
        batch_size = self.cfg.TEST.IMS_PER_BATCH
        batches = math.ceil(len(images) / batch_size)
        from_disk = all(isinstance(image, FilePath) for image in images)
        workers = num_workers(self.cfg.DATALOADER.NUM_WORKERS, batches)
        return Loader(
            LooseImages(images, self.cfg.INPUT),
            batch_size=batch_size,
            num_workers=workers if from_disk and batches > 1 else 0,
            collate_fn=gather,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # the loader's own draws leave the caller's random state alone
        )

    def _embed(self, pixels: torch.Tensor, camids: torch.Tensor | None, viewids: torch.Tensor | None) -> torch.Tensor:
        labels = {name: values for name, values in (("camids", camids), ("viewids", viewids)) if values is not None}
        feat = embed_batch(self.model, self._how.prepare({"images": pixels, **labels}), self._how).cpu()
        if not feat.isfinite().all():
            raise DataError(f"'{self.weight}' gives embeddings with NaN or infinity; its weights are damaged")
        return F.normalize(feat, dim=1)


class LooseImage(NamedTuple):
    """One of many images: its pixels uint8 [3, H, W], or None and why there are none."""

    row: int
    pixels: torch.Tensor | None
    broken: str = ""
    damaged: str = ""  # what it is called where its file is damaged, but part of it decoded


class LooseImages(Dataset):
    """Images of any kind as `LooseImage`, read as cfg.INPUT says."""

    def __init__(self, images: Sequence[ImageLike], settings: CfgNode) -> None:
        self.images = images
        self.reading = (settings.SIZE_TEST, settings.FILTER_TEST, settings.DECODER)
        self.broken = settings.BROKEN_IMAGES

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> LooseImage:
        image, damaged = self.images[row], []
        name = os.fspath(image) if isinstance(image, FilePath) else f"number {row} (from 0)"
        try:
            if isinstance(image, FilePath):
                pixels = read_image(name, *self.reading, damaged)
            else:
                pixels = resize(_as_pillow(image), *self.reading, damaged)
        except DataError as error:
            return LooseImage(row, None, _what_is_wrong(name, error.__cause__))
        except (OSError, SyntaxError, ValueError) as error:  # a PIL image decodes when it is first used
            return LooseImage(row, None, f"image {row} (from 0) cannot be used: {error}")
        if damaged and self.broken == "error":
            return LooseImage(row, None, str(damaged_image(name)))
        return LooseImage(row, pixels, damaged=name if damaged else "")


def _what_is_wrong(path: str, reason: BaseException | None) -> str:
    """Return why `read_image` failed, without its advice on data sets."""
    if isinstance(reason, FileNotFoundError):
        return f"image '{path}' is missing; check the path, or copy it again"
    return f"image '{path}' does not decode ({getattr(reason, 'strerror', None) or reason}); copy it again or remove it"


def _as_pillow(image: Any) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    if not isinstance(image, (np.ndarray, torch.Tensor)):
        raise ValueError(f"it is of type {type(image).__name__}; give a path, a PIL image, an array or a tensor")
    is_array = isinstance(image, np.ndarray)
    pixels = image if is_array else image.detach().cpu().numpy()
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2 if is_array else 0] != 3:
        needed = "an array must be uint8 [H, W, 3]" if is_array else "a tensor must be uint8 [3, H, W]"
        raise ValueError(f"it is {pixels.dtype} {list(pixels.shape)}; {needed}")
    return Image.fromarray(pixels if is_array else pixels.transpose(1, 2, 0))


def gather(items: list[LooseImage]) -> tuple[list[int], torch.Tensor | None, list[str], list[str]]:
    """Return a batch: rows and images uint8 [B, 3, H, W], why others have none, and which are damaged."""
    usable = [item for item in items if item.pixels is not None]
    broken = [item.broken for item in items if item.pixels is None]
    pixels = torch.stack([item.pixels for item in usable]) if usable else None
    return [item.row for item in usable], pixels, broken, [item.damaged for item in usable if item.damaged]
