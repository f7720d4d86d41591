"""A user's own images and sentences to embeddings, with exactly the pre-processing of the tests:

extractor = FeatureExtractor.from_run("logs/my_run")
feat = extractor(["a.jpg", Image.open("b.png")])  # [2, D]
text = extractor.embed_texts(["a woman in a red coat"])  # [1, D], where the model was trained on captions
both = extractor.embed_queries([{"nir": "c.jpg", "text": "a red coat"}])  # [1, D], where it was on these modalities

Stands with the commands above processor, which it imports; nothing below may import it.
"""

import hashlib
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader

from configs.compare import flatten
from configs.keys import affects
from configs.keys.multimodal import NAME as MULTIMODAL
from configs.modalities import GREY, TEXT, VIS
from datasets.batch import Batch
from datasets.loader import Loader
from datasets.torch_datasets import NUM_EXAMPLES, damage_line
from model.layers.packed import packed_linears
from model.layers.sie import NEUTRAL_ROWS
from processor.evaluation.embed import embed_batch, fuse_by_model, in_precision, make_embedding, precision_name
from processor.trained import Trained, find_weight, load_trained
from tools.caption_rows import token_batches
from tools.hub import find_published
from tools.image_rows import FilePath, ImageLike, LooseImages, gather
from tools.modalities import check_queries, check_reads, read_by
from utils.digest import sha256_of
from utils.errors import ConfigError, DataError
from utils.progress import progress
from utils.published_folder import check_whole
from utils.workers import num_workers

logger = logging.getLogger(__name__)

Labels = Sequence[int | None] | np.ndarray | torch.Tensor
SIDES = ("camera", "view")
ANY_PRECISION = "TEST.AMP"  # an index says itself in which precision it was made


class BrokenImageError(DataError):
    """An image that is missing, does not decode, or is none; the message names it."""


class FeatureExtractor:
    """Embeds images with a trained model; they need no labels and may have any size. Of a model of captions, texts too.

    Of a model of several modalities its images are of one of them, `modality`; `embed_queries` takes any. An embedding
    is what the model fuses from all items of an image or query.

    An image is a path, a PIL image, a numpy array uint8 [H, W, 3] or a tensor uint8 [3, H, W], RGB. It is resized and
    normalised by the code that test.py runs, with INPUT.SIZE_TEST, FILTER_TEST, DECODER and TEST.FLIP of the model's
    configuration; as there, an EXIF orientation is not applied. The model runs in the precision of TEST.AMP, which
    `precision` names, embeddings are float32. They are always L2-normalised, whatever TEST.FEAT_NORM says. Raises
    ConfigError for a TEST.AMP that the device cannot compute in, and for a modality that the model does not read.
    """

    def __init__(self, trained: Trained, modality: str = VIS) -> None:
        self.cfg, self.model, self.device, self.weight = trained.cfg, trained.model, trained.device, trained.weight
        self.modality = modality
        self.reads = read_by(self.cfg, self.model)
        self._check_reads(modality)
        if modality == TEXT:
            raise ConfigError("an extractor is of images, sentences are no images; embed_texts takes them in any case")
        self._how = make_embedding(self.cfg, self.device)._replace(unit=False)  # normalised on the CPU, when checked
        self._counts = self.model.side_counts
        self._is_divided = self.model.side_rows != NEUTRAL_ROWS
        self._told: set[str] = set()

    @classmethod
    def from_run(
        cls, output_dir: str | Path, epoch: int | None = None, opts: Sequence[str] = (), modality: str = VIS
    ) -> "FeatureExtractor":
        """Return the extractor of a run folder's checkpoint of `epoch`, None = the last one; `opts` as in train.py."""
        return cls(load_trained(find_weight(output_dir, epoch), None, opts), modality)

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        config_file: str | Path | None = None,
        opts: Sequence[str] = (),
        modality: str = VIS,
    ) -> "FeatureExtractor":
        """Return the extractor of a weight file; `config_file` is needed where neither it nor its folder holds one."""
        return cls(load_trained(path, config_file, opts), modality)

    @classmethod
    def from_pretrained(
        cls, source: str | Path, revision: str | None = None, opts: Sequence[str] = (), modality: str = VIS
    ) -> "FeatureExtractor":
        """Return the extractor of a model of `tools.publish`: a folder, or a repository `user/name` of the hub.

        `revision` is a branch, tag or commit of the repository. Nothing of it is executed. Raises DataError for a model
        that is not whole, or whose configuration names a file or device; ConfigError as `find_published`.
        """
        folder = find_published(source, revision)
        check_whole(folder)
        return cls(load_trained(folder.weights, None, opts), modality)

    @cached_property
    def feat_dim(self) -> int:
        """The number of values D of an embedding, those of all branches together."""
        black = torch.zeros(1, 3, *self.cfg.INPUT.SIZE_TEST, dtype=torch.uint8)
        return self._encode(self._batch(self.modality, black)).shape[1]

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
        """SHA-256 (64 hex digits) of weights, modality, and all settings that an embedding depends on but TEST.AMP."""
        keys = flatten(self.cfg)
        settings = {key: keys[key] for key in keys if affects(key, "embedding") and key != ANY_PRECISION}
        other = [] if self.modality == VIS else [self.modality]
        content = json.dumps([sha256_of(self.weight), settings, *other], sort_keys=True, default=str)
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
        with packed_linears(self.model, self.device, self._how.amp, self._how.linear):
            for rows, pixels in self._pixels(images, self.modality, skip_broken):
                batch = self._batch(self.modality, pixels) | {key: ids[rows] for key, ids in labels.items()}
                yield rows, self._finished(self._encode(batch)[:, None])

    def embed_texts(self, texts: str | Sequence[str]) -> torch.Tensor:
        """Return the L2-normalised embeddings float32 [N, D], on the CPU, of one sentence or of a sequence of N.

        They compare with those of images by inner product. A text of more than INPUT.TEXT.LENGTH tokens loses its last
        words; how many do is logged. Raises ConfigError for a model that reads no captions, DataError naming the first
        text that is none or has no words.
        """
        self._check_reads(TEXT)
        texts = [texts] if isinstance(texts, str) else list(texts)
        feat = torch.empty(len(texts), self.feat_dim)
        for rows, part in self._features(texts, TEXT):
            feat[rows] = self._finished(part[:, None])
        return feat

    def embed_queries(self, queries: Sequence[Mapping[str, ImageLike | str]]) -> torch.Tensor:
        """Return the L2-normalised embeddings float32 [Q, D], on the CPU, of queries: an image or sentence by modality.

        They compare with those of images by inner product. Raises ConfigError for a modality that the model does not
        read, and for several items where it reads no modalities; DataError for a query without items; and what
        `__call__` and `embed_texts` raise for an item.
        """
        check_queries(queries, self.reads, self.cfg.MODEL.NAME, self.weight)
        names = list(dict.fromkeys(name for query in queries for name in query))
        feat, valid = torch.zeros(len(queries), len(names), self.feat_dim), torch.zeros(len(queries), len(names)).bool()
        for column, name in enumerate(names):
            rows = torch.tensor([row for row, query in enumerate(queries) if name in query])
            valid[rows, column] = True
            for some, part in self._features([queries[row][name] for row in rows.tolist()], name):
                feat[rows[some], column] = part.cpu()
        return self._finished(feat, valid) if names else torch.empty(0, self.feat_dim)

    def _check_reads(self, modality: str) -> None:
        check_reads(modality, self.reads, self.cfg.MODEL.NAME, self.weight)

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

    def _features(self, items: Sequence[ImageLike | str], modality: str) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Yield (rows of `items`, what the model makes of them, [B, D]) before it fuses: images, or sentences."""
        size, length = self.cfg.TEST.IMS_PER_BATCH, self.cfg.INPUT.TEXT.LENGTH
        batches = token_batches(items, length, size) if modality == TEXT else self._pixels(items, modality)
        with packed_linears(self.model, self.device, self._how.amp, self._how.linear):
            for rows, values in batches:
                yield rows, self._encode(self._batch(modality, values))

    def _pixels(
        self, images: Sequence[ImageLike], modality: str, skip_broken: bool = False
    ) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Yield (rows of `images`, uint8 [B, 3, H, W]); errors and `skip_broken` as in `stream`."""
        damaged = []
        with progress("embed", len(images), "image") as bar:
            for rows, pixels, broken, incomplete in self._loader(images, modality):
                damaged += incomplete
                if broken and not skip_broken:
                    raise BrokenImageError(broken[0])
                for message in broken:
                    logger.warning("left out: %s", message)
                if rows:
                    yield rows, pixels
                bar.update(len(rows) + len(broken))
        if damaged:
            logger.warning("%s", damage_line(len(damaged), len(images), damaged[:NUM_EXAMPLES]))

    def _loader(self, images: Sequence[ImageLike], modality: str) -> DataLoader:
        """Return a loader of what `gather` returns; worker processes decode where there are many files."""
        batch_size = self.cfg.TEST.IMS_PER_BATCH
        batches = math.ceil(len(images) / batch_size)
        from_disk = all(isinstance(image, FilePath) for image in images)
        workers = num_workers(self.cfg.DATALOADER.NUM_WORKERS, batches)
        return Loader(
            LooseImages(images, self.cfg.INPUT, grey=modality in GREY),
            batch_size=batch_size,
            num_workers=workers if from_disk and batches > 1 else 0,
            collate_fn=gather,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # the loader's own draws leave the caller's random state alone
        )

    def _batch(self, modality: str, values: torch.Tensor) -> Batch:
        """Return images or tokens as a batch that the model reads."""
        if self.cfg.MODEL.NAME == MULTIMODAL:
            return {"modalities": {modality: values}}
        return {"caption_ids": values} if modality == TEXT else {"images": values}

    def _encode(self, batch: Batch) -> torch.Tensor:
        """Return what the model makes of a batch, float32 [B, D], before it fuses."""
        return embed_batch(self.model, self._how.prepare(batch), self._how)

    def _finished(self, feat: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
        """Return embeddings [Q, D] of the valid [Q, n] features [Q, n, D], None = all; one a row without a fusion."""
        valid = torch.ones(feat.shape[:2], dtype=torch.bool) if valid is None else valid
        fuses = self._how.fuse is None
        feat = fuse_by_model(feat, valid, self.model, unit=False).cpu() if fuses else feat.cpu()[valid]
        if not feat.isfinite().all():
            raise DataError(f"'{self.weight}' gives embeddings with NaN or infinity; its weights are damaged")
        return F.normalize(feat, dim=1)
