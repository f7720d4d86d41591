"""Weight files: nothing is executed, nothing is half written."""

import os
import pickle

import pytest
import torch

from utils.checkpoint import load_file, read_weights, save_atomic
from utils.digest import sha256_of
from utils.errors import ConfigError, DataError, RunError


class Evil:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("executed",)


def test_a_file_that_would_execute_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"weight": Evil()}))
    torch.save({"weight": Evil()}, tmp_path / "zip.pth")
    for name in ("evil.pth", "zip.pth"):
        with pytest.raises(DataError, match="not"):
            load_file(tmp_path / name, "TEST.WEIGHT")
    assert not (tmp_path / "executed").exists()


def test_a_missing_file_names_key_path_and_what_lies_there(tmp_path):
    (tmp_path / "transformer_3.pth").touch()
    with pytest.raises(ConfigError, match=r"TEST.WEIGHT: no file '.*x.pth'; weight files in .*transformer_3.pth"):
        load_file(tmp_path / "x.pth", "TEST.WEIGHT")
    with pytest.raises(ConfigError, match="does not exist either"):
        load_file(tmp_path / "no" / "x.pth", "TEST.WEIGHT")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"hello"])
def test_a_damaged_file_is_one_line(tmp_path, content):
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_file(path, "TEST.WEIGHT")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value) and "PyTorch" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_a_torchscript_archive_is_not_opened(tmp_path):
    path = tmp_path / "openai.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    with pytest.raises(DataError, match="KEY: .*openai.pt' is a TorchScript archive, which holds code"):
        load_file(path, "KEY")


def test_tensors_without_names_are_no_state_dict(tmp_path):
    torch.save({0: torch.ones(2)}, tmp_path / "x.pth")
    with pytest.raises(DataError, match="KEY: .*x.pth' holds no state dict: its tensors have no names"):
        read_weights(tmp_path / "x.pth", "KEY")


def test_a_checkpoint_cut_in_half_is_refused(tmp_path):
    path = tmp_path / "x.pth"
    save_atomic({"weight": torch.randn(100, 100)}, path)
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(DataError, match="copy it again"):
        load_file(path, "TEST.WEIGHT")


def test_a_checkpoint_with_one_changed_byte_is_refused_or_loads_whole(tmp_path):
    path, weight = tmp_path / "x.pth", torch.randn(20, 20)
    save_atomic({"weight": weight}, path)
    whole, refused = path.read_bytes(), 0
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        try:
            assert torch.equal(load_file(path, "TEST.WEIGHT")["weight"], weight)
        except DataError:
            refused += 1
    assert refused > weight.nbytes // 7
    place = whole.index(weight.numpy().tobytes())
    path.write_bytes(whole[:place] + bytes(8) + whole[place + 8 :])
    with pytest.raises(
        DataError, match=r"as a weight file \(BadZipFile: its part 'archive/data/0' is damaged\); copy it"
    ):
        load_file(path, "TEST.WEIGHT")


@pytest.mark.parametrize("wrap", [lambda w: w, lambda w: {"state_dict": w}, lambda w: {"model": w, "epoch": 3}])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_containers_and_prefixes_are_stripped(tmp_path, wrap, prefix):
    torch.save(wrap({f"{prefix}base.norm.weight": torch.ones(3)}), tmp_path / "x.pth")
    assert list(read_weights(tmp_path / "x.pth", "K")) == ["base.norm.weight"]


def test_a_file_without_tensors_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "x.pth")
    with pytest.raises(DataError, match="holds no weights"):
        read_weights(tmp_path / "x.pth", "K")


def test_safetensors_files_load(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.arange(3.0)}, tmp_path / "x.safetensors")
    assert torch.equal(read_weights(tmp_path / "x.safetensors", "K")["a"], torch.arange(3.0))


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.pth"
    save_atomic({"a": torch.ones(2)}, path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left"):
        save_atomic({"a": torch.zeros(2)}, path)
    assert torch.equal(load_file(path, "K")["a"], torch.ones(2))
    assert [file.name for file in tmp_path.iterdir()] == ["x.pth"]


def test_sha256_is_that_of_the_bytes(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_of(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
