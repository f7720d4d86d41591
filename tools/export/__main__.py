"""Write a trained model as one file for onnxruntime or libtorch: python -m tools.export --help."""

from utils.interrupts import take_over

if __name__ == "__main__":
    take_over()  # Ctrl-C, before the imports that take time

import argparse
import sys

from configs.modalities import TEXT
from tools.queries import modality_flag
from tools.source import load_source, source_parser
from utils.commands import OneLineParser, path_flag
from utils.errors import run_command

ROWS = {"images": "images", "caption_ids": "captions", "tokens": "captions", "features": "queries"}  # by first input


def main(argv: list[str] | None = None) -> int:
    """Load the model that the arguments name, export it, and print what was written and how exact it is."""
    parser = source_parser(
        "python -m tools.export",
        "Write a trained model as one ONNX or TorchScript file, checked against the model; of a model that reads "
        "captions its text tower is a second one, FILE with _text in its name.",
    )
    parser.add_argument("--format", required=True, metavar="onnx|torchscript", help="kind of the file")
    parser.add_argument(
        "--out", required=True, type=path_flag, metavar="FILE", help="file to write; its folder is made"
    )
    parser.add_argument(
        "--normalise", action="store_true", help="take RGB values 0..255 and normalise them inside (default: outside)"
    )
    parser.add_argument(
        "--modality",
        type=modality_flag,
        metavar="M",
        help="of a model of several modalities: the tower of this one, whose embedding is that of a query of it alone",
    )
    parser.add_argument(
        "--unfused", action="store_true", help="with --modality: return the feature that the fusion takes, instead"
    )
    parser.add_argument(
        "--fusion",
        action="store_true",
        help="of a model of several modalities: what makes the embedding of any query from the features of its items",
    )
    args = parser.parse_args(argv)
    _check(parser, args)

    from tools.export.exporter import check_target, export_model
    from tools.export.modal import FUSION

    check_target(args.out, args.format)  # before the model is loaded
    part = FUSION if args.fusion else args.modality or ""
    files = export_model(load_source(args), args.out, args.format, args.normalise, part, not args.unfused)
    for path, parity in files.items():
        rows = ROWS[parity.inputs.partition(",")[0]]
        print(
            f"{path}: {args.format}, {parity.inputs} -> embedding [batch, {parity.width}]; {parity.rows} random "
            f"{rows} against torch: smallest cosine {parity.cosine:.7f}, largest difference {parity.difference:.1e}"
        )
    return 0


def _check(parser: OneLineParser, args: argparse.Namespace) -> None:
    """End with an error where flags contradict each other."""
    if args.fusion and args.modality is not None:
        parser.error("--modality and --fusion are a file each; give one of the two")
    if args.unfused and args.modality is None:
        parser.error("--unfused goes with --modality")
    if args.normalise and (args.fusion or args.modality == TEXT):
        parser.error("--normalise is of images")


if __name__ == "__main__":
    sys.exit(run_command(main))
