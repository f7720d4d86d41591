"""The checkpoint of epoch N is the file that this run wrote for epoch N: anything else is written anew, or refused."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import train
from processor.kept import begin_record, heal_checkpoint, keep_checkpoint
from processor.provenance import read_run
from processor.run import Run
from tests.cfgs import cfg_with
from tests.commands import args_for
from tests.faults.mistakes import refusal
from utils.checkpoint import load_file, read_weights, save_weights
from utils.digest import sha256_of
from utils.run_folder import RunFolder
from utils.run_record import read_record

STAGES = ("warm", "main")


def make_run(folder: Path, epoch: int = 3, identity: str = "") -> Run:
    """Return a run that has just finished an epoch: all that its checkpoints need."""
    run = RunFolder(folder, "transformer")
    folder.mkdir(exist_ok=True)
    torch.manual_seed(epoch)
    data = SimpleNamespace(
        num_classes=8, camera_num=3, view_num=2, fingerprint="d", test=SimpleNamespace(fingerprint="t")
    )
    stage = SimpleNamespace(model=nn.Linear(3, 2))
    progress = {"epoch": epoch, "run": identity or begin_record(run, STAGES, None, "")}
    return SimpleNamespace(cfg=cfg_with(), folder=run, stage=stage, file_stage="", data=data, progress=progress)


def keep(run: Run) -> None:
    keep_checkpoint(run, run.stage.model, "")


def another_epoch(run: Run, path: Path) -> None:
    other = make_run(run.folder.path, epoch=2, identity=run.progress["run"])
    keep(other)
    shutil.copyfile(run.folder.checkpoint(2), path)


def another_run(run: Run, path: Path) -> None:
    other = make_run(run.folder.path.with_name("other"))
    keep(other)
    shutil.move(other.folder.checkpoint(3), path)


def without_origin(run: Run, path: Path) -> None:
    torch.save(run.stage.model.state_dict(), path)


def lacking_a_tensor(run: Run, path: Path) -> None:
    provenance = read_run(path)
    weights = run.stage.model.state_dict()
    del weights["bias"]
    save_weights(weights, path, provenance)


def other_values(run: Run, path: Path) -> None:
    provenance = read_run(path)
    save_weights(nn.Linear(3, 2).state_dict(), path, provenance)


WRONG: dict[str, Callable[[Run, Path], object]] = {
    "truncated": lambda run, path: path.write_bytes(path.read_bytes()[:-20]),
    "empty": lambda run, path: path.write_bytes(b""),
    "garbage": lambda run, path: path.write_bytes(bytes(range(256)) * 9),
    "text": lambda run, path: path.write_text("weights"),
    "absent": lambda run, path: path.unlink(),
    "another epoch's": another_epoch,
    "another run's": another_run,
    "another stage's": lambda run, path: save_weights(
        run.stage.model.state_dict(), path, read_run(path) | {"stage": "warm"}
    ),
    "without origin": without_origin,
    "lacking a tensor": lacking_a_tensor,
    "other values": other_values,
    "a flipped bit": lambda run, path: path.write_bytes(path.read_bytes()[:900] + b"\xff" + path.read_bytes()[901:]),
}


@pytest.mark.parametrize("recorded", [True, False])
def test_what_is_not_the_checkpoint_of_this_epoch_is_written_anew(tmp_path, caplog, tally, recorded):
    run, held = make_run(tmp_path / "run"), []
    path = run.folder.checkpoint(3)
    for name, damage in WRONG.items():
        keep(run)
        digest = sha256_of(path)
        damage(run, path)
        if not recorded:  # as in a run of an older version, or one that was killed
            run.folder.record.unlink()
        caplog.clear()
        heal_checkpoint(run, run.stage.model, "")
        healed = read_weights(path, "test")
        same = all(torch.equal(healed[key], value) for key, value in run.stage.model.state_dict().items())
        whole = same and sha256_of(path) == digest == read_record(run.folder).checkpoints[path.name]
        said = ("it is written anew" in caplog.text) == (name != "absent")
        held.append((whole and said) or print(name, caplog.text))
    tally("damaged results: checkpoints", len(held), sum(map(bool, held)))
    assert all(held)


@pytest.mark.parametrize("recorded", [True, False])
def test_the_right_file_is_left_as_it_is(tmp_path, caplog, recorded):
    run = make_run(tmp_path / "run")
    path = run.folder.checkpoint(3)
    keep(run)
    if not recorded:
        run.folder.record.unlink()
    before = path.stat()
    heal_checkpoint(run, run.stage.model, "")
    assert path.stat() == before and not caplog.text
    assert read_record(run.folder).checkpoints == {path.name: sha256_of(path)}


def test_a_new_run_in_a_folder_forgets_the_checkpoints_of_the_old_one(tmp_path):
    run = make_run(tmp_path)
    keep(run)
    identity = begin_record(run.folder, STAGES, None, "")
    assert identity != run.progress["run"] and read_record(run.folder) == (identity, {}, "")


def test_a_run_that_goes_on_keeps_its_identity_and_records_what_is_its_own(tmp_path):
    run = make_run(tmp_path / "run")
    for epoch in (1, 2, 3):
        run.progress["epoch"] = epoch
        keep(run)
    record, identity = read_record(run.folder), run.progress["run"]
    assert begin_record(run.folder, STAGES, {"run": identity}, "") == identity and read_record(run.folder) == record
    another_run(run, run.folder.checkpoint(1))
    run.folder.checkpoint(2).write_bytes(b"")
    run.folder.record.write_bytes(b"\xff")
    assert begin_record(run.folder, STAGES, {"run": identity}, "") == identity
    assert read_record(run.folder).checkpoints == {"transformer_3.pth": record.checkpoints["transformer_3.pth"]}


def test_a_run_of_an_older_version_gets_an_identity_and_its_checkpoints_are_recorded(tmp_path):
    run = make_run(tmp_path / "run")
    run.progress["run"] = ""
    keep(run)
    run.folder.record.unlink()
    for _ in range(2):  # also where it is killed before its next state
        identity = begin_record(run.folder, STAGES, {}, "")
        assert identity == read_record(run.folder).run
        assert read_record(run.folder).checkpoints == {"transformer_3.pth": sha256_of(run.folder.checkpoint(3))}


def test_a_copied_state_makes_its_run_that_of_the_folder(tmp_path):
    run = make_run(tmp_path / "run")
    keep(run)
    assert begin_record(run.folder, STAGES, {"run": "the other's"}, "") == "the other's"
    assert read_record(run.folder) == ("the other's", {}, "")


@pytest.fixture
def finished(trained_run: Path, tmp_path: Path) -> tuple[list[str], RunFolder]:
    """The command line of a finished training of two epochs, and a copy of its folder."""
    folder = tmp_path / "run"
    shutil.copytree(trained_run, folder)
    config = trained_run.parent / "tiny.yml"
    return args_for(config, "SOLVER.MAX_EPOCHS", 2, "OUTPUT_DIR", folder), RunFolder(folder, "transformer")


@pytest.mark.fault("damaged results: checkpoints")
def test_train_heals_the_last_checkpoint_and_its_state_and_files_tell_one_run(finished):
    words, run = finished
    whole = read_weights(run.checkpoint(2), "test")
    shutil.copyfile(run.checkpoint(1), run.checkpoint(2))
    assert train.main(words) == 0
    healed, record = read_weights(run.checkpoint(2), "test"), read_record(run)
    assert healed.keys() == whole.keys() and all(torch.equal(healed[name], whole[name]) for name in whole)
    assert read_run(run.checkpoint(2))["epoch"] == 2
    assert load_file(run.state, "test")["run"] == record.run == read_run(run.checkpoint(1))["run"]
    assert record.checkpoints == {f"transformer_{epoch}.pth": sha256_of(run.checkpoint(epoch)) for epoch in (1, 2)}


@pytest.mark.parametrize("name", ["state_last.pth", "transformer_2.pth", "metrics.jsonl", "config.yaml", "run.json"])
@pytest.mark.fault("damaged results: folders for files")
def test_a_folder_in_the_place_of_a_file_of_the_run_is_refused_at_the_start(tiny_config, run_dir, capsys, name):
    (run_dir / name).mkdir(parents=True)
    error = refusal(train.main, *args_for(tiny_config), capsys=capsys)
    assert f"'{run_dir / name}' is a folder" in error and not (run_dir / "train_log.txt").exists()


@pytest.mark.fault("damaged results: a folder removed")
def test_a_run_folder_that_is_removed_in_mid_run_ends_it_with_one_line(finished, monkeypatch, capsys):
    from processor import train as loop
    from tests.commands import run as run_command

    words, run = finished
    train_epoch = loop.train_epoch

    def removing(*args: object) -> object:
        run.path.rename(run.path.with_name("elsewhere"))
        return train_epoch(*args)

    monkeypatch.setattr(loop, "train_epoch", removing)
    words[words.index("SOLVER.MAX_EPOCHS") + 1] = "3"
    assert run_command(train.main, *words) == 1
    error = capsys.readouterr().err
    assert error.count("error: ") == 1 and str(run.path) in error and "Traceback" not in error
