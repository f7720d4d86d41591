"""Two processes train and evaluate as one does: the same losses on the same global batches, weights and metrics."""

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

import model
import processor.train
import train
from solver.update import Updater
from tests.conftest import TINY_YAML, write_tiny_veri
from tests.ranks import free_port, run_on_ranks
from tests.tolerance import bounds, rounding
from utils.checkpoint import load_file
from utils.errors import RunError
from utils.run_folder import read_metrics
from utils.test_folder import METRICS

EPOCHS, LAST = 2, "transformer_2.pth"
TEST_IDS = 7  # 63 test images: the shards of two processes need padding
QUERIES = 3 * TEST_IDS  # one for each camera
TERMS = 8000  # numbers added up one after the other: in 4 to 6 steps up to 2000 each
# nothing random but the sampler: the order within a global batch differs between one and two processes. Plain SGD:
# Adam would blow the rounding noise of vanishing gradients up to whole steps
COMMON = (
    *("INPUT.PROB", 0.0, "INPUT.PADDING", 0, "INPUT.RE_PROB", 0.0, "MODEL.DROP_PATH", 0.0, "SOLVER.MAX_EPOCHS", EPOCHS),
    *("SOLVER.OPTIMIZER_NAME", "SGD", "SOLVER.BASE_LR", 0.01, "SOLVER.LOG_PERIOD", 1),
)
MODEL_B = (
    *("LOSS.SUPCON.ENABLE", True, "LOSS.TRIPLETX.ENABLE", True, "LOSS.BRIGHTNESS.ENABLE", True),
    *("LOSS.PHASED.ENABLE", True, "LOSS.PHASED.BOUNDARIES", [2], "LOSS.PHASED.METRIC_SEQ", ["triplet", "tripletx"]),
    *("DATALOADER.PHASED.ENABLE", True, "DATALOADER.PHASED.K_WHEN_TRIPLETX", 4, "DATALOADER.PHASED.K_WHEN_SUPCON", 2),
)
SETTINGS = {
    "center": (
        *("MODEL.IF_WITH_CENTER", "yes", "TEST.REFERENCE", True, "SOLVER.EVAL_PERIOD", 1),
        *("SOLVER.GRAD_CLIP", 1.0, "SOLVER.ACCUM_STEPS", 2),
    ),
    "routed": MODEL_B,
    "two_views": (
        *("MODEL.TRAINING_MODE", "self_supervised", "DATALOADER.SAMPLER", "random", "LOSS.SUPCON.ENABLE", True),
        *("MODEL.JPM", False, "INPUT.SSL.JITTER_PROB", 0.0, "INPUT.SSL.GREY_PROB", 0.0),
        *("INPUT.SSL.CROP_SCALE", [1.0, 1.0], "INPUT.SSL.CROP_RATIO", [1.0, 1.0]),
    ),
    # means over images are the same over shares: these losses need no gathering
    "shares": (
        *("DATALOADER.SAMPLER", "softmax", "MODEL.IF_WITH_CENTER", "yes"),
        *("SOLVER.GATHER_FEATURES", False, "SOLVER.ACCUM_STEPS", 2),
    ),
}
# their projection head has a ReLU: a rounding opens or closes it for a number at 0, and the gradients jump by percents
KINKED = ("routed", "two_views")
# what each process does by itself shows in the losses, or the tests above could not fail
APART = {
    "own_mining": ("SOLVER.GATHER_FEATURES", False),
    "own_statistics": ("MODEL.SYNC_BN", False),
}
RANDOM = (
    *("INPUT.PADDING", 2, "INPUT.PROB", 0.5, "INPUT.RE_PROB", 0.5, "MODEL.DROP_OUT", 0.1),
    *("SOLVER.ACCUM_STEPS", 2, "SOLVER.MAX_EPOCHS", EPOCHS),
)


def train_runs(commands: list[list[str]], ports: list[int]) -> None:
    for command, port in zip(commands, ports, strict=True):
        os.environ["MASTER_PORT"] = str(port)
        train.main(command)


def train_alone(command: list[str], first: Path) -> None:
    """Train by this process and write the weights that it starts from to `first`."""
    original = model.make_model

    def keeping(*args: object, **options: object) -> nn.Module:
        made = original(*args, **options)
        torch.save(made.state_dict(), first)
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "make_model", keeping)
        train.main(command)


def train_failing(command: list[str]) -> None:
    """Train until rank 1 fails, for which rank 0 waits in a collective."""

    def fail(*_: object) -> None:
        raise RunError("rank 1 alone fails")

    if os.environ["RANK"] == "1":
        processor.train.train_epoch = fail
    train.main(command)


def train_interrupted(command: list[str], port: int) -> None:
    """Train with an interruption in the second epoch."""
    steps, step = 0, Updater.step

    def interrupting_step(updater: Updater) -> None:
        nonlocal steps
        steps += 1
        if steps == 3:  # of two optimizer steps an epoch
            raise KeyboardInterrupt
        step(updater)

    Updater.step = interrupting_step
    with pytest.raises(KeyboardInterrupt):
        train_runs([command], [port])
    dist.destroy_process_group()
    Updater.step = step


def train_all(interrupted: list[str], commands: list[list[str]], ports: list[int]) -> None:
    train_interrupted(interrupted, ports[0])
    train_runs([interrupted, *commands], ports[1:])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The run folders by name: those of SETTINGS trained by one process and by two, the others by two.

    Beside them lie the first weights of SETTINGS, <name>_first.pth.
    """
    work = tmp_path_factory.mktemp("many_ranks")
    config = work / "tiny.yml"
    root = write_tiny_veri(work / "data", test_ids=TEST_IDS)
    config.write_text(TINY_YAML.format(root=root, output=work / "unused"))

    def command(name: str, *opts: object) -> list[str]:
        return ["--config_file", str(config), *map(str, ("OUTPUT_DIR", work / name, *COMMON, *opts))]

    for name, opts in SETTINGS.items():
        train_alone(command(f"{name}_1", *opts), work / f"{name}_first.pth")
    together = [command(f"{name}_2", "MODEL.DIST_TRAIN", True, *opts) for name, opts in SETTINGS.items()]
    alike = ("MODEL.DIST_TRAIN", True, *SETTINGS["center"], "TEST.REFERENCE", False, "SOLVER.EVAL_PERIOD", 0)
    together += [command(name, *alike, *opts) for name, opts in APART.items()]
    interrupted, unbroken = (
        ["--config_file", str(config), *map(str, ("OUTPUT_DIR", work / name, "MODEL.DIST_TRAIN", True, *RANDOM))]
        for name in ("interrupted", "unbroken")
    )
    together.append(unbroken)
    run_on_ranks(train_all, interrupted, together, [free_port() for _ in range(len(together) + 2)])
    return {path.name: path for path in work.iterdir()}


def readings(folder: Path, kind: str, names: list[str] | None = None) -> list[dict[str, float]]:
    """Return the loss terms of each step, or other records by `names`."""
    terms = ("loss", "acc", "id", "triplet", "tripletx", "supcon", "center", "dark")
    return [
        {name: record[name] for name in names or terms if name in record}
        for record in read_metrics(folder / "metrics.jsonl")
        if record["kind"] == kind
    ]


@pytest.mark.parametrize("name", SETTINGS)
def test_each_step_of_two_processes_has_the_losses_of_one(folders, name):
    one, two = (readings(folders[f"{name}_{count}"], "train") for count in (1, 2))
    assert len(one) >= EPOCHS and len(one) == len(two)
    error = 1e-3 if name in KINKED else rounding(TERMS)
    for expected, got in zip(one, two, strict=True):
        assert got == pytest.approx(expected, rel=error, abs=error)


@pytest.mark.parametrize("name", SETTINGS)
def test_two_processes_learn_the_weights_of_one(folders, name):
    one, two = (load_file(folders[f"{name}_{count}"] / LAST, "test") for count in (1, 2))
    first = load_file(folders[f"{name}_first.pth"], "test")
    assert one.keys() == two.keys() == first.keys()
    for key, weight in one.items():
        if name in KINKED and weight.is_floating_point():
            moved = (weight - first[key]).norm()
            assert (two[key] - weight).norm() <= 0.1 * moved + rounding(TERMS) * 1e-3, key
        else:
            torch.testing.assert_close(two[key], weight, **bounds(TERMS), msg=lambda text, key=key: f"{key}: {text}")


def test_two_processes_learn_the_centres_of_one(folders):
    one, two = (load_file(folders[f"center_{count}"] / "state_last.pth", "test")["criterion"] for count in (1, 2))
    torch.testing.assert_close(two["center.centers"], one["center.centers"], **bounds(TERMS))


@pytest.mark.parametrize("kind", ["eval", "reference"])
def test_all_processes_together_measure_what_one_measures(folders, kind):
    one, two = (readings(folders[f"center_{count}"], kind, list(METRICS)) for count in (1, 2))
    assert len(one) == (EPOCHS if kind == "eval" else 2) and len(one) == len(two)
    for expected, got in zip(one, two, strict=True):
        assert got == pytest.approx(expected, abs=1 / QUERIES + 1e-6)  # a near-tie may swap two images of one query


@pytest.mark.parametrize("name", APART)
def test_what_each_process_does_by_itself_shows_in_the_losses(folders, name):
    one, apart = (readings(folders[folder], "train", ["loss"]) for folder in ("center_1", name))
    assert max(abs(a["loss"] - b["loss"]) for a, b in zip(one, apart, strict=True)) > 1e-3


def test_an_interrupted_run_of_two_processes_goes_on_to_the_very_same_weights(folders):
    states = [load_file(folders[name] / "state_last.pth", "test") for name in ("interrupted", "unbroken")]
    assert (folders["interrupted"] / "train_log.txt").read_text().count("continuing after epoch 1 of 2") == 1
    for key, weight in states[0]["model"].items():
        assert torch.equal(weight, states[1]["model"][key]), key
    one, other = (state["rng"] for state in states)
    assert [torch.equal(a["cpu"], b["cpu"]) for a, b in zip(one, other, strict=True)] == [True, True]
    assert not torch.equal(one[0]["cpu"], one[1]["cpu"])


def test_the_failure_of_one_process_ends_all_of_them(tiny_config, tmp_path):
    with pytest.raises(torch.multiprocessing.ProcessRaisedException, match="RunError: rank 1 alone fails"):
        run_on_ranks(train_failing, ["--config_file", str(tiny_config), "MODEL.DIST_TRAIN", "True"])
    assert not (tmp_path / "run" / "state_last.pth").exists()
