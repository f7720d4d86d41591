"""Compare images with an exported ONNX model: python -m tools.onnx_example MODEL.onnx IMAGE IMAGE [IMAGE ...]

Of a model that reads captions, images and captions too: MODEL.onnx IMAGE [IMAGE ...] --text "CAPTION" ["CAPTION" ...]

Of a model of several modalities, images and a query of several items, an image or a caption each, by the towers of its
modalities, exported with --unfused, and the fusion:
VIS.onnx IMAGE [IMAGE ...] --query FUSION.onnx NIR.onnx=IMAGE TEXT.onnx="CAPTION"

An example to copy: it needs onnxruntime, numpy and Pillow alone, for captions open_clip (open_clip_torch) too, and
nothing of this repository. All that it knows of the model stands in the metadata of the file, or of both files, which
`python -m tools.export` wrote.
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
TEXT = "--text"  # captions follow
QUERY = "--query"  # the fusion and the items of a query follow
KINDS = {  # what a file is whose metadata has such an entry
    "size": "the tower of images of a model",
    "length": "the tower of captions of a model",
    "fused": "the tower of one of several modalities",
    "modalities": "the fusion of several modalities",
}
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


def load(path: str, needed: str) -> tuple[onnxruntime.InferenceSession, dict]:
    """Return the model and its metadata, which has the entry `needed`; SystemExit for a file that is none of ours."""
    if not os.path.isfile(path):
        end(f"no file '{path}'; python -m tools.export --format onnx writes one")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; the inputs that may be left out cause a warning
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        metadata = json.loads(session.get_modelmeta().custom_metadata_map["preprocessing"])
    except Exception as error:  # onnxruntime has errors of its own
        end(f"'{path}' is no file of python -m tools.export --format onnx ({error})")
    if needed not in metadata:
        end(f"'{path}' is not {KINDS[needed]}")
    return session, metadata


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
            image = image.convert("RGB").convert("L" if metadata.get("grey") else "RGB")
            image = image.resize((width, height), FILTERS[metadata["resize_filter"]]).convert("RGB")
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


def tokenize(captions: list[str], metadata: dict) -> np.ndarray:
    """Return captions as the text tower takes them: int64 [B, length]."""
    try:
        from open_clip.tokenizer import SimpleTokenizer
    except ImportError:
        end("captions need the tokenizer of open_clip: pip install open_clip_torch")
    tokenizer = SimpleTokenizer()
    del tokenizer.bpe_ranks[max(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.get)]  # its number is that of the mask
    tokens = np.full((len(captions), metadata["length"]), metadata["padding"], dtype=np.int64)
    for row, caption in zip(tokens, captions, strict=True):
        words = tokenizer.encode(caption)[: metadata["length"] - 2]
        row[: len(words) + 2] = (metadata["start"], *words, metadata["end"])
    return tokens


def embed_captions(model: str, captions: list[str]) -> np.ndarray:
    """Return the embeddings float32 [B, D] of captions by the text tower beside the file `model`."""
    stem, suffix = os.path.splitext(model)
    session, metadata = load(f"{stem}_text{suffix}", "length")
    return session.run(["embedding"], {"caption_ids": tokenize(captions, metadata)})[0]


def embed_query(fusion: str, items: list[str]) -> np.ndarray:
    """Return the embedding float32 [1, D] of one query: what `fusion` makes of items TOWER.onnx=IMAGE or ="CAPTION"."""
    session, metadata = load(fusion, "modalities")
    most = len(metadata["modalities"])
    if not 0 < len(items) <= most:
        end(f"a query has 1 to {most} items, TOWER.onnx=ITEM each")
    features = np.zeros((1, most, session.get_inputs()[0].shape[2]), dtype=np.float32)
    for place, item in enumerate(items):  # in any order
        tower, parted, value = item.partition("=")
        if not parted:
            end(f"'{item}' names no tower; write TOWER.onnx={item}")
        encoder, facts = load(tower, "fused")
        if facts["fused"]:
            end(f"'{tower}' gives embeddings, which nothing fuses; export it with --unfused")
        given = tokenize([value], facts) if "length" in facts else read_image(value, facts)[None]
        features[:, place] = encoder.run(["embedding"], {encoder.get_inputs()[0].name: given})[0]
    mask = np.arange(most)[None] < len(items)
    return session.run(["embedding"], {"features": features, "mask": mask})[0]


def main(arguments: list[str]) -> int:
    """Print the cosine similarity of each image, and of each caption, to each."""
    for stream in (sys.stdout, sys.stderr):  # a file name may be no text of the terminal's code page
        stream.reconfigure(errors="backslashreplace")
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0
    stop = min((arguments.index(flag) for flag in (TEXT, QUERY) if flag in arguments), default=len(arguments))
    paths, others = arguments[1:stop], arguments[stop + 1 :]
    if not paths or len(paths) + len(others) < 2:
        print(__doc__.splitlines()[0], file=sys.stderr)
        return 2
    session, metadata = load(arguments[0], "size")
    feat = embed(session, np.stack([read_image(path, metadata) for path in paths]))
    if TEXT in arguments[stop:]:
        feat = np.concatenate([feat, embed_captions(arguments[0], others)])
    elif QUERY in arguments[stop:]:
        feat = np.concatenate([feat, embed_query(others[0], others[1:])])
        others = [" ".join(others[1:])]
    feat /= np.linalg.norm(feat, axis=1, keepdims=True)
    for name, row in zip([*paths, *others], feat @ feat.T, strict=True):
        print(" ".join(f"{cosine:7.4f}" for cosine in row), name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
