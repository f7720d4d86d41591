"""Write a trained model as a folder for others: python -m tools.publish --run OUTPUT_DIR --out DIR"""

from utils.interrupts import take_over

if __name__ == "__main__":
    take_over()  # Ctrl-C, before the imports that take time

import argparse
import re
import sys
from pathlib import Path

from utils.commands import OneLineParser, path_flag
from utils.errors import run_command

LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")


def main(argv: list[str] | None = None) -> int:
    """Write the folder, and upload it where asked. Returns the exit code 0."""
    args = _parse(argv)
    from tools.hub import check_repository, push
    from utils.logger import log_to_stderr
    from utils.published_folder import PublishedFolder, check_whole

    log_to_stderr()
    folder = PublishedFolder(Path(args.out))
    if args.push is not None:
        check_repository(args.push)
    if args.run is not None:
        from tools.publish.figures import title_of
        from tools.publish.write import Wanted, publish

        name = args.push or folder.path.resolve().name
        wanted = Wanted(args.run, args.epoch, args.averaged, tuple(args.tests), args.licence or "", name)
        trained, tests = publish(wanted, folder)
        figures = ", ".join(f"{title_of(test)} {100 * test['mAP']:.2f} mAP" for test in tests) or "no test of it"
        print(f"{folder.path}: {trained.weight.name}, {figures}; {folder.card.name} describes it, edit it as you like")
    else:
        check_whole(folder)
    if args.push is not None:
        print(f"{push(folder, args.push, args.private)}: FeatureExtractor.from_pretrained('{args.push}') reads it")
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(
        prog="python -m tools.publish",
        description="Write a trained model as a folder that FeatureExtractor.from_pretrained reads: weights as "
        "safetensors, configuration, preprocessing, provenance, figures, a model card. Nothing in it tells of paths, "
        "folders or users of this machine.",
    )
    parser.add_argument("--run", type=path_flag, metavar="OUTPUT_DIR", help="run folder of a training")
    parser.add_argument("--epoch", type=int, metavar="N", help="epoch of the run (default: the last one kept)")
    parser.add_argument("--averaged", action="store_true", help="the averaged weights (SOLVER.EMA) of that epoch")
    parser.add_argument("--out", required=True, type=path_flag, metavar="DIR", help="folder of the published model")
    parser.add_argument(
        "--tests",
        nargs="+",
        type=path_flag,
        default=(),
        metavar="FOLDER",
        help="folders of tests of these weights, whose figures are published (default: those beside the run)",
    )
    parser.add_argument(
        "--licence",
        type=_licence,
        metavar="ID",
        help="licence of the weights for others, e.g. apache-2.0 (default: none)",
    )
    parser.add_argument("--push", metavar="USER/NAME", help="upload DIR to this repository of the Hugging Face hub")
    parser.add_argument("--private", action="store_true", help="with --push: a new repository is private")
    args = parser.parse_args(argv)
    if args.run is None and args.push is None:
        parser.error("name what to publish: --run OUTPUT_DIR, or --push USER/NAME for a DIR that is published already")
    given = {"--epoch": args.epoch, "--averaged": args.averaged, "--tests": args.tests, "--licence": args.licence}
    alone = [flag for flag, value in given.items() if value not in (None, False, ())]
    if args.run is None and alone:
        parser.error(f"{', '.join(alone)} goes with --run")
    if args.private and args.push is None:
        parser.error("--private goes with --push")
    return args


def _licence(text: str) -> str:
    if not LICENCE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected an identifier, e.g. apache-2.0")
    return text


if __name__ == "__main__":
    sys.exit(run_command(main))
