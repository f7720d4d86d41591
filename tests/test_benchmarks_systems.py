"""The benchmark of the other systems' steps at a tiny size: plain form and ours are the same, and figures are kept."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import measure, train_step
from benchmarks.step import system_step, systems
from benchmarks.step.batches import first_rows, in_float64, moved, tensors_in
from benchmarks.step.lineage_step import LoopLevers
from benchmarks.step.ours import make_loop
from benchmarks.step.system_step import plain_staircase
from benchmarks.step.systems import PlainTraining, check_same, draw_captions, make_batch, make_pair, without_chance
from benchmarks.step.training import OUR_LEVERS, Bench
from configs.keys import KEYS
from datasets.tokens import END_ID, MASK_ID, START_ID
from tests.tolerance import rounding
from utils.errors import ConfigError

CPU = torch.device("cpu")
OFF = ("SOLVER.AMP", "off", "MODEL.DEVICE", "cpu")


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    monkeypatch.setattr(train_step, "keep_freed_memory", lambda: None)  # of all tests that this process runs
    return tmp_path


@pytest.mark.parametrize("name", systems.SYSTEMS)
def test_both_forms_give_the_same_loss_and_gradients(name):
    assert max(check_same(name, "tiny", CPU).values()) < rounding(10_000, torch.float64)


def test_forms_that_differ_stop_the_benchmark(monkeypatch):
    pcb = systems.SYSTEMS["pcb"]
    plain = pcb.plain(None, None)
    monkeypatch.setitem(
        systems.SYSTEMS, "pcb", pcb._replace(plain=lambda *_: lambda model, batch: (2 * plain(model, batch)[0], None))
    )
    with pytest.raises(AssertionError, match="the plain step is not the same as ours"):
        check_same("pcb", "tiny", CPU)


@pytest.mark.parametrize("grouped", [False, True])
def test_a_step_of_either_form_moves_the_weights_alike(grouped):
    pair = make_pair("pcb", "tiny", 4, CPU, OFF, torch.float64)
    ours = without_chance(pair.stage.model)
    before = {name: weight.detach().clone() for name, weight in ours.named_parameters()}
    training = PlainTraining(pair, LoopLevers(grouped_optimizer=grouped))
    batch = in_float64(make_batch("pcb", pair, CPU))
    loss = training.step(batch)
    readings = make_loop(pair.stage, ours)([batch])
    assert loss == pytest.approx(readings["loss"], rel=1e-5)  # readings are float32
    expected, bound = dict(training.model.named_parameters()), rounding(10_000, torch.float64)
    for name, weight in ours.named_parameters():
        assert not weight.equal(before[name]), name
        torch.testing.assert_close(weight, expected[name], rtol=bound, atol=bound)
    groups = len(training.optimizer.param_groups)
    assert groups == (len(pair.stage.optimizer.param_groups) if grouped else len(before))


def run_tiny(results: Path, capsys: pytest.CaptureFixture[str], recipe: str, *flags: str) -> tuple[str, dict, dict]:
    arguments = ["--recipe", recipe, "--size", "tiny", "--device", "cpu", "--batch", "4", "--steps", "1"]
    train_step.main([*arguments, "--repeats", "1", *flags])
    facts = json.loads(next(results.glob(f"step_{recipe}-tiny-cpu-b4*.json")).read_text())["facts"]
    return capsys.readouterr().out, {row["step"]: row for row in facts["rows"]}, facts


@pytest.mark.slow
def test_plain_form_and_ours_are_measured_with_every_lever(results, capsys):
    said, rows, facts = run_tiny(results, capsys, "irra", "--levers", "--profile")
    assert said.startswith("CUHK-PEDES/irra.yml, tiny, batch 4, cpu\nequal, float64: loss to")
    assert {"reference", "+ few fused optimizer groups", "ours", "ours + patches as products"} <= set(rows)
    assert "times the one before" in rows["ours + patches as products"] and "x the one before" in said
    assert rows["ours"]["GFLOP"] < rows["reference"]["GFLOP"]  # words at labelled places alone
    assert len(facts["bars"]) == 1 and sum(facts["time of our step"].values()) == pytest.approx(1)


def test_sets_of_modalities_are_measured_alone_too(results, capsys):
    said, rows, facts = run_tiny(results, capsys, "multimodal")
    assert list(rows)[-2:] == ["sets alone, reference", "sets alone, ours"]
    assert rows["sets alone, ours"]["seconds"] < rows["ours"]["seconds"]
    assert [bar["title"] for bar in facts["bars"]] == [
        "training step, times faster than the plain form",
        "the sets alone, times faster than the plain form",
    ]


def test_gpu_staircase_of_a_plain_form_adds_one_lever_after_the_other(monkeypatch):
    monkeypatch.setattr(system_step, "resolve_amp", lambda mode, device: torch.bfloat16)
    bench = Bench("irra", "tiny", torch.device("cuda"), 4, 1, 1, levers=True, compiles=True)
    stairs = [levers for _, levers in plain_staircase(bench)]
    assert (stairs[0], stairs[-1]) == (LoopLevers(torch.float16), LoopLevers(torch.bfloat16, True, True))
    changes = [sum(a != b for a, b in zip(*pair, strict=True)) for pair in zip(stairs, stairs[1:], strict=False)]
    assert changes == [1] * 3


def test_every_lever_is_a_key_that_can_be_set():
    for lever in OUR_LEVERS:
        key, value = lever.opts
        assert value in KEYS[key].choices and value != KEYS[key].default
        assert set(lever.recipes) <= {"veri", "market", *systems.SYSTEMS}


def test_captions_are_words_between_start_and_end():
    ids = draw_captions(20, 77, torch.Generator().manual_seed(0))
    for caption in ids.tolist():
        end = caption.index(END_ID)
        words = caption[1:end]
        assert caption[0] == START_ID and not any(caption[end + 1 :])
        assert systems.SHORTEST <= len(words) <= systems.LONGEST and all(0 < word < MASK_ID for word in words)


def test_batches_may_hold_dicts():
    batch = {"a": torch.arange(3), "b": {"c": torch.ones(3, 2)}, "paths": ["x"]}
    few = first_rows(moved(batch, CPU), 2)
    assert [len(tensor) for tensor in tensors_in(few)] == [2, 2] and few["paths"] == ["x"]
    assert in_float64(batch)["b"]["c"].dtype == torch.float64 and in_float64(batch)["a"].dtype == torch.int64


def test_figures_of_the_default_size_of_each_system_stand_on_the_page():
    page = (Path(train_step.__file__).parent / "README.md").read_text()
    for name in systems.SYSTEMS:
        bench = Bench(name, "small", CPU, 8, 1, 1, False, False)
        assert train_step.place_of(bench, levers=False) == (f"step_{name}", "")
        assert train_step.place_of(bench, levers=False, standard=False)[1]  # the kept figures stay
        assert f"<!-- results: step_{name} -->" in page


def test_a_size_that_a_system_lacks_is_refused():
    with pytest.raises(ConfigError, match="--size large is not of --recipe irra"):
        train_step.main(["--recipe", "irra", "--size", "large", "--device", "cpu"])
