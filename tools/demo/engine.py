"""What the page asks for: a query, the images that it finds, and where the model looks in them."""

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from configs.keys.multimodal import NAME as MULTIMODAL
from configs.modalities import GREY, MODALITIES, TEXT
from datasets.decode import read_image
from datasets.tokens import count_tokens
from processor.trained import Trained
from tools.demo.gallery import Gallery, Hit, file_inside, find
from tools.demo.overlays import Overlays
from tools.demo.uploads import Given, Items, shown
from tools.feature_extractor import FeatureExtractor
from utils.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

MOST = 60  # results of a search
SIDE = 320  # longest side of a result, pixels


class Result(NamedTuple):
    """One image that was found, as it is shown."""

    hit: Hit
    picture: "Image.Image | None"  # RGB, at most SIDE wide and high; None: the file cannot be read any more


class Answer(NamedTuple):
    """What a query found."""

    query: dict[str, "Image.Image"]  # the images of the query by modality
    sentence: str  # "" = none
    results: list[Result]
    note: str  # what the visitor should know besides, "" = nothing


class Engine:
    """A trained model over a gallery. Threads may share it: one searches at a time."""

    def __init__(self, trained: Trained, extractor: FeatureExtractor, gallery: Gallery) -> None:
        self.gallery, self.settings, self.reads = gallery, trained.cfg.INPUT, extractor.reads
        self.takes_several = trained.cfg.MODEL.NAME == MULTIMODAL
        self.title = f"{trained.cfg.MODEL.NAME}, {trained.weight.name}"
        self.overlays = Overlays(trained)
        self._extractor, self._lock = extractor, threading.Lock()

    def answer(self, items: Items, topk: int, cameras: Sequence[int] = (), attention: bool = False) -> Answer:
        """Return what a query finds among the images of `cameras`, () = all of them, at most `topk` and MOST.

        With `attention` the maps of the model are laid over all images. Raises DataError for a query without items, or
        a sentence without words.
        """
        if not items:
            raise DataError("drop an image or type a sentence first" if TEXT in self.reads else "drop an image first")
        ordered = {name: items[name] for name in MODALITIES if name in items}
        images = {name: item for name, item in ordered.items() if isinstance(item, Given)}
        sentence = str(ordered.get(TEXT, ""))
        query = {name: item.pixels if isinstance(item, Given) else item for name, item in ordered.items()}
        with self._lock:
            feat = self._extractor.embed_queries([query])[0].numpy()
            hits = find(self.gallery, feat, max(1, min(topk, MOST)), cameras)
            results = [self._result(hit) for hit in hits]
            note = self._why_no_maps(sentence) if attention else ""
            pictures = {name: item.picture for name, item in images.items()}
            if attention and not note:
                pictures, results = self._with_maps(images, results, sentence)
        notes = [
            f"'{item.name}' is damaged, what is missing counts as grey" for item in images.values() if item.is_damaged
        ]
        length = self.settings.TEXT.LENGTH
        if sentence and count_tokens(sentence) > length:
            notes.append(f"the model reads {length} tokens of a sentence, so the last words of this one do not count")
        return Answer(pictures, sentence, results, "; ".join(filter(None, (*notes, note))))

    def _result(self, hit: Hit) -> Result:
        try:
            return Result(hit, shown(file_inside(self.gallery.root, hit.name), SIDE))
        except DataError:
            return Result(hit, None)

    def _why_no_maps(self, sentence: str) -> str:
        if self.overlays.why_not:
            return self.overlays.why_not
        return "type a sentence to see where its words look" if self.overlays.needs_sentence and not sentence else ""

    def _with_maps(
        self, images: Mapping[str, Given], results: Sequence[Result], sentence: str
    ) -> tuple[dict[str, "Image.Image"], list[Result]]:
        """Return the images of the query and the results with maps over them."""
        there = [result for result in results if result.picture is not None]
        places: list[Path] = [file_inside(self.gallery.root, result.hit.name) for result in there]
        pixels = [item.pixels for item in images.values()] + [self._pixels(place) for place in places]
        pictures = [item.picture for item in images.values()] + [result.picture for result in there]
        drawn = self.overlays.draw(torch.stack(pixels), pictures, sentence) if pixels else []
        drawn_results = dict(zip((result.hit.row for result in there), drawn[len(images) :], strict=True))
        return (
            dict(zip(images, drawn[: len(images)], strict=True)),
            [result._replace(picture=drawn_results.get(result.hit.row)) for result in results],
        )

    def _pixels(self, place: "Path") -> torch.Tensor:
        """Return a gallery image as the model reads it, uint8 [3, H, W]."""
        settings = self.settings
        grey = self._extractor.modality in GREY
        return read_image(str(place), settings.SIZE_TEST, settings.FILTER_TEST, settings.DECODER, None, grey)
