"""A user's own images and sentences to embeddings, with exactly the pre-processing of the tests:

extractor = FeatureExtractor.from_run("logs/my_run")
feat = extractor(["a.jpg", Image.open("b.png")])  # [2, D]
text = extractor.embed_texts(["a woman in a red coat"])  # [1, D], where the model was trained on captions

Stands with the commands above processor, which it imports; nothing below may import it.
"""

import hashlib
import json
import logging
import math
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader
from tqdm import tqdm

from configs.compare import flatten
from configs.keys import affects
from datasets.batch import Batch
from datasets.loader import Loader
from datasets.read_captions import READ_CAPTIONS
from datasets.tokens import SHORTEST, count_tokens, length_notes, tokenize_all
from datasets.torch_datasets import NUM_EXAMPLES, damage_line
from model.layers.sie import NEUTRAL_ROWS
from processor.evaluation.embed import embed_batch, in_precision, make_embedding, precision_name
from processor.trained import Trained, find_weight, load_trained
from tools.image_rows import FilePath, ImageLike, LooseImages, gather
from utils.digest import sha256_of
from utils.errors import ConfigError, DataError
from utils.workers import num_workers

logger = logging.getLogger(__name__)

Labels = Sequence[int | None] | np.ndarray | torch.Tensor
SIDES = ("camera", "view")
ANY_PRECISION = "TEST.AMP"  # an index says itself in which precision it was made


class BrokenImageError(DataError):
    """An image that is missing, does not decode, or is none; the message names it."""


class FeatureExtractor:
    """Embeds images with a trained model; they need no labels and may have any size. Of a model of captions, texts too.

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
        return self._embed({"images": black}).shape[1]

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
        given = zip(("camids", "viewids"), (camids, viewids), SIDES, self._counts, strict=True)
        all_labels = {key: self._labels(values, side, count, len(images)) for key, values, side, count in given}
        labels = {key: ids for key, ids in all_labels.items() if ids is not None}
        hidden, damaged = not sys.stderr.isatty(), []
        with tqdm(total=len(images), desc="embed", unit="image", disable=hidden, leave=False) as progress:
            for rows, pixels, broken, incomplete in self._loader(images):
                damaged += incomplete
                if broken and not skip_broken:
                    raise BrokenImageError(broken[0])
                for message in broken:
                    logger.warning("left out: %s", message)
                if rows:
                    yield rows, self._embed({"images": pixels, **{key: ids[rows] for key, ids in labels.items()}})
                progress.update(len(rows) + len(broken))
        if damaged:
            logger.warning("%s", damage_line(len(damaged), len(images), damaged[:NUM_EXAMPLES]))

    def embed_texts(self, texts: str | Sequence[str]) -> torch.Tensor:
        """Return the L2-normalised embeddings float32 [N, D], on the CPU, of one sentence or of a sequence of N.

        They compare with those of images by inner product. A text of more than INPUT.TEXT.LENGTH tokens loses its last
        words; how many do is logged. Raises ConfigError for a model that reads no captions, DataError naming the first
        text that is none or has no words.
        """
        self.check_reads_texts()
        texts = [texts] if isinstance(texts, str) else list(texts)
        counts = np.array([_tokens_in(text, row) for row, text in enumerate(texts)], dtype=np.int64)
        length, size = self.cfg.INPUT.TEXT.LENGTH, self.cfg.TEST.IMS_PER_BATCH
        for note in length_notes(counts.tolist(), length):
            logger.warning("%s", note)
        order = counts.argsort(kind="stable")  # alike lengths together: no short one is padded for a long one
        feat = torch.empty(len(texts), self.feat_dim)
        hidden = not sys.stderr.isatty()
        for start in tqdm(range(0, len(texts), size), desc="embed", unit="batch", disable=hidden, leave=False):
            rows = order[start : start + size].tolist()
            longest = min(int(counts[rows[-1]]), length)
            feat[rows] = self._embed({"caption_ids": tokenize_all([texts[row] for row in rows], longest)})
        return feat

    def check_reads_texts(self) -> None:
        """Raise ConfigError where the model reads no captions."""
        if self.cfg.MODEL.NAME not in READ_CAPTIONS:
            raise ConfigError(
                f"'{self.weight}' is of MODEL.NAME {self.cfg.MODEL.NAME}, which reads no sentences; use a model that "
                f"was trained on captions (MODEL.NAME {', '.join(READ_CAPTIONS)})"
            )

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

    def _embed(self, batch: Batch) -> torch.Tensor:
        feat = embed_batch(self.model, self._how.prepare(batch), self._how).cpu()
        if not feat.isfinite().all():
            raise DataError(f"'{self.weight}' gives embeddings with NaN or infinity; its weights are damaged")
        return F.normalize(feat, dim=1)


def _tokens_in(text: str, row: int) -> int:
    """Return how many tokens the text number `row` has; DataError where it is none, or has no words."""
    if not isinstance(text, str):
        raise DataError(f"text {row} (from 0) is of type {type(text).__name__}; give a sentence")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # half of a character, as bytes that are no UTF-8 leave it
        raise DataError(f"text {row} (from 0), {text!r}, is no Unicode text ({error.reason}); correct it") from error
    count = count_tokens(text)
    if count <= SHORTEST:
        raise DataError(f"text {row} (from 0), {text!r}, has no words; leave it out")
    return count
