"""Draw synthetic VeRi or the vehicles with captions, or a picture of them: python -m tools.synthetic --help"""

from utils.interrupts import take_over

if __name__ == "__main__":
    take_over()  # Ctrl-C, before the imports that take time

import sys
from pathlib import Path

from datasets.synthetic import FOLDER, TEXT_FOLDER
from utils.commands import OneLineParser, path_flag
from utils.errors import DataError, run_command


def main(argv: list[str] | None = None) -> None:
    """Save the contact sheet of a synthetic set, draw the set, or both."""
    parser = OneLineParser(prog="python -m tools.synthetic", description=main.__doc__)
    parser.add_argument(
        "--sheet", type=path_flag, metavar="PNG", help="save a picture: rows are identities, columns are cameras"
    )
    parser.add_argument(
        "--root_dir", type=path_flag, metavar="DIR", help=f"draw the set into DIR/{FOLDER}, unless it is there"
    )
    parser.add_argument(
        "--captions", action="store_true", help=f"the vehicles with captions, DIR/{TEXT_FOLDER}, not synthetic VeRi"
    )
    args = parser.parse_args(argv)
    if args.sheet is None and args.root_dir is None:
        parser.error("nothing to do: give --sheet, --root_dir or both")
    if args.sheet is not None:
        _save_sheet(Path(args.sheet), args.captions)
    if args.root_dir is not None and args.captions:
        from datasets.synthetic_text import load_synthetic_text

        load_synthetic_text(args.root_dir)
    elif args.root_dir is not None:
        from datasets.synthetic.load import load_synthetic

        load_synthetic(args.root_dir)


def _save_sheet(path: Path, captions: bool) -> None:
    from PIL import Image

    from datasets.synthetic.caption_sheet import caption_sheet
    from datasets.synthetic.contact_sheet import contact_sheet
    from utils.atomic import replacing
    from utils.run_folder import make_place

    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind not in Image.SAVE:
        raise DataError(f"--sheet '{path}' cannot be written (no ending of a picture); choose another file .png")
    make_place(str(path), "--sheet")
    with replacing(path) as temporary, open(temporary, "wb") as stream:
        sheet = caption_sheet() if captions else contact_sheet()
        sheet.save(stream, format=kind, optimize=True)


if __name__ == "__main__":
    sys.exit(run_command(main))
