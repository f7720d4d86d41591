"""How trackers call what gives them appearance: what BoxMOT 25.0.0, Ultralytics 8.4.190 and deep-sort-realtime 1.3.2
hand over and what they ask of the result, in a few lines each.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np


def boxmot(reid_model: Any, boxes: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Return the vectors of boxes x1, y1, x2, y2 as BoxMOT's trackers take them from their `reid_model`."""
    assert callable(getattr(reid_model, "get_features", None))
    features = np.asarray(reid_model.get_features(boxes, image), dtype=np.float32)
    if features.ndim == 1 and len(boxes) == 1:
        features = features.reshape(1, -1)
    assert features.ndim == 2 and len(features) == len(boxes) and features.shape[1] > 0
    assert np.isfinite(features).all()
    norms = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    assert (norms > 1e-12).all()
    return features / norms


def ultralytics(encoder: Any, image: np.ndarray, xywh: np.ndarray) -> list[np.ndarray | None]:
    """Return the vectors of boxes as BoT-SORT's tracks keep them: rows get a number, vectors change in place."""
    rows = np.concatenate([xywh, np.arange(len(xywh)).reshape(-1, 1)], axis=-1)
    kept = []
    for _, feat in zip(rows, encoder(image, rows), strict=True):
        if feat is not None:
            feat /= np.linalg.norm(feat)
        kept.append(feat)
    return kept


def deep_sort_realtime(embedder: Any, frame: np.ndarray, boxes: Sequence[Sequence[float]]) -> np.ndarray:
    """Return the vectors of boxes left, top, width, height as DeepSort takes them from its `embedder`."""
    crops = []
    for box in boxes:
        left, top, width, height = (int(value) for value in box)
        right, bottom = min(frame.shape[1], left + width), min(frame.shape[0], top + height)
        crops.append(frame[max(0, top) : bottom, max(0, left) : right])
    rows = [np.asarray(feature, dtype=np.float32) for _, feature in zip(boxes, embedder.predict(crops), strict=True)]
    return np.asarray(rows)
