"""The state of an epoch is written while the next one is trained: what it holds, and when it is there."""

import threading

import pytest
import torch

from processor import resume
from processor.resume import copied_to_host
from tests.faults import states
from tests.faults.states import ALONE, FINGERPRINT, PROGRESS, make_run, step
from utils.background import Background
from utils.errors import RunError


def test_a_state_holds_what_was_so_when_it_was_asked_for(tmp_path, monkeypatch):
    cfg, stage = make_run(tmp_path)
    step(stage)
    before = {name: value.clone() for name, value in stage.model.state_dict().items()}
    moments = [value["exp_avg"].clone() for value in stage.optimizer.state.values()]
    release, background = threading.Event(), Background()
    save = resume.save_atomic
    monkeypatch.setattr(resume, "save_atomic", lambda *given: (release.wait(10), save(*given)))
    progress = {**PROGRESS, "device": "cpu", "data_fingerprint": FINGERPRINT}
    resume.save_state(cfg, stage, ALONE, progress, background)
    step(stage)  # training goes on
    progress["epoch"] += 1
    release.set()
    background.close()
    state = states.read_state(tmp_path / "state_last.pth")
    assert state["epoch"] == PROGRESS["epoch"]
    assert all(torch.equal(state["model"][name], value) for name, value in before.items())
    assert not all(torch.equal(state["model"][name], value) for name, value in stage.model.state_dict().items())
    kept = [value["exp_avg"] for value in state["updater"]["optimizer"]["state"].values()]
    assert all(torch.equal(*pair) for pair in zip(kept, moments, strict=True))


def test_a_disk_that_refuses_a_state_stops_the_next_one_with_its_reason(tmp_path):
    cfg, stage = make_run(tmp_path)
    background = Background()
    (tmp_path / "state_last.pth").mkdir()  # what cannot be replaced by a file
    progress = {**PROGRESS, "device": "cpu", "data_fingerprint": FINGERPRINT}
    resume.save_state(cfg, stage, ALONE, progress, background)
    with pytest.raises((RunError, ValueError), match="state_last.pth"):
        resume.save_state(cfg, stage, ALONE, progress, background)
    background.close()


def test_a_copy_is_equal_its_own_and_as_shared_as_the_original():
    weight = torch.arange(6.0).reshape(2, 3)
    module = torch.nn.Linear(3, 2)
    content = {
        "a": weight,
        "same": weight,
        "view": weight.t(),
        "list": [weight, (1, "x")],
        "module": module.state_dict(),
    }
    whole, arrive = copied_to_host(content)
    arrive()
    weight.zero_()
    assert whole["a"].tolist() == [[0, 1, 2], [3, 4, 5]] and whole["view"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert whole["same"] is whole["a"] is whole["list"][0] and whole["list"][1] == (1, "x")
    assert whole["module"]._metadata == module.state_dict()._metadata
    assert torch.equal(whole["module"]["weight"], module.weight) and whole["module"]["weight"] is not module.weight
