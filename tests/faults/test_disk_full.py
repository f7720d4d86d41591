"""A disk without room, at every file that a command writes: one line, nothing half, and the same command goes on.

The portable full disk is the limit of a file's size (RLIMIT_FSIZE); where mounting is allowed, a small tmpfs is one.
"""

import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import fake_runner
from tests.faults.events import code
from tests.faults.processes import Processes
from tests.faults.runs import Places, left_over, same_training
from tests.faults.tally import Count
from tests.faults.test_kills import events_of

KIND = "full disk"
NO_PROBE = "import utils.run_folder; utils.run_folder.PROBE_BYTES = 0"  # let a command get to the file that is meant
LIMITS = (
    0,
    100,
    4096,
    300_000,
    500_000,
)  # bytes: the lock and the probe, config.yaml, the log, a checkpoint, the state
EVENTS = 15
TMPFS_KIB = (0, 64, 700, 1000)  # room beside what lies there


@pytest.mark.slow
def test_a_training_meets_limits_at_every_kind_of_file_and_then_goes_on(
    processes: Processes, unbroken: Places, tmp_path: Path, tally: Count
):
    places, tried = unbroken._replace(folder=tmp_path), 0
    for limit in LIMITS:
        ended = processes.run("train", places.training, limit=limit, before=NO_PROBE if limit else "")
        ended.check_refusal(str(tmp_path), "make room")
        assert ended.output.count("lines of the log are lost") <= 1 and not left_over(tmp_path)
        tried += 1
    ended = processes.run("train", places.training)
    held = ended.code == 0 and same_training(unbroken.run, places.run)
    tally(f"{KIND}: training", tried, tried * held)
    assert held, ended.output


@pytest.mark.slow
def test_a_training_meets_a_full_disk_at_any_moment_of_writing_and_then_goes_on(
    processes: Processes, unbroken: Places, tmp_path: Path, tally: Count
):
    places, tried = unbroken._replace(folder=tmp_path), 0
    writes = sum(not name.endswith(("step", "write", "unlink")) for name in events_of(unbroken, "train"))
    for moment in random.Random(4).sample(range(1, writes // 2), EVENTS):
        ended = processes.run("train", places.training, before=code(moment, full=True))
        if ended.code:  # nearer to the end, it has fewer files left to write
            ended.check_refusal(str(tmp_path), "No space left on device", "make room")
            tried += 1
        assert not left_over(tmp_path)
    ended = processes.run("train", places.training)
    held = ended.code == 0 and same_training(unbroken.run, places.run)
    tally(f"{KIND}: training", tried, tried * held)
    assert held and tried, ended.output


def test_a_log_that_cannot_grow_is_told_once_and_ends_nothing(processes: Processes, unbroken: Places, tmp_path: Path):
    run = shutil.copytree(
        unbroken.run, tmp_path / "run"
    )  # trained to its end: only the log and the records are written
    with open(run / "train_log.txt", "a") as stream:
        stream.write("x" * 4_000_000)
    places = unbroken._replace(folder=tmp_path)
    ended = processes.run("train", places.training, limit=3_000_000)
    assert ended.code == 0 and ended.output.count("lines of the log are lost") == 1
    ended.check_readable()


@pytest.mark.slow
def test_curves_for_tensorboard_are_a_comfort(processes: Processes, unbroken: Places, tmp_path: Path):
    places = unbroken._replace(folder=tmp_path)
    before = "import utils.board, tests.faults.test_disk_full as full; utils.board.open = full.FullStream"
    ended = processes.run("train", places.training, before=before)
    assert ended.code == 0 and ended.output.count("no more curves for TensorBoard") == 1, ended.output
    ended.check_readable()
    assert same_training(unbroken.run, places.run)


class FullStream:
    """A file that could be opened on a full disk."""

    def __init__(self, *names: object) -> None:
        self.names = names

    def write(self, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    flush = close = lambda self: self.write(b"")


@pytest.mark.parametrize(("module", "expected"), [("train", 0), ("tools.config_docs", 1)])
@pytest.mark.fault(f"{KIND}: stdout")
def test_an_output_on_a_full_disk_is_one_line(processes, unbroken, tmp_path, module, expected):
    shutil.copytree(unbroken.run, tmp_path / "run")
    argv = unbroken._replace(folder=tmp_path).training if module == "train" else []
    ended = processes.run(module, argv, stdout="/dev/full")
    assert ended.code == expected, ended.output
    ended.check_readable()
    assert len(ended.output.splitlines()) == 1 and "make room" in ended.output, ended.output


@pytest.fixture(scope="module")
def photos(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a few images."""
    folder = tmp_path_factory.mktemp("photos")
    for path in sorted((tiny_root / "VeRi" / "image_query").glob("*.jpg"))[:6]:
        shutil.copy(path, folder)
    return folder


TOOLS = {  # name -> module, arguments, the file of the output
    "test": ("test", "--config_file CONFIG TEST.WEIGHT WEIGHT OUTPUT_DIR OUT", "per_query.npz"),
    "compare": ("tools.compare", "TEST TEST --json OUT/difference.json", "difference.json"),
    "report": ("tools.report.__main__", "COPY", "report.html"),
    "config docs": ("tools.config_docs", "--out OUT/keys.md", "keys.md"),
}
SLOW_TOOLS = {
    "cache": ("train", "--config_file CONFIG OUTPUT_DIR {OUT}_run DATALOADER.CACHE OUT", ".npy"),
    "torchscript": ("tools.export.__main__", "--run RUN --format torchscript --out OUT/model.pt", "model.pt"),
    "extract": ("tools.extract", "--run RUN --images PHOTOS --out OUT/feats.npz", "feats.npz"),
    "search": ("tools.search", "--run RUN --query IMAGE --gallery PHOTOS --index INDEX --out OUT", "1_"),
    "onnx": ("tools.export.__main__", "--run RUN --format onnx --out OUT/model.onnx", "model.onnx"),
    "index": ("tools.search", "--run RUN --query IMAGE --gallery PHOTOS --index OUT/i.npz --out OUT", "i.npz"),
    "ranks": ("tools.visualize.__main__", "ranks --run RUN --out OUT", ".png"),
    "attention": ("tools.visualize.__main__", "attention --run RUN --out OUT", ".png"),
    "embedding": ("tools.visualize.__main__", "embedding --run RUN --out OUT --method pca", "pca.csv"),
    "synthetic sheet": ("tools.synthetic", "--sheet OUT/sheet.png", "sheet.png"),
    "synthetic": ("tools.synthetic", "--root_dir OUT", "synthetic_veri"),
    "captions": ("tools.synthetic", "--captions --root_dir OUT", "synthetic_text"),
}


def check_tool(processes: Processes, unbroken: Places, photos: Path, folder: Path, tool: tuple[str, str, str]) -> None:
    """Run a tool that writes into a folder without room; it must say so, and leave the older file as it was."""
    module, words, name = tool
    out, index = folder / "out", folder / "index" / "i.npz"
    out.mkdir()
    copy = shutil.copytree(unbroken.test, folder / "copy")
    if name in words:
        (out / name).write_bytes(b"older")
    index.parent.mkdir()
    if "INDEX" in words:
        search = ["--run", unbroken.run, "--query", next(photos.glob("*.jpg")), "--gallery", photos, "--index", index]
        assert processes.run("tools.search", [*search, "--out", folder / "found"]).code == 0
    image = next(photos.glob("*.jpg"))
    named = {"CONFIG": unbroken.config, "WEIGHT": unbroken.run / "transformer_2.pth", "RUN": unbroken.run}
    named |= {"PHOTOS": photos, "IMAGE": image, "INDEX": index, "TEST": unbroken.test, "COPY": copy}
    argv = [str(named.get(word, word)).replace("{OUT}", str(out)) for word in words.split()]
    argv = [word.replace("OUT", str(out)) if word == "OUT" or word.startswith("OUT/") else word for word in argv]
    ended = processes.run(module, argv, before=NO_PROBE, limit=64)
    ended.check_refusal(name, "make room")
    assert not left_over(folder)
    if name in words:
        assert (out / name).read_bytes() == b"older"


@pytest.mark.parametrize("name", TOOLS)
@pytest.mark.fault(f"{KIND}: tools")
def test_a_tool_meets_a_full_disk_with_one_line_that_names_the_file(processes, unbroken, photos, tmp_path, name):
    check_tool(processes, unbroken, photos, tmp_path, TOOLS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_TOOLS)
@pytest.mark.fault(f"{KIND}: tools")
def test_a_slow_tool_meets_a_full_disk_with_one_line_too(processes, unbroken, photos, tmp_path, name):
    check_tool(processes, unbroken, photos, tmp_path, SLOW_TOOLS[name])


@pytest.mark.fault(f"{KIND}: launcher")
def test_a_launch_whose_summary_has_no_room_keeps_the_older_one(processes, tmp_path, monkeypatch):
    fake_runner.install(monkeypatch)
    assert fake_runner.make_launch(tmp_path)(seeds=("0", "1")) == 0
    logs = tmp_path / "logs"
    before = {path: path.read_bytes() for path in logs.glob("[!.]*.*")}
    argv = ["--config", tmp_path / "deit_transreid_stride_mine.yml", "--output-root", logs, "--seeds", "0", "1"]
    ended = processes.run("run_phased_loss", argv, limit=64, before=NO_PROBE)
    ended.check_refusal("_summary.", "make room")
    assert {path: path.read_bytes() for path in logs.glob("[!.]*.*")} == before and not left_over(logs)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A mounted disk of 8 MiB in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True)
    except OSError as error:
        pytest.skip(f"no mount here ({error})")
    if mounted.returncode:
        pytest.skip(f"mounting is not allowed here ({mounted.stderr.decode().strip()})")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.slow
def test_a_training_on_a_small_disk_says_so_and_goes_on_when_there_is_room(
    processes: Processes, unbroken: Places, small_disk: Path, tally: Count
):
    places, filler, tried = unbroken._replace(folder=small_disk), small_disk / "filler", 0
    for room in TMPFS_KIB:
        free = shutil.disk_usage(small_disk).free - room * 1024
        filler.write_bytes(bytes(max(0, free)))
        ended = processes.run("train", places.training)
        ended.check_refusal(str(small_disk), "make room")
        assert not left_over(small_disk)
        tried += 1
        filler.unlink()
    ended = processes.run("train", places.training)
    held = ended.code == 0 and same_training(unbroken.run, places.run)
    tally(f"{KIND}: training on a small disk", tried, tried * held)
    assert held, ended.output
