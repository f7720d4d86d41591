"""Write a trained model as one file for onnxruntime or libtorch: python -m tools.export --help."""

from utils.interrupts import take_over

if __name__ == "__main__":
    take_over()  # Ctrl-C, before the imports that take time

import sys

from tools.source import load_source, source_parser
from utils.commands import path_flag
from utils.errors import run_command


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
    args = parser.parse_args(argv)

    from tools.export.exporter import check_target, export_model

    check_target(args.out, args.format)  # before the model is loaded
    for path, parity in export_model(load_source(args), args.out, args.format, args.normalise).items():
        rows = "captions" if parity.inputs == "caption_ids" else "images"
        print(
            f"{path}: {args.format}, {parity.inputs} -> embedding [batch, {parity.width}]; {parity.rows} random "
            f"{rows} against torch: smallest cosine {parity.cosine:.7f}, largest difference {parity.difference:.1e}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
