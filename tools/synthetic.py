"""Draw synthetic VeRi, or a picture of it: python -m tools.synthetic --help"""

import sys

from datasets.synthetic.contact_sheet import contact_sheet
from datasets.synthetic.load import FOLDER, load_synthetic
from utils.commands import OneLineParser
from utils.errors import DataError, run_command


def main(argv: list[str] | None = None) -> None:
    """Save the contact sheet, draw the set, or both."""
    parser = OneLineParser(prog="python -m tools.synthetic", description=main.__doc__)
    parser.add_argument("--sheet", metavar="PNG", help="save a picture: rows are identities, columns are cameras")
    parser.add_argument("--root_dir", metavar="DIR", help=f"draw the set into DIR/{FOLDER}, unless it is there")
    args = parser.parse_args(argv)
    if args.sheet is None and args.root_dir is None:
        parser.error("nothing to do: give --sheet, --root_dir or both")
    if args.sheet is not None:
        try:
            contact_sheet().save(args.sheet, optimize=True)
        except (OSError, ValueError) as error:
            raise DataError(f"--sheet '{args.sheet}' cannot be written ({error}); choose another file .png") from error
    if args.root_dir is not None:
        load_synthetic(args.root_dir)


if __name__ == "__main__":
    sys.exit(run_command(main))
