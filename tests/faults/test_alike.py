"""Embeddings that are all alike or not finite, as of a model that has collapsed: one line, where t-SNE crashes."""

import numpy as np
import pytest

from tools.visualize.embedding import project
from utils.errors import DataError, RunError

pytestmark = pytest.mark.fault("bad input: constant embeddings")


@pytest.mark.parametrize("method", ["tsne", "pca"])
@pytest.mark.parametrize("spread", [0.0, 1e-30, 1e-22])
@pytest.mark.parametrize("level", [0.0, 0.176])
def test_embeddings_without_spread_are_not_drawn(method, spread, level):
    noise = np.random.default_rng(0).standard_normal((12, 8)) * spread
    with pytest.raises(RunError, match="all 12 embeddings are alike"):
        project((level + noise).astype(np.float32), method, seed=0)


def test_embeddings_of_a_small_spread_are_drawn():
    feat = np.random.default_rng(0).standard_normal((12, 8)).astype(np.float32) * np.float32(1e-12)
    assert np.isfinite(project(feat, "tsne", seed=0)).all()


@pytest.mark.parametrize("method", ["tsne", "pca"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_embeddings_that_are_not_finite_are_not_drawn(method, value):
    feat = np.eye(12, 8, dtype=np.float32)
    feat[3, 2] = value
    with pytest.raises(DataError, match="test feature row 3 .* holds NaN, infinity or values whose square overflows"):
        project(feat, method, seed=0)
