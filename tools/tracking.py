"""Appearance vectors for trackers, from a file of `python -m tools.export --format onnx`:

tracker = BotSort(reid_model=BoxMotModel("model.onnx"))  # BoxMOT
tracker.encoder = UltralyticsEncoder("model.onnx")  # Ultralytics' BoT-SORT, see docs/trackers.md
tracker.embedder = DeepSortEmbedder("model.onnx")  # deep-sort-realtime

It needs onnxruntime, numpy and Pillow alone, and nothing of this repository: the file may be copied. All that it knows
of the model stands in the metadata of the ONNX file.
"""

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

METADATA = "preprocessing"  # name of the JSON text in the ONNX file
FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}
QUIET = 3  # onnxruntime's level of errors; it warns of inputs that may be left out otherwise
BATCH = 8  # crops that run at once: more are no faster on a CPU, see benchmarks/tracking.py
SMALLEST_NORM = 1e-12


class Appearance:
    """Crops, or boxes of a frame, to L2-normalised vectors float32 [N, D], on onnxruntime.

    `path` is the ONNX file of an image model, with --normalise or without. Frames and crops are uint8 [h, w, 3], BGR as
    OpenCV reads them and trackers hand them over, RGB with `bgr` False; of a model of infrared images or drawings they
    are taken as grey. At most `batch` crops run at once. `providers` are onnxruntime's, `threads` those of one
    operation, 0 = its own choice. Raises ValueError for a file that is none of these, and for a provider that does not
    start.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        bgr: bool = True,
        batch: int = BATCH,
        providers: Sequence[str] = ("CPUExecutionProvider",),
        threads: int = 0,
    ) -> None:
        if batch < 1:
            raise ValueError(f"batch got {batch}, expected 1 or more")
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = QUIET, threads
        self.bgr, self.batch = bgr, batch
        self._session, facts = _load(os.fspath(path), options, providers)
        self.size = tuple(facts["size"])  # (height, width)
        self._filter, self._grey = FILTERS[facts["resize_filter"]], facts.get("grey", False)
        self._mean, self._std = (np.float32(facts[name]).reshape(3, 1, 1) for name in ("mean", "std"))
        self._inside = facts["normalised_inside"]
        blank = (
            np.round(255 * self._mean.reshape(3)).clip(0, 255).astype(np.uint8)
        )  # RGB: what a model takes for nothing
        self._blank = np.broadcast_to(blank[::-1] if bgr else blank, (1, 1, 3))
        self.dim = self._run(self._pixels([self._blank])).shape[1]  # D

    def of_crops(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """Return the vectors of crops uint8 [h, w, 3] of any sizes; an empty one counts as the mean colour."""
        for crop in crops:
            _check_pixels(crop, "a crop")
        parts = [np.empty((0, self.dim), dtype=np.float32)]
        for start in range(0, len(crops), self.batch):
            parts.append(self._run(self._pixels(crops[start : start + self.batch])))
        feat = np.concatenate(parts)
        if not np.isfinite(feat).all():
            raise ValueError("the model gives NaN or infinity; its file is damaged")
        return feat / np.maximum(np.linalg.norm(feat, axis=1, keepdims=True), SMALLEST_NORM)

    def of_boxes(self, frame: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Return the vectors of boxes [N, 4] as x1, y1, x2, y2 in pixels of a frame uint8 [H, W, 3].

        A crop holds each pixel that its box touches; of a box beyond the frame there is none, see `of_crops`.
        """
        return self.of_crops(crops_of(frame, boxes))

    def _pixels(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """Return crops as the model takes them, float32 [N, 3, H, W]."""
        height, width = self.size
        pixels = np.empty((len(crops), height, width, 3), dtype=np.uint8)
        for row, crop in zip(pixels, crops, strict=True):
            crop = crop if crop.size else self._blank
            crop = crop[..., ::-1] if self.bgr and self._grey else crop  # else channels are sorted when they are few
            image = Image.fromarray(np.ascontiguousarray(crop))
            image = image.convert("L") if self._grey else image
            row[:] = np.asarray(image.resize((width, height), self._filter).convert("RGB"))
        if self.bgr and not self._grey:
            pixels = pixels[..., ::-1]
        values = pixels.transpose(0, 3, 1, 2).astype(np.float32)
        return values if self._inside else (values / 255 - self._mean) / self._std

    def _run(self, pixels: np.ndarray) -> np.ndarray:
        return self._session.run(["embedding"], {"images": np.ascontiguousarray(pixels)})[0]


class BoxMotModel(Appearance):
    """The `reid_model` of BoxMOT's trackers; in releases 12 and 16 their attribute `model`."""

    def get_features(self, xyxys: np.ndarray, img: np.ndarray) -> np.ndarray:
        """Return the vectors of boxes x1, y1, x2, y2 of a frame; ValueError for oriented boxes."""
        return self.of_boxes(img, xyxys)


class UltralyticsEncoder(Appearance):
    """The `encoder` of Ultralytics' BoT-SORT: asked where its `args.with_reid` is set and `args.model` is not auto."""

    def __call__(self, img: np.ndarray, dets: np.ndarray) -> list[np.ndarray | None]:
        """Return a vector for each detection x, y (of its centre), width, height, ...; None where the crop is empty."""
        boxes = boxes_of(dets, more=True)[:, :4]
        half = boxes[:, 2:] / 2
        crops = crops_of(img, np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1))
        feat = iter(self.of_crops([crop for crop in crops if crop.size]))
        return [next(feat) if crop.size else None for crop in crops]


class DeepSortEmbedder(Appearance):
    """The `embedder` of deep-sort-realtime's DeepSort."""

    def predict(self, np_images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the vector of each crop."""
        return list(self.of_crops(np_images))


class DeepSortEncoder(Appearance):
    """The `encoder(image, boxes)` of the first DeepSORT."""

    def __call__(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Return the vectors of boxes x, y (of the upper left corner), width, height of a frame."""
        boxes = boxes_of(boxes)
        return self.of_boxes(image, np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1))


def crops_of(frame: np.ndarray, boxes: np.ndarray) -> list[np.ndarray]:
    """Return the part of a frame uint8 [H, W, 3] in each box x1, y1, x2, y2: all pixels it touches, perhaps none."""
    _check_pixels(frame, "the frame")
    boxes = boxes_of(boxes)
    height, width = frame.shape[:2]
    low = np.clip(np.floor(boxes[:, :2]), 0, (width, height)).astype(int)
    high = np.clip(np.ceil(boxes[:, 2:]), 0, (width, height)).astype(int)
    return [frame[y1:y2, x1:x2] for (x1, y1), (x2, y2) in zip(low.tolist(), high.tolist(), strict=True)]


def boxes_of(boxes: np.ndarray, more: bool = False) -> np.ndarray:
    """Return boxes float64 [N, 4], or with `more` columns behind them; one may lack the dimension N, none any.

    Raises ValueError for any other form, and for NaN or infinity.
    """
    boxes = np.asarray(boxes, dtype=np.float64)
    boxes = np.empty((0, 4)) if not boxes.size else boxes[None] if boxes.ndim == 1 else boxes
    if boxes.ndim != 2 or boxes.shape[1] < 4 or (boxes.shape[1] > 4 and not more):
        columns = "4 or more columns" if more else "4"
        raise ValueError(f"boxes are {list(boxes.shape)}, expected [N, {columns}]; oriented boxes have no crop")
    if not np.isfinite(boxes).all():
        raise ValueError("boxes hold NaN or infinity")
    return boxes


def _check_pixels(pixels: np.ndarray, what: str) -> None:
    """Raise ValueError for `what` that is not uint8 [h, w, 3]."""
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        given = f"{pixels.dtype} {list(pixels.shape)}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise ValueError(f"{what} is {given}, expected uint8 [h, w, 3]")


def _load(path: str, options: Any, providers: Sequence[str]) -> tuple[onnxruntime.InferenceSession, dict[str, Any]]:
    """Return the model and its metadata, which are in agreement."""
    if not os.path.isfile(path):
        raise ValueError(f"no file '{path}'; python -m tools.export --format onnx writes one")
    try:
        session = onnxruntime.InferenceSession(path, options, providers=list(providers))
        facts = json.loads(session.get_modelmeta().custom_metadata_map[METADATA])
    except Exception as error:  # onnxruntime has errors of its own
        raise ValueError(f"'{path}' is no file of python -m tools.export --format onnx ({error})") from error
    missing = [name for name in providers if name not in session.get_providers()]  # onnxruntime does without
    if missing:
        raise ValueError(
            f"providers: {', '.join(missing)} did not start, onnxruntime has "
            f"{', '.join(onnxruntime.get_available_providers())} here; a GPU needs the package onnxruntime-gpu and the "
            "CUDA that it was built for"
        )
    if not isinstance(facts, dict) or "size" not in facts or facts.get("fused", True) is not True:
        raise ValueError(f"'{path}' makes no embeddings of images; export the tower of images, without --unfused")
    wrong = _wrong_facts(facts)
    if wrong:
        raise ValueError(f"'{path}': its metadata is damaged ({', '.join(wrong)}); export the model again")
    expected = [3, *facts["size"]]
    shape = next((one.shape for one in session.get_inputs() if one.name == "images"), [])
    if shape[1:] != expected or isinstance(shape[0], int) or session.get_outputs()[0].name != "embedding":
        raise ValueError(
            f"'{path}' does not embed images [N, {', '.join(map(str, expected))}] of any number N, as its metadata "
            "says; export the model again"
        )
    return session, facts


def _wrong_facts(facts: dict[str, Any]) -> list[str]:
    """Return the names of what is used of the metadata and cannot be true."""

    def are_numbers(name: str, count: int) -> bool:
        values = facts.get(name)
        return isinstance(values, list) and len(values) == count and all(type(one) in (int, float) for one in values)

    is_right = {
        "size": are_numbers("size", 2) and all(type(one) is int and one > 0 for one in facts["size"]),
        "resize_filter": facts.get("resize_filter") in list(FILTERS),
        "mean": are_numbers("mean", 3) and np.isfinite(facts["mean"]).all(),
        "std": are_numbers("std", 3) and np.isfinite(facts["std"]).all() and min(facts["std"]) > 0,
        "normalised_inside": type(facts.get("normalised_inside")) is bool,
        "grey": type(facts.get("grey", False)) is bool,
    }
    return [name for name, right in is_right.items() if not right]
