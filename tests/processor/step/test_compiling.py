"""Training with MODEL.COMPILE: compiled once, the same values, the same checkpoints, one clear error."""

import logging
from collections.abc import Callable

import pytest
import torch
from torch import nn

import train
from configs.phases import PhasePlan
from losses import make_loss
from model import make_model
from processor.step import compiling
from processor.step.compiling import CompiledTraining, check_compiler
from tests.model import clips
from tests.model.builds import images, make_cfg, make_tiny
from tests.model.trunks import kind_cfg
from tests.tolerance import rounding
from utils.checkpoint import read_weights
from utils.errors import ConfigError

SIDES = ("MODEL.SIE_CAMERA", True, "MODEL.SIE_VIEW", True)
CALM = ("MODEL.DROP_PATH", 0.0)
SHALLOW = ("MODEL.VIT.DEPTH", 2)  # each block is traced by itself
LABELS = {"cam_label": torch.tensor([0, 1, 2, 0, 1, 2]), "view_label": torch.tensor([1, 0, 1, 0, -1, 1])}
PIDS = torch.tensor([0, 0, 1, 1, 2, 2])
THREE_PHASES = (  # K changes from 2 to 4 in epoch 2; every epoch has other losses
    *("LOSS.PHASED.ENABLE", "True", "LOSS.PHASED.BOUNDARIES", "[2, 3]", "LOSS.TRIPLETX.ENABLE", "True"),
    *("LOSS.PHASED.METRIC_SEQ", "['triplet', 'tripletx', 'none']", "LOSS.PHASED.W_METRIC_SEQ", "[1.0, 1.0, 0.0]"),
    *("LOSS.SUPCON.ENABLE", "True", "LOSS.PHASED.W_SUP_SPEC", "['const:0', 'const:0.3', 'const:0.3']"),
    *("DATALOADER.PHASED.ENABLE", "True", "DATALOADER.PHASED.K_OTHER", "2"),
    *("DATALOADER.PHASED.K_WHEN_TRIPLETX", "4", "DATALOADER.PHASED.K_WHEN_SUPCON", "4"),
)


class Graphs:
    """A backend of torch.compile that runs what it is given as it is and counts it."""

    def __init__(self) -> None:
        self.of_models = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable:
        self.of_models += any("linear" in str(node.target) for node in graph.graph.nodes)
        return graph.forward


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Graphs:
    torch.compiler.reset()
    monkeypatch.setattr(compiling, "BACKEND", Graphs())
    return compiling.BACKEND


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend that traces forward and backward passes as inductor does, without generating code."""
    torch.compiler.reset()
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")


def step(model: nn.Module, size: tuple[int, int] = (32, 24), count: int = 6, seed: int = 1) -> None:
    labels = {name: values[:count] for name, values in LABELS.items()}
    output = model(images(count, size, seed), **labels)
    torch.stack([logits.float().square().sum() for logits in output.logits]).sum().backward()


def test_a_run_over_three_phases_and_two_kinds_of_batch_compiles_its_model_once(graphs, tiny_config, caplog):
    opts = ["MODEL.COMPILE", "True", "SOLVER.EVAL_PERIOD", "1", *THREE_PHASES]
    with caplog.at_level(logging.INFO):
        train.main(["--config_file", str(tiny_config), *opts])
    assert graphs.of_models == 1  # nor do evaluations compile anything
    assert "epoch 2: PxK 8x2 -> 4x4" in caplog.text and "epoch 3, phase" in caplog.text
    assert caplog.text.count("the first step, compilation included, took") == 1


def test_a_short_last_batch_runs_without_compiling_anew(graphs):
    torch.manual_seed(0)
    model = make_tiny(*SIDES, *CALM, *SHALLOW, cameras=3, views=2)
    compiled = CompiledTraining(model)
    for count in (6, 4, 6, 2):
        step(compiled, count=count)
    assert graphs.of_models == 1
    model.zero_grad()
    step(compiled, count=4)
    gradient = model.base.patch_embed.proj.weight.grad.clone()
    model.zero_grad()
    step(model, count=4)
    assert torch.equal(gradient, model.base.patch_embed.proj.weight.grad)


def test_drop_rates_sides_branches_adapters_and_margins_make_one_graph(graphs):
    drops = ("MODEL.DROP_PATH", 0.3, "MODEL.DROP_OUT", 0.1, "MODEL.ATT_DROP_RATE", 0.1)
    heads = ("MODEL.JPM", True, "MODEL.LORA.RANK", 2, "MODEL.ID_LOSS_TYPE", "arcface", "LOSS.SUPCON.ENABLE", True)
    compiled = CompiledTraining(make_tiny(*drops, *heads, *SIDES, *SHALLOW, cameras=3, views=2))
    for seed in range(3):
        step(compiled, seed=seed)
    assert graphs.of_models == 1


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "tower"), [("quickwin", clips.FROZEN), ("hf", ())])
def test_a_clip_tower_is_part_of_the_one_graph(graphs, sources, variant, tower):
    compiled = CompiledTraining(clips.build(sources, variant, *tower))
    for seed in range(2):
        step(compiled, seed=seed)
    assert graphs.of_models == 1


@pytest.mark.parametrize("kind", ["dinov3", pytest.param("rope_mixed", marks=pytest.mark.slow)])
def test_trunks_of_timm_make_one_graph(graphs, kind):
    cfg = kind_cfg(kind, "MODEL.JPM", True)
    compiled = CompiledTraining(make_model(cfg, 5, 0, 0))
    for seed in range(2):
        step(compiled, cfg.INPUT.SIZE_TRAIN, seed=seed)
    assert graphs.of_models == 1


@pytest.mark.slow
def test_resnet_and_twelve_blocks_make_one_graph_each(graphs):
    resnet = make_cfg("MODEL.NAME", "resnet50", "INPUT.SIZE_TRAIN", [64, 32], "INPUT.SIZE_TEST", [64, 32])
    deep = make_tiny("MODEL.VIT.DEPTH", 12, "MODEL.JPM", True)
    for number, (model, size) in enumerate([(make_model(resnet, 5, 0, 0), (64, 32)), (deep, (32, 24))], start=1):
        compiled = CompiledTraining(model)
        step(compiled, size)
        step(compiled, size)
        assert graphs.of_models == number


@pytest.mark.parametrize("amp", [None, pytest.param(torch.bfloat16, marks=pytest.mark.slow)])
def test_loss_gradients_and_running_statistics_are_those_of_the_eager_model(traced, amp):
    opts = (*SIDES, *CALM, *SHALLOW, "MODEL.JPM", True, "DATALOADER.SAMPLER", "softmax_triplet")
    criterion = make_loss(make_cfg(*opts), 5, 24)
    phase = PhasePlan(make_cfg(*opts)).at(1)
    totals, models = [], [make_tiny(*opts, cameras=3, views=2) for _ in range(2)]
    for model in (models[0], CompiledTraining(models[1])):
        with torch.autocast("cpu", dtype=amp, enabled=amp is not None):
            output = model(images(6), **LABELS)
        total, _ = criterion(output, {"pids": PIDS, "camids": LABELS["cam_label"]}, phase)
        total.backward()
        totals.append(total.detach())
    tolerance = rounding(1000) if amp is None else 2e-2  # bf16 rounds where a graph may fuse otherwise
    torch.testing.assert_close(totals[1], totals[0], rtol=tolerance, atol=0)
    for (name, eager), compiled in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        if eager.grad is not None:
            distance = (compiled.grad - eager.grad).norm() / eager.grad.norm().clamp(min=1e-6)
            assert distance < 10 * tolerance, name
    for (name, eager), compiled in zip(models[0].named_buffers(), models[1].buffers(), strict=True):
        torch.testing.assert_close(compiled, eager, rtol=tolerance, atol=tolerance, msg=name)


def test_checkpoint_and_resumed_run_do_not_tell_whether_they_were_compiled(graphs, tiny_config, tmp_path):
    for compiled in ("False", "True"):
        run = str(tmp_path / compiled)
        common = ["--config_file", str(tiny_config), "OUTPUT_DIR", run, "MODEL.DROP_PATH", "0.0", "SOLVER.MAX_EPOCHS"]
        train.main([*common, "1", "MODEL.COMPILE", compiled])
        train.main([*common, "2"])  # goes on uncompiled
    assert graphs.of_models == 1
    eager, resumed = (read_weights(tmp_path / run / "transformer_2.pth", "TEST.WEIGHT") for run in ("False", "True"))
    assert eager.keys() == resumed.keys()
    for name, weight in eager.items():
        torch.testing.assert_close(resumed[name], weight, rtol=1e-4, atol=1e-5, msg=name)


def test_a_machine_that_cannot_compile_is_told_so_before_the_first_epoch(monkeypatch, tiny_config, tmp_path):
    def no_compiler(graph: object, inputs: object) -> None:
        raise RuntimeError("No working C++ compiler found")

    torch.compiler.reset()
    monkeypatch.setattr(compiling, "BACKEND", no_compiler)
    with pytest.raises(ConfigError, match="MODEL.COMPILE True.*C\\+\\+ compiler.*set MODEL.COMPILE False.*No working"):
        check_compiler(torch.device("cpu"))
    with pytest.raises(ConfigError, match="MODEL.COMPILE"):
        train.main(["--config_file", str(tiny_config), "MODEL.COMPILE", "True"])
    assert not list((tmp_path / "run").glob("*.pth"))


@pytest.mark.slow
def test_inductor_trains_in_bf16_end_to_end(tiny_config, caplog):
    torch.compiler.reset()
    with caplog.at_level(logging.INFO):
        train.main(["--config_file", str(tiny_config), "MODEL.COMPILE", "True", "SOLVER.AMP", "bf16"])
    assert "the first step, compilation included, took" in caplog.text
    assert (tiny_config.parent / "run" / "transformer_3.pth").is_file()
