"""Several test sets of one model, and identities held out of training: whole commands on the tiny archive."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import test as test_command
import train
from configs import load_cfg
from datasets import make_dataloader
from processor.evaluation import analysis
from tests.datasets.trees import write_person_archive
from utils.errors import ConfigError
from utils.run_folder import RunFolder, read_metrics
from utils.test_folder import METRICS, read_table

HOLD_OUT = ("DATASETS.VAL_IDS", "0.25", "SOLVER.EVAL_PERIOD", "1", "SOLVER.IMS_PER_BATCH", "12")


@pytest.fixture
def two_roots(tiny_root: Path, tmp_path: Path) -> Path:
    """A data root with the tiny VeRi archive and a tiny Market-1501."""
    root = tmp_path / "two"
    root.mkdir()
    (root / "VeRi").symlink_to(tiny_root / "VeRi")
    write_person_archive(root / "market1501")
    return root


def test_held_out_identities_are_evaluated_in_training_and_never_trained_on(tiny_config, tmp_path):
    train.main(["--config_file", str(tiny_config), *HOLD_OUT])
    records = [
        record for record in read_metrics(tmp_path / "run" / "metrics.jsonl") if record["kind"] in ("val", "eval")
    ]
    assert [(record["kind"], record["epoch"]) for record in records] == [("val", 1), ("val", 2), ("val", 3)]
    assert all(0 < record["mAP"] <= 1 for record in records)
    cfg = load_cfg(tiny_config, HOLD_OUT)
    data = make_dataloader(cfg)
    trained = {sample.path for sample in data.train_loader.dataset.samples}
    asked = set(data.held_out.labels.names)
    assert not trained & asked and len(trained | asked) == 48 and data.num_classes == 6
    assert {sample.pid for sample in data.train_loader.dataset.samples} == set(range(6))


def test_the_held_out_result_is_that_of_the_kept_weights(tiny_config, tmp_path):
    from model import make_model
    from processor.evaluation.embed import embed, make_embedding
    from processor.evaluation.evaluate import evaluate, rank_options

    train.main(["--config_file", str(tiny_config), *HOLD_OUT])
    cfg = load_cfg(tiny_config, HOLD_OUT)
    data = make_dataloader(cfg)
    model = make_model(cfg, data.num_classes, data.camera_num, data.view_num)
    model.load_param(tmp_path / "run" / "transformer_3.pth")
    embedded = embed(model, data.held_out.loaders, make_embedding(cfg, torch.device("cpu")))
    result = evaluate(data.held_out, embedded, rank_options(cfg))
    last = [record for record in read_metrics(tmp_path / "run" / "metrics.jsonl") if record["kind"] == "val"][-1]
    assert last["mAP"] == pytest.approx(result.metrics["mAP"], abs=1e-9)
    kept = read_table(RunFolder(tmp_path / "run", "transformer").held_out(3))  # what a sweep's intervals are made of
    assert kept.keys() == result.per_query.keys() and kept["path"].tolist() == result.per_query["path"].tolist()
    np.testing.assert_allclose(kept["ap"], result.per_query["ap"], rtol=0, atol=1e-9)


def test_a_killed_run_keeps_its_held_out_records_up_to_its_last_whole_epoch(tiny_config, tmp_path):
    command = ["--config_file", str(tiny_config), *HOLD_OUT]
    train.main([*command, "SOLVER.MAX_EPOCHS", "2"])
    train.main(command)
    assert [
        record["epoch"] for record in read_metrics(tmp_path / "run" / "metrics.jsonl") if record["kind"] == "val"
    ] == [1, 2, 3]


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (("DATASETS.VAL_IDS", "0.2"), "SOLVER.EVAL_PERIOD 0 never looks at them"),
        (("DATASETS.VAL_IDS", "0.7"), "DATASETS.VAL_IDS got 0.7, allowed: 0 to 0.5"),
        (("DATASETS.TESTS", "market"), "DATASETS.TESTS got 'market'.*did you mean market1501"),
        (("DATASETS.TESTS", "('veri', 'veri')"), "DATASETS.TESTS .*different data sets"),
        (("DATASETS.TESTS", "table"), "the data set 'table' needs the CSV's path in DATASETS.TABLE"),
        (("TEST.ROC_FPR", "2"), "TEST.ROC_FPR got .*allowed: 1e-09 to 1"),
        (("TEST.QE.K", "-1"), "TEST.QE.K got -1, allowed: 0 to"),
    ],
)
def test_a_mistake_in_the_keys_of_tests_is_named(tiny_config, opts, message):
    with pytest.raises(ConfigError, match=message):
        load_cfg(tiny_config, opts)


def test_every_test_set_leaves_its_own_result_and_the_first_one_lists_them(tiny_config, tmp_path, two_roots):
    common = ["--config_file", str(tiny_config), "DATASETS.ROOT_DIR", str(two_roots)]
    train.main([*common, "SOLVER.MAX_EPOCHS", "1"])
    tests = ["DATASETS.TESTS", "('veri', 'market1501')", "TEST.WEIGHT", str(tmp_path / "run" / "transformer_1.pth")]
    test_command.main([*common, *tests, "OUTPUT_DIR", str(tmp_path / "out")])
    main_result = json.loads((tmp_path / "out" / "summary.json").read_text())
    other = json.loads((tmp_path / "out" / "market1501" / "summary.json").read_text())
    assert main_result["dataset"] == "VeRi-776" and other["dataset"] == "Market-1501"
    assert main_result["tests"] == {"market1501": {name: other[name] for name in main_result["tests"]["market1501"]}}
    assert main_result["data_fingerprint"] != other["data_fingerprint"]
    with np.load(tmp_path / "out" / "market1501" / "per_query.npz") as per_query:
        assert all("market1501" in path for path in per_query["path"])


def test_a_test_without_a_report_leaves_none_of_an_older_test_and_all_its_figures(tiny_config, tmp_path, monkeypatch):
    train.main(["--config_file", str(tiny_config), "SOLVER.MAX_EPOCHS", "1"])
    command = ["--config_file", str(tiny_config), "TEST.WEIGHT", str(tmp_path / "run" / "transformer_1.pth")]
    command += ["OUTPUT_DIR", str(tmp_path / "out")]
    test_command.main(command)
    assert {"report.html", "analysis.json", "slices.csv"} <= {path.name for path in (tmp_path / "out").iterdir()}
    whole = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert set(whole["threshold"]) == set(whole["tpr_at_fpr"]) == {"0.0001", "0.001", "0.01"}
    for name in ("CameraPairs", "FirstLists"):
        monkeypatch.setattr(analysis, name, lambda *args: pytest.fail("what only the report shows is not computed"))
    test_command.main([*command, "TEST.FLIP", "True", "TEST.REPORT", "False"])
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left == {"summary.json", "per_query.npz", "test_log.txt", "test.lock"}
    assert json.loads((tmp_path / "out" / "summary.json").read_text()).keys() == whole.keys()


def test_a_test_is_re_ranked_once(tiny_config, tmp_path, monkeypatch):
    from utils.ranking import rank

    calls, re_ranked = [], rank.re_ranked_distances
    monkeypatch.setattr(rank, "re_ranked_distances", lambda *args: calls.append(args) or re_ranked(*args))
    train.main(["--config_file", str(tiny_config), "SOLVER.MAX_EPOCHS", "1"])
    weight = ("TEST.WEIGHT", str(tmp_path / "run" / "transformer_1.pth"), "OUTPUT_DIR", str(tmp_path / "out"))
    test_command.main(["--config_file", str(tiny_config), "TEST.RE_RANKING", "True", *weight])
    assert len(calls) == 1


def test_a_foreign_test_set_is_told_no_camera_but_ranked_by_its_own(tiny_config, two_roots):
    cfg = load_cfg(tiny_config, ["DATASETS.ROOT_DIR", str(two_roots), "DATASETS.TESTS", "('veri', 'market1501')"])
    data = make_dataloader(cfg)
    foreign = data.tests["market1501"]
    dataset = foreign.loaders[0].dataset
    assert {sample.camid for sample in dataset.told} == {-1} == {sample.viewid for sample in dataset.told}
    assert foreign.labels.camids.min() >= 0 and len(foreign.trials[0].query) < len(dataset)
    assert data.test.name == "veri" and data.val_loader is data.test.loaders[0]


def test_training_looks_at_the_first_test_set_alone_and_reads_every_archive_once(tiny_config, two_roots, monkeypatch):
    read, original = [], sys.modules["datasets.make_dataloader"].make_datasets
    module = sys.modules["datasets.make_dataloader"]  # the package has a function of that name
    monkeypatch.setattr(module, "make_datasets", lambda cfg, names: read.append(names) or original(cfg, names))
    tests = ("DATASETS.TESTS", "('veri', 'market1501')", *HOLD_OUT)
    cfg = load_cfg(tiny_config, ["DATASETS.ROOT_DIR", str(two_roots), *tests])
    assert list(make_dataloader(cfg, 2).tests) == ["veri"]
    assert list(make_dataloader(cfg).tests) == ["veri", "market1501"]
    assert read == [["veri"], ["veri", "market1501"]]


def test_the_first_test_set_may_be_one_that_is_not_trained_on(tiny_config, two_roots):
    cfg = load_cfg(tiny_config, ["DATASETS.ROOT_DIR", str(two_roots), "DATASETS.TESTS", "market1501"])
    data = make_dataloader(cfg)
    assert data.num_classes == 8 and all("market1501" in path for path in data.test.labels.names)


def test_query_and_gallery_alone_are_tested_with_the_same_result(tiny_root, tiny_config, trained_run, tmp_path):
    (tmp_path / "alone" / "VeRi").mkdir(parents=True)
    for name in ("image_query", "image_test", "keypoint_test.txt"):
        (tmp_path / "alone" / "VeRi" / name).symlink_to(tiny_root / "VeRi" / name)
    results = []
    for root in (tiny_root, tmp_path / "alone"):
        opts = ["TEST.WEIGHT", str(trained_run / "transformer_2.pth"), "DATASETS.ROOT_DIR", str(root)]
        assert test_command.main(["--config_file", str(tiny_config), *opts]) == 0
        results.append(json.loads((tmp_path / "run" / "summary.json").read_text()))
    whole, alone = results
    for key in (*METRICS, "num_query", "data_fingerprint"):
        assert alone[key] == whole[key]
    assert alone["train_fingerprint"] == "" and whole["train_fingerprint"]
