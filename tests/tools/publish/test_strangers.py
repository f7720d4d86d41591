"""A published folder that a stranger made: nothing of it is executed, and nothing in it leads to other files."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.tools.publish.families import write_clip_reid_run
from tools.feature_extractor import FeatureExtractor
from tools.publish.write import Wanted, publish
from utils.checkpoint import read_provenance, read_weights, save_safetensors
from utils.errors import ConfigError, DataError
from utils.published_folder import PublishedFolder, write_list


@pytest.fixture(scope="module")
def published(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> PublishedFolder:
    folder = PublishedFolder(tmp_path_factory.mktemp("published") / "model")
    publish(Wanted(str(trained_run), name="model"), folder)
    return folder


@pytest.fixture
def copy(published: PublishedFolder, tmp_path: Path) -> PublishedFolder:
    """A copy of the published model that a test may change."""
    return PublishedFolder(shutil.copytree(published.path, tmp_path / "copy"))


def with_config(folder: PublishedFolder, change: Callable[[str], str]) -> None:
    """Publish other settings with the same weights, the list of files put right."""
    told = read_provenance(folder.weights)
    changed = told | {"config": change(told["config"])}
    assert changed != told
    save_safetensors(read_weights(folder.weights, "test"), folder.weights, changed)
    write_list(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("CLIP_LOCAL_PATH", "/etc/passwd"),
        ("PRETRAIN_PATH", "../../weights.pth"),
        ("ROOT_DIR", "/data"),
        ("OUTPUT_DIR", "/tmp/taken"),
        ("TABLE", "/home/jane/labels.csv"),
        ("TEACHER_RUN", "/home/jane/run"),
        ("CACHE", "/var/cache"),
        ("CLIP_BACKBONE", "../../other.json"),
        ("DEVICE", "cuda"),
    ],
)
def test_a_configuration_that_names_a_place_is_refused(copy, key, value):
    def change(text: str) -> str:
        lines = text.splitlines()
        at = next(number for number, line in enumerate(lines) if line.strip().startswith(f"{key}:"))
        lines[at] = f"{lines[at].partition(':')[0]}: {value}"
        return "\n".join(lines)

    with_config(copy, change)
    with pytest.raises(DataError, match=f"names a place or a device.*{key} '{value}'"):
        FeatureExtractor.from_pretrained(copy.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("FLIP:", "FLOP:"), "unknown key TEST.FLOP"),
        (lambda text: text.replace("NECK_FEAT: before", "NECK_FEAT: sideways"), "TEST.NECK_FEAT got 'sideways'"),
        (lambda text: f"{text}\nHOOK: !!python/object/apply:os.system ['true']\n", "is damaged"),
        (lambda text: text.replace("FLIP: false", "FLIP: !!python/name:os.system"), "is damaged"),
    ],
)
def test_its_keys_pass_the_checks_of_every_configuration(copy, change, message):
    with_config(copy, change)
    with pytest.raises((ConfigError, DataError), match=message):
        FeatureExtractor.from_pretrained(copy.path)


class Trap:
    """What leaves a file behind where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("dump", [torch.save, lambda trap, path: path.write_bytes(pickle.dumps(trap))])
def test_code_in_a_weight_file_does_not_run(copy, tmp_path, dump):
    dump({"weights": Trap(tmp_path / "taken")}, copy.weights)
    write_list(copy)
    with pytest.raises(DataError, match=r"model\.safetensors"):
        FeatureExtractor.from_pretrained(copy.path)
    assert not (tmp_path / "taken").exists()


def test_weights_that_tell_nothing_of_their_training_do_not_fall_back_on_the_configuration_beside(copy, trained_run):
    bare = copy.path.with_name("bare.pth")
    torch.save(dict(read_weights(copy.weights, "test")), bare)  # not in place: safetensors map the file
    shutil.move(bare, copy.weights)
    shutil.copy(trained_run / "config.yaml", copy.config)  # with the paths of its machine
    write_list(copy)
    with pytest.raises(DataError, match="no weight file of a published model"):
        FeatureExtractor.from_pretrained(copy.path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "is damaged"),
        ("[" * 100_000, "is damaged"),
        ("{}", "is damaged"),
        (" " * (2**20 + 1), "is damaged"),
        (json.dumps({"schema": 2, "files": {}}), "has schema 2"),
        (json.dumps({"schema": 1, "files": {}}), "it has no model.safetensors, config.yaml"),
        (json.dumps({"schema": 1, "files": {"../../.bashrc": "0"}}), "lists files that no published model has"),
    ],
)
def test_a_list_that_is_none_is_refused(copy, content, message):
    copy.list.write_text(content)
    with pytest.raises(DataError, match=message):
        FeatureExtractor.from_pretrained(copy.path)


def test_a_checkpoint_that_was_moved_out_of_its_folder_asks_for_the_others(copy, tmp_path):
    shutil.move(copy.weights, tmp_path / "alone.safetensors")
    with pytest.raises(DataError, match="no whole published model"):
        FeatureExtractor.from_checkpoint(tmp_path / "alone.safetensors")


def test_a_clip_of_its_own_is_described_by_the_folder_and_not_by_the_working_directory(tmp_path, monkeypatch):
    run = write_clip_reid_run(tmp_path / "run")
    folder = PublishedFolder(tmp_path / "model")
    publish(Wanted(str(run), name="model"), folder)
    here = tmp_path / "here"
    here.mkdir()
    (here / folder.clip.name).write_text("{}")
    monkeypatch.chdir(here)
    assert folder.clip.name == FeatureExtractor.from_pretrained(folder.path).cfg.MODEL.CLIP_BACKBONE
    folder.clip.write_text("{}")
    with pytest.raises(DataError, match=r"clip\.json is not what was published"):
        FeatureExtractor.from_pretrained(folder.path)
    content = json.loads(folder.list.read_text())
    del content["files"][folder.clip.name]
    folder.list.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"it has no clip\.json"):
        FeatureExtractor.from_pretrained(folder.path)
