"""Commands killed at seeded moments: the same command then finishes with the very result of an unbroken run."""

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests import fake_runner
from tests.faults.events import code
from tests.faults.processes import Processes
from tests.faults.runs import Places, left_over, same_test, same_training
from tests.faults.tally import Count
from tests.irra_trainings import write_irra_yaml

FAST_KILLS = {"train": 4, "test": 4, "run_phased_loss": 2}
SLOW_TIMES = 16  # kills at random times


def events_of(places: Places, module: str) -> list[str]:
    """Return the names of the events of an unbroken command."""
    return json.loads((places.folder / f"{module}.json").read_text())


def killed_until_done(processes: Processes, module: str, argv: list, moments: list[int]) -> int:
    """Run a command again and again, killed at each of these events, then to its end; return the kills."""
    kills = 0
    for moment in moments:
        ended = processes.run(module, argv, before=code(moment))
        ended.check_readable()
        kills += ended.killed
        assert ended.killed or ended.code == 0, ended.output
    ended = processes.run(module, argv)
    assert ended.code == 0, ended.output
    return kills


def test_a_training_killed_again_and_again_ends_with_the_weights_of_an_unbroken_one(
    processes: Processes, unbroken: Places, tmp_path: Path, tally: Count
):
    places = unbroken._replace(folder=tmp_path)
    draw = random.Random(0)
    names = events_of(unbroken, "train")
    moments = [draw.randrange(1, 1 + len(names) // 2) for _ in range(FAST_KILLS["train"])]
    kills = killed_until_done(processes, "train", places.training, moments)
    held = same_training(unbroken.run, places.run) and not left_over(tmp_path)
    tally("killed: training and building its cache", kills, kills * held)
    assert held and kills >= FAST_KILLS["train"] // 2  # it may have got to its end before the last ones


@pytest.mark.slow
def test_a_training_of_irra_killed_again_and_again_ends_with_the_weights_of_an_unbroken_one(
    processes: Processes, tmp_path: Path, tally: Count
):
    config, draw = write_irra_yaml(tmp_path), random.Random(5)
    whole, broken = (Places(config, tmp_path / name) for name in ("whole", "broken"))
    ended = processes.run("train", whole.training, before=code(0, tmp_path / "names.json"))
    assert ended.code == 0, ended.output
    steps = [number for number, name in enumerate(json.loads((tmp_path / "names.json").read_text())) if "step" in name]
    moments = [1 + draw.choice(steps[: len(steps) // 2]) for _ in range(FAST_KILLS["train"])]
    kills = killed_until_done(processes, "train", broken.training, moments)
    held = same_training(whole.run, broken.run, "irra") and not left_over(broken.folder)
    tally("killed: training of IRRA", kills, kills * held)
    assert held and kills >= FAST_KILLS["train"] // 2  # it may have got to its end before the last ones


@pytest.mark.slow
def test_a_test_killed_again_and_again_ends_with_the_figures_of_an_unbroken_one(
    processes: Processes, unbroken: Places, tmp_path: Path, tally: Count
):
    places, draw = unbroken._replace(folder=tmp_path), random.Random(1)
    last = len(events_of(unbroken, "test"))
    moments = draw.sample(range(1, last + 1), min(last, FAST_KILLS["test"]))
    argv = places.testing(unbroken.run / "transformer_2.pth")
    kills = killed_until_done(processes, "test", argv, moments)
    held = same_test(unbroken.test, places.test)
    tally("killed: testing", kills, kills * held)
    assert held and kills == len(moments)


@pytest.mark.slow
def test_a_launcher_killed_while_it_summarises_writes_the_same_files_at_the_next_start(
    processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Count
):
    fake_runner.install(monkeypatch)
    assert fake_runner.make_launch(tmp_path)(seeds=("0", "1")) == 0
    logs, kept = tmp_path / "logs", tmp_path / "kept"
    argv = ["--config", tmp_path / "deit_transreid_stride_mine.yml", "--output-root", logs, "--seeds", "0", "1"]
    ended = processes.run("run_phased_loss", argv, before=code(0, tmp_path / "names.json"))
    assert ended.code == 0 and "already tested" in ended.output, ended.output
    shutil.copytree(logs, kept)
    last = len(json.loads((tmp_path / "names.json").read_text()))
    moments = random.Random(2).sample(range(1, last + 1), min(last, FAST_KILLS["run_phased_loss"]))
    kills = killed_until_done(processes, "run_phased_loss", argv, moments)
    held = _summaries(logs) == _summaries(kept) and not left_over(logs)
    tally("killed: summarising a launch", kills, kills * held)
    assert held and kills == len(moments)


def _summaries(logs: Path) -> dict[str, object]:
    """Return the files of a launch without the time of their writing; of the pages only that they are whole."""
    content = {
        path.name: path.read_text() for path in sorted(logs.glob("*")) if path.suffix in (".json", ".csv", ".md")
    }
    for name in [name for name in content if name.endswith(".json")]:
        whole = json.loads(content[name])
        for one in whole if isinstance(whole, list) else [whole]:
            one.pop("timestamp", None)
        content[name] = whole
    return content | {path.name: "</html>" in path.read_text() for path in sorted(logs.glob("*.html"))}


@pytest.mark.slow
def test_of_two_trainings_in_one_folder_one_is_refused_and_the_other_is_whole(
    processes: Processes, unbroken: Places, tmp_path: Path
):
    places = unbroken._replace(folder=tmp_path)
    pids = [processes.start("train", places.training) for _ in range(2)]
    ended = sorted((processes.wait(pid) for pid in pids), key=lambda one: one.code)
    assert ended[0].code == 0
    ended[1].check_refusal("is in use by process", code=2)
    assert same_training(unbroken.run, places.run)


@pytest.mark.slow
def test_a_fresh_training_killed_at_each_of_its_events_continues_to_the_same_weights(
    processes: Processes, unbroken: Places, tmp_path: Path, tally: Count
):
    moments = range(1, len(events_of(unbroken, "train")) + 1)
    held = kills = 0
    for moment in moments:
        places = unbroken._replace(folder=tmp_path / str(moment))
        ended = processes.run("train", places.training, before=code(moment), fresh=True)
        assert ended.killed, ended.output
        again = processes.run("train", places.training)
        kills += 1
        held += again.code == 0 and same_training(unbroken.run, places.run) and not left_over(places.folder)
        shutil.rmtree(places.folder)
    tally("killed: training at each of its events", kills, held)
    assert held == kills


@pytest.mark.slow
def test_a_fresh_training_killed_at_random_times_continues_to_the_same_weights(
    processes: Processes, unbroken: Places, tmp_path: Path, tally: Count
):
    draw, held = random.Random(3), 0
    started = time.monotonic()
    whole = unbroken._replace(folder=tmp_path / "whole")
    assert processes.run("train", whole.training, fresh=True).code == 0
    seconds = time.monotonic() - started
    for number in range(SLOW_TIMES):
        places = unbroken._replace(folder=tmp_path / str(number))
        pid = processes.start("train", places.training, fresh=True)
        time.sleep(draw.uniform(0.3, 1.0) * seconds)
        os.kill(pid, signal.SIGKILL)
        processes.wait(pid)
        again = processes.run("train", places.training)
        held += again.code == 0 and same_training(unbroken.run, places.run) and not left_over(places.folder)
    tally("killed: training at random times", SLOW_TIMES, held)
    assert held == SLOW_TIMES
