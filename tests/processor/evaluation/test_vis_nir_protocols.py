"""SYSU-MM01, RegDB and LLCM by the code that tests, against their protocols walked through one query at a time."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.archives.llcm import load_llcm
from datasets.archives.regdb import load_regdb
from datasets.archives.sysu_mm01 import load_sysu_mm01
from datasets.multimodal import SearchTest
from datasets.search_tests import labels_of_items
from datasets.test_set import TestSet
from processor.evaluation.embed import Embedded
from processor.evaluation.evaluate import RankOptions, evaluate
from processor.evaluation.modalities import score_modalities
from tests.datasets.vis_nir_trees import LLCM_TEST, SYSU_TEST, write_llcm, write_orders, write_regdb, write_sysu
from tests.reference import slow_vis_nir as slow
from tools.report.modalities import verdicts
from utils.test_folder import METRICS

DRAWS = range(10)


def features(search: SearchTest) -> torch.Tensor:
    """Return features [N, 8]: each person has a direction of its own, in much noise."""
    rng = np.random.default_rng(5)
    place = {pid: rng.standard_normal(8) for pid in sorted({item.pid for item in search.items})}
    rows = [0.6 * place[item.pid] + rng.standard_normal(8) for item in search.items]
    return torch.tensor(np.array(rows), dtype=torch.float32)


def fuse(items: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return the feature of queries of one item each."""
    assert items.shape[1] == 1 and valid.all()
    return items[:, 0]


def prepared(search: SearchTest, feat: torch.Tensor) -> tuple[TestSet, Embedded]:
    """Return what the code that tests is given where the items have these features."""
    labels = labels_of_items(search.items)
    test = TestSet("toy", "Toy", (), labels, search.trials, search.junk, search.distinct, (), "0" * 16, search.groups)
    return test, Embedded(feat, np.zeros(len(feat)), "float32", fuse)


def walk_sysu(folder: Path, official: dict | None) -> dict[str, list[tuple]]:
    infrared, found = slow.walk(folder, (3, 6), SYSU_TEST), {}
    for search, cameras in (("all", (1, 2, 4, 5)), ("indoor", (1, 2))):
        for name, shots in (("single-shot", 1), ("multi-shot", 10)):
            if official is not None:
                own = [slow.official_gallery(folder, cameras, official, draw, shots) for draw in DRAWS]
            elif shots == 1:
                own = [slow.agw_gallery(folder, cameras, SYSU_TEST, draw) for draw in DRAWS]
            else:
                continue
            found[f"{search} {name}"] = [(infrared, gallery, slow.place_of_camera_2, True) for gallery in own]
    return found


def walk_regdb(folder: Path) -> dict[str, list[tuple]]:
    visible, thermal = (slow.read_list(folder, f"test_{kind}_2.txt") for kind in ("visible", "thermal"))
    return {
        "visible to thermal": [(visible, thermal, slow.nobody, False)],
        "thermal to visible": [(thermal, visible, slow.nobody, False)],
    }


def walk_llcm(folder: Path) -> dict[str, list[tuple]]:
    cameras, found = range(1, 10), {}
    for query, gallery in (("nir", "vis"), ("vis", "nir")):
        asked = slow.walk(folder / f"test_{query}", cameras, LLCM_TEST)
        own = [slow.agw_gallery(folder / f"test_{gallery}", cameras, LLCM_TEST, draw) for draw in DRAWS]
        found[f"{query} to {gallery}"] = [(asked, drawn, slow.own_camera, True) for drawn in own]
    return found


@pytest.mark.parametrize("official", [True, False])
def test_sysu_mm01_is_scored_as_its_protocol_says(tmp_path, official):
    folder = write_sysu(tmp_path / "SYSU-MM01")
    orders = write_orders(folder / "exp" / "rand_perm_cam.mat") if official else None
    agree(load_sysu_mm01(tmp_path).test, walk_sysu(folder, orders), "all single-shot")


def test_regdb_is_scored_as_its_protocol_says(tmp_path):
    folder = write_regdb(tmp_path / "RegDB", each=4)
    agree(load_regdb(tmp_path, 2).test, walk_regdb(folder), "visible to thermal")


def test_llcm_is_scored_as_its_protocol_says(tmp_path):
    folder = write_llcm(tmp_path / "LLCM")
    agree(load_llcm(tmp_path).test, walk_llcm(folder), "nir to vis")


def test_directions_are_told_once_each_and_by_no_sentence_on_modalities(tmp_path):
    write_regdb(tmp_path / "RegDB", each=4)
    search, options = load_regdb(tmp_path, 2).test, RankOptions(10)
    test, embedded = prepared(search, features(search))
    scores, gains = score_modalities(test, embedded, options, evaluate(test, embedded, options))
    assert [(one.kind, one.name, one.group) for one in scores] == [
        ("set", "visible to thermal", ""),
        ("set", "thermal to visible", ""),
    ]
    assert gains == [] and verdicts(scores, gains) == []


def agree(search: SearchTest, walked: dict[str, list[tuple]], decides: str) -> None:
    """Check each set's figures, means over its draws, and that one set alone is the score."""
    feat = features(search)
    result = evaluate(*prepared(search, feat), RankOptions(10))
    distance = distances(search, feat)
    for name, trials in walked.items():
        scored = [slow.scores(query, gallery, distance, junk, distinct) for query, gallery, junk, distinct in trials]
        for metric in METRICS:
            expected = float(np.mean([one[metric] for one in scored]))
            assert result.sets[name][metric] == pytest.approx(expected, abs=1e-12), (name, metric)
            if name == decides:
                assert result.metrics[metric] == pytest.approx(expected, abs=1e-12)
        assert result.sets[name]["num_query"] == len(trials[0][0])
        if name == decides:
            assert (result.num_query, result.num_valid_query) == (len(trials[0][0]), scored[0]["num_valid"])
            spread = np.std([one["mAP"] for one in scored], ddof=1) if len(scored) > 1 else None
            assert (result.trial_sd or {"mAP": None})["mAP"] == (None if spread is None else pytest.approx(spread))
    assert set(walked) <= set(result.sets) and list(result.groups) == [decides]


def distances(search: SearchTest, feat: torch.Tensor) -> Callable[[str, str], float]:
    """Return the squared distance between the features of two files, in float64."""
    known = {item.value: row.double() for item, row in zip(search.items, feat, strict=True)}
    return lambda one, other: float(((known[one] - known[other]) ** 2).sum())
