"""The benchmark of trackers' vectors at a tiny size: what it prints, and that its boxes lie in the frame."""

import numpy as np
import pytest

from benchmarks import tracking


def test_time_per_crop_is_printed_for_each_number_of_boxes(capsys, monkeypatch):
    monkeypatch.setattr(tracking, "keep", lambda *_: pytest.fail("the tiny size is no result"))
    tracking.main(["--size", "tiny"])
    lines = [line for line in capsys.readouterr().out.splitlines() if "ms a crop, " in line]
    assert [line.split(":")[0] for line in lines] == ["0 boxes", "1 boxes", "3 boxes"]


def test_boxes_lie_in_the_frame_and_stand_upright():
    boxes = tracking.draw_boxes(200, np.random.default_rng(0))
    (x1, y1, x2, y2), (height, width) = boxes.T, tracking.FRAME
    assert (x1 >= 0).all() and (x2 <= width).all() and (y1 >= 0).all() and (y2 <= height).all()
    assert (y2 - y1 > x2 - x1).all() and (x2 > x1).all()
