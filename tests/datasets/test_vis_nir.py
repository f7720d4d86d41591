"""The visible-infrared sets from a recipe to batches and test sets, and what the data set doctor says of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from yacs.config import CfgNode

from configs import load_cfg
from datasets.archives.llcm import load_llcm
from datasets.archives.regdb import load_regdb
from datasets.archives.sysu_mm01 import load_sysu_mm01, same_place
from datasets.make_dataloader import make_dataloader
from datasets.multimodal import SearchTest
from datasets.multimodal_checks import search_findings
from datasets.test_set import same_camera
from tests.configs.recipes import ROOT
from tests.datasets import vis_nir_trees as trees
from tools.check import do_check
from utils.errors import DataError

SETS = {"SYSU-MM01": trees.write_sysu, "RegDB": trees.write_regdb, "LLCM": trees.write_llcm}
LOAD = {"SYSU-MM01": load_sysu_mm01, "RegDB": load_regdb, "LLCM": load_llcm}
SCORES = {"SYSU-MM01": "all single-shot", "RegDB": "visible to thermal", "LLCM": "nir to vis"}
RULES = {"SYSU-MM01": (same_place, True), "RegDB": (None, False), "LLCM": (same_camera, True)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three sets with real images, of another colour each; read only."""
    folder = tmp_path_factory.mktemp("vis_nir")
    for name, write in SETS.items():
        write(folder / name)
    for number, path in enumerate(sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".bmp"))):
        Image.new("RGB", (6, 12), (number % 256, number // 2 % 256, 255 - number % 256)).save(path)
    return folder


def cfg_of(name: str, root: Path) -> CfgNode:
    more = ["DATASETS.ROOT_DIR", str(root), "DATALOADER.NUM_WORKERS", "0", "SOLVER.IMS_PER_BATCH", "8"]
    return load_cfg(ROOT / "configs" / name / "vis_nir.yml", more)


@pytest.mark.parametrize("name", SETS)
def test_a_recipe_trains_on_pairs_of_one_person_and_infrared_images_are_grey(name, root):
    data = make_dataloader(cfg_of(name, root), 4)
    batch = next(iter(data.train_loader))
    assert set(batch["modalities"]) == {"vis", "nir"} and batch["modalities"]["nir"].dtype == torch.uint8
    nir = batch["modalities"]["nir"]
    assert (nir == nir[:, :1]).all() and not (batch["modalities"]["vis"] == batch["modalities"]["vis"][:, :1]).all()
    assert all(present.all() for present in batch["present"].values())
    counts = np.unique(batch["pids"].numpy(), return_counts=True)[1]
    assert counts.tolist() == [4, 4]
    assert data.num_classes == len({record.pid for record in LOAD[name](root).train})


@pytest.mark.parametrize("name", SETS)
def test_its_test_set_keeps_the_rule_of_junk_the_curve_and_the_score_of_its_protocol(name, root):
    test = make_dataloader(cfg_of(name, root)).test
    search = LOAD[name](root).test
    assert (test.junk, test.distinct) == RULES[name] and test.groups == {SCORES[name]: (SCORES[name],)}
    assert test.title == name and {score for score, weight in test.set_weights().items() if weight} == {SCORES[name]}
    assert test.labels.camids.tolist() == [item.camid for item in search.items]
    assert sum(len(loader.dataset) for loader in test.loaders) == len(search.items) == len(test.labels.names)
    kinds = [kind for loader in test.loaders for batch in loader for kind in batch["modalities"]]
    assert list(dict.fromkeys(kinds)) == ["vis", "nir"]


@pytest.mark.parametrize("name", SETS)
def test_the_doctor_counts_and_says_what_is_not_as_published(name, root):
    findings = do_check(cfg_of(name, root))
    counted = [line for line in findings if "(published)" in line]
    assert len(counted) == 6 and all(line.startswith(f"{name} t") for line in counted)
    assert {line.split("expected ")[1].split(" (")[0] for line in counted if " train: " in line} == {
        "SYSU-MM01": {"395 ids", "22,258 vis", "11,909 nir"},
        "RegDB": {"206 ids", "2,060 vis", "2,060 nir"},
        "LLCM": {"713 ids", "16,946 vis", "13,975 nir"},
    }[name]
    assert not [line for line in findings if line not in counted]


def without_21(search: SearchTest) -> SearchTest:
    """Return the test without any visible image of person 21."""
    hidden = (item.modality == "vis" and item.pid == 21 for item in search.items)
    items = [item._replace(pid=99) if hide else item for item, hide in zip(search.items, hidden, strict=True)]
    return search._replace(items=items)


@pytest.mark.parametrize(("change", "told"), [(lambda search: search, 0), (without_21, 1)])
def test_queries_without_a_match_are_told_of_the_sets_that_make_the_score(root, change: Callable, told):
    search = load_sysu_mm01(root).test
    indoors = [trial for trial in search.trials if trial.set.startswith("indoor")]
    pids = [{search.items[row].pid for row in rows[:, 0]} for rows in (indoors[0].query, indoors[0].gallery)]
    assert not pids[0] <= pids[1]  # as its protocol has it
    assert len(search_findings("SYSU-MM01", change(search))) == told


def test_a_set_without_any_match_is_refused_by_name(root):
    search = load_sysu_mm01(root).test
    nobody = [trial._replace(gallery=trial.gallery[:0]) for trial in search.trials if trial.set.startswith("indoor")]
    with pytest.raises(DataError, match="no query of the set indoor single-shot has an image of its person in the"):
        search_findings("SYSU-MM01", search._replace(trials=(*search.trials, *nobody)))
