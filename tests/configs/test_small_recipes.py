"""The recipes that run on two CPU cores: the ablations on synthetic VeRi, and those for any small set."""

import pytest

from configs import find_notices
from configs.phases import PhasePlan
from tests.configs.recipes import RECIPE_FILES, ROOT, load, name_of, read_plan, resolve_recipe
from tools.launch.arguments import parse_args
from tools.launch.plan import plan_launch

SUPCON = {"LOSS.SUPCON.ENABLE": True, "LOSS.SUPCON.FEAT_SRC": "pre_bn"}
CONDITIONAL = {"DATALOADER.PHASED.ENABLE": True}
TRIPLETX = {"LOSS.TRIPLETX.ENABLE": True}
ROUTED = SUPCON | CONDITIONAL | TRIPLETX | {"LOSS.TRIPLETX.W": 1.2, "LOSS.BRIGHTNESS.ENABLE": True}
TWO_VIEWS = SUPCON | {
    "MODEL.TRAINING_MODE": "self_supervised",
    "DATALOADER.SAMPLER": "random",
    "SOLVER.IMS_PER_BATCH": 96,
    "LOSS.SUPCON.CAM_AWARE": False,
}
TINY_CLIP = {
    "MODEL.USE_CLIP": True,
    "MODEL.CLIP_BACKBONE": "configs/Synthetic/tiny_clip.json",
    "MODEL.CLIP_PRETRAIN": "",
    "MODEL.CLIP_INPUT_SIZE": (48, 48),
}


def from_trunk(path: str) -> dict:
    return {"MODEL.PRETRAIN_CHOICE": "self", "MODEL.PRETRAIN_PATH": path}


PHASED = {
    "LOSS.PHASED.ENABLE": True,
    "LOSS.PHASED.BOUNDARIES": [10, 20],
    "LOSS.PHASED.METRIC_SEQ": ["triplet", "tripletx", "triplet"],
    "LOSS.PHASED.W_SUP_SPEC": ["const:0.0", "const:0.30", "const:0.30"],
    "LOSS.PHASED.TRIPLETX_END": 20,
}
# recipe, the recipe that it adds to, what it adds, its plan
ROWS = [
    ("Synthetic/supcon", "Synthetic/baseline", SUPCON, "1-30 C1 T1 S.3 K4"),
    ("Synthetic/conditional_pk", "Synthetic/baseline", SUPCON | CONDITIONAL, "1-30 C1 T1 S.3 K8"),
    (
        *("Synthetic/tripletx", "Synthetic/baseline"),
        *(TRIPLETX | CONDITIONAL | {"LOSS.TRIPLETX.WARMUP_EPOCHS": 3}, "1-30 C1 X1 K8"),
    ),
    (
        *("Synthetic/phased", "Synthetic/baseline", SUPCON | CONDITIONAL | TRIPLETX | PHASED),
        "1-9 C1 T1 K4 | 10-19 C1 X1 S.3 K8 | 20-30 C1 T1 S.3 K8",
    ),
    (
        *("Synthetic/routed", "Synthetic/baseline"),
        *(ROUTED | {"LOSS.TRIPLETX.WARMUP_EPOCHS": 3}, "1-30 C1 T1 X1.2 S.3 K8"),
    ),
    ("Synthetic/ssl_pretrain", "Synthetic/baseline", TWO_VIEWS, "1-30 S.3 K4"),
    (
        *("Synthetic/ssl_finetune", "Synthetic/baseline"),
        *(from_trunk("logs/synthetic_ssl_pretrain_seed0_run/transformer_30.pth"), "1-30 C1 T1 K4"),
    ),
    ("Synthetic/clip", "Synthetic/baseline", TINY_CLIP, "1-30 C1 T1 K4"),
    ("VeRi/tiny_scratch_supcon", "VeRi/tiny_scratch", SUPCON, "1-55 C1 T1 S.3 K4"),
    (
        *("VeRi/tiny_scratch_routed", "VeRi/tiny_scratch"),
        *(ROUTED | {"LOSS.TRIPLETX.WARMUP_EPOCHS": 5}, "1-55 C1 T1 X1.2 S.3 K8"),
    ),
    ("VeRi/tiny_ssl_pretrain", "VeRi/tiny_scratch", TWO_VIEWS, "1-55 S.3 K4"),
    (
        *("VeRi/tiny_ssl_finetune", "VeRi/tiny_scratch"),
        *(from_trunk("logs/veri776_tiny_ssl_pretrain_seed0_run/transformer_55.pth"), "1-55 C1 T1 K4"),
    ),
]
NAMES = [row[0] for row in ROWS]


def test_every_small_recipe_is_in_the_table_but_for_the_baselines():
    on_disk = {name_of(path) for path in RECIPE_FILES}
    small = {name for name in on_disk if name.startswith(("Synthetic/", "VeRi/tiny_"))}
    systems = (
        "Synthetic/clip_reid",
        "Synthetic/irra",
        "Synthetic/multimodal",
        "Synthetic/pcb",
        "VeRi/tiny_cnn",
    )  # of their own
    small = {name for name in small if not name.startswith(systems)}
    assert small == {*NAMES, "Synthetic/baseline", "VeRi/tiny_scratch"}


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_recipe_adds_to_its_baseline_exactly_what_the_table_says(row):
    name, base, added, _ = row
    folder = {"OUTPUT_DIR": "logs/" + name.lower().replace("/", "_")}
    assert resolve_recipe(name) == resolve_recipe(base) | added | folder


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_losses_weights_and_k_of_every_epoch_are_the_rows(row):
    name, _, added, text = row
    cfg, expected = load(name), read_plan(text)
    plan = PhasePlan(cfg)
    assert len(expected) == plan.max_epochs
    for epoch, (weights, k) in expected.items():
        phase = plan.at(epoch)
        assert (phase.weights, phase.num_instance) == (pytest.approx(weights), k), f"epoch {epoch}"
        assert phase.routed == ("LOSS.BRIGHTNESS.ENABLE" in added)
    late = ["SOFT_WARMUP never applies"] if name == "Synthetic/phased" else []
    assert [words in notice for words, notice in zip(late, find_notices(cfg), strict=True)] == [True] * len(late)


def test_the_synthetic_phases_are_those_of_w4_at_a_quarter_of_the_epochs():
    small = load("Synthetic/phased")
    published = load("VeRi/deit_transreid_stride_A_ce_triplet_B_ce_tripletx_supcon_C_ce_triplet_supcon")
    assert [4 * epoch for epoch in small.LOSS.PHASED.BOUNDARIES] == published.LOSS.PHASED.BOUNDARIES
    assert 4 * small.SOLVER.MAX_EPOCHS == published.SOLVER.MAX_EPOCHS
    short, long = PhasePlan(small), PhasePlan(published)
    for epoch in range(1, 31):
        assert short.at(epoch)._replace(epoch=0) == long.at(4 * epoch)._replace(epoch=0)


@pytest.mark.parametrize(
    ("pretrain", "finetune"),
    [
        ("Synthetic/ssl_pretrain", "Synthetic/ssl_finetune"),
        ("VeRi/tiny_ssl_pretrain", "VeRi/tiny_ssl_finetune"),
        ("VeRi/deit_transreid_stride_b3_ssl_pretrain", "VeRi/deit_transreid_stride_b4_ssl_finetune"),
    ],
)
def test_fine_tuning_loads_what_the_launcher_writes_for_seed_0_of_the_pretraining(
    pretrain, finetune, tmp_path, monkeypatch
):
    for name in ("RUN_TAG_TS", "DATASETS_ROOT"):
        monkeypatch.delenv(name, raising=False)
    args = parse_args(
        ["--config", str(ROOT / f"configs/{pretrain}.yml"), "--seeds", "0", "--output-root", str(tmp_path)]
    )
    (experiment,) = plan_launch(args)
    weights = experiment.run_folder(0).checkpoint(experiment.last_epoch).relative_to(tmp_path)
    loaded = load(finetune).MODEL.PRETRAIN_PATH
    assert loaded == f"logs/{weights.as_posix()}"
