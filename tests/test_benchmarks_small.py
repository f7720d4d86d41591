"""The benchmarks of mining, prompts and start-up, what they share, and the tables: results and output, not timings."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import clip_reid, extraction, measure, mining, saving, startup, tables, thrice
from benchmarks.measure import Bar, alternate, keep, keep_size, limited_threads, read_size
from model import ModelOutput
from tests.model.clip_reids import assert_near, in_float64
from tests.reference import slow_clip_reid
from tests.reference.slow_losses import triplet
from utils.background import Background
from utils.errors import ConfigError


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module in (measure, tables, thrice):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    return tmp_path


def test_mining_compares_equal_losses_and_prints_every_ratio(results, capsys):
    mining.main(["--sizes", "16", "--repeats", "1"])
    assert "equal: values and gradients" in capsys.readouterr().out
    rows = json.loads((results / "mining-N16-repeats1.json").read_text())["facts"]["rows"]
    assert [(row["loss"], row["way"]) for row in rows] == [
        *(("triplet", "loop"), ("triplet", "boolean gather"), ("triplet", "ours")),
        *(("tripletx", "loop"), ("tripletx", "ours"), ("supcon", "loop"), ("supcon", "ours")),
    ]
    assert all(row["forward ms"] > 0 for row in rows)


def test_saving_compares_equal_states_and_judges_the_epoch(tiny_config, capsys):
    saving.main(["--config", str(tiny_config), "--epochs", "1", "--repeats", "1"])
    said = capsys.readouterr().out
    assert "equal: the states of both ways" in said and "bar: an epoch with saving" in said


def test_states_that_differ_stop_the_benchmark(tmp_path):
    file, numbers = tmp_path / "state_last.pth", iter((1.0, 2.0))

    def save(epoch: int, awaited: bool) -> None:
        torch.save({"model": {"weight": torch.full((2,), next(numbers))}}, file)

    with pytest.raises(AssertionError):
        saving.check_equal(save, Background(), file)


def test_stage_one_compares_equal_forms_and_keeps_the_ratio(results, monkeypatch, capsys):
    size = (16, 2, 5, 24, 8)
    monkeypatch.setitem(clip_reid.SIZES, "small", size)
    clip_reid.main([])
    said = capsys.readouterr().out
    assert "equal: loss and gradient of both forms" in said and "bar: epoch of stage 1" in said
    plain, ours = json.loads((results / "clip_reid.json").read_text())["facts"]["rows"]
    assert (plain["sentences"], plain["positions"], ours["positions"]) == (24, 77, 12)
    assert 3 * 1 <= ours["sentences"] <= 3 * 5 and min(plain["s an epoch"], ours["s an epoch"]) > 0


def test_plain_form_of_stage_one_is_the_text_tower_by_its_formula():
    stage = clip_reid.make_parts(16, 2, 5)
    pids = torch.tensor([3, 0, 3])
    output = clip_reid.plain_forward(stage, {"features": torch.zeros(3, 16), "pids": pids})
    exact = slow_clip_reid.texts(in_float64(stage.model), pids.tolist(), 1)
    assert_near(output.extra["text"], exact)


def test_forms_of_stage_one_that_differ_stop_the_benchmark():
    stage = clip_reid.make_parts(16, 2, 5)
    batch = {"features": torch.randn(3, 16), "pids": torch.tensor([1, 2, 4])}

    def shifted(batch: dict) -> ModelOutput:
        return clip_reid.plain_forward(stage, batch | {"pids": batch["pids"] - 1})

    forms = {"plain": lambda batch: clip_reid.plain_forward(stage, batch), "shifted": shifted}
    with pytest.raises(AssertionError):
        clip_reid.check_equal(stage, forms, batch)


def test_loop_of_the_baseline_is_the_triplet_loss_by_its_formula():
    feat, pids = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), torch.arange(2).repeat_interleave(4)
    value = mining.triplet_loop(feat, mining.Labels(pids, pids))
    assert float(value) == pytest.approx(triplet(feat.tolist(), pids.tolist(), None), rel=1e-5)


def test_different_losses_stop_the_benchmark():
    feat = torch.randn(8, 4)
    with pytest.raises(AssertionError):
        mining.check_equal({"sum": lambda x: x.sum(), "mean": lambda x: x.mean()}, feat)


@pytest.mark.parametrize("size", ["4", "10"])
def test_sizes_without_whole_identities_are_refused(size):
    with pytest.raises(ConfigError, match="multiples of 4"):
        mining.main(["--sizes", size])


def test_startup_times_every_command(results, monkeypatch, capsys):
    monkeypatch.setattr(startup, "run_python", lambda arguments: None)
    startup.main(["--repeats", "1"])
    rows = json.loads((results / "startup-repeats1.json").read_text())["facts"]["rows"]
    names = {row["command"] for row in rows}
    assert names >= {
        "import torch",
        "train.py",
        "test.py",
        "run_phased_loss.py",
        "-m tools.check",
        "-m tools.report",
    }
    assert "bar: slowest --help" in capsys.readouterr().out


def test_a_command_that_fails_stops_the_benchmark():
    with pytest.raises(subprocess.CalledProcessError):
        startup.run_python(["-c", "raise SystemExit(3)"])


@pytest.mark.parametrize("command", startup.find_commands().values(), ids=startup.find_commands())
def test_help_needs_no_heavy_package(command):
    """Torch alone takes seconds to import."""
    code = (
        "import runpy, sys\n"
        f"sys.argv = {[command[-1], '--help']!r}\n"
        "try:\n"
        f"    runpy.run_{'module' if command[0] == '-m' else 'path'}({command[-1]!r}, run_name='__main__')\n"
        "finally:\n"
        "    heavy = {'torch', 'torchvision', 'timm', 'scipy', 'matplotlib', 'transformers', 'open_clip', 'sklearn'}\n"
        "    print('heavy:', sorted(heavy & set(sys.modules)))\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=startup.ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.endswith("heavy: []\n") and "usage:" in ran.stdout


@pytest.mark.parametrize(("value", "verdict"), [(0.5, "MISS"), (1.0, "pass"), (2.0, "pass, goal met")])
def test_bars_from_below_are_judged(value, verdict):
    bar = Bar("ratio", 1, 2, "x", at_least=True)
    assert bar.verdict(value) == verdict
    assert bar.facts(value) == {
        **{"value": value, "title": "ratio", "must": 1, "goal": 2, "unit": "x", "at_least": True},
        "verdict": verdict,
    }


def test_functions_take_turns_after_a_warm_up_in_one_thread(capsys):
    before, calls, ticks = torch.get_num_threads(), [], iter(range(100))
    functions = {name: lambda name=name: calls.append((name, torch.get_num_threads())) for name in "ab"}
    times = alternate(functions, 2, clock=lambda: next(ticks))
    assert calls == [("a", 1), ("b", 1)] * 3
    assert times == {"a": [1, 1], "b": [1, 1]}
    assert torch.get_num_threads() == before
    assert capsys.readouterr().out.splitlines()[0] == "a: median 1.00 s (1.00 to 1.00, 2 runs)"


def test_threads_come_back_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), limited_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


def test_results_are_kept_with_hardware_and_date_apart_for_each_variant(results):
    keep("speed", {"x": 1})
    keep("speed", {"x": 2}, "large")
    kept = {path.name: json.loads(path.read_text()) for path in results.iterdir()}
    assert {name: entry["facts"]["x"] for name, entry in kept.items()} == {"speed.json": 1, "speed-large.json": 2}
    entry = kept["speed.json"]
    assert {"cpu", "cores", "gpu", "load"} == set(entry["hardware"])
    assert entry["versions"]["torch"] == torch.__version__ and len(entry["date"]) == len("2024-01-31")


def test_tables_show_results_between_their_markers(results):
    bar = Bar("ratio", 1, 2, "x", at_least=True)
    rows = [{"way": "loop", "ms": 1234.5678}, {"way": "ours", "ms": 0.123456, "times": 10000.0}]
    keep("speed", {"width": 8, "rows": rows, "bars": [bar.facts(1.5)]})
    text = "Title\n\n<!-- results: speed -->\nold\n<!-- end -->\n\n<!-- results: other -->\n<!-- end -->\nrest\n"
    lines = tables.fill(text).splitlines()
    assert "| way | ms | times |" in lines and "| loop | 1235 |  |" in lines and "| ours | 0.1235 | 10,000 |" in lines
    assert "| ratio | 1.5 x | at least 1 | 2 | pass |" in lines and "width 8" in lines
    assert "old" not in lines and "Not measured yet." in lines and lines[0] == "Title" and lines[-1] == "rest"
    assert tables.fill("\n".join(lines)) == "\n".join(lines)


SPEED = """import json, sys
from pathlib import Path
results = Path(sys.argv[1])
number = len((results / "count").read_text()) if (results / "count").exists() else 0
(results / "count").write_text("x" * (number + 1))
value = [3.0, 1.0, 2.0][number]
bar = {"value": value, "title": "speed", "must": 1.5, "goal": 9, "unit": "x", "at_least": True, "verdict": "?"}
rows = [{"way": "ours", "seconds": value, "times faster": value}]
hardware = {"cpu": "c", "cores": "1 cores", "gpu": None, "load": None}
kept = {"benchmark": "speed", "variant": "", "command": f"run {number}", "date": "d", "hardware": hardware}
kept |= {"versions": {}, "facts": {"rows": rows, "bars": [bar]}}
(results / f"{sys.argv[2]}.json").write_text(json.dumps(kept))
"""


def test_three_runs_are_kept_as_the_middle_one_with_all_they_found(results, tmp_path_factory, monkeypatch):
    scripts = tmp_path_factory.mktemp("scripts")
    (scripts / "speed.py").write_text(SPEED)
    monkeypatch.setattr(thrice, "FOLDER", scripts)
    thrice.main(["speed", str(results), "speed"])
    kept = json.loads((results / "speed.json").read_text())
    assert kept["command"] == "run 2" and [run["rows"][0]["seconds"] for run in kept["runs"]] == [3, 1, 2]
    lines = tables.render(kept).splitlines()
    assert "| ours | 2 | 2 (1 to 3) |" in lines  # seconds are of the middle run, ratios have their spread
    assert "| speed | 2 (1 to 3) x | at least 1.5 | 9 | MISS |" in lines  # the worst run misses
    assert "3 runs" in lines[0]


@pytest.mark.parametrize(
    ("code", "message"),
    [("raise SystemExit(3)", "speed.py ended with code 3"), ("pass", "speed.py kept no result with these arguments")],
)
def test_a_run_that_keeps_nothing_ends_the_three(tmp_path_factory, monkeypatch, code, message):
    scripts = tmp_path_factory.mktemp("scripts")
    (scripts / "speed.py").write_text(code)
    monkeypatch.setattr(thrice, "FOLDER", scripts)
    with pytest.raises(ConfigError, match=message):
        thrice.main(["speed"])


def test_section_without_an_end_is_refused():
    with pytest.raises(ConfigError, match="need the line"):
        tables.fill("<!-- results: speed -->\n")


def test_check_says_that_the_readme_is_old(tmp_path, monkeypatch):
    readme = tmp_path / "README.md"
    readme.write_text("<!-- results: speed -->\n<!-- end -->\n")
    monkeypatch.setattr(tables, "README", readme)
    with pytest.raises(ConfigError, match="run python benchmarks/tables.py"):
        tables.main(["--check"])
    tables.main([])
    tables.main(["--check"])


def test_the_page_shows_the_kept_results(monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tables.README.parent / "results")
    tables.main(["--check"])


def test_only_presets_are_kept_and_the_small_one_is_the_default(results):
    sizes = {"small": (1, 2), "veri": (3, 4)}
    for size in ((1, 2), (3, 4), (5, 6)):
        keep_size("speed", {}, size, sizes)
    assert {path.name for path in results.iterdir()} == {"speed.json", "speed-veri.json"}


def test_a_size_and_numbers_are_one_too_many():
    assert read_size(["3", "4"], "x.py", "", {"small": (1, 2)}, "a, b") == (3, 4)
    assert read_size([], "x.py", "", {"small": (1, 2)}, "a, b") == (1, 2)
    with pytest.raises(ConfigError, match=r"--size small and the numbers \[3, 4\]; give one"):
        read_size(["--size", "small", "3", "4"], "x.py", "", {"small": (1, 2)}, "a, b")


def test_arguments_are_written_out(capsys):
    for command in (extraction, mining):
        with pytest.raises(SystemExit):
            command.main(["--siz", "64"])
        assert "unrecognized arguments: --siz" in capsys.readouterr().err
