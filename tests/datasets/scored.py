"""A data set tested on drawn features in place of a model's, and the same features for a slow reference."""

from collections.abc import Callable

import numpy as np
import torch

from configs import get_cfg_defaults
from datasets.bases import ReIDDataset
from datasets.loaders import make_test_set
from datasets.read import Tested
from datasets.test_set import TestSet
from processor.evaluation.embed import Embedded
from processor.evaluation.evaluate import RankOptions, evaluate
from utils.test_folder import TestResult

Distance = Callable[[str, str], float]  # of two paths


def drawn_features(test: TestSet, seed: int) -> torch.Tensor:
    """Return features float32 [N, 8] of the rows: each identity has a direction of its own, in much noise."""
    rng = np.random.default_rng(seed)
    place = {pid: rng.standard_normal(8) for pid in np.unique(test.labels.pids).tolist()}
    rows = [0.6 * place[pid] + rng.standard_normal(8) for pid in test.labels.pids.tolist()]
    return torch.tensor(np.array(rows), dtype=torch.float32)


def result_of(data: ReIDDataset, seed: int) -> tuple[TestResult, Distance]:
    """Return the result of testing on drawn features, and the distance of two images by them, in float64."""
    test = make_test_set(get_cfg_defaults(), data.name, "Title", Tested(data, None), 1)
    feat = drawn_features(test, seed)
    result = evaluate(test, Embedded(feat, np.zeros(len(feat)), "float32"), RankOptions(10))
    known = dict(zip(test.labels.names, feat.double(), strict=True))
    return result, lambda one, other: float(((known[one] - known[other]) ** 2).sum())
