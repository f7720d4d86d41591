"""The snippets of docs/trackers.md run, with stand-ins for the trackers, on frames and boxes of the kinds they name."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.pages import ROOT, blocks_of
from tests.tools import tracker_calls
from tests.tools.test_tracking import BOXES, DIM, write_model

PAGE = ROOT / "docs" / "trackers.md"
SNIPPETS = [block.text for block in blocks_of(PAGE) if block.language == "py"]


class BotSort:
    """BoxMOT's."""

    def __init__(self, *, reid_model: Any = None) -> None:
        self.reid_model = reid_model

    def update(self, detections: np.ndarray, frame: np.ndarray) -> np.ndarray:
        return tracker_calls.boxmot(self.reid_model, detections[:, :4], frame)


class UltralyticsBotSort:
    """Ultralytics' BOTSORT, which asks its encoder where `with_reid` is set."""

    def __init__(self, args: Any) -> None:
        assert not args.with_reid
        self.args, self.encoder = args, None

    def update(self, results: Any, img: np.ndarray) -> np.ndarray:
        assert self.args.with_reid and self.args.model != "auto"  # else it hands over no frame
        return np.array(tracker_calls.ultralytics(self.encoder, img, results))


class DeepSort:
    """deep-sort-realtime's."""

    def __init__(self, embedder: str | None = "mobilenet", max_cosine_distance: float = 0.2) -> None:
        assert embedder is None
        self.embedder = embedder

    def update_tracks(self, raw_detections: list, embeds: Any = None, frame: Any = None) -> np.ndarray:
        return tracker_calls.deep_sort_realtime(self.embedder, frame, [box for box, *_ in raw_detections])


def modules() -> dict[str, ModuleType]:
    """Return stand-ins of the packages by the names that the page imports."""
    parts: dict[str, dict[str, Any]] = {
        "boxmot": {"BotSort": BotSort},
        "ultralytics": {},
        "ultralytics.trackers": {},
        "ultralytics.trackers.bot_sort": {"BOTSORT": UltralyticsBotSort},
        "ultralytics.utils": {
            "YAML": SimpleNamespace(load=lambda path: {"with_reid": False, "model": "auto"}),
            "IterableSimpleNamespace": SimpleNamespace,
        },
        "ultralytics.utils.checks": {"check_yaml": str},
        "deep_sort_realtime": {},
        "deep_sort_realtime.deepsort_tracker": {"DeepSort": DeepSort},
    }
    found = {}
    for name, content in parts.items():
        found[name] = ModuleType(name)
        vars(found[name]).update(content)
    return found


def values(snippet: str, frame: np.ndarray) -> dict[str, Any]:
    """Return what a snippet is given, as its comments say."""
    width, height = (BOXES[:, 2:] - BOXES[:, :2]).T
    ltwh = np.column_stack([BOXES[:, :2], width, height])
    centres = np.column_stack([BOXES[:, :2] + ltwh[:, 2:] / 2, width, height])
    rows = np.column_stack([BOXES, np.full((len(BOXES), 2), 0.5)])
    boxes: Callable | np.ndarray = BOXES
    if "BOTSORT" in snippet:
        boxes = centres
    elif "DeepSortEncoder" in snippet:
        boxes = ltwh
    detections = [(box.tolist(), 0.5, "person") for box in ltwh] if "DeepSort" in snippet else rows
    return {"frame": frame, "boxes": boxes, "detections": detections, "crops": [frame, frame[:9, :4]]}


def test_the_page_has_a_snippet_for_each_tracker():
    assert len(SNIPPETS) == 5


@pytest.mark.parametrize("snippet", SNIPPETS, ids=[text.splitlines()[0] for text in SNIPPETS])
def test_snippets_run(snippet: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "model.onnx")
    for name, module in modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    frame = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    names = values(snippet, frame)
    exec(snippet, names)
    found = names["features"] if "features" in names else names["tracks"]
    assert found.shape == (2 if "of_crops" in snippet else len(BOXES), DIM)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
