"""The state is written while the next epoch is trained: killed or without room then, a run loses nothing but that."""

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.events import code
from tests.faults.processes import Processes
from tests.faults.runs import Places, left_over, same_training
from tests.faults.tally import Count
from tests.faults.test_disk_full import NO_PROBE
from utils.checkpoint import load_file

KILLS, EPOCHS = 50, 4
# one checkpoint and one test at the end, so that nothing waits for a state before the next epoch begins
BESIDE = ("SOLVER.MAX_EPOCHS", EPOCHS, "SOLVER.CHECKPOINT_PERIOD", EPOCHS, "SOLVER.EVAL_PERIOD", EPOCHS)
SLOW_DISK = "from tests.faults.events import slow_disk; slow_disk(); "
WRITING = ("in torch.save", "before os.fsync", "before os.replace", "after os.replace")


def training(places: Places) -> list[object]:
    """Return the arguments of train.py for epochs that follow one another without a pause."""
    return [*places.training, *BESIDE]


@pytest.fixture(scope="module")
def whole(processes: Processes, unbroken: Places, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    """An unbroken training on a slow disk; the names of its events lie beside it."""
    places = unbroken._replace(folder=tmp_path_factory.mktemp("whole"))
    before = SLOW_DISK + code(0, places.folder / "names.json")
    ended = processes.run("train", training(places), before=before)
    assert ended.code == 0, ended.output
    return places


def events_of(places: Places) -> list[str]:
    return json.loads((places.folder / "names.json").read_text())


@pytest.mark.slow
def test_50_kills_while_states_are_written_beside_training_change_no_bit_of_what_it_ends_with(
    processes: Processes, whole: Places, tmp_path: Path, tally: Count
):
    draw, names = random.Random(6), events_of(whole)
    first = names.index("before Updater.step")
    written = [number for number, name in enumerate(names, 1) if number > first and name in WRITING]
    trained = [number for number, name in enumerate(names, 1) if number > first and name not in WRITING]
    kills = runs = held = 0
    while kills < KILLS:
        places, ended = whole._replace(folder=tmp_path / str(runs)), None
        while ended is None or ended.killed:
            moment = draw.choice(written if draw.random() < 0.5 else trained) if kills < KILLS else 0
            ended = processes.run("train", training(places), before=SLOW_DISK + code(moment))
            ended.check_readable()
            kills += ended.killed
        assert ended.code == 0, ended.output
        runs += 1
        held += same_training(whole.run, places.run, epochs=[EPOCHS]) and not left_over(places.folder)
        shutil.rmtree(places.folder)
    tally("killed: the state is written beside training", kills, kills * (held == runs))
    assert held == runs > 1


@pytest.mark.slow
def test_a_state_without_room_ends_the_training_with_one_line_and_the_state_before_it_stays(
    processes: Processes, whole: Places, tmp_path: Path, tally: Count
):
    places, names = whole._replace(folder=tmp_path), events_of(whole)
    last_step = max(number for number, name in enumerate(names, 1) if name == "before Updater.step")
    assert processes.run("train", training(places), before=code(last_step)).killed
    file = places.run / "state_last.pth"
    before, epoch = file.read_bytes(), load_file(file, "")["epoch"]
    assert 1 <= epoch < EPOCHS
    ended = processes.run("train", training(places), before=NO_PROBE, limit=len(before) // 2)
    ended.check_refusal(str(file), "File too large", "make room")
    assert file.read_bytes() == before and not left_over(places.folder)
    ended = processes.run("train", training(places))
    held = ended.code == 0 and same_training(whole.run, places.run, epochs=[EPOCHS])
    tally("full disk: the state is written beside training", 1, int(held))
    assert held, ended.output
