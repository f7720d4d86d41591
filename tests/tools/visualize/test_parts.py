"""Stripes made visible: the parts of a cosine, the part that misled, and the pictures that say so."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.test_set import Trial, same_camera
from processor.evaluation.embed import Embedded
from processor.evaluation.evaluate import RankOptions, Searched, search
from tests import commands
from tests.conftest import TINY_YAML
from tests.processor.evaluation.sets import make_labels, make_test_set
from tests.tolerance import rounding
from tests.tools.visualize.test_visualize_commands import make_run, one_error
from tools.visualize import parts
from tools.visualize.__main__ import main
from utils.ranking.rank_list import rank_lists

BRANCHES = {"global": 3, "part1": 2, "part2": 4}
visualize = partial(commands.run, main)


def searched_of(pids: list[int], camids: list[int]) -> Searched:
    """Return one query against images that lie the farther the later they stand."""
    rows = np.arange(len(pids))
    feat = torch.tensor([[1.0, 0.1 * row] for row in rows])
    test = make_test_set(
        make_labels(np.array(pids), np.array(camids)), (Trial("", 0, rows[:1], rows[1:]),), same_camera
    )
    return search(test, Embedded(feat, np.zeros(len(pids)), "float32"), RankOptions(5))


def test_contributions_sum_to_the_cosine_and_are_those_of_each_slice():
    feat = torch.randn(6, 9, generator=torch.Generator().manual_seed(2))
    shares = parts.contributions(feat[0], feat[1:], BRANCHES)
    unit = feat.double().numpy() / np.linalg.norm(feat.double().numpy(), axis=1, keepdims=True)
    np.testing.assert_allclose(shares.sum(1), unit[1:] @ unit[0], atol=rounding(9, torch.float64))
    np.testing.assert_allclose(shares[:, 1], unit[1:, 3:5] @ unit[0, 3:5], atol=rounding(9, torch.float64))


def test_what_misled_is_the_branch_with_the_largest_lead_over_the_right_image():
    assert parts.misleading(np.array([0.5, 0.2, 0.1]), np.array([0.6, 0.0, 0.05])) == 1


def test_the_nearest_match_stands_behind_a_list_without_one_and_junk_is_none():
    searched = searched_of([1, 1, 2, 3, 1, 1], [0, 0, 1, 1, 1, 1])  # gallery 0 is junk, 3 and 4 are right
    (found,) = rank_lists(searched.distances, [0], 2, searched.protocol)
    assert parts.nearest_match(searched, 0) == 3
    listed = parts.listed_for(searched, 0, found)
    assert listed.gallery.tolist() == [0, 1, 2, 3] and listed.status == ["junk", "wrong", "wrong", "right"]
    assert listed.labels == ["", "1", "2", "nearest"] and listed.right == 3


def test_a_list_with_a_match_stays_and_a_query_without_any_has_none():
    searched = searched_of([1, 2, 1, 1], [0, 1, 1, 1])
    (found,) = rank_lists(searched.distances, [0], 3, searched.protocol)
    listed = parts.listed_for(searched, 0, found)
    assert (listed.gallery.tolist(), listed.right) == ([0, 1, 2], 1)
    alone = searched_of([1, 2, 1], [0, 1, 0])
    assert parts.nearest_match(alone, 0) is None
    (found,) = rank_lists(alone.distances, [0], 2, alone.protocol)
    assert parts.listed_for(alone, 0, found).right is None


def test_an_image_is_cut_into_equal_stripes_and_the_stronger_is_tinted_more():
    image = parts.striped(Image.new("RGB", (32, 64), (0, 0, 0)), ["a", "b"], [-1.0, 1.0])
    assert image.size == (192, parts.HEIGHT)
    pixels = np.asarray(image).astype(int)
    half = parts.HEIGHT // 2
    assert (pixels[half, :] == 255).all()  # the edge
    weak, strong = pixels[half - 5, 150], pixels[half + 5, 150]
    assert weak.sum() == 0 and strong.sum() > 200  # black on black, and the brightest colour


def test_shares_are_shown_in_percent_where_there_is_a_whole():
    assert (parts.shown(0.125, 0.5), parts.shown(-0.1, -0.3)) == ("0.125 25 %", "-0.100")


@pytest.fixture(scope="module")
def run(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of a model with a global and four local branches."""
    folder = tmp_path_factory.mktemp("run")
    return make_run(folder, TINY_YAML.format(root=tiny_root, output=folder))


def test_a_model_without_stripes_is_refused(run, tmp_path, capsys):
    assert visualize("parts", "--run", run, "--out", tmp_path) == 2
    assert "has no stripes: its branches are global, local_1" in one_error(capsys)


def test_pictures_of_queries_and_an_overview_are_left(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(parts, "PART", "local")  # as if they saw stripes
    assert visualize("parts", "--run", run, "--out", tmp_path / "p", "--num-queries", 2, "--topk", 3) == 0
    names = sorted(path.name for path in (tmp_path / "p").iterdir())
    assert len(names) == 3 and names[-1] == "overview.png" and names[0].startswith("001_ap")
    assert capsys.readouterr().out == f"2 pictures of 4 stripes and overview.png in {tmp_path / 'p'}\n"
