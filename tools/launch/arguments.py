"""The launcher's command line: configs, seeds, switches, KEY VALUE pairs, and the names of an experiment's folders."""

import argparse
import math
import os
import re

from tools.launch.switches import Switches
from utils.commands import OneLineParser, path_flag, whole_number

MAX_SEED = 2**32 - 1
MAX_DIGITS = 18  # of a number
KEY_PATTERN = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)*")
NUMBERS_PATTERN = re.compile(r"[0-9,]+")
OWN_KEYS = {"SOLVER.SEED": "use --seeds", "OUTPUT_DIR": "use --output-root and --tag", "TEST.WEIGHT": "use test.py"}
GUIDE = """\
Trains recipes over seeds, tests every checkpoint and prints a summary; the same command again goes on where it was.

  On drawn images, no download, about four minutes on two CPU cores:
    python run_phased_loss.py --config configs/Synthetic/baseline.yml --seeds 0

  On your data, three seeds:
    python run_phased_loss.py --config configs/Market/vit_base.yml --seeds 0 1 2 --opts DATASETS.ROOT_DIR /path/to/data

  Several recipes, one table:
    python run_phased_loss.py --config configs/Synthetic/baseline.yml configs/Synthetic/supcon.yml --seeds 0 1 2

Recipes lie in configs/<data set>/; the first lines of each say what it trains and what to expect, docs/recipes.md
lists them. To try many settings and choose one (--grid, --search): docs/sweeps.md.
"""


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Return the flags: `configs`, `seeds`, `gpus` (or None) as lists, `switches`, `solver`, and pairs in `opts`."""
    parser = _make_parser()
    args, tail = parser.parse_known_args(argv)
    args.configs, after_configs = _split_configs(args.config)
    args.seeds, after_seeds = _split_numbers("--seeds", args.seeds, parser)
    _check_seeds(args.seeds, parser)
    args.grid, after_grid = _split_swept(args.grid)
    args.range, after_range = _split_swept(args.range)
    after_gpus = []
    if args.gpus is not None:
        args.gpus, after_gpus = _split_numbers("--gpus", args.gpus, parser)
    tail = after_configs + after_seeds + after_grid + after_range + after_gpus + tail
    unknown = [word for word in tail if word.startswith("--")]
    unknown += [word for word in tail[::2] if not KEY_PATTERN.fullmatch(word)]
    if unknown:
        parser.error(f"unknown argument '{unknown[0]}'")
    _check_summarise(args, parser)
    args.solver = _solver_keys(args)
    args.opts = _merge_opts(args, tail, parser)
    args.switches = Switches(args.mode, args.supcon, args.tripletx, args.T, args.W)
    return args


def _make_parser() -> OneLineParser:
    parser = OneLineParser(
        prog="run_phased_loss.py",
        description="Train, test and summarise experiments over seeds; the same command again goes on where it was.",
        epilog="KEY VALUE pairs may also stand at the end without --opts; they win over --epochs and --save-every. "
        "Relative paths in them, as in the YAML, start at the repository. A flag that is not given leaves the YAML "
        "alone. The summary covers the seeds of this launch; several configs end in one table, kept as ablation.md, "
        ".csv and .json.",
        guide=GUIDE,
    )
    root = os.environ.get("OUTPUT_ROOT") or "logs"
    on_off = argparse.BooleanOptionalAction
    add = parser.add_argument
    add("--config", "--config_file", nargs="+", action="append", required=True, metavar="F", help="YAMLs, the recipes")
    add("--seeds", nargs="+", default=["0", "1", "2"], metavar="S", help="0 1 2 or 0,1,2 (default: 0 1 2)")
    add(
        "--gpus",
        nargs="+",
        metavar="G",
        help="0 1 or 0,1: run the seeds of all YAMLs on these CUDA devices, one process each, of those that "
        "CUDA_VISIBLE_DEVICES leaves; a device named twice runs two at once. DATALOADER.NUM_WORKERS counts per process "
        "(default: one seed after the other)",
    )
    add("--epochs", type=int, metavar="N", help="SOLVER.MAX_EPOCHS, the last epoch (of the last stage)")
    add("--save-every", type=int, metavar="N", help="SOLVER.CHECKPOINT_PERIOD and SOLVER.EVAL_PERIOD, 0 = only the end")
    add("--output-root", default=root, type=path_flag, metavar="DIR", help="made if absent ($OUTPUT_ROOT or logs)")
    add("--tag", metavar="NAME", help="name in the folders, for the YAML's and the switches; several YAMLs add theirs")
    add("--ds-prefix", metavar="NAME", help="data set name in the folders (default: from DATASETS.NAMES)")
    add("--test", action=on_off, default=True, help="test each checkpoint (default: on)")
    add(
        "--summarise",
        action="store_true",
        help="train and test nothing, sum up what lies there: of seeds that ran apart, such as the tasks of an array",
    )
    add("--train-only", dest="test", action="store_false", help="the same as --no-test")
    add("--verbose", action="store_true", help="show all that the trainings and tests log, not progress and results")
    add("--opts", nargs="*", action="extend", default=[], metavar="KEY VALUE", help="keys that override the YAML")

    _add_switches(parser)
    _add_sweep(parser)
    return parser


def _add_sweep(parser: OneLineParser) -> None:
    sweep = parser.add_argument_group(
        "sweeps (points are compared on held-out identities, DATASETS.VAL_IDS; the chosen one alone is tested)"
    )
    add = sweep.add_argument
    add(
        "--grid",
        nargs="+",
        action="append",
        default=[],
        metavar="KEY V",
        help="KEY V1 V2 ...: values to try; again for further keys: every combination",
    )
    add(
        "--search",
        type=whole_number,
        metavar="N",
        help="let Optuna try N points within the --range (and choices of --grid); the same command continues",
    )
    add(
        "--range",
        nargs="+",
        action="append",
        default=[],
        metavar="KEY LOW HIGH",
        help="KEY LOW HIGH [log]: from where to where a search tries a number; log: by orders of magnitude",
    )
    add("--yes", action="store_true", help="start a sweep of more than 50 runs")


def _add_switches(parser: OneLineParser) -> None:
    switches = parser.add_argument_group("switches of the losses (one that is not given leaves the YAML alone)")
    mode = switches.add_mutually_exclusive_group()
    mode.add_argument(
        "--baseline",
        dest="mode",
        action="store_const",
        const="baseline",
        help="phases, TripletX, SupCon and routing off, but for what this command turns on",
    )
    mode.add_argument(
        "--phased", dest="mode", action="store_const", const="phased", help="follow LOSS.PHASED, the YAML's plan"
    )
    add, on_off = switches.add_argument, argparse.BooleanOptionalAction
    add("--supcon", action=on_off, help="LOSS.SUPCON.ENABLE")
    add("--tripletx", action=on_off, help="LOSS.TRIPLETX.ENABLE; off also means triplet in the YAML's plan")
    add("--T", type=_positive, metavar="X", help="LOSS.SUPCON.T, the temperature")
    add("--W", type=_positive, metavar="X", help="LOSS.SUPCON.W, the weight while LOSS.PHASED is off")


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"got '{text}', expected a number above 0")
    return value


def _split_configs(given: list[list[str]]) -> tuple[list[str], list[str]]:
    """Return the configs of every --config, and the words after them (KEY VALUE pairs that follow directly)."""
    configs, tail = [], []
    for words in given:
        count = next((i for i, word in enumerate(words) if i and KEY_PATTERN.fullmatch(word)), len(words))
        configs += words[:count]
        tail += words[count:]
    return configs, tail


def _split_swept(given: list[list[str]]) -> tuple[list[list[str]], list[str]]:
    """Return the words of every --grid or --range, and the KEY VALUE pairs (keys with a dot) that follow them."""
    swept, tail = [], []
    for words in given:
        count = next(
            (i for i, word in enumerate(words) if i and "." in word and KEY_PATTERN.fullmatch(word)), len(words)
        )
        swept.append(words[:count])
        tail += words[count:]
    return swept, tail


def _split_numbers(flag: str, words: list[str], parser: OneLineParser) -> tuple[list[int], list[str]]:
    """Return the numbers of a flag, and the words after them (KEY VALUE pairs that follow it directly)."""
    count = next((i for i, word in enumerate(words) if not NUMBERS_PATTERN.fullmatch(word)), len(words))
    given = [number for word in words[:count] for number in word.split(",") if number]
    too_long = next((number for number in given if len(number) > MAX_DIGITS), None)
    if too_long is not None:
        parser.error(f"{flag} {too_long} is too large")
    numbers = [int(number) for number in given]
    wrong = words[count : count + 1] if count < len(words) and not KEY_PATTERN.fullmatch(words[count]) else []
    if wrong or not numbers:
        parser.error(f"{flag} got '{(wrong or words)[0]}', expected whole numbers such as 0 1 2 or 0,1,2")
    return numbers, words[count:]


def _check_seeds(seeds: list[int], parser: OneLineParser) -> None:
    if max(seeds) > MAX_SEED:
        parser.error(f"--seeds {max(seeds)} is too large, at most {MAX_SEED}")
    if len(set(seeds)) < len(seeds):
        parser.error(f"--seeds {' '.join(map(str, seeds))} names a seed twice")


def _check_summarise(args: argparse.Namespace, parser: OneLineParser) -> None:
    """Refuse what would train or test, or leave tests out, beside --summarise."""
    others = {"--gpus": args.gpus is not None, "--no-test": not args.test, "--grid": args.grid}
    others |= {"--search": args.search is not None, "--range": args.range}
    beside = next((flag for flag, given in others.items() if given), "")
    if args.summarise and beside:
        parser.error(f"--summarise trains and tests nothing, {beside} is about what does; drop one")


def _solver_keys(args: argparse.Namespace) -> dict[str, str]:
    """Return what --epochs and --save-every set among the SOLVER keys of the last stage."""
    solver = {} if args.epochs is None else {"MAX_EPOCHS": str(args.epochs)}
    if args.save_every is not None:
        solver |= dict.fromkeys(("CHECKPOINT_PERIOD", "EVAL_PERIOD"), str(args.save_every))
    return solver


def _merge_opts(args: argparse.Namespace, tail: list[str], parser: OneLineParser) -> list[str]:
    """Return DATASETS_ROOT as a pair, then the user's pairs; each key once, the last value wins."""
    for words in (args.opts, tail):
        if len(words) % 2:
            parser.error(f"expected KEY VALUE pairs, got {len(words)} words: {' '.join(words)}")
    pairs: dict[str, str] = {}
    if os.environ.get("DATASETS_ROOT"):
        pairs["DATASETS.ROOT_DIR"] = os.path.abspath(os.environ["DATASETS_ROOT"])
    words = args.opts + tail
    pairs |= dict(zip(words[::2], words[1::2], strict=True))
    for key, instead in OWN_KEYS.items():
        if key in pairs:
            parser.error(f"{key} is set by the launcher itself; {instead}")
    return [word for pair in pairs.items() for word in pair]
