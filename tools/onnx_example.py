"""Compare images with an exported ONNX model: python -m tools.onnx_example MODEL.onnx IMAGE IMAGE [IMAGE ...]

An example to copy: it needs onnxruntime, numpy and Pillow alone, and nothing of this repository. All that it knows of
the model stands in the file's metadata, which `python -m tools.export` wrote.
"""

import json
import os
import sys
from typing import NoReturn

import numpy as np
import onnxruntime
from PIL import Image

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP")  # closed: Pillow starts other programs for some others
MAX_PIXELS = 89_478_485
FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}


def end(message: str) -> NoReturn:
    """Print what is wrong and exit with code 2."""
    printable = "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
    print(f"error: {printable}", file=sys.stderr)
    raise SystemExit(2)


def load(path: str) -> tuple[onnxruntime.InferenceSession, dict]:
    """Return the model and its metadata; SystemExit for a file that is none of ours."""
    if not os.path.isfile(path):
        end(f"no file '{path}'; python -m tools.export --format onnx writes one")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; the inputs that may be left out cause a warning
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return session, json.loads(session.get_modelmeta().custom_metadata_map["preprocessing"])
    except Exception as error:  # onnxruntime has errors of its own
        end(f"'{path}' is no file of python -m tools.export --format onnx ({error})")


def read_image(path: str, metadata: dict) -> np.ndarray:
    """Return an image as the model takes it: float32 [3, H, W]; SystemExit where it is not 8 bits per channel."""
    height, width = metadata["size"]
    if os.path.exists(path) and not os.path.isfile(path):
        end(f"image '{path}' is no file")
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                end(f"image '{path}' has {image.width} x {image.height} pixels, readable are {MAX_PIXELS}")
            if image.mode.startswith(("I", "F")):
                end(f"image '{path}' has more than 8 bits per channel; save it with 8")
            image = image.convert("RGB").resize((width, height), FILTERS[metadata["resize_filter"]])
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        end(f"image '{path}' cannot be read ({error})")
    pixels = np.asarray(image, dtype=np.float32)  # [H, W, 3] in 0..255
    if not metadata["normalised_inside"]:
        pixels = (pixels / 255 - np.float32(metadata["mean"])) / np.float32(metadata["std"])
    return pixels.transpose(2, 0, 1)


def embed(session: onnxruntime.InferenceSession, images: np.ndarray) -> np.ndarray:
    """Return the embeddings float32 [B, D] of images [B, 3, H, W].

    A model with side information also takes `camids` and `viewids`, int64 [B]; left out, they count as unknown.
    """
    return session.run(["embedding"], {"images": images})[0]


def main(arguments: list[str]) -> int:
    """Print the cosine similarity of each image to each."""
    for stream in (sys.stdout, sys.stderr):  # a file name may be no text of the terminal's code page
        stream.reconfigure(errors="backslashreplace")
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0
    if len(arguments) < 3:
        print(__doc__.splitlines()[0], file=sys.stderr)
        return 2
    session, metadata = load(arguments[0])
    paths = arguments[1:]
    feat = embed(session, np.stack([read_image(path, metadata) for path in paths]))
    feat /= np.linalg.norm(feat, axis=1, keepdims=True)
    for path, row in zip(paths, feat @ feat.T, strict=True):
        print(" ".join(f"{cosine:7.4f}" for cosine in row), path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
