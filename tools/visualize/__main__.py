"""Pictures of a trained model: python -m tools.visualize ranks|attention|parts|words|embedding --run R --out DIR

ranks      what was found for a query, an image or a caption; right, wrong and same-camera images marked
attention  from where in the image each branch's feature comes
parts      how much of a similarity each stripe of a PCB gives, and which part misled
words      where in the image each word of a caption looks
embedding  embeddings of some identities in the plane
"""

from utils.interrupts import take_over

if __name__ == "__main__":
    take_over()  # Ctrl-C, before the imports that take time

import argparse
import sys

from tools.visualize import attention, embedding, parts, ranks, words
from utils.commands import OneLineParser
from utils.errors import run_command

COMMANDS = {
    "ranks": ranks.main,
    "attention": attention.main,
    "parts": parts.main,
    "words": words.main,
    "embedding": embedding.main,
}


def main(argv: list[str] | None = None) -> int:
    """Run the command that the first argument names; return the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    parser = OneLineParser(
        prog="python -m tools.visualize",
        usage="%(prog)s COMMAND ... (COMMAND --help lists the arguments of one)",
        description=__doc__.partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=", ".join(COMMANDS))
    args = parser.parse_args(argv[:1])
    return COMMANDS[args.command](argv[1:])


if __name__ == "__main__":
    sys.exit(run_command(main))
