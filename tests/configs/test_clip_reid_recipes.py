"""CLIP-ReID's own YAMLs load as they are, our copies say the same, and each epoch has the published learning rate."""

import math
from pathlib import Path

import pytest
import torch
import yaml

from configs import find_notices, load_cfg
from configs.compare import changes_from_defaults, find_differences
from configs.load import restore_cfg
from configs.phases import PhasePlan
from configs.stages import draws_pxk
from solver.scheduler import create_scheduler
from tests.configs.clip_reid_yamls import ORIGINALS, Original, text_of
from tests.configs.recipes import RECIPE_FILES, ROOT, flat, header, load, name_of

OURS = [path for path in RECIPE_FILES if path.parent.name == "CLIP-ReID"]
MORE = {"person_vit_clipreid_sie_olp", "veri_vit_prom_sie_olp", "veri_vit_prom_model_b"}
IDS = [row.name for row in ORIGINALS]
ELSEWHERE = ("DATASETS.NAMES", "DATASETS.ROOT_DIR", "OUTPUT_DIR", "MODEL.SIE_COE", "TEST.EVAL")
IDLE = {"SOLVER.STAGE1.WEIGHT_DECAY_BIAS"}  # which nothing reads


@pytest.fixture
def original(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Original, Path]:
    path = tmp_path / "file.yml"
    path.write_text(text_of(request.param))
    return request.param, path


def test_there_is_a_copy_of_each_original_and_nothing_unknown():
    assert {path.stem for path in OURS} == set(IDS) | MORE


@pytest.mark.parametrize("original", ORIGINALS, ids=IDS, indirect=True)
def test_an_original_loads_as_it_is_and_our_copy_says_the_same(original):
    row, path = original
    theirs, ours = flat(load_cfg(path)), flat(load(f"CLIP-ReID/{row.name}"))
    differing = {key for key in ours if ours[key] != theirs[key]}
    assert differing - set(ELSEWHERE) - IDLE == set()
    assert (theirs["MODEL.SIE_COE"], ours["MODEL.SIE_COE"]) == (3.0, 1.0)
    assert ours["DATASETS.NAMES"] == ({"person": "market1501"}.get(row.folder, row.folder),)


@pytest.mark.parametrize("original", ORIGINALS, ids=IDS, indirect=True)
def test_the_numbers_of_an_original_are_those_that_it_writes(original):
    row, path = original
    cfg = load_cfg(path)
    assert tuple(cfg.SOLVER.STAGES) == (("stage1", "stage2") if row.prompts else ("main",))
    assert (cfg.SOLVER.SCHEDULER, cfg.LOSS.BRANCHES.REDUCE) == ("multistep", "sum")
    solver = cfg.SOLVER.STAGE2 if row.prompts else cfg.SOLVER
    assert (float(row.rate), 1e-4 if row.is_vit else 5e-4) == (solver.BASE_LR, solver.WEIGHT_DECAY)
    assert float(row.id_weight) == cfg.MODEL.ID_LOSS_WEIGHT
    if row.prompts:
        first = cfg.SOLVER.STAGE1
        assert (first.LR_MIN, first.WEIGHT_DECAY, first.WARMUP_LR_INIT) == (1e-6, 1e-4, 1e-5)
        assert row.prompts == (first.MAX_EPOCHS, first.IMS_PER_BATCH)


@pytest.mark.parametrize("original", ORIGINALS[:4], ids=IDS[:4], indirect=True)
def test_an_empty_section_of_data_sets_is_a_notice(original):
    _, path = original
    assert "data set: market1501 by default; set DATASETS.NAMES" in find_notices(load_cfg(path))
    named = load_cfg(path, ["DATASETS.NAMES", "('dukemtmc')", "DATASETS.ROOT_DIR", "('somewhere')"])
    assert (named.DATASETS.NAMES, named.DATASETS.ROOT_DIR) == (("dukemtmc",), "somewhere")
    assert not [notice for notice in find_notices(named) if notice.startswith("data set:")]


def test_data_sets_that_a_user_uncommented_are_read(tmp_path):
    text = text_of(ORIGINALS[3]).replace("#   NAMES: ('market1501')", "   NAMES: ('msmt17')")
    (tmp_path / "file.yml").write_text(
        text.replace("#   ROOT_DIR", "   ROOT_DIR").replace("# OUTPUT_DIR", "OUTPUT_DIR")
    )
    cfg = load_cfg(tmp_path / "file.yml")
    assert (cfg.DATASETS.NAMES, cfg.DATASETS.ROOT_DIR) == (("msmt17",), "your_dataset_dir")
    assert cfg.OUTPUT_DIR == "your_output_dir"


def prompt_rate(epoch: int, epochs: int) -> float:
    """The rate of stage 1: linear to 3.5e-4 in 5 epochs, then half a cosine, counted from epoch 0, to 1e-6."""
    if epoch < 5:
        return 1e-5 + epoch * (3.5e-4 - 1e-5) / 5
    return 1e-6 + (3.5e-4 - 1e-6) * (1 + math.cos(math.pi * epoch / epochs)) / 2 if epoch < epochs else 1e-6


def image_rate(epoch: int, row: Original) -> float:
    """The rate of stage 2 and of the baseline: 10 epochs of warm-up, a tenth from each of two epochs on."""
    steps, factor = ((30, 50), 0.1) if row.is_vit else ((40, 70), 0.01)
    warm = factor * (1 - epoch / 10) + epoch / 10 if epoch < 10 else 1.0
    return float(row.rate) * warm * 0.1 ** sum(step <= epoch for step in steps)


VARIANTS = {"person_vit_clipreid": "_sie_olp", "veri_vit_prom": "_sie_olp"}
SCHEDULED = [(row.name, row) for row in ORIGINALS]
SCHEDULED += [(f"{row.name}{VARIANTS[row.name]}", row) for row in ORIGINALS if row.name in VARIANTS]
SCHEDULED += [("veri_vit_prom_model_b", row) for row in ORIGINALS if row.name == "veri_vit_prom"]


@pytest.mark.parametrize(("name", "row"), SCHEDULED, ids=[name for name, _ in SCHEDULED])
def test_each_epoch_of_each_stage_has_the_published_learning_rate(name, row):
    cfg = load(f"CLIP-ReID/{name}")
    rates = {stage: rates_of(cfg, stage) for stage in cfg.SOLVER.STAGES}
    epochs = 60 if row.is_vit else 120
    images = pytest.approx([image_rate(epoch, row) for epoch in range(1, epochs + 1)], rel=1e-12)
    if row.prompts is None:
        assert rates == {"main": images}
        return
    prompts = [prompt_rate(epoch, row.prompts[0]) for epoch in range(1, row.prompts[0] + 1)]
    assert rates == {"stage1": pytest.approx(prompts, rel=1e-12), "stage2": images}


def test_the_learning_rates_of_vit_on_persons_are_those_of_the_paper():
    rates = {stage: rates_of(load("CLIP-ReID/person_vit_clipreid"), stage) for stage in ("stage1", "stage2")}
    assert (rates["stage1"][0], rates["stage1"][-1]) == (pytest.approx(7.8e-5), 1e-6)
    at = {1: 9.5e-7, 10: 5e-6, 29: 5e-6, 30: 5e-7, 49: 5e-7, 50: 5e-8, 60: 5e-8}
    assert {epoch: rates["stage2"][epoch - 1] for epoch in at} == pytest.approx(at)


def rates_of(cfg: object, stage: str) -> list[float]:
    """Return the rate that the stage's schedule sets at each of its epochs."""
    section = cfg.SOLVER if stage == "main" else cfg.SOLVER[stage.upper()]
    group = {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": section.BASE_LR}
    optimizer = torch.optim.SGD([group | {"initial_lr": section.BASE_LR, "lr_scale": 1.0}])
    scheduler = create_scheduler(cfg, optimizer, stage)
    rates = []
    for epoch in range(1, section.MAX_EPOCHS + 1):
        scheduler.step(epoch)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


@pytest.mark.parametrize("path", OURS, ids=[path.stem for path in OURS])
def test_a_run_finds_in_its_folder_what_it_resolved(path):
    cfg = load(name_of(path))
    restored = restore_cfg(cfg.dump(), path.stem)
    assert flat(restored) == flat(cfg)
    assert find_differences(yaml.safe_load(cfg.dump()), cfg) == []
    assert not [line for line in changes_from_defaults(cfg) if "SCHEDULER" in line or "REDUCE" in line]


@pytest.mark.parametrize("path", OURS, ids=[path.stem for path in OURS])
def test_a_recipe_says_where_its_figure_is_from_and_that_nothing_was_measured(path):
    text = " ".join(header(path).replace("#", " ").split())
    assert "Expected: " in text and "Hardware: not measured." in text
    assert "not reproduced here" in text or "no figure known to us; not run here" in text


def test_overlapping_patches_and_side_information_are_all_that_the_variants_add():
    for name, views in (("person_vit_clipreid", False), ("veri_vit_prom", True)):
        plain, variant = (flat(load(f"CLIP-ReID/{name}{end}")) for end in ("", "_sie_olp"))
        added = {key: variant[key] for key in plain if plain[key] != variant[key] and key != "OUTPUT_DIR"}
        side = {"MODEL.SIE_CAMERA": True} | ({"MODEL.SIE_VIEW": True} if views else {})
        assert added == {"MODEL.STRIDE_SIZE": [12, 12]} | side


def test_parts_of_model_b_act_in_the_second_stage_alone():
    cfg = load("CLIP-ReID/veri_vit_prom_model_b")
    first, second = (PhasePlan(cfg, stage).at(60) for stage in ("stage1", "stage2"))
    assert first.weights == {"i2t": 1.0, "t2i": 1.0} and not first.routed
    assert second.weights == {"id": 0.25, "triplet": 1.0, "tripletx": 1.2, "supcon": 0.3, "i2t": 1.0}
    assert second.routed and second.num_instance == 8
    assert (draws_pxk(cfg, "stage1"), draws_pxk(cfg, "stage2")) == (False, True)
    assert ROOT / "configs/CLIP-ReID/veri_vit_prom_model_b.yml" in OURS
