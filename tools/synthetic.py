"""Draw a synthetic set, or a picture of it: python -m tools.synthetic --help"""

from utils.interrupts import take_over

if __name__ == "__main__":
    take_over()  # Ctrl-C, before the imports that take time

import argparse
import sys
from pathlib import Path

from datasets.synthetic import FOLDER, MODAL_FOLDER, PERSON_FOLDER, TEXT_FOLDER
from utils.commands import OneLineParser, path_flag
from utils.errors import DataError, run_command


def main(argv: list[str] | None = None) -> None:
    """Save the contact sheet of a synthetic set, draw the set, or both."""
    parser = OneLineParser(prog="python -m tools.synthetic", description=main.__doc__)
    parser.add_argument(
        "--sheet", type=path_flag, metavar="PNG", help="save a picture: some identities under all cameras"
    )
    parser.add_argument(
        "--root_dir", type=path_flag, metavar="DIR", help=f"draw the set into DIR/{FOLDER}, unless it is there"
    )
    other = parser.add_mutually_exclusive_group()
    other.add_argument(
        "--captions", action="store_true", help=f"the vehicles with captions, DIR/{TEXT_FOLDER}, not synthetic VeRi"
    )
    other.add_argument("--persons", action="store_true", help=f"the persons, DIR/{PERSON_FOLDER}, not synthetic VeRi")
    other.add_argument(
        "--modalities",
        action="store_true",
        help=f"the vehicles in five modalities, DIR/{MODAL_FOLDER}, not synthetic VeRi",
    )
    args = parser.parse_args(argv)
    if args.sheet is None and args.root_dir is None:
        parser.error("nothing to do: give --sheet, --root_dir or both")
    if args.sheet is not None:
        _save_sheet(Path(args.sheet), args)
    if args.root_dir is not None:
        _draw(args.root_dir, args)


def _draw(root_dir: str, args: argparse.Namespace) -> None:
    if args.captions:
        from datasets.synthetic_text import load_synthetic_text

        load_synthetic_text(root_dir)
    elif args.persons:
        from datasets.synthetic_persons import load_synthetic_persons

        load_synthetic_persons(root_dir)
    elif args.modalities:
        from datasets.synthetic_orbench import load_synthetic_orbench

        load_synthetic_orbench(root_dir)
    else:
        from datasets.synthetic.load import load_synthetic

        load_synthetic(root_dir)


def _save_sheet(path: Path, args: argparse.Namespace) -> None:
    from PIL import Image

    from datasets.synthetic.caption_sheet import caption_sheet
    from datasets.synthetic.contact_sheet import contact_sheet
    from datasets.synthetic.modal.sheet import modal_sheet
    from datasets.synthetic.persons.sheet import person_sheet
    from utils.atomic import replacing
    from utils.run_folder import make_place

    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind not in Image.SAVE:
        raise DataError(f"--sheet '{path}' cannot be written (no ending of a picture); choose another file .png")
    make_place(str(path), "--sheet")
    sheets = ((args.captions, caption_sheet), (args.persons, person_sheet), (args.modalities, modal_sheet))
    draw = next((draw for asked, draw in sheets if asked), contact_sheet)
    with replacing(path) as temporary, open(temporary, "wb") as stream:
        draw().save(stream, format=kind, optimize=True)


if __name__ == "__main__":
    sys.exit(run_command(main))
