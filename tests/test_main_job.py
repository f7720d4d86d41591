"""The main job for real: the launcher trains and tests through its commands, and test.py gives the same numbers."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import run_phased_loss
import test as test_command
from processor.evaluation.evaluate import METRICS
from tests.reference import expansion, reranking, retrieval
from tests.tolerance import rounding
from utils.ranking.branches import read_branches

MOST_LINES = 60


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory, tiny_root: Path) -> tuple[Path, Path]:
    from tests.conftest import TINY_YAML

    folder = tmp_path_factory.mktemp("job")
    config = folder / "tiny.yml"
    config.write_text(TINY_YAML.format(root=tiny_root, output=folder / "unused"))
    argv = ["--config", str(config), "--seeds", "0", "--epochs", "2", "--output-root", str(folder / "logs")]
    with (
        open(folder / "stdout", "w") as out,
        open(folder / "stderr", "w") as err,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        assert run_phased_loss.main([*argv, "--opts", "TEST.REFERENCE", "True"]) == 0
    return config, folder / "logs"


def test_the_terminal_shows_few_lines_and_no_bar_and_the_log_keeps_every_detail(launched):
    config, logs = launched
    shown, errors = ((config.parent / name).read_text() for name in ("stdout", "stderr"))
    lines = shown.splitlines()
    assert len(lines) <= MOST_LINES and errors == ""
    assert all(line.isprintable() for line in lines) and "%|" not in shown and "INFO" not in shown
    assert "raw pixels" in shown and lines[-1].startswith("next   python -m tools.visualize ranks")
    log = (logs / "veri776_tiny_seed0_run" / "train_log.txt").read_text()
    for detail in (
        "INFO: configuration\n",
        "Epoch[1] Iteration[2/",
        "Base Lr",
        "images/s",
        "Epoch 2 done",
        "WARNING: ",
    ):
        assert detail in log, detail
    assert "Test Results - VeRi-776" in (logs / "veri776_tiny_seed0_test" / "epoch_2" / "test_log.txt").read_text()


def test_every_checkpoint_is_tested_and_summarised(launched):
    _, logs = launched
    names = {path.name for path in logs.glob("[!.]*")}
    assert names == {
        *("veri776_tiny_seed0_run", "veri776_tiny_seed0_test", "veri776_tiny_summary.json", "veri776_tiny_summary.csv"),
        *("veri776_tiny_summary.md", "phased_loss_best_summary.json", "veri776_tiny_report.html"),
    }
    for epoch in (1, 2):
        folder = logs / "veri776_tiny_seed0_test" / f"epoch_{epoch}"
        files = {
            "summary.json",
            "per_query.npz",
            "test.lock",
            "test_log.txt",
            "slices.csv",
            "slices.png",
            "analysis.json",
            "report.html",
        }
        assert files == {path.name for path in folder.iterdir()}
    summary = json.loads((logs / "veri776_tiny_summary.json").read_text())
    last = json.loads((logs / "veri776_tiny_seed0_test" / "epoch_2" / "summary.json").read_text())
    assert summary["seeds"]["0"]["last"] == {"epoch": 2, **{name: last[name] for name in METRICS}}
    assert set(summary["reference"]) == {"raw_pixels", "untrained"}


def test_test_py_reproduces_the_launchers_numbers_exactly(launched, tmp_path):
    config, logs = launched
    weight = logs / "veri776_tiny_seed0_run" / "transformer_2.pth"
    argv = ["--config_file", str(config), "TEST.WEIGHT", str(weight), "OUTPUT_DIR", str(tmp_path / "again")]
    assert test_command.main(argv) == 0
    assert (tmp_path / "again" / "test_log.txt").read_text().count("TEST.AMP off: float32") == 1
    theirs = logs / "veri776_tiny_seed0_test" / "epoch_2"
    one, two = (json.loads((folder / "summary.json").read_text()) for folder in (theirs, tmp_path / "again"))
    own = ("environment", "command", "config", "crc32")  # time, command line, OUTPUT_DIR and TEST.WEIGHT
    assert {key: one[key] for key in one if key not in own} == {key: two[key] for key in two if key not in own}
    with np.load(theirs / "per_query.npz") as a, np.load(tmp_path / "again" / "per_query.npz") as b:
        assert a.files == b.files
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name])


def test_branches_part_weights_spectral_re_ranking_and_trapezoids_in_one_test(launched, tmp_path):
    config, logs = launched
    weight = logs / "veri776_tiny_seed0_run" / "transformer_2.pth"
    keys = ("TEST.BRANCHES", "True", "TEST.SPECTRAL.K", "5", "TEST.PART_WEIGHTS", "[1, 0, 1, 1, 1]")
    argv = ["--config_file", str(config), *keys, "TEST.AP", "trapezoid", "TEST.WEIGHT", str(weight)]
    assert test_command.main([*argv, "OUTPUT_DIR", str(tmp_path)]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["ranking"] == {"ap": "trapezoid", "spectral": {"k": 5, "t": 0.1}}
    assert "branches.csv" in summary["files"]
    scores = {one.branch: one for one in read_branches(tmp_path / "branches.csv")}
    assert list(scores) == ["global", "local_1", "local_2", "local_3", "local_4"]
    assert np.isnan(scores["local_1"].mAP_alone)
    assert scores["local_1"].mAP_without == pytest.approx(summary["mAP"], abs=1e-6)  # it weighs nothing
    log = (tmp_path / "test_log.txt").read_text()
    assert "mAP (trapezoid AP): " in log and "branch local_4: alone mAP (trapezoid AP) " in log
    assert "branch local_1: alone no figures; without it mAP (trapezoid AP) " in log
    assert "all branches" in (tmp_path / "report.html").read_text()


def test_per_query_results_add_up_to_the_summary(launched):
    _, logs = launched
    folder = logs / "veri776_tiny_seed0_test" / "epoch_2"
    summary = json.loads((folder / "summary.json").read_text())
    with np.load(folder / "per_query.npz", allow_pickle=False) as table:
        valid = table["first_hit"] >= 0
        assert np.mean(table["ap"][valid]) == pytest.approx(summary["mAP"])
        assert np.mean(table["inp"][valid]) == pytest.approx(summary["mINP"])
        for rank in (1, 5, 10):
            assert np.mean(table["first_hit"][valid] < rank) == pytest.approx(summary[f"Rank-{rank}"])
        assert len(table["path"]) == summary["num_query"] and table["path"].dtype.kind == "U"
        assert ((table["brightness"] > 0) & (table["brightness"] < 1)).all()
        assert set(table["camid"]) == {0, 1, 2} and (table["num_pos"] == 4).all()


def test_options_of_the_evaluation_are_honoured(launched, tmp_path):
    """Re-ranking, normalisation and neck each change the result, and to that of the slow reference."""
    from configs import load_cfg
    from datasets import make_dataloader
    from model import make_model
    from processor.evaluation.embed import embed, make_embedding
    from processor.evaluation.evaluate import do_inference

    config, logs = launched
    distances = []
    for name, opts in {
        "plain": [],
        "after": ["TEST.NECK_FEAT", "after"],
        "raw": ["TEST.FEAT_NORM", "no"],
        "expand": ["TEST.QE.K", "3", "TEST.QE.ALPHA", "2"],
        "rerank": ["TEST.RE_RANKING", "True", "TEST.RERANK.K1", "6", "TEST.RERANK.K2", "3"],
    }.items():
        cfg = load_cfg(config, [*opts, "OUTPUT_DIR", str(tmp_path)])
        data = make_dataloader(cfg)
        model = make_model(cfg, data.num_classes, data.camera_num, data.view_num, pretrained=False)
        model.load_param(logs / "veri776_tiny_seed0_run" / "transformer_2.pth")
        results = do_inference(cfg, model, data)
        how = make_embedding(cfg, torch.device("cpu"))._replace(unit=False)
        feat = embed(model, data.test.loaders, how).feat.double().cpu().numpy()
        if name != "raw":
            feat /= np.linalg.norm(feat, axis=1, keepdims=True)
        query, gallery = feat[: data.num_query], feat[data.num_query :]
        if name == "expand":
            query = expansion.expand(query, gallery, 3, 2.0)
        distance = ((query[:, None] - gallery[None]) ** 2).sum(2)
        if name == "rerank":
            distance = reranking.re_rank(query, gallery, 6, 3, 0.3)
        pids, camids = data.test.labels.pids, data.test.labels.camids
        labels = (part for x in (pids, camids) for part in (x[: data.num_query], x[data.num_query :]))
        error = rounding(feat.shape[1]) * (feat**2).sum(1).max()  # of float32, in which the run measured distances
        low, high = retrieval.precision_bounds(distance, *labels, error)
        found = results["per_query"]["ap"]
        assert (low - 1e-9 <= found).all() and (found <= high + 1e-9).all() and (high - low).mean() < 0.05
        assert results["mAP"] == pytest.approx(found.mean())
        assert not any(np.allclose(distance, other) for other in distances)
        distances.append(distance)
