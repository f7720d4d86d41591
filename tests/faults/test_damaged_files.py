"""Every file that is read back, damaged: it is read as what was written or refused, and nothing else ever happens."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import test as test_command
from configs import load_cfg
from datasets.pixel_cache import Wanted, find_cache, make_cache
from processor.resume import find_state
from tests.commands import args_for
from tests.faults.damage import damaged, outcome
from tests.faults.runs import equal
from tests.faults.tally import Count
from tools.report.files import read_tested
from tools.search.index import Index, read_index, save_index
from utils.checkpoint import load_file, read_weights
from utils.errors import DataError
from utils.run_folder import RunFolder, locked, open_run, read_metrics
from utils.test_folder import TestFolder, read_per_query, read_result

KIND = "damaged files"


@pytest.fixture(scope="module")
def tested(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> TestFolder:
    """The folder of a finished test, with its analysis but no page."""
    folder = tmp_path_factory.mktemp("tested")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_command, "_report", lambda folder: None)
        weight = trained_run / "transformer_2.pth"
        test_command.main(args_for(trained_run.parent / "tiny.yml", "TEST.WEIGHT", weight, "OUTPUT_DIR", folder))
    return TestFolder(folder)


def check(path: Path, flips: int, read: Callable[[], object], allowed: Callable[[object], bool], tally: Count) -> None:
    """Damage the file at `path` in many ways; what `read` returns without an error must be `allowed`."""
    whole, wrong, tried = path.read_bytes(), [], 0
    assert outcome(read)[0] == "read" and allowed(outcome(read)[1])
    for content in damaged(whole, flips):
        if content == whole:
            continue
        path.write_bytes(content)
        tried += 1
        try:
            how, value = outcome(read)
        except Exception as error:  # noqa: BLE001 - a traceback for the user, whatever it is
            wrong.append(f"{type(error).__name__}: {error}"[:200])
            continue
        if how == "read" and not allowed(value):
            wrong.append("read as if it were whole")
        elif how == "refused" and "\n" in value:
            wrong.append(f"of several lines: {value}")
    path.write_bytes(whole)
    tally(f"{KIND}: {path.name if path.suffix != '.npy' else 'pixel cache'}", tried, tried - len(wrong))
    assert not wrong, f"{len(wrong)} of {tried}: {sorted(set(wrong))[:8]}"


def copy_of(path: Path, folder: Path) -> Path:
    """Return a copy of a file that may be damaged."""
    return Path(shutil.copy(path, folder / path.name))


def test_a_checkpoint(trained_run, tmp_path, tally):
    path = copy_of(trained_run / "transformer_2.pth", tmp_path)
    weights = read_weights(path, "KEY")
    check(path, 60, lambda: read_weights(path, "KEY"), lambda value: equal(value, weights), tally)


def test_a_state(trained_run, tmp_path, tally):
    path = copy_of(trained_run / "state_last.pth", tmp_path)
    cfg = load_cfg(str(trained_run.parent / "tiny.yml"), ["OUTPUT_DIR", str(tmp_path), "SOLVER.MAX_EPOCHS", "2"])
    state = load_file(path, "KEY")
    fingerprint = state["data_fingerprint"]
    state = find_state(cfg, fingerprint)
    assert equal(load_file(path, "KEY")["model"], state["model"])
    check(path, 40, lambda: find_state(cfg, fingerprint), lambda value: equal(value, state), tally)


def test_the_records_of_a_run(trained_run, tmp_path, tally):
    path = copy_of(trained_run / "metrics.jsonl", tmp_path)
    records = read_metrics(path)
    assert len(records) > 4
    check(path, 300, lambda: read_metrics(path), lambda value: all(one in records for one in value), tally)


def test_the_configuration_of_a_run(trained_run, tmp_path, tally):
    path = copy_of(trained_run / "config.yaml", tmp_path)
    # a name that is none of the checkpoints' finds none of them
    check(path, 30, lambda: open_run(tmp_path), lambda value: isinstance(value.prefix, str), tally)


def test_the_lock_of_a_run(tmp_path, tally):
    run = RunFolder(tmp_path, "transformer")

    def take() -> object:
        with locked(run) as left:
            return left

    for path in {run.lock, *tmp_path.glob("run.lock*")}:
        path.write_bytes(b'{"pid": 4194305, "host": "x", "launcher": null}')
        check(path, 30, take, lambda left: left is None or isinstance(left, int), tally)


def test_the_queries_of_a_test(tested, tmp_path, tally):
    path = copy_of(tested.per_query, tmp_path)
    table = read_per_query(TestFolder(tmp_path))

    def allowed(value: object) -> bool:
        return value is None or (
            value.keys() == table.keys() and all(np.array_equal(value[k], table[k]) for k in table)
        )

    check(path, 300, lambda: read_per_query(TestFolder(tmp_path)), allowed, tally)


def test_the_figures_of_a_test_are_figures(tested, tmp_path, tally):
    path = copy_of(tested.summary, tmp_path)
    folder = TestFolder(tmp_path)
    check(path, 150, lambda: read_result(folder), lambda value: value is None or 0 <= value["mAP"] <= 1, tally)


def test_a_changed_figure_of_a_test_shows(tested, tmp_path, tally):
    path = copy_of(tested.summary, tmp_path)
    summary, folder = read_result(tested), TestFolder(tmp_path)
    check(path, 150, lambda: read_result(folder), lambda value: value in (None, summary), tally)


@pytest.mark.parametrize("name", ["analysis.json", "slices.csv"])
def test_what_a_report_shows(tested, tmp_path, tally, name):
    for path in (tested.summary, tested.analysis, tested.slices):
        copy_of(path, tmp_path)
    whole = read_tested(TestFolder(tmp_path))

    def allowed(value: object) -> bool:
        return value.analysis in (None, whole.analysis) and repr(value.slices) in (repr(None), repr(whole.slices))

    check(tmp_path / name, 150, lambda: read_tested(TestFolder(tmp_path)), allowed, tally)


class Model:
    """Stands for the extractor that an index is read for."""

    fingerprint, feat_dim, precision = "f" * 64, 8, "float32"

    def adopt_precision(self, precision: str) -> bool:
        return precision == self.precision


def test_an_index(tmp_path, tally):
    file, gallery = tmp_path / "index.npz", tmp_path / "photos"
    gallery.mkdir()
    feat = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    names = np.array([f"{number}.jpg" for number in range(40)])
    save_index(Index(names, np.ones((40, 2), dtype=np.int64), feat, "float32"), file, gallery, Model.fingerprint)

    def allowed(value: object) -> bool:
        return value is None or (np.array_equal(value.names, names) and np.array_equal(value.feat, feat))

    check(file, 400, lambda: read_index(file, gallery, Model()), allowed, tally)


def test_a_cache_of_pixels(tiny_root, tmp_path, tally):
    paths = sorted(map(str, (tiny_root / "VeRi" / "image_train").glob("*.jpg")))[:6]
    wanted = Wanted(paths, (8, 8), "bilinear", "pil")
    file = make_cache(str(tmp_path), wanted, 0).file
    rows = list(range(len(paths)))

    def read() -> torch.Tensor | None:
        cache = find_cache(str(tmp_path), wanted)
        if cache is None:
            return None
        images = torch.empty(wanted.shape, dtype=torch.uint8)
        cache.copy_rows(rows, images)
        return images

    pixels = read()
    check(file, 300, read, lambda value: value is None or torch.equal(value, pixels), tally)


def test_a_damaged_cache_is_built_again_by_the_same_command(tiny_root, tmp_path):
    paths = sorted(map(str, (tiny_root / "VeRi" / "image_train").glob("*.jpg")))[:6]
    wanted = Wanted(paths, (8, 8), "bilinear", "pil")
    file = make_cache(str(tmp_path), wanted, 0).file
    whole = file.read_bytes()
    file.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    images = torch.empty(wanted.shape, dtype=torch.uint8)
    with pytest.raises(DataError, match="DATALOADER.CACHE: .*damaged.*the same command builds it again"):
        make_cache(str(tmp_path), wanted, 0).copy_rows(range(6), images)
    make_cache(str(tmp_path), wanted, 0).copy_rows(range(6), images)
    assert file.read_bytes() == whole


@pytest.mark.parametrize("name", ["state_last.pth", "transformer_2.pth"])
@pytest.mark.fault(KIND + ": through a command")
def test_a_command_meets_a_damaged_file_with_one_line(trained_run, tmp_path, capsys, name):
    import train
    from tests.faults.mistakes import refusal

    run = shutil.copytree(trained_run, tmp_path / "run")
    content = (run / name).read_bytes()
    (run / name).write_bytes(content[: len(content) // 2])
    opts = (
        ["OUTPUT_DIR", run] if name.startswith("state") else ["TEST.WEIGHT", run / name, "OUTPUT_DIR", tmp_path / "t"]
    )
    main = train.main if name.startswith("state") else test_command.main
    argv = args_for(trained_run.parent / "tiny.yml", *opts, "SOLVER.MAX_EPOCHS", 2)
    assert name in refusal(main, *argv, capsys=capsys)
