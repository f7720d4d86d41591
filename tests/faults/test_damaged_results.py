"""A damaged file of a test or of a run is never read as whole: tested anew, made anew, or one clear error."""

import json
from collections.abc import Callable

import pytest
import torch

import test as test_command
from configs import load_cfg
from tests.commands import args_for
from tests.fake_runner import summary_of, write_config
from tests.faults.launched import epochs_in, experiment_of, run_of, test_of
from tests.faults.mistakes import refusal
from tools.study.experiment import check_same_settings
from tools.study.results import collect_results, summarise
from tools.study.summary import seed_rows
from utils.checkpoint import save_weights
from utils.errors import ConfigError

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "garbage": lambda content: bytes(range(256)) * 4,
    "nested": lambda content: b"[" * 100_000,
    "another type": lambda content: b"3",
    "a bit flipped": lambda content: content[:-30] + bytes([content[-30] ^ 1]) + content[-29:],
}
WRONG_ENTRIES = [
    {"settings": []},
    {"tests": [1]},
    {"tests": {"../x": {}}},
    {"data_fingerprint": [1]},
    {"weight_sha256": 3},
    {"run": {}},
    {"files": "x"},
    {"cmc": [None]},
    {"mAP": 10**400},
    {"mINP": "0.5"},
    {"epoch": "1"},
]


def test_a_damaged_file_of_a_test_is_no_result_and_tested_anew(launch, runner, logs, tally):
    launch("--save-every", "0")
    folder, experiment, held = test_of(logs, 3), experiment_of(logs), []
    whole = {path: path.read_bytes() for path in (folder.summary, folder.per_query)}
    summary = json.loads(whole[folder.summary])
    changes = [(path, name, change(content)) for path, content in whole.items() for name, change in DAMAGES.items()]
    changes = [change for change in changes if change[:2] != (folder.summary, "a bit flipped")]
    changes += [(folder.summary, str(entry), json.dumps(summary | entry).encode()) for entry in WRONG_ENTRIES]
    for path, name, content in changes:
        path.write_bytes(content)
        found = collect_results(experiment, 0)
        held.append((found.epochs == {} and list(found.left_out) == [3]) or print(path.name, name))
        path.write_bytes(whole[path])
    tally("damaged results: files of a test", len(held), sum(map(bool, held)))
    assert all(held)
    folder.per_query.write_bytes(b"PK")
    runner.take()
    assert launch("--save-every", "0") == 0 and runner.take() == ["test 0 3"]


@pytest.mark.parametrize("name", ["summary.json", "per_query.npz"])
@pytest.mark.fault("damaged results: files of a test")
def test_a_folder_in_the_place_of_a_file_of_a_test_is_no_result(launch, runner, logs, name):
    launch("--save-every", "0")
    path = test_of(logs, 3).path / name
    path.unlink()
    path.mkdir()
    runner.test_codes = {3: 2}  # test.py refuses it
    assert launch("--save-every", "0") == 1
    assert summary_of(logs)["failed_tests"] or summary_of(logs)["seeds"]["0"]["last"]


@pytest.mark.parametrize("name", ["summary.json", "per_query.npz", "report.html", "test_log.txt"])
@pytest.mark.fault("damaged results: folders for files")
def test_a_test_refuses_a_folder_in_the_place_of_one_of_its_files_at_the_start(tiny_config, tmp_path, capsys, name):
    place = tmp_path / "out" / name
    place.mkdir(parents=True)
    (tmp_path / "x_1.pth").touch()
    words = args_for(tiny_config, "TEST.WEIGHT", tmp_path / "x_1.pth", "OUTPUT_DIR", place.parent)
    assert f"'{place}' is a folder, and belongs to a file of the test" in refusal(
        test_command.main, *words, capsys=capsys
    )


def test_a_damaged_configuration_of_a_run_is_one_line(launch, runner, logs, capsys, tally):
    launch()
    path, held, experiment = run_of(logs).config, [], experiment_of(logs)
    contents = (b"", b"\xff\xfe", b"[", b"3", b"a: 2000-13-45", b"SOLVER: 3", b"? [1]\n: 2", b"{" * 1000)
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=f"'{path}' is damaged"):
            check_same_settings(experiment, 0)
        held.append(True)
    tally("damaged results: files of a run", len(held), sum(held))
    capsys.readouterr()
    assert launch() == 2 and capsys.readouterr().err.count("\n") == 1


def test_wrong_types_in_the_configuration_of_a_run_are_differences(launch, runner, logs, capsys):
    launch()
    path = run_of(logs).config
    for key in ("MAX_EPOCHS: 3", "BASE_LR: 0.0003"):
        text = path.read_text()
        path.write_text(text.replace(key, f"{key.split(':')[0]}: [abc]"))
        capsys.readouterr()
        assert launch() == 2 and f"SOLVER.{key.split(':')[0]} ['abc'] -> " in capsys.readouterr().err
        path.write_text(text)


@pytest.mark.fault("damaged results: files of a run")
def test_a_run_without_its_configuration_is_refused_other_settings_by_its_checkpoints(launch, runner, logs, capsys):
    launch("--no-test")
    run = run_of(logs)
    now = load_cfg(write_config(logs.parent, "deit_transreid_stride_mine"), ["SOLVER.SEED", "0"])
    save_weights(torch.nn.Linear(2, 2).state_dict(), run.checkpoint(3), {"config": now.dump(), "epoch": 3})
    run.config.unlink()
    check_same_settings(experiment_of(logs), 0)
    assert launch("SOLVER.GAMMA", "0.5") == 2
    assert f"'{run.path}' was trained with other settings: SOLVER.GAMMA 0.1 -> 0.5" in capsys.readouterr().err


def test_damaged_records_of_a_run_cost_no_summary(launch, runner, logs, tally):
    runner.held_out = {1: 0.5, 2: 0.6}
    launch()
    path, held, experiment = run_of(logs).metrics, [], experiment_of(logs)
    whole = path.read_text()
    lines = (
        '{"kind": "val", "epoch": 3}',
        '{"kind": "val", "epoch": 3, "mAP": "x", "mINP": 0, "Rank-1": 0, "Rank-5": 0, "Rank-10": 0}',
        '{"kind": "reference", "epoch": 0, "name": ["raw_pixels"]}',
        '{"kind": "reference", "epoch": 0, "name": "raw_pixels", "mAP": "high"}',
        '{"kind": ["val"], "epoch": 1}',
        '{"kind": "val", "epoch": true}',
        '{"kind": "val", "stage": ["main"], "epoch": 1}',
        "[" * 100_000,
        "\x00\x00",
        "9" * 5000,
    )
    for line in lines:
        path.write_text(whole + line + "\n" + line[:20])
        summary, _ = summarise(experiment, [0], [])
        held.append(summary["seeds"]["0"]["best_held_out"]["epoch"] == 2 and seed_rows(summary))
    tally("damaged results: files of a run", len(held), sum(map(bool, held)))
    assert all(held) and launch() == 0


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"schema": 2, "run": "x", "checkpoints": {}}', b'{"schema": 1, "run": 3}', b"\xff"]
)
@pytest.mark.fault("damaged results: files of a run")
def test_a_damaged_record_of_a_run_proves_nothing_and_is_made_anew(launch, runner, logs, content):
    launch()
    run_of(logs).record.write_bytes(content)
    runner.take()
    assert launch() == 0  # these checkpoints do not tell of which epoch they are
    assert runner.take()[0] == "train 0" and epochs_in(logs) == [1, 2, 3]
