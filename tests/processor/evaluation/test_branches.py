"""Weights of branches in a similarity, and what each branch finds alone: against sums and loops by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from configs import get_cfg_defaults
from datasets.test_set import TestSet, Trial
from processor.evaluation.branches import log_branches, score_branches
from processor.evaluation.embed import Embedded, Embedding, embed_batch, make_embedding, weigh_parts
from processor.evaluation.evaluate import RankOptions
from tests.processor.evaluation.sets import make_labels, make_test_set
from tests.reference import retrieval
from tests.reference.spectral import average_precision
from tests.tolerance import bounds
from utils.errors import ConfigError, DataError
from utils.ranking.branches import BranchScore, read_branches, write_branches

BRANCHES = {"global": 3, "part1": 2, "part2": 4}
WEIGHTS = (0.5, 0.0, 2.0)
ROWS, QUERIES = 40, 12


class Fixed(nn.Module):
    """A model whose embeddings are its images."""

    branches = BRANCHES

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def embed_batch(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return batch["images"]


@pytest.fixture
def feat() -> torch.Tensor:
    return torch.randn(ROWS, 9, generator=torch.Generator().manual_seed(4))


@pytest.fixture
def test_set() -> TestSet:
    rng = np.random.default_rng(5)
    labels = make_labels(rng.integers(0, 5, ROWS), rng.integers(0, 3, ROWS))
    return make_test_set(labels, (Trial("", 0, np.arange(QUERIES), np.arange(QUERIES, ROWS)),))


def slow_figures(test: TestSet, feat: torch.Tensor, rule: str = "standard") -> tuple[float, float]:
    """Return mAP and Rank-1 of normalised features, one query at a time."""
    unit = feat.double().numpy() / np.linalg.norm(feat.double().numpy(), axis=1, keepdims=True)
    distances = retrieval.squared_euclidean(unit[:QUERIES], unit[QUERIES:])
    pids, camids = test.labels.pids, test.labels.camids
    lists = [
        retrieval.ranked_matches(row, pids[query], camids[query], pids[QUERIES:], camids[QUERIES:])
        for query, row in enumerate(distances)
    ]
    known = [matches for matches in lists if any(matches)]
    return np.mean([average_precision(one, rule) for one in known]), np.mean([one[0] for one in known])


def embedding(unit: bool, weights: tuple[float, ...]) -> Embedding:
    cfg = get_cfg_defaults()
    cfg.TEST.FEAT_NORM, cfg.TEST.PART_WEIGHTS = "yes" if unit else "no", weights
    return make_embedding(cfg, torch.device("cpu"))


@pytest.mark.parametrize("unit", [False, True])
def test_the_similarity_of_weighted_embeddings_is_the_weighted_sum_of_the_cosines_of_their_branches(feat, unit):
    weighted = embed_batch(Fixed().eval(), {"camids": None, "images": feat[..., None, None]}, embedding(unit, ()))
    assert weighted.shape == feat[..., None, None].shape  # without weights nothing is split
    weighted = weigh_parts(feat, BRANCHES, WEIGHTS)
    weighted = F.normalize(weighted, dim=1) if unit else weighted
    parts = zip(feat.double().split([3, 2, 4], dim=1), WEIGHTS, strict=True)
    expected = sum(weight * F.normalize(part, dim=1) @ F.normalize(part, dim=1).T for part, weight in parts)
    torch.testing.assert_close((weighted @ weighted.T).double(), expected / (2.5 if unit else 1), **bounds(9))


def test_an_embedding_reads_its_weights_from_the_configuration(feat):
    how = embedding(True, WEIGHTS)._replace(flip=False)
    got = embed_batch(Fixed().eval(), {"images": feat}, how)
    torch.testing.assert_close(got, F.normalize(weigh_parts(feat, BRANCHES, WEIGHTS), dim=1))
    assert got[:, 3:5].abs().max() == 0 and torch.equal(
        embed_batch(Fixed().eval(), {"images": feat}, embedding(False, ())._replace(flip=False)), feat
    )


def test_another_number_of_weights_is_refused(feat):
    with pytest.raises(ConfigError, match=r"PART_WEIGHTS \[1, 1\] has 2 weights, .* 3 branches: global, part1, part2"):
        weigh_parts(feat, BRANCHES, (1, 1))


@pytest.mark.parametrize("rule", ["standard", "trapezoid"])
def test_each_branch_alone_and_the_embedding_without_it_equal_the_slow_loop(feat, test_set, rule):
    embedded = Embedded(F.normalize(feat, dim=1), np.zeros(ROWS), "float32")
    scores = score_branches(test_set, embedded, RankOptions(10, ap=rule), BRANCHES)
    columns = {"global": range(3), "part1": range(3, 5), "part2": range(5, 9)}
    assert [(one.branch, one.width) for one in scores] == list(BRANCHES.items())
    for one in scores:
        alone = list(columns[one.branch])
        without = [column for column in range(9) if column not in alone]
        assert one[2:4] == pytest.approx(slow_figures(test_set, feat[:, alone], rule), abs=1e-9)
        assert one[4:] == pytest.approx(slow_figures(test_set, feat[:, without], rule), abs=1e-9)


def test_a_branch_of_weight_0_has_no_figures_of_its_own(feat, test_set):
    embedded = Embedded(F.normalize(weigh_parts(feat, BRANCHES, WEIGHTS), dim=1), np.zeros(ROWS), "float32")
    scores = {one.branch: one for one in score_branches(test_set, embedded, RankOptions(10), BRANCHES, WEIGHTS)}
    assert all(map(math.isnan, scores["part1"][2:4]))
    assert scores["part1"].mAP_without == pytest.approx(slow_figures(test_set, embedded.feat)[0], abs=1e-9)
    assert scores["global"].mAP_without == scores["part2"].mAP_alone


def test_without_the_only_branch_there_is_nothing(feat, test_set):
    embedded = Embedded(feat, np.zeros(ROWS), "float32")
    (one,) = score_branches(test_set, embedded, RankOptions(10), {"global": 9})
    assert one.mAP_alone == pytest.approx(slow_figures(test_set, feat)[0], abs=1e-9) and math.isnan(one.mAP_without)


def test_the_table_comes_back_and_the_log_is_marked(tmp_path, caplog):
    scores = [BranchScore("global", 3, 0.5, 0.25, 0.125, 1.0), BranchScore("part1", 2, *[math.nan] * 4)]
    write_branches(tmp_path / "branches.csv", scores)
    lines = (tmp_path / "branches.csv").read_text().splitlines()
    assert lines[0] == "branch,width,mAP_alone,R1_alone,mAP_without,R1_without" and lines[2] == "part1,2,,,,"
    np.testing.assert_equal(read_branches(tmp_path / "branches.csv"), scores)
    with caplog.at_level("INFO"):
        log_branches(scores, "trapezoid")
    assert caplog.messages == [
        "branch global: alone mAP (trapezoid AP) 50.0 %, Rank-1 25.0 %; "
        "without it mAP (trapezoid AP) 12.5 %, Rank-1 100.0 %",
        "branch part1: alone no figures; without it no figures",
    ]


@pytest.mark.parametrize("text", ["", "branch,width\n", "HEAD\nglobal,3,0.5\n", "HEAD\nglobal,x,1,1,1,1\n"])
def test_what_is_no_table_of_branches_is_named(tmp_path, text):
    path = tmp_path / "branches.csv"
    path.write_text(text.replace("HEAD", ",".join(BranchScore._fields)))
    with pytest.raises(DataError, match=r"branches\.csv'.* is no (table|row) of branches"):
        read_branches(path)
