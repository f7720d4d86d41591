"""Milliseconds a crop from a frame's boxes to the vectors that a tracker gets: one crop at a time against all at once.

A ViT-Tiny of random weights at 256x128, exported to ONNX, on boxes of a frame of 1920x1080. The baseline runs the same
code on one box after the other, as a loop over detections does; both give the same vectors, which is asserted. CPU time
of one thread.

python benchmarks/tracking.py                    (1, 8, 32 and 64 boxes, about two minutes)
python benchmarks/tracking.py --onnx model.onnx  (a file of python -m tools.export)
"""

import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import alternate, keep, make_parser
from configs import load_cfg
from model import make_model
from processor.trained import Trained
from tools.export.exporter import export_model
from tools.tracking import Appearance
from utils.checkpoint import save_weights
from utils.device import seed_everything
from utils.errors import run_command

RECIPE = Path(__file__).resolve().parents[1] / "configs" / "Market" / "vit_transreid.yml"
SIZES = {  # of the transformer, and the numbers of boxes
    "tiny": (("MODEL.VIT.DEPTH", 1, "MODEL.VIT.EMBED_DIM", 32, "MODEL.VIT.NUM_HEADS", 2), (0, 1, 3), 1),
    "small": ((), (1, 8, 32, 64), 5),
}
FRAME = (1080, 1920)
LEAST_COSINE = 0.9999


def draw_boxes(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return boxes [count, 4] as x1, y1, x2, y2 of standing persons in a frame of FRAME."""
    height = rng.uniform(80, 400, count)
    width = height * rng.uniform(0.3, 0.5, count)
    left, top = rng.uniform(0, FRAME[1] - width), rng.uniform(0, FRAME[0] - height)
    return np.stack([left, top, left + width, top + height], axis=1)


def write_onnx(folder: Path, opts: tuple) -> Path:
    """Write a model of random weights as ONNX, its global branch alone, and return the file."""
    kind = ("MODEL.TRANSFORMER_TYPE", "vit_tiny_patch16_224_TransReID", "MODEL.JPM", False)
    cfg = load_cfg(RECIPE, (*kind, "MODEL.PRETRAIN_CHOICE", "none", "MODEL.DEVICE", "cpu", *opts))
    seed_everything(0)
    model = make_model(cfg, 751, 6, 1, pretrained=False).eval()
    weight = folder / "transformer_1.pth"
    save_weights(model.state_dict(), weight, {})
    export_model(Trained(cfg, model, torch.device("cpu"), weight, None), folder / "model.onnx", "onnx", normalise=True)
    return folder / "model.onnx"


def compare(appearance: Appearance, count: int, repeats: int) -> dict[str, float]:
    """Time both ways on `count` boxes; return a row of the table."""
    rng = np.random.default_rng(count)
    frame, boxes = rng.integers(0, 256, (*FRAME, 3), dtype=np.uint8), draw_boxes(count, rng)

    def one_by_one() -> np.ndarray:
        return np.concatenate([np.empty((0, appearance.dim)), *(appearance.of_boxes(frame, box) for box in boxes)])

    def all_at_once() -> np.ndarray:
        return appearance.of_boxes(frame, boxes)

    cosines = (one_by_one() * all_at_once()).sum(axis=1)
    assert (cosines > LEAST_COSINE).all(), cosines
    functions = {f"{count} boxes, one by one": one_by_one, f"{count} boxes, at once": all_at_once}
    times = alternate(functions, repeats, threads=None)  # onnxruntime has a thread of its own
    single, together = (1e3 * statistics.median(seconds) / max(count, 1) for seconds in times.values())
    ours = 1e3 * statistics.median(times[f"{count} boxes, at once"])
    row = {"boxes": count, "ms a crop, one by one": single, "ms a crop, at once": together}
    return row | {"times faster": single / together, "ms a frame": ours}


def main(argv: list[str] | None = None) -> None:
    parser = make_parser("benchmarks/tracking.py", __doc__)
    parser.add_argument("--size", choices=SIZES, default="small", help="of model and boxes (default: small)")
    parser.add_argument("--onnx", metavar="FILE", help="an exported model in place of the drawn one")
    args = parser.parse_args(argv)
    opts, counts, repeats = SIZES[args.size]
    with tempfile.TemporaryDirectory() as folder:
        appearance = Appearance(args.onnx or write_onnx(Path(folder), opts), threads=1)
        rows = [compare(appearance, count, repeats) for count in counts]
    for row in rows:
        print("{boxes} boxes: {ms a crop, at once:.2f} ms a crop, {ms a frame:.1f} ms a frame".format(**row))
    if args.size == "small" and args.onnx is None:
        keep("tracking", {"model": "ViT-Tiny, 256x128, stride 16", "rows": rows})


if __name__ == "__main__":
    sys.exit(run_command(main))
