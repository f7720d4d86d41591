"""Ctrl-C at any moment ends every command alike: code 130, one last line, nothing half-written, and it goes on."""

import random
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.conftest import TINY_YAML
from tests.faults.storm import ROOT, STARTED_S, Stopped, interrupt
from tests.tools.photos import NAMES, write_photos
from tests.tools.search.test_index import BATCH, FakeExtractor, assert_whole
from tools.search.index import read_index
from utils.checkpoint import load_file
from utils.run_folder import read_metrics
from utils.test_folder import TestFolder, read_result

KIND = "Ctrl-C"
IMPORTS_S = 2.0  # CPU seconds, about, until a command has imported torch
LONG_S = 9.0  # from where training is under way
TRIES = 6  # at a moment before the command has ended by itself
ONE_DRAW = 1000  # epochs; no run here comes as far

Words = Sequence[object]


class Place:
    """A folder with a configuration, and what each command writes there."""

    def __init__(self, folder: Path, root: Path, trained: Path) -> None:
        self.folder, self.root, self.trained = folder, root, trained
        self.run = folder / "run"
        self.config = folder / "tiny.yml"
        self.config.write_text(TINY_YAML.format(root=root, output=self.run))
        self.weight = trained / "transformer_2.pth"
        self.images = root / "VeRi" / "image_query"

    def train(self, workers: int) -> Words:
        opts = ("SOLVER.MAX_EPOCHS", ONE_DRAW, "SOLVER.EVAL_PERIOD", 3, "SOLVER.CHECKPOINT_PERIOD", ONE_DRAW)
        return ("train.py", "--config_file", self.config, "DATALOADER.NUM_WORKERS", workers, *opts)

    def test(self, *opts: object) -> Words:
        of_test = ("TEST.WEIGHT", self.weight, "OUTPUT_DIR", self.folder / "test", "DATALOADER.NUM_WORKERS", 2)
        return ("test.py", "--config_file", self.config, *of_test, *opts)

    def launch(self) -> Words:
        opts = ("--opts", "SOLVER.MAX_EPOCHS", ONE_DRAW, "DATALOADER.NUM_WORKERS", 2)
        out = ("--output-root", self.folder / "launched")
        return ("run_phased_loss.py", "--config", self.config, "--seeds", 0, 1, *out, *opts)

    def tool(self, name: str, *words: object) -> Words:
        return ("-m", f"tools.{name}", *words)


COMMANDS: dict[str, tuple[Callable[[Place], Words], float]] = {  # its words, CPU seconds that it takes at most
    "train.py": (lambda at: at.train(0), LONG_S),
    "train.py with workers": (lambda at: at.train(2), LONG_S),
    "run_phased_loss.py": (Place.launch, LONG_S),
    "test.py": (Place.test, LONG_S),
    "test.py re-ranking": (lambda at: at.test("TEST.RE_RANKING", True, "TEST.FLIP", True), LONG_S),
    "tools.search": (
        lambda at: at.tool(
            *("search", "--run", at.trained, "--query", next(at.images.glob("*.jpg"))),
            *("--gallery", at.images, "--out", at.folder / "found", "--index", at.folder / "index.npz"),
        ),
        LONG_S,
    ),
    "tools.extract": (
        lambda at: at.tool("extract", "--run", at.trained, "--images", at.images, "--out", at.folder / "feats.npz"),
        LONG_S,
    ),
    "tools.check": (lambda at: at.tool("check", "--config_file", at.config), 4.0),
    "tools.export": (
        lambda at: at.tool(
            "export", "--run", at.trained, "--format", "torchscript", "--out", at.folder / "out" / "model.pt"
        ),
        LONG_S,
    ),
}
OWN_CODES = {"tools.check": 1}  # of an end that Ctrl-C did not make, where it is not 0: it finds too few images
ENDING_S = 3.0  # of an interpreter, on a busy machine
ENDLESS = ("train.py", "train.py with workers", "run_phased_loss.py")  # whose imports others stand for
FAST = (  # name, whether torch is still being imported
    ("train.py", True),
    ("train.py with workers", False),
    ("tools.check", True),
)


@pytest.fixture
def place(tmp_path: Path, tiny_root: Path, trained_run: Path) -> Place:
    return Place(tmp_path, tiny_root, trained_run)


def stopped(place: Place, name: str, draw: random.Random, importing: bool = False) -> Stopped | None:
    """Interrupt a command at a random moment; None for one that ended before each of them."""
    words, span = COMMANDS[name]
    span = IMPORTS_S if importing else span
    for _ in range(TRIES):
        moment = draw.uniform(STARTED_S, span)
        if not importing and span == LONG_S and name in ENDLESS:
            moment = draw.uniform(IMPORTS_S, span)
        result = interrupt(words(place), moment, place.folder)
        ended = name not in ENDLESS and result is not None and result.exit_code == OWN_CODES.get(name, 0)
        # what comes while the interpreter ends undoes nothing; one that goes on for longer has swallowed it
        if result is not None and not (ended and result.seconds < ENDING_S):
            return result
        span = max(STARTED_S, moment * 0.7)
    return None


def half_written(folder: Path) -> list[str]:
    """Return what a command may not leave: temporary files, a lock with a holder, records or weights cut short."""
    faults = [f"left {path.name}" for path in folder.rglob("*") if ".tmp" in path.name or "write_test" in path.name]
    faults += [f"held {path}" for path in folder.rglob("*.lock") if path.read_text().strip()]
    for path in folder.rglob("metrics.jsonl"):
        text = path.read_text()
        whole = len(read_metrics(path)) == len(text.splitlines()) and (not text or text.endswith("\n"))
        faults += [] if whole else [f"cut {path}"]
    for path in folder.rglob("*.pth"):
        load_file(path, "test")
    for path in folder.rglob("summary.json"):
        faults += [] if read_result(TestFolder(path.parent)) is not None else [f"cut {path}"]
    return faults


def storm(place: Place, planned: Sequence[tuple[str, bool]], seed: int, tally: Callable[..., None]) -> None:
    """Interrupt the planned commands one after the other in one folder, so that each continues what is there."""
    draw, faults, tried = random.Random(seed), {}, 0
    for number, (name, importing) in enumerate(planned):
        result = stopped(place, name, draw, importing)
        if result is None:
            continue
        tried += 1
        found = result.faults() + half_written(place.folder)
        if found:
            faults[f"{number}: {name}"] = (found, result.err[-1500:])
    tally(KIND, tried, tried - len(faults))
    assert not faults and tried >= len(planned) * 3 // 4, faults


@pytest.mark.slow
def test_ctrl_c_at_a_random_moment_is_tidy_in_every_command(place, tally):
    storm(place, FAST, seed=1, tally=tally)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(13))
def test_a_storm_of_ctrl_c(place, tally, seed):
    names = list(COMMANDS)
    storm(place, [(name, False) for name in names], seed, tally)


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once_and_the_run_continues_after_the_epochs_it_kept(place, tally):
    first = interrupt(place.train(2), LONG_S, place.folder)
    again = interrupt(place.train(2), LONG_S, place.folder, again=0.6)
    found = [one.faults() for one in (first, again)] + [half_written(place.folder)]
    tally(KIND, 2, 2 - sum(map(bool, found[:2])))
    assert found == [[], [], []]
    assert (place.run / "state_last.pth").is_file() == ("continuing after epoch" in again.out)


CHILD = """
import os, signal, sys, threading, time
from utils import interrupts
interrupts.take_over()
from utils.errors import run_command
def main(argv):
    {body}
sys.exit(run_command(main))
"""


def run_child(body: str, folder: Path) -> subprocess.CompletedProcess:
    """Run a command of these lines, which send themselves Ctrl-C."""
    code = CHILD.format(body=body.replace("\n", "\n    "))
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": str(ROOT), "FOLDER": str(folder)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


CTRL_C = "os.kill(os.getpid(), signal.SIGINT)"
MOMENTS = {
    "anywhere": f"{CTRL_C}\ntime.sleep(9)",
    "in a destructor": f"class A:\n    def __del__(self): {CTRL_C}; time.sleep(9)\nA()\ntime.sleep(9)",
    "where errors are swallowed": f"try:\n    {CTRL_C}\n    time.sleep(9)\nexcept BaseException: pass\ntime.sleep(9)",
    "in a deferred block": f"with interrupts.deferred():\n    {CTRL_C}\n    os.mkdir(path('kept'))\ntime.sleep(9)",
    "and again": f"with interrupts.deferred():\n    {CTRL_C}; time.sleep(0.6); {CTRL_C}\n    time.sleep(9)",
    "at a check": f"with interrupts.deferred():\n    {CTRL_C}\n    while True: interrupts.check()",
    "before another error": f"with interrupts.deferred():\n    {CTRL_C}\n    raise RuntimeError('a rank has gone')",
    "in the middle of a file": (
        "from pathlib import Path\nfrom utils.atomic import replacing\n"
        f"with replacing(Path(path('file'))) as temporary:\n    temporary.write_text('half'); {CTRL_C}; time.sleep(9)"
    ),
    "while a file is held": (
        "from pathlib import Path\nfrom utils.file_lock import hold\n"
        f"with hold(Path(path('lock'))):\n    {CTRL_C}; time.sleep(9)"
    ),
    "with threads": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        f"with ThreadPoolExecutor(2) as pool:\n    pool.submit(time.sleep, 9)\n    {CTRL_C}; time.sleep(9)"
    ),
    "with forked children": (
        "import multiprocessing\nprocess = multiprocessing.get_context('fork').Process(target=time.sleep, args=(9,))\n"
        f"process.start(); os.kill(process.pid, signal.SIGINT); {CTRL_C}\ntime.sleep(9)"
    ),
}


@pytest.mark.fault(KIND)
@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_is_tidy(tmp_path, moment):
    body = "path = lambda name: os.path.join(os.environ['FOLDER'], name)\n" + MOMENTS[moment]
    done = run_child(body, tmp_path)
    assert Stopped(done.returncode, done.stdout, done.stderr, False).faults() == []
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"in a deferred block": {"kept"}, "while a file is held": {"lock"}}.get(moment, set())
    assert "lock" not in names or (tmp_path / "lock").read_text() == ""


@pytest.mark.fault(KIND)
@pytest.mark.parametrize("around", ["interrupts.bounded()", "interrupts.bounded(), interrupts.deferred()"])
def test_a_process_that_waits_in_native_code_for_another_one_ends_too(tmp_path, around):
    done = run_child(
        "import torch.distributed as dist\nfrom pathlib import Path\nfrom utils.file_lock import hold\n"
        "folder = os.environ['FOLDER']\ninterrupts.ANSWER_S = 1.0\n"
        f"threading.Timer(1.0, lambda: {CTRL_C}).start()\n"
        f"with hold(Path(folder, 'lock')), {around}:\n"
        "    dist.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=0, world_size=2)",
        tmp_path,
    )
    assert Stopped(done.returncode, done.stdout, done.stderr, False).faults() == []
    assert not (tmp_path / "lock.pid").exists()


@pytest.mark.fault(KIND)
def test_a_bounded_block_that_has_ended_ends_nothing(tmp_path):
    body = (
        "interrupts.INSIST_S = interrupts.ANSWER_S = 0.2\n"
        f"try:\n    with interrupts.bounded(), interrupts.deferred(): {CTRL_C}\n"
        "except KeyboardInterrupt: time.sleep(0.5); print('still here')"
    )
    done = run_child(body, tmp_path)
    assert (done.returncode, done.stdout) == (0, "still here\n"), done.stderr


@pytest.mark.fault(KIND)
def test_what_a_search_has_embedded_before_ctrl_c_is_kept(tmp_path):
    write_photos(tmp_path / "photos")
    done = run_child(
        "from pathlib import Path\nfrom tests.tools.search.test_index import FakeExtractor\n"
        "from tools.search.index import update_index\nfolder = Path(os.environ['FOLDER'])\n"
        "class Interrupted(FakeExtractor):\n"
        "    def stream(self, paths, skip_broken=False):\n"
        "        for batch in super().stream(paths, skip_broken):\n"
        f"            {CTRL_C}\n"
        "            yield batch\n"
        "update_index(Interrupted(folder), folder / 'photos', folder / 'index.npz', None)",
        tmp_path,
    )
    assert Stopped(done.returncode, done.stdout, done.stderr, False).faults() == []
    kept = read_index(tmp_path / "index.npz", tmp_path / "photos", FakeExtractor(tmp_path))
    assert_whole(kept, tmp_path / "photos", NAMES[:BATCH])


@pytest.mark.fault(KIND)
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_never_see_ctrl_c_from_their_first_moment(tmp_path, method):
    child = (
        f"import multiprocessing\ncontext = multiprocessing.get_context({method!r})\nqueue = context.Queue()\n"
        "with interrupts.hidden_from_children():\n"
        "    process = context.Process(target=queue.put, args=(1,)); process.start(); child = process.pid\n"
        "    os.kill(child, signal.SIGINT)\n"
        "print(queue.get(timeout=30)); process.join(); return process.exitcode"
    )
    done = run_child(child, tmp_path)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "1", "")


def test_a_command_started_in_the_background_ignores_it(tmp_path):
    code = CHILD.format(body=f"{CTRL_C}; return 0")
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_once_the_work_is_done_ctrl_c_undoes_nothing(tmp_path):
    code = CHILD.format(body="return 0").replace("sys.exit(run_command(main))", f"c = run_command(main); {CTRL_C}")
    done = subprocess.run([sys.executable, "-c", code + "\nsys.exit(c)"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
