"""From features to distances and metrics: expansion, re-ranking, and the evaluator that collects batches."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from tests.reference.expansion import expand
from tests.reference.reranking import re_rank
from tests.reference.retrieval import evaluate, random_case, squared_euclidean
from tests.tolerance import bounds, rounding
from utils.errors import ConfigError, DataError
from utils.metrics import R1_mAP_eval
from utils.ranking.rank import make_distances


@pytest.mark.parametrize("expansion", [None, (4, 3.0, 2)])
@pytest.mark.parametrize("rerank", [None, (6, 3, 0.3)])
def test_distances_of_features_expand_first_and_re_rank_then(expansion, rerank):
    rng = np.random.default_rng(17)
    feat = rng.standard_normal((52, 8)).astype(np.float32)
    query, gallery = feat[:12].astype(np.float64), feat[12:].astype(np.float64)
    if expansion:
        query = expand(query, gallery, *expansion)
        gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    expected = re_rank(query, gallery, *rerank) if rerank else squared_euclidean(query, gallery)
    result = make_distances(torch.from_numpy(feat[:12]), feat[12:], expansion, rerank)
    assert result.shape == (12, 40)
    np.testing.assert_allclose(result.rows(0, 12), expected, **bounds(8, 8))


def filled_evaluator(feat: np.ndarray, labels: Sequence[np.ndarray], **options: object) -> R1_mAP_eval:
    q_pids, g_pids, q_camids, g_camids = labels
    pids, camids = np.concatenate((q_pids, g_pids)), np.concatenate((q_camids, g_camids))
    evaluator = R1_mAP_eval(len(q_pids), **options)
    for start in range(0, len(feat), 9):
        batch = slice(start, start + 9)
        evaluator.update((torch.from_numpy(feat[batch]), torch.from_numpy(pids[batch]), tuple(camids[batch].tolist())))
    return evaluator


@pytest.mark.parametrize(("feat_norm", "normed"), [(True, True), ("yes", True), (False, False), ("no", False)])
def test_evaluator_normalises_only_when_asked(feat_norm, normed):
    _, labels = random_case(12)
    feat = np.random.default_rng(12).standard_normal((52, 8)) + 0.5
    cmc, mean_ap, distmat, pids, camids, qf, gf = filled_evaluator(feat, labels, feat_norm=feat_norm).compute()
    shown = feat / np.linalg.norm(feat, axis=1, keepdims=True) if normed else feat
    np.testing.assert_allclose(torch.cat((qf, gf)).numpy(), shown, atol=rounding(8))
    expected = evaluate(squared_euclidean(shown[:12], shown[12:]), *labels, 50)
    assert mean_ap == pytest.approx(expected["mAP"], abs=1e-12)
    np.testing.assert_allclose(cmc, expected["cmc"], atol=1e-7)
    assert distmat is None and len(qf) == 12 and len(gf) == 40
    assert pids == np.concatenate(labels[:2]).tolist() and camids == np.concatenate(labels[2:]).tolist()


def test_evaluator_ranks_by_the_re_ranked_distances_when_asked():
    _, labels = random_case(13)
    feat = np.random.default_rng(13).standard_normal((52, 8))
    options = {"feat_norm": False, "reranking": True, "k1": 6, "k2": 3, "lambda_value": 0.4}
    _, mean_ap, distmat, *_ = filled_evaluator(feat, labels, **options).compute()
    np.testing.assert_allclose(distmat, re_rank(feat[:12], feat[12:], 6, 3, 0.4), atol=rounding(8))
    assert mean_ap == pytest.approx(evaluate(distmat, *labels, 50)["mAP"], abs=1e-12)


def test_evaluator_starts_anew_after_reset():
    _, labels = random_case(14)
    feat = np.random.default_rng(14).standard_normal((52, 8))
    evaluator = filled_evaluator(feat[::-1].copy(), labels)
    evaluator.reset()
    with pytest.raises(DataError, match="no image was added"):
        evaluator.compute()
    evaluator.update((torch.from_numpy(feat), np.concatenate(labels[:2]), np.concatenate(labels[2:])))
    assert evaluator.compute()[1] == filled_evaluator(feat, labels).compute()[1]


def test_evaluator_refuses_an_unknown_feat_norm():
    with pytest.raises(ConfigError, match="feat_norm 'on' is unknown"):
        R1_mAP_eval(3, feat_norm="on")
