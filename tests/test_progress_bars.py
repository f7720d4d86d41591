"""Whatever may take more than five seconds has a bar that reaches its end, and none without a terminal."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

import test as test_command
import train
from datasets.synthetic.load import draw_synthetic_veri
from datasets.synthetic_orbench import draw_synthetic_orbench
from datasets.synthetic_persons import draw_synthetic_persons
from datasets.synthetic_text import draw_synthetic_text
from tests.commands import run
from tools.caption_rows import token_batches
from tools.check import read_files
from tools.export.__main__ import main as export
from tools.feature_extractor import FeatureExtractor
from tools.visualize.attention import main as attention
from tools.visualize.embedding import project
from tools.visualize.ranks import main as ranks
from utils import progress as progress_module
from utils.progress import Bar
from utils.statistics.paired import sign_flip_test

RERANKED = ("TEST.RE_RANKING", "True", "TEST.RERANK.K1", "4", "TEST.RERANK.K2", "2", "TEST.QE.K", "2")
TESTED = {"embed", "expand the queries", "re-rank, 1 of 2", "re-rank, 2 of 2", "rank", "bootstrap"}


class Counter:
    """Stands for a bar; counts what is told."""

    def __init__(self, total: int, start: int) -> None:
        self.total, self.done, self.closed = total, start, False

    def update(self, n: int = 1) -> None:
        self.done += n

    def set_postfix_str(self, s: str = "") -> None:
        pass

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Counter]]:
    """The bars that are made from now on, by their words; without a terminal a real one is made and is silent."""
    made: dict[str, list[Counter]] = {}
    real = progress_module._make_bar

    def make(what: str, total: int, unit: str, start: int) -> Bar:
        assert isinstance(real(what, total, unit, start), progress_module._Silent)
        made.setdefault(what, []).append(Counter(total, start))
        return made[what][-1]

    for name in (progress_module.SHOWS, "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(progress_module, "_make_bar", make)
    return made


def assert_ended(bars: dict[str, list[Counter]], *expected: str) -> None:
    """Assert that there were these bars, and that each reached its end and was taken away."""
    assert set(expected) <= set(bars)
    for what in expected:
        assert all(bar.closed and bar.done == bar.total > 0 for bar in bars[what]), what


@pytest.mark.parametrize(
    ("draw", "what"),
    [
        (partial(draw_synthetic_veri, num_train_ids=1, num_test_ids=1), "draw synthetic VeRi"),
        (partial(draw_synthetic_persons, num_train_ids=1, num_test_ids=1), "draw synthetic persons"),
        (partial(draw_synthetic_text, num_train_ids=1, num_val_ids=1, num_test_ids=1), "draw synthetic vehicles"),
        (
            partial(draw_synthetic_orbench, num_train_ids=1, num_test_ids=1),
            "draw synthetic vehicles in five modalities",
        ),
    ],
    ids=["VeRi", "persons", "captions", "modalities"],
)
def test_drawing(draw, what, bars, tmp_path):
    draw(tmp_path / "drawn")
    assert_ended(bars, what)


def test_cache_epochs_and_raw_pixels(bars, tiny_config, tmp_path):
    opts = ("SOLVER.MAX_EPOCHS", 1, "TEST.REFERENCE", True, "DATALOADER.CACHE", tmp_path / "cache")
    assert run(train.main, "--config_file", tiny_config, *opts) == 0
    (epochs,) = (what for what in bars if what.startswith("epoch"))
    assert_ended(bars, "decode images for the cache", epochs, "raw pixels")


def test_embedding_ranking_re_ranking_and_intervals(bars, trained_run, tmp_path, capsys):
    weight = trained_run / "transformer_2.pth"
    config = ("--config_file", trained_run.parent / "tiny.yml", "TEST.WEIGHT", weight, "OUTPUT_DIR", tmp_path / "test")
    assert run(test_command.main, *config, *RERANKED) == 0
    assert_ended(bars, *TESTED)
    said = capsys.readouterr()
    assert "\r" not in said.out + said.err and "it/s" not in said.out + said.err


def test_paired_differences(bars):
    sign_flip_test(np.linspace(-1, 2, 30))
    assert_ended(bars, "permutation test")


def images_of(root: Path) -> list[str]:
    return [str(path) for path in sorted((root / "VeRi" / "image_query").glob("*.jpg"))[:5]]


def test_reading_for_the_doctor(bars, tiny_root):
    read_files(images_of(tiny_root))
    assert_ended(bars, "read")


def test_embeddings_of_own_images_and_sentences(bars, tiny_root, trained_run):
    FeatureExtractor.from_run(trained_run)(images_of(tiny_root))
    assert_ended(bars, "embed")
    bars.clear()
    assert [*token_batches(["a red pickup", "a bus", "a van"], 16, 2)]
    assert_ended(bars, "embed")


@pytest.mark.parametrize(
    ("main", "words"), [(ranks, ("--num-queries", 2)), (attention, ("--num-images", 2))], ids=["ranks", "attention"]
)
def test_pictures(main, words, bars, trained_run, tmp_path):
    assert run(main, "--run", trained_run, "--out", tmp_path, *words) == 0
    assert_ended(bars, "draw")


def test_a_map_of_embeddings(bars):
    project(np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32), "tsne", 0)
    (what,) = bars
    assert what == "t-SNE of 12 embeddings" and bars[what][0].closed


def test_export(bars, trained_run, tmp_path):
    assert run(export, "--run", trained_run, "--format", "torchscript", "--out", tmp_path / "model.pt") == 0
    assert_ended(bars, "export model.pt")


def test_no_other_module_draws_bars():
    root = Path(progress_module.__file__).parents[1]
    tops = ("configs", "datasets", "losses", "model", "processor", "solver", "tools", "utils")
    files = [path for top in tops for path in (root / top).rglob("*.py")]
    drawing = {path.name for path in files if "tqdm" in path.read_text(encoding="utf-8")}
    assert drawing == {"progress.py", "screen.py"}  # the second is the launcher's own
