"""Files that are taken for weight files: what they are, by their first bytes, and the way to weights."""

import os
import struct
import zipfile
from pathlib import Path, PurePosixPath

HEAD = 512  # bytes that tell a file's kind
TAR_MARK, TAR_MARK_AT = b"ustar", 257
TORCHSCRIPT_PARTS = ("constants.pkl",)  # in every archive of torch.jit.save, in none of torch.save
NUMPY_WAY = (
    "a file of numpy arrays, as JAX and Flax save weights; timm reads those of its models: timm.create_model(NAME, "
    "checkpoint_path=FILE), then torch.save(model.state_dict(), 'weights.pth')"
)
STARTS = {  # first bytes -> what the file is, and the way out
    b"version https://git-lfs": "a git-LFS pointer in place of the file; fetch it with 'git lfs pull'",
    b"\x1f\x8b": "compressed with gzip; unpack it with gunzip",
    b"BZh": "compressed with bzip2; unpack it with bunzip2",
    b"\xfd7zXZ\x00": "compressed with xz; unpack it with unxz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it with unzstd",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it and name the weight file in it",
    b"Rar!": "a RAR archive; unpack it and name the weight file in it",
    b"\x93NUMPY": NUMPY_WAY,
    b"\x89HDF": "an HDF5 file, as Keras saves weights; save them from PyTorch as a state dict",
    b"GGUF": "a GGUF file, whose weights are quantized; take the PyTorch or safetensors file of the model",
}
ZIP_START = b"PK\x03\x04"
ONNX_FIELD, LAST_IR_VERSION, NEXT_FIELDS = 0x08, 32, b"\x12\x1a\x22\x3a\x42"  # of the protobuf of a model


def what_else(path: Path) -> str:
    """Return what a file is that holds no weights, with the way out, as words that follow "is"; "" where none shows."""
    with open(path, "rb") as stream:
        head = stream.read(HEAD)
    if not head:
        return "empty; copy it again"
    for start, kind in STARTS.items():
        if head.startswith(start):
            return kind
    if head.startswith(ZIP_START):
        return _kind_of_zip(path)
    if head[TAR_MARK_AT:].startswith(TAR_MARK):
        return "a tar archive; unpack it and name the weight file in it"
    if is_safetensors(path):
        return ""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "a web page saved under that name; download the file itself"
    is_model = head[0] == ONNX_FIELD and len(head) > 2 and head[1] < LAST_IR_VERSION and head[2] in NEXT_FIELDS
    if is_model or path.suffix == ".onnx":
        return "an ONNX model, a graph made for inference; take the PyTorch file that it was exported from"
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        return "text, no weight file; name the file with the weights"
    return ""


def is_safetensors(path: Path) -> bool:
    """Return whether a file begins as safetensors: the length of a JSON header that lies within it."""
    with open(path, "rb") as stream:
        head, size = stream.read(9), os.fstat(stream.fileno()).st_size
    return len(head) == 9 and head[8:] == b"{" and struct.unpack("<Q", head[:8])[0] <= size - 8


def is_zip(path: Path) -> bool:
    """Return whether a file begins as a zip archive, as torch tells its formats apart."""
    with open(path, "rb") as stream:
        return stream.read(len(ZIP_START)) == ZIP_START


def _kind_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [PurePosixPath(name).name for name in archive.namelist()]
    except Exception:  # damaged in any way: loading says which
        return ""
    if any(name in TORCHSCRIPT_PARTS for name in names):
        return (
            "a TorchScript archive, which holds code and is not loaded; where you trust it, save its weights alone "
            "with torch.save(torch.jit.load(path).state_dict(), ...)"
        )
    if names and all(name.endswith(".npy") for name in names):
        return NUMPY_WAY
    if "data.pkl" not in names:
        return f"a zip archive without weights of torch.save (it holds {', '.join(names[:3])}); unpack it"
    return ""
