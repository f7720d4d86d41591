"""A model from its checkpoint alone, and what the checkpoint says about its data."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import test as test_command
from configs import get_cfg_defaults, load_cfg
from datasets import make_dataloader
from datasets.bases import fingerprint
from model import make_model
from processor.evaluation.embed import embed, make_embedding
from processor.provenance import data_differences
from processor.trained import find_weight, load_trained
from utils.checkpoint import read_provenance, save_weights
from utils.errors import ConfigError, DataError


@pytest.fixture
def finished(trained_run: Path) -> Path:
    """The folder of tiny.yml and of its finished run of two epochs, `run`."""
    return trained_run.parent


def test_the_newest_or_the_asked_epoch_is_found(finished):
    assert find_weight(finished / "run").name == "transformer_2.pth"
    assert find_weight(finished / "run", 1).name == "transformer_1.pth"


def test_a_checkpoint_alone_gives_the_model_that_the_test_command_builds(finished, tmp_path):
    alone = tmp_path / "moved.pth"
    alone.write_bytes((finished / "run" / "transformer_2.pth").read_bytes())
    trained = load_trained(alone)
    cfg = load_cfg(finished / "tiny.yml")
    data = make_dataloader(cfg)
    expected = make_model(cfg, data.num_classes, data.camera_num, data.view_num)
    expected.load_param(alone)
    how = make_embedding(cfg, torch.device("cpu"))
    feats = [embed(model, data.test.loaders, how).feat for model in (trained.model, expected)]
    torch.testing.assert_close(*feats, rtol=0, atol=0)
    assert not trained.model.training and trained.cfg.SOLVER.MAX_EPOCHS == 2


def test_the_checkpoint_is_still_a_bare_state_dict(finished):
    weights = torch.load(finished / "run" / "transformer_2.pth", weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in weights.values())
    provenance = read_provenance(finished / "run" / "transformer_2.pth")
    assert (provenance["num_classes"], provenance["camera_num"], provenance["view_num"]) == (8, 3, 2)
    assert provenance["epoch"] == 2 and provenance["datasets"] == ["veri"]


def test_a_bare_file_needs_a_configuration_and_takes_the_one_beside_it(finished, tmp_path):
    weights = dict(torch.load(finished / "run" / "transformer_2.pth", weights_only=True))
    torch.save(weights, tmp_path / "bare.pth")
    with pytest.raises(ConfigError, match="holds no configuration and no config.yaml.*name its YAML as config_file"):
        load_trained(tmp_path / "bare.pth")
    from_yaml = load_trained(tmp_path / "bare.pth", finished / "tiny.yml")
    (tmp_path / "config.yaml").write_text((finished / "run" / "config.yaml").read_text())
    beside = load_trained(tmp_path / "bare.pth")
    assert from_yaml.provenance is None and beside.cfg.SOLVER.MAX_EPOCHS == 2
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(
            from_yaml.model(images), load_trained(finished / "run" / "transformer_2.pth").model(images)
        )


def test_pairs_override_the_kept_configuration(finished):
    assert load_trained(find_weight(finished / "run"), opts=["TEST.FLIP", "True"]).cfg.TEST.FLIP
    with pytest.raises(ConfigError, match="TEST.FLIPS; did you mean TEST.FLIP"):
        load_trained(find_weight(finished / "run"), opts=["TEST.FLIPS", "True"])


@pytest.mark.parametrize(
    ("folder", "epoch", "message"),
    [
        ("nowhere", None, "run folder '.*nowhere': no such folder"),
        ("", None, "holds no checkpoint"),
        ("run", 7, "run folder '.*run' has no epoch 7; it holds epochs 1, 2"),
    ],
)
def test_a_wrong_run_or_epoch_is_named(finished, folder, epoch, message):
    with pytest.raises(ConfigError, match=message):
        find_weight(finished / folder, epoch)


def test_other_training_or_test_images_are_named_with_both_fingerprints(finished):
    cfg = load_cfg(finished / "tiny.yml")
    provenance = read_provenance(find_weight(finished / "run"))
    train_print, test_print = provenance["train_fingerprint"], provenance["test_fingerprint"]
    data = make_dataloader(cfg)
    assert train_print == data.fingerprint == fingerprint({"train": data.train_loader.dataset.samples})
    assert test_print == data.test.fingerprint
    assert data_differences(provenance, cfg, train_print, test_print) == []
    (line,) = data_differences(provenance, cfg, "f00", test_print)
    assert "trained on veri" in line and train_print in line and "f00" in line
    (line,) = data_differences(provenance, cfg, train_print, "ba5e")
    assert test_print in line and "ba5e" in line and "do not compare" in line


def test_a_test_on_another_set_is_no_difference_of_test_images(finished):
    cfg = load_cfg(finished / "tiny.yml", ["DATASETS.TESTS", "market1501"])
    provenance = read_provenance(find_weight(finished / "run"))
    assert data_differences(provenance, cfg, provenance["train_fingerprint"], "ba5e") == []


@pytest.mark.parametrize(
    ("before", "trial", "warned"), [(["regdb"], 2, True), (["regdb"], 1, False), (["veri"], 2, False)]
)
def test_a_test_on_another_trial_than_that_of_training_has_seen_its_persons(before, trial, warned):
    cfg = get_cfg_defaults()
    cfg.DATASETS.NAMES = ["regdb"]
    provenance = {"config": cfg.dump(), "datasets": before, "tested_on": "regdb", "test_fingerprint": "a"}
    cfg.DATASETS.TRIAL = trial
    lines = data_differences(provenance, cfg, "", "a")
    assert [("trial 1" in line, "trial 2" in line, "too high" in line) for line in lines] == [(True,) * 3] * warned


def test_the_test_command_warns_where_an_image_was_lost(finished, tiny_root, tmp_path):
    shutil.copytree(tiny_root, tmp_path / "data")
    next((tmp_path / "data" / "VeRi" / "image_train").iterdir()).unlink()
    weight = find_weight(finished / "run")
    opts = [
        "TEST.WEIGHT",
        str(weight),
        "OUTPUT_DIR",
        str(tmp_path / "out"),
        "DATASETS.ROOT_DIR",
        str(tmp_path / "data"),
    ]
    test_command.main(["--config_file", str(finished / "tiny.yml"), *opts])
    log = (tmp_path / "out" / "test_log.txt").read_text()
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    before = read_provenance(weight)["train_fingerprint"]
    assert summary["train_fingerprint"] != before
    assert f"fingerprint {before}" in log and summary["train_fingerprint"] in log


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("config", 7),
        ("num_classes", "8"),
        ("camera_num", -1),
        ("view_num", 10**12),
        ("datasets", "veri"),
        ("epoch", True),
    ],
)
def test_a_description_that_is_damaged_or_not_whole_is_named(finished, tmp_path, key, value):
    weight = find_weight(finished / "run")
    known = read_provenance(weight)
    for entries in ({**known, key: value}, {name: known[name] for name in known if name != key}):
        save_weights(torch.load(weight, weights_only=True), tmp_path / "x.pth", entries)
        with pytest.raises(DataError, match=rf"x.pth': what it tells about its training is damaged \({key}\)"):
            load_trained(tmp_path / "x.pth")
    save_weights(torch.load(weight, weights_only=True), tmp_path / "x.pth", {**known, "schema": 2})
    with pytest.raises(DataError, match="by schema 2, this version reads 1"):
        load_trained(tmp_path / "x.pth")


def test_rows_that_cannot_be_told_apart_are_replaced_by_their_mean_and_this_is_said(finished, tmp_path, caplog):
    weights = dict(torch.load(finished / "run" / "transformer_2.pth", weights_only=True))
    torch.save(weights, tmp_path / "bare.pth")
    trained = load_trained(tmp_path / "bare.pth", finished / "tiny.yml")
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"'{tmp_path / 'bare.pth'}' does not tell how the 6 rows of its side information divide into cameras and "
        "views: every image gets the neutral side information, their mean"
    ]
    whole, images = load_trained(finished / "run" / "transformer_2.pth").model, torch.randn(2, 3, 32, 32)
    labels = torch.tensor([0, 2])
    with torch.no_grad():
        told = trained.model(images, cam_label=labels, view_label=labels)
        torch.testing.assert_close(told, whole(images))
    assert trained.cfg.MODEL.SIE_CAMERA and trained.cfg.MODEL.SIE_VIEW


def test_side_information_that_a_file_lacks_is_off_and_this_is_said(finished, tmp_path, caplog):
    weights = dict(torch.load(finished / "run" / "transformer_2.pth", weights_only=True))
    del weights["base.sie_embed"]
    torch.save(weights, tmp_path / "bare.pth")
    trained = load_trained(tmp_path / "bare.pth", finished / "tiny.yml")
    assert trained.model.base.side_rows == 0
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    expected = "holds no side information: MODEL.SIE_CAMERA and MODEL.SIE_VIEW are off here"
    assert len(said) == 1 and said[0].endswith(expected)


def test_mistaken_paths_of_a_model_are_told(finished, tmp_path):
    with pytest.raises(ConfigError, match="checkpoint '.*run' is a folder; name a file in it"):
        load_trained(finished / "run")
    with pytest.raises(ConfigError, match="run folder '': no such folder"):
        find_weight("")
    torch.save(dict(torch.load(finished / "run" / "transformer_2.pth", weights_only=True)), tmp_path / "bare.pth")
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="config.yaml' is no text"):
        load_trained(tmp_path / "bare.pth")
