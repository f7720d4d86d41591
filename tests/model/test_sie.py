"""Side information: which row an image gets."""

import logging

import pytest
import torch

from model.layers.sie import look_up
from tests.model.builds import images, make_tiny
from utils.errors import DataError

BOTH = ("MODEL.SIE_CAMERA", True, "MODEL.SIE_VIEW", True)
EMBED = torch.arange(12.0).reshape(6, 1, 2)  # 3 cameras x 2 views, width 2


def test_row_is_camera_times_views_plus_view():
    rows = look_up(EMBED, 3, 2, torch.tensor([0, 1, 2]), torch.tensor([1, 0, 1]), 3)
    assert torch.equal(rows, EMBED[[1, 2, 5]])


def test_unknown_view_is_the_mean_over_views():
    rows = look_up(EMBED, 3, 2, torch.tensor([0, 2]), torch.tensor([-1, -1]), 2)
    assert torch.equal(rows, torch.stack([EMBED[0:2].mean(0), EMBED[4:6].mean(0)]))


def test_unknown_camera_is_the_mean_over_cameras():
    rows = look_up(EMBED, 3, 2, None, torch.tensor([0, 1]), 2)
    assert torch.equal(rows, torch.stack([EMBED[0::2].mean(0), EMBED[1::2].mean(0)]))


def test_image_without_labels_gets_the_mean_of_all_rows():
    assert torch.equal(look_up(EMBED, 3, 2, None, None, 1)[0], EMBED.mean(0))
    assert torch.equal(look_up(EMBED, 6, 0, torch.tensor([-1]), None, 1)[0], EMBED.mean(0))


def test_side_that_is_off_ignores_its_labels():
    rows = look_up(EMBED, 6, 0, torch.tensor([4]), torch.tensor([99]), 1)
    assert torch.equal(rows, EMBED[[4]])
    rows = look_up(EMBED, 0, 6, torch.tensor([99]), torch.tensor([3]), 1)
    assert torch.equal(rows, EMBED[[3]])


@pytest.mark.parametrize(("cam", "view", "side"), [(3, 0, "camera"), (0, 2, "view")])
def test_label_beyond_the_table_is_refused(cam, view, side):
    with pytest.raises(DataError, match=f"{side} label"):
        look_up(EMBED, 3, 2, torch.tensor([cam]), torch.tensor([view]), 1)


@pytest.mark.parametrize(("cam", "view"), [(3, 0), (0, 2)])
def test_label_beyond_the_table_never_falls_on_another_row(cam, view, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # as on a GPU: the labels are not looked at
    with pytest.raises(IndexError):
        look_up(EMBED, 3, 2, torch.tensor([cam]), torch.tensor([view]), 1)


def test_known_labels_give_no_gradient_to_other_rows():
    embed = EMBED.clone().requires_grad_()
    look_up(embed, 3, 2, torch.tensor([1]), torch.tensor([0]), 1).sum().backward()
    assert torch.equal(embed.grad.reshape(6, 2).sum(1), torch.tensor([0.0, 0, 2, 0, 0, 0]))


@pytest.mark.parametrize(
    ("opts", "cameras", "views", "rows"),
    [
        (BOTH, 20, 8, 160),
        (BOTH, 20, 1, 20),
        (BOTH, 1, 8, 8),
        (("MODEL.SIE_CAMERA", True), 6, 8, 6),
        (("MODEL.SIE_VIEW", True), 6, 8, 8),
    ],
)
def test_table_has_a_row_for_each_label_of_the_sides_that_are_on(opts, cameras, views, rows):
    model = make_tiny(*opts, cameras=cameras, views=views)
    assert model.base.sie_embed.shape == (rows, 1, 24)
    last = torch.tensor([cameras - 1, 0, cameras - 1]), torch.tensor([views - 1, views - 1, 0])
    assert model.eval()(images(), cam_label=last[0], view_label=last[1]).shape == (3, 24)


def test_one_camera_and_one_view_switch_side_information_off_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        model = make_tiny(*BOTH, cameras=1, views=0)
    assert "base.sie_embed" not in model.state_dict()
    assert "MODEL.SIE_CAMERA True, but the training data has 1 camera" in caplog.text
    assert "MODEL.SIE_VIEW True, but the training data has 0 view" in caplog.text
    labels = torch.tensor([0, 0, 1])
    assert torch.equal(model.eval()(images(), cam_label=labels, view_label=labels), model(images()))


def test_side_information_changes_the_embedding():
    model = make_tiny("MODEL.SIE_CAMERA", True, cameras=3).eval()
    first = model(images(1), cam_label=torch.tensor([0]))
    assert not torch.allclose(first, model(images(1), cam_label=torch.tensor([1])))
