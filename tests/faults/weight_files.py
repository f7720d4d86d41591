"""Files that a user may take for a weight file, each written by a small function."""

import argparse
import collections
import functools
import gzip
import io
import json
import pathlib
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from yacs.config import CfgNode

Write = Callable[[Path], None]
NAME = "base.norm.weight"
WEIGHTS = {NAME: torch.arange(6.0).reshape(2, 3), "base.norm.bias": torch.ones(3)}
BARE = {"x": torch.ones(3)}


class Call:
    """What a pickle turns into a call of `function`."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.made = function, arguments

    def __reduce__(self) -> tuple:
        return self.made


def saved(content: object, **options: object) -> Write:
    return lambda path: torch.save(content, path, **options)


def made(make: Callable[[], torch.Tensor]) -> Write:
    return lambda path: torch.save({"x": make()}, path)


def raw(content: bytes) -> Write:
    return lambda path: path.write_bytes(content) and None


def whole(content: object = WEIGHTS, **options: object) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


def rezipped(change: Callable[[dict[str, bytes]], dict[str, bytes]], kind: int = zipfile.ZIP_STORED) -> Write:
    """Write a sound file whose parts were changed, with right checksums."""

    def write(path: Path) -> None:
        with zipfile.ZipFile(io.BytesIO(whole({"x": torch.arange(5.0)}))) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w", kind) as archive:
            for name, content in change(parts).items():
                archive.writestr(name, content)

    return write


def pickled(old: bytes, new: bytes) -> Write:
    """Write a sound file of five values whose pickle was changed; `old` stands in it."""

    def change(parts: dict[str, bytes]) -> dict[str, bytes]:
        name = next(name for name in parts if name.endswith("data.pkl"))
        assert old in parts[name]
        return parts | {name: parts[name].replace(old, new, 1)}

    return rezipped(change)


def in_zip(**parts: bytes) -> Write:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in parts.items():
                archive.writestr(name, content)

    return write


def in_tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("weights.pth"), io.BytesIO())


def torchscript(path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)


def safetensors(content: dict[str, torch.Tensor] = WEIGHTS) -> Write:
    def write(path: Path) -> None:
        save_file(content, path.with_name("written"))
        path.write_bytes(path.with_name("written").read_bytes())

    return write


def changed(write: Write, change: Callable[[bytes], bytes]) -> Write:
    def written(path: Path) -> None:
        write(path)
        path.write_bytes(change(path.read_bytes()))

    return written


def twice(path: Path) -> None:
    path.write_bytes(whole())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(archive.namelist()[0], b"other")


def with_attribute() -> torch.Tensor:
    return setattr(value := torch.ones(2), "note", "x") or value


def with_hook() -> torch.Tensor:
    return Call(torch._utils._rebuild_tensor_v2, torch.ones(3).untyped_storage(), 0, (3,), (1,), False, {"a": 1})


def deep(levels: int) -> list:
    return functools.reduce(lambda value, _: [value], range(levels), [])


def numpy_file(save: Callable) -> Write:
    def write(path: Path) -> None:
        with open(path, "wb") as stream:
            save(stream, np.ones(3))

    return write


def metadata(value: object) -> collections.OrderedDict:
    weights = collections.OrderedDict(WEIGHTS)
    weights._metadata = value
    return weights


def with_attributes(**attributes: object) -> collections.OrderedDict:
    weights = collections.OrderedDict(WEIGHTS)
    vars(weights).update(attributes)
    return weights


LEGACY = {"_use_new_zipfile_serialization": False}
FIVE = b"K\x05"  # of the number of values in a storage and in a tensor
HUGE = b"\x8a\x06\x00\x00\x00\x00\x00\x01"  # 2**40
LISTED = {"other": "x", "numbers": [1, 2.0, None, True, b"bytes"], "set": {1, 2}, "count": collections.Counter([1, 1])}
PLAIN = {**LISTED, "size": torch.Size([1, 2]), "type": torch.float32, "device": torch.device("cpu"), "c": 1 + 2j}
OPTIMIZER = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.ones(3)}}, "param_groups": [{"params": [0]}]}

REFUSED: dict[str, tuple[Write, str]] = {  # file -> words that the one line of its refusal must have
    "empty": (raw(b""), "is empty; copy it again"),
    "text": (raw(b"hello\n"), "is text, no weight file"),
    "json": (raw(json.dumps({"weight_map": {}}).encode()), "is text"),
    "git-lfs": (raw(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "git lfs pull"),
    "html": (raw(b"\n<!DOCTYPE html><html>\xff"), "is a web page saved under that name"),
    "xml": (raw(b"<?xml version='1.0'?><Error>AccessDenied</Error>"), "is a web page"),
    "gzip": (raw(gzip.compress(whole())), "gunzip"),
    "bzip2": (raw(b"BZh91AY"), "bunzip2"),
    "xz": (raw(b"\xfd7zXZ\x00\x00"), "unxz"),
    "zstd": (raw(b"\x28\xb5\x2f\xfd\x00"), "unzstd"),
    "tar": (in_tar, "is a tar archive"),
    "npy": (numpy_file(np.save), "timm.create_model"),
    "npz": (numpy_file(np.savez), "timm.create_model"),
    "hdf5": (raw(b"\x89HDF\r\n\x1a\n\x00"), "is an HDF5 file"),
    "gguf": (raw(b"GGUF\x03\x00"), "is a GGUF file"),
    "onnx": (raw(b"\x08\x07\x12\x07pytorch\x1a\x052.0.0"), "is an ONNX model"),
    "zip of texts": (in_zip(a=b"x"), "is a zip archive without weights of torch.save (it holds a)"),
    "torchscript": (torchscript, "is a TorchScript archive, which holds code"),
    "noise": (raw(bytes(range(128, 256)) * 8), "damaged, or holds more"),
    "zeros": (raw(bytes(4096)), "damaged, or holds more"),
    "half a file": (raw(whole()[:700]), "copy it again"),
    "a changed value": (changed(raw(whole()), lambda all: all.replace(b"\x80?", b"\x80@", 1)), "is damaged"),
    "half a file of the old format": (raw(whole(**LEGACY)[:-8]), "copy it again"),
    "half of safetensors": (changed(safetensors(), lambda all: all[:-4]), "copy it again"),
    "safetensors with a wrong header": (
        changed(safetensors(), lambda all: all.replace(b"F32", b"F99")),
        "copy it again",
    ),
    "empty safetensors": (safetensors({}), "holds no weights (an empty dict)"),
    "compressed parts": (
        rezipped(lambda parts: parts | {"0": bytes(2**20)}, zipfile.ZIP_DEFLATED),
        "compressed or overlap",
    ),
    "a part twice": (twice, "the same name"),
    "no data.pkl": (rezipped(lambda parts: {n: p for n, p in parts.items() if "pkl" not in n}), "without weights"),
    "big endian": (rezipped(lambda p: p | {next(n for n in p if "byteorder" in n): b"big"}), "little-endian"),
    "no storage": (rezipped(lambda p: {n: c for n, c in p.items() if not n.endswith("data/0")}), "file not found"),
    "a storage beyond its record": (pickled(FIVE, HUGE), "copy it again"),
    "a tensor beyond its storage": (pickled(FIVE + b"\x85", b"K\x06\x85"), "copy it again"),
    "a tensor of another offset": (pickled(b"QK\x00", b"QK\x01"), "copy it again"),
    "a tensor of negative size": (pickled(FIVE + b"\x85", b"J\xff\xff\xff\xff\x85"), "copy it again"),
    "a tensor of too many sizes": (pickled(FIVE + b"\x85", FIVE + FIVE + b"\x86"), "copy it again"),
    "terabytes of one value": (saved({"x": torch.zeros(1).expand(2**20, 2**20)}), "would fill 4,096.0 GiB"),
    "bytes of a number": (saved({"x": Call(bytearray, 2**62)}), "(MemoryError: )"),
    "a tensor of a number": (saved({"x": Call(torch.FloatTensor, 2**60)}), "copy it again"),
    "a long name of many": (saved({"x" * 10**6: [*range(10**4), torch.ones(1, device="meta")]}), "of the meta device"),
    "a tuple as a name": (saved({"x": torch.ones(3), (1, 2): 3}), "an entry whose name is no text or number"),
    "lists in lists": (saved({"x": torch.ones(1), "deep": deep(200)}), "nested more than 100 deep"),
    "a pickle alone": (raw(pickle.dumps(BARE["x"].tolist(), 2)), "Invalid magic number"),
    "protocol 4": (saved(WEIGHTS, pickle_protocol=4), "damaged, or holds more"),
    "Namespace": (
        saved({"state_dict": WEIGHTS, "args": argparse.Namespace(a=1)}),
        "(argparse.Namespace), and making such objects runs code",
    ),
    "Namespace in the old format": (saved({"x": argparse.Namespace()}, **LEGACY), "(argparse.Namespace)"),
    "CfgNode": (saved({"model": WEIGHTS, "cfg": CfgNode({"A": 1})}), "(yacs.config.CfgNode)"),
    "numpy number": (saved({"model": WEIGHTS, "best": np.float64(0.9)}), "numpy"),
    "numpy array": (saved({"x": np.ones(3)}), "numpy"),
    "path": (saved({"model": WEIGHTS, "out": pathlib.PurePosixPath("x")}), "pathlib.PurePosixPath"),
    "partial": (saved({"model": WEIGHTS, "f": functools.partial(max, 1)}), "functools.partial"),
    "defaultdict": (saved(collections.defaultdict(int, WEIGHTS)), "collections.defaultdict"),
    "whole model": (saved(nn.Linear(2, 2)), "content.state_dict() of a whole model"),
    "model in it": (saved({"model": nn.Linear(2, 2)}), "torch.nn.modules.linear.Linear"),
    "state dict with attributes": (saved(with_attributes(note=3)), "attributes that no state dict has"),
    "sparse": (made(lambda: torch.eye(3).to_sparse()), "holds a sparse tensor (x)"),
    "sparse rows": (made(lambda: torch.eye(3).to_sparse_csr()), "holds a sparse tensor (x)"),
    "quantized": (
        made(lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)),
        "a quantized tensor (x)",
    ),
    "meta": (saved({"x": torch.ones(3, device="meta")}), "a tensor of the meta device"),
    "nested": (made(lambda: torch.nested.nested_tensor([torch.ones(2)])), "holds a nested tensor (x)"),
    "conjugate": (saved({"x": torch.ones(3, dtype=torch.complex64).conj()}), "a conjugate or negative view"),
    "hooks": (saved({"x": with_hook()}), "a tensor with hooks (x)"),
    "attributes": (saved({"x": with_attribute()}), "a tensor with attributes"),
    "a storage": (saved({"x": torch.ones(3).untyped_storage()}), "an object of class TypedStorage (x)"),
    "complex": (saved({"x": torch.ones(3, dtype=torch.complex64)}), "x is of type complex64"),
    "complex128": (saved({"x": torch.ones(3, dtype=torch.complex128)}), "x is of type complex128"),
    "float8": (saved({"x": torch.ones(3).to(torch.float8_e4m3fn)}), "x is of type float8_e4m3fn"),
    "uint16": (saved({"x": torch.ones(3).to(torch.uint16)}), "x is of type uint16"),
    "float8 of safetensors": (safetensors({"x": torch.ones(3).to(torch.float8_e5m2)}), "x is of type float8_e5m2"),
    "a tensor": (saved(torch.ones(3)), "holds no weights (a Tensor)"),
    "a list": (saved([torch.ones(3)]), "holds no weights (a list)"),
    "numbers as names": (saved({0: torch.ones(3)}), "its tensors have no names"),
    "no tensors": (saved({"epoch": 3, "config": "x"}), "holds no weights (a dict of 'epoch': int, 'config': str)"),
    "an optimizer alone": (saved({"optimizer": OPTIMIZER, "epoch": 1}), "holds no weights"),
    "two sets": (saved({"student": BARE, "twin": BARE}), "several sets of weights ('student', 'twin')"),
    "a name twice": (saved({"x": torch.ones(3), "module.x": torch.zeros(3)}), "holds x twice"),
}
READ: dict[str, Write] = {  # file -> it holds WEIGHTS
    **{
        f"in {name}": saved({name: WEIGHTS, "epoch": 3, "optimizer": OPTIMIZER})
        for name in (
            *("state_dict", "model", "teacher", "model_state_dict", "net", "network", "params", "module", "weights"),
            *("ema", "model_ema", "state_dict_ema", "of its own name"),
        )
    },
    **{
        f"under {name}": saved({f"{name}{key}": value for key, value in WEIGHTS.items()})
        for name in (
            *("module.", "_orig_mod.", "module._orig_mod.", "model.", "net.", "network.", "backbone.", "model.module."),
        )
    },
    "bare": saved(WEIGHTS),
    "Lightning": saved(
        {
            "pytorch-lightning_version": "2.1",
            "state_dict": {
                **{f"model.{key}": value for key, value in WEIGHTS.items()},
                "criterion.weight": torch.ones(4),
            },
        }
    ),
    "student and teacher": saved({"student": BARE, "teacher": WEIGHTS}),
    "container in container": saved({"state_dict": {"model": WEIGHTS}}),
    "an average with its decay": saved({"ema": {"decay": 0.99, "shadow": WEIGHTS}}),
    "old format": saved(WEIGHTS, **LEGACY),
    "safetensors": safetensors(),
    "metadata of no dict": saved(metadata(3)),
    "metadata": saved(metadata({"": {"version": 2}})),
    "parameters": saved({name: nn.Parameter(value) for name, value in WEIGHTS.items()}),
    "half": saved({name: value.half() for name, value in WEIGHTS.items()}),
    "bfloat16": saved({name: value.bfloat16() for name, value in WEIGHTS.items()}),
    "double": saved({name: value.double() for name, value in WEIGHTS.items()}),
    "transposed": saved({**WEIGHTS, NAME: WEIGHTS[NAME].T.contiguous().T}),
    "views of one storage": saved({NAME: torch.arange(9.0)[:6].view(2, 3), "base.norm.bias": torch.ones(9)[3:6]}),
    "expanded": saved({**WEIGHTS, "base.norm.bias": torch.ones(1).expand(3)}),
    "plain values beside": saved({"model": WEIGHTS, **PLAIN}),
}
BESIDE: dict[str, tuple[str, str]] = {  # raw weights -> averaged ones beside them
    **{
        f"{raw} and {averaged}": (raw, averaged)
        for raw, averaged in (
            *(("model", "model_ema"), ("state_dict", "state_dict_ema"), ("model", "ema"), ("params", "params_ema")),
            *(("state_dict", "ema_state_dict"), ("net", "ema"), ("model", "teacher"), ("model", "swa_model")),
        )
    },
}
