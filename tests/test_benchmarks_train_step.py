"""The benchmark of the training step at a tiny size: the reference is the same network, levers change no result."""

import json
from pathlib import Path

import pytest
import torch
from yacs.config import CfgNode

from benchmarks import measure, train_step
from benchmarks.step import cost, ours
from benchmarks.step.lineage_model import Levers, LineageModel
from benchmarks.step.lineage_step import LoopLevers, Rates, hardest_pairs, make_sgd, make_step, total_loss
from benchmarks.step.ours import check_same, make_batch, make_cfg, make_ours, sizes_of
from benchmarks.step.training import Bench, make_variants, staircase
from processor.step import compiling
from tests.tolerance import bounds, rounding
from utils.errors import ConfigError

CPU = torch.device("cpu")
EXACT = ("SOLVER.AMP", "off", "MODEL.DROP_PATH", 0.0)
RATES = Rates(lr=0.01, bias_factor=2, weight_decay=1e-4, momentum=0.9)


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    monkeypatch.setattr(compiling, "BACKEND", "eager")  # traces as inductor does, without its minutes
    return tmp_path


def build(recipe: str = "veri", **levers: bool) -> tuple[CfgNode, LineageModel, dict]:
    torch.manual_seed(0)
    cfg = make_cfg(recipe, "tiny", 8, EXACT)
    model = make_ours(cfg, recipe, CPU)
    lineage = LineageModel(sizes_of(cfg, model, recipe), Levers(**levers))
    lineage.load_state_dict(model.state_dict())
    return cfg, lineage, make_batch(cfg, recipe, CPU)


@pytest.mark.parametrize("recipe", ours.RECIPES)
def test_the_reference_is_the_same_network_as_the_recipe_builds(recipe):
    torch.manual_seed(0)
    cfg = make_cfg(recipe, "tiny", 8, EXACT)
    gaps = check_same(cfg, recipe, make_batch(cfg, recipe, CPU))
    assert set(gaps) == {"loss", "gradients", "embedding"} and max(gaps.values()) < rounding(2000)


def test_another_network_stops_the_benchmark(monkeypatch):
    cfg = make_cfg("veri", "tiny", 8, EXACT)
    monkeypatch.setattr(ours, "sizes_of", lambda *args: sizes_of(*args)._replace(shift=3))
    with pytest.raises(AssertionError, match="not the same as ours"):
        check_same(cfg, "veri", make_batch(cfg, "veri", CPU))


@pytest.mark.parametrize("lever", Levers._fields)
def test_a_lever_changes_neither_loss_nor_gradients(lever):
    (_, plain, batch), (_, fast, _) = build(), build(**{lever: True})
    losses = []
    for model in (plain, fast):
        losses.append(total_loss(*model(batch["images"], batch["camids"], batch["viewids"]), batch["pids"]))
        losses[-1].backward()
    torch.testing.assert_close(losses[1], losses[0], **bounds(1000))
    for name, weight in plain.named_parameters():
        if weight.grad is not None:
            torch.testing.assert_close(fast.get_parameter(name).grad, weight.grad, rtol=1e-3, atol=1e-5)


def test_grouped_optimizer_takes_the_same_steps():
    trained = []
    for grouped in (False, True):
        _, model, batch = build()
        step = make_step(model, RATES, LoopLevers(grouped_optimizer=grouped))
        losses = [step(batch) for _ in range(3)]
        assert losses[2] < losses[0]
        trained.append(torch.cat([weight.flatten() for weight in model.state_dict().values()]))
    torch.testing.assert_close(trained[1], trained[0], rtol=1e-4, atol=1e-5)


def test_groups_are_one_for_each_tensor_or_one_for_each_rate():
    _, model, _ = build()
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    assert len(make_sgd(model, RATES, grouped=False).param_groups) == len(learning)
    groups = make_sgd(model, RATES, grouped=True).param_groups
    assert sorted(group["lr"] for group in groups) == [0.01, 0.02]
    assert sum(len(group["params"]) for group in groups) == len(learning)


def test_reference_drops_paths_only_in_training():
    cfg = make_cfg("veri", "tiny", 8, ("SOLVER.AMP", "off", "MODEL.DROP_PATH", 0.9))
    model = LineageModel(sizes_of(cfg, make_ours(cfg, "veri", CPU), "veri"))
    batch = make_batch(cfg, "veri", CPU)
    inputs = batch["images"], batch["camids"], batch["viewids"]
    torch.nn.init.normal_(model.base.cls_token)
    assert not torch.equal(model(*inputs)[1][0], model(*inputs)[1][0])
    model.eval()
    assert torch.equal(model(*inputs), model(*inputs))


def test_hardest_pairs_are_those_of_the_distances_by_hand():
    feat = torch.tensor([[0.0], [3.0], [1.0], [7.0]])
    positive, negative = hardest_pairs(feat, torch.tensor([0, 0, 1, 1]))
    torch.testing.assert_close(positive, torch.tensor([3.0, 3.0, 6.0, 6.0]))
    torch.testing.assert_close(negative, torch.tensor([1.0, 2.0, 1.0, 4.0]))


def run_tiny(results: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[list[str], dict[str, dict], dict]:
    arguments = ["--size", "tiny", "--device", "cpu", "--batch", "8", "--steps", "2", "--repeats", "1"]
    train_step.main([*arguments, *flags])
    facts = json.loads(next(results.glob("train_step-veri-tiny-cpu-b8*.json")).read_text())["facts"]
    return capsys.readouterr().out.splitlines(), {row["step"]: row for row in facts["rows"]}, facts


def test_reference_and_ours_are_measured_from_training_to_files(results, capsys):
    lines, rows, facts = run_tiny(results, capsys, "--profile")
    assert lines[1].startswith("equal, float32: loss to")
    assert sum(line.startswith("  bar:") for line in lines) == len(facts["bars"]) >= 4
    assert any("matrix products" in line and "elementwise" in line for line in lines)
    assert list(rows)[:2] == ["reference", "ours"] and "embedding, ours" in rows
    for title in ("{}", "embedding, {}"):
        assert rows[title.format("ours")]["GFLOP"] < rows[title.format("reference")]["GFLOP"]
    assert rows["ours"]["activations MiB"] < rows["reference"]["activations MiB"]
    assert sum(facts["time of our step"].values()) == pytest.approx(1)
    from_files = next(row for row in facts["rows"] if "data share" in row)
    assert 0 < from_files["data share"] < 1 and from_files["images/s"] > 0


def test_utilisation_is_over_the_peak_of_the_precision(results, capsys, monkeypatch):
    monkeypatch.setattr(train_step, "device_peak", lambda device, half: 4e12 if half else 1e12)
    monkeypatch.setattr(
        "benchmarks.step.training.resolve_amp", lambda mode, _: None if mode == "off" else torch.bfloat16
    )
    _, rows, _ = run_tiny(results, capsys)
    for name, peak in {"reference": 1000, "embedding, ours": 1000, "ours, bfloat16": 4000}.items():
        assert rows[name]["MFU"] == pytest.approx(rows[name]["GFLOP/s"] / peak)
    assert next(row["precision"] for row in rows.values() if "data share" in row) == "bfloat16"


@pytest.mark.slow  # tracing takes half a minute
def test_compiled_steps_and_all_levers_are_measured_on_demand(results, capsys):
    _, rows, _ = run_tiny(results, capsys, "--levers", "--compile")
    assert {"reference", "+ fused attention", "+ two fused optimizer groups", "+ compile", "ours"} <= set(rows)
    assert rows["+ compile"]["GFLOP"] == rows["+ two fused optimizer groups"]["GFLOP"]


def test_default_levers_are_the_reference_and_ours_only():
    bench = Bench("market", "tiny", CPU, 8, 1, 1, levers=False, compiles=False)
    _, _, batch = build("market")
    variants = make_variants(bench)
    assert [variant.name for variant in variants][:2] == ["reference", "ours"]
    readings = variants[1].one(batch)
    assert readings["loss"] == pytest.approx(variants[0].one(batch), rel=0.05)  # each drops paths of its own


def test_gpu_staircase_adds_one_lever_after_the_other(monkeypatch):
    monkeypatch.setattr("benchmarks.step.training.resolve_amp", lambda mode, device: torch.bfloat16)
    bench = Bench("veri", "tiny", torch.device("cuda"), 8, 1, 1, levers=True, compiles=True)
    stairs = list(staircase(bench))
    assert stairs[0][1:] == (Levers(), LoopLevers(torch.float16), False)
    assert stairs[-1][1:] == (Levers(True, True, True), LoopLevers(torch.bfloat16, True, True), True)
    switches = [(*network, *loop, compiled) for _, network, loop, compiled in stairs]
    changes = [sum(a != b for a, b in zip(*pair, strict=True)) for pair in zip(switches, switches[1:], strict=False)]
    assert changes == [1] * 7


def test_batch_that_does_not_divide_into_identities_is_refused():
    with pytest.raises(ConfigError, match="--batch got 9, give multiples of 4"):
        train_step.parse(["--batch", "8", "9"])


def test_products_of_the_layers_are_counted_by_hand():
    cfg, model, _ = build()
    sizes = sizes_of(cfg, make_ours(cfg, "veri", CPU), "veri")
    multiply, flop = cost.layer_products(sizes, 2, CPU, torch.float32)
    rows, weights = 2 * (1 + 25), 12 * 32 * 32
    images, heads, tokens, head = 2, 2, 1 + 25, 16
    attention = images * heads * 6 * 2 * tokens * tokens * head  # two, and two more of each backward
    assert flop == 3 * 2 * rows * weights + attention
    assert cost.count_flop(multiply) == flop


def test_fused_attention_counts_as_its_products():
    query = torch.zeros(1, 2, 5, 4, requires_grad=True)

    def step() -> None:
        torch.nn.functional.scaled_dot_product_attention(query, query, query).sum().backward()

    assert cost.count_flop(step) == 6 * 2 * 2 * 5 * 5 * 4


def test_memory_is_what_autograd_holds_and_what_is_allocated_at_most():
    weight = torch.nn.Linear(256, 256, bias=False)
    inputs = torch.ones(1024, 256)

    def step() -> None:
        weight(inputs).sigmoid().sum().backward()

    step()
    mib = 1024 * 256 * 4
    assert cost.held_bytes(step, weight, [inputs]) == mib
    assert 2 * mib <= cost.peak_bytes(step, CPU) <= 4 * mib


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ampere_bf16_s16816gemm_bf16_128x128_ldg8_f2f_stages_32x5_nn", "matrix products"),
        ("void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits>", "attention"),
        ("Memcpy HtoD (Pinned -> Device)", "copies"),
        ("void at::native::multi_tensor_apply_kernel<FusedSgdMathFunctor>", "optimizer"),
        ("triton_poi_fused_addmm_gelu_3", cost.REST),
        ("void at::native::vectorized_elementwise_kernel<4>", cost.REST),
    ],
)
def test_kernels_are_told_apart_by_name(name, kind):
    assert cost._kind(name) == kind
