"""One training step and one embedding: the way their lineage computes them against ours, in one process.

The reference (benchmarks/step/lineage_*.py) is the same network with the same weights: loss, gradients and embedding
are asserted to agree before anything is timed. It has explicit softmax attention, the local branches one by one, one
optimizer group per tensor, and waits for the device in each step; fp16 with a loss scaler on a GPU, float32 on a CPU.
Other systems are compared with the plain form of their originals (benchmarks/step/plain_forms.py), in the same way.
CPU: one thread, CPU seconds. GPU: wall time of many steps, then our step from files with workers and cache.

python benchmarks/train_step.py                    (CPU: DeiT-S, batch 8, 3 GB, 5 minutes; GPU: DeiT-B)
python benchmarks/train_step.py --levers           (CPU: also each lever in turn; on a GPU always)
python benchmarks/train_step.py --recipe market    (256x128, stride 16 in place of VeRi's 256x256, stride 12)
python benchmarks/train_step.py --size large       (ViT-L; for a GPU)
python benchmarks/train_step.py --recipe irra      (another system; also pcb, multimodal, and clip_reid: its stage 2)
python benchmarks/train_step.py --profile          (also where the time of our step goes)
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import Bar, keep, keep_freed_memory, make_parser
from benchmarks.step import system_step, systems
from benchmarks.step.cost import where_time_goes
from benchmarks.step.inference import measure_inference
from benchmarks.step.loading import measure_loading
from benchmarks.step.ours import RECIPES, SIZES, check_same, make_batch, make_cfg
from benchmarks.step.training import BROUGHT, FLOAT32, OURS, PRODUCTS, Bench, Variant, make_variants, measure_training
from processor.step.compiling import check_compiler
from utils.commands import whole_number
from utils.device import resolve_device, seed_everything
from utils.errors import ConfigError, run_command
from utils.peak import device_peak

CPU_BARS = {  # of the row's "times the reference"
    "ours": Bar("training, float32", 1.15, 1.3, "x", at_least=True),
    "ours, bfloat16": Bar("training, bf16 against the float32 reference", 2.4, 3.5, "x", at_least=True),
    "embedding, ours": Bar("inference, float32", 1.4, 1.9, "x", at_least=True),
    "embedding, ours, bfloat16": Bar("inference, bf16 against the float32 reference", 2.4, 5, "x", at_least=True),
}
MEMORY = Bar("activations, float32, over the reference's", 0.75, 0.75, "x")
STRAW_MAN = Bar("the reference's FLOP/s over those of torch.mm", 0.85, 0.85, "x", at_least=True)
H200_BARS = {
    "veri": Bar("images/s on an H200, from files", 1110, 1850, "images/s", at_least=True),
    "market": Bar("images/s on an H200, from files", 4000, 6700, "images/s", at_least=True),
}
DATA_SHARE = Bar("share of the step that waits for data", 0.01, 0.01, "")
CHECKED_BATCH = 8
REPEATS = 7
PER_IDENTITY = 4  # images, in a batch
CPU_BATCHES, GPU_BATCHES = (8,), (64, 128)
FILE_IDS, FILE_COPIES = 575, 8  # identities of the generated files, links to each: 36,800 images, as many as VeRi's


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line; a size, batches and steps that are not given are None."""
    parser = make_parser("benchmarks/train_step.py", __doc__)
    parser.add_argument("--size", choices=SIZES, help="small, base or large trunk; tiny only tries the command")
    parser.add_argument("--recipe", choices=(*RECIPES, *systems.SYSTEMS), default="veri")
    parser.add_argument("--device", default="auto", choices=("auto", "cuda", "mps", "cpu"))
    parser.add_argument("--batch", type=whole_number, nargs="+", metavar="B", help="batch sizes, multiples of 4")
    parser.add_argument(
        "--repeats", type=whole_number, default=REPEATS, metavar="N", help=f"timed calls (default: {REPEATS})"
    )
    parser.add_argument("--steps", type=whole_number, metavar="N", help="steps in a timed call (CPU 1, GPU 20)")
    parser.add_argument("--levers", action="store_true", help="each lever in turn and what it brings, also on a CPU")
    parser.add_argument("--compile", action="store_true", help="the compiled steps too, also on a CPU")
    parser.add_argument("--profile", action="store_true", help="where the time of our step goes")
    args = parser.parse_args(argv)
    strange = [size for size in args.batch or () if size % PER_IDENTITY]
    if strange:
        raise ConfigError(f"--batch got {strange[0]}, give multiples of {PER_IDENTITY}")
    return args


def measure_batch(bench: Bench, profiled: bool) -> dict:
    """Measure one batch size and return the facts to keep."""
    exact = make_cfg(bench.recipe, bench.size, CHECKED_BATCH, ("SOLVER.AMP", "off", "MODEL.DROP_PATH", 0.0))
    gaps = check_same(exact, bench.recipe, make_batch(exact, bench.recipe, bench.device))
    print("equal, float32: " + ", ".join(f"{name} to {gap:.1e}" for name, gap in gaps.items()))
    batch = make_batch(make_cfg(bench.recipe, bench.size, bench.batch_size), bench.recipe, bench.device)
    variants = make_variants(bench)
    rows = measure_training(bench, batch, variants, variants[0].model.sizes)
    shares = profile(bench, variants[-1], batch) if profiled else {}
    del variants  # the GPU's memory is for what comes next
    rows += measure_inference(bench, batch)
    if bench.device.type == "cuda" or bench.size == "tiny":
        rows.append(from_files(bench, rows))
    add_utilisation(bench, rows)
    return told(bench, rows, judge(bench, rows), gaps) | shares


def measure_system(bench: Bench, profiled: bool) -> dict:
    """Measure one batch size of a system beside TransReID and return the facts to keep."""
    gaps = systems.check_same(bench.recipe, bench.size, bench.device)
    print("equal, float64: " + ", ".join(f"{name} to {gap:.1e}" for name, gap in gaps.items()))
    pair = systems.make_pair(bench.recipe, bench.size, bench.batch_size, bench.device)
    batch = systems.make_batch(bench.recipe, pair, bench.device)
    del pair
    variants = system_step.make_system_variants(bench)
    rows = measure_training(bench, batch, variants)
    shares = profile(bench, variants[-1], batch) if profiled else {}
    del variants
    add_utilisation(bench, rows)
    if bench.recipe == "multimodal":
        rows += system_step.measure_sets(bench)
    return told(bench, rows, system_step.judge(bench, rows), gaps) | shares


def profile(bench: Bench, variant: Variant, batch: dict) -> dict:
    """Return where the time of a variant goes, as a fact to keep."""
    shares = where_time_goes(partial(variant.many, batch), bench.device)
    print(f"{variant.name}: " + ", ".join(f"{kind} {share:.1%}" for kind, share in shares.items()))
    return {"time of our step": shares}


def add_utilisation(bench: Bench, rows: list[dict]) -> None:
    """Add the MFU to each row whose work is known, where the peak of the device is."""
    for row in rows:
        if "GFLOP/s" in row and (peak := device_peak(bench.device, half=row["precision"] != FLOAT32)):
            row["MFU"] = row["GFLOP/s"] * 1e9 / peak


def told(bench: Bench, rows: list[dict], bars: list[tuple[Bar, float]], gaps: dict[str, float]) -> dict:
    """Print rows and bars, and return them as the facts to keep."""
    for row in rows:
        print(describe_row(row))
    for bar, value in bars:
        print(bar.judge(value))
    facts = {"recipe": file_of(bench.recipe), "size": bench.size, "batch": bench.batch_size, "rows": rows}
    return facts | {"bars": [bar.facts(value) for bar, value in bars], "differences": gaps}


def file_of(recipe: str) -> str:
    """Return the YAML of a recipe below configs/."""
    return (RECIPES[recipe] if recipe in RECIPES else systems.SYSTEMS[recipe]).file


def from_files(bench: Bench, rows: list[dict]) -> dict:
    """Return the row of our best step fed by the loader; `rows` begin with those of the training steps."""
    row = measure_loading(bench, *((2 * bench.batch_size, 1) if bench.size == "tiny" else (FILE_IDS, FILE_COPIES)))
    best = [other for other in rows if other["step"].startswith(OURS)][-1]
    row["times the reference"] = row["images/s"] / rows[0]["images/s"]
    speed = row["images/s"] * best["GFLOP"] / bench.batch_size
    return row | {"precision": best["precision"], "GFLOP/s": speed}


def describe_row(row: dict) -> str:
    """Return the figures of a row as one line."""
    formats = {
        "images/s": "{:.4g} images/s",
        "times the reference": "{:.2f}x",
        BROUGHT: "{:.2f}x the one before",
        "GFLOP/s": "{:.4g} GFLOP/s",
        "MFU": "MFU {:.1%}",
        "activations MiB": "activations {:.0f} MiB",
        "peak MiB": "peak {:.0f} MiB",
        "data share": "data {:.1%} of the step",
    }
    cells = [text.format(row[name]) for name, text in formats.items() if row.get(name) is not None]
    return ", ".join([f"{row['step']}: {row['seconds']:.4f} s", *cells])


def judge(bench: Bench, rows: list[dict]) -> list[tuple[Bar, float]]:
    """Return the bars that are set for this device and size, with the values that they judge."""
    by_name = {row["step"]: row for row in rows}
    if bench.device.type == "cpu":
        bars = [(bar, by_name[name]["times the reference"]) for name, bar in CPU_BARS.items() if name in by_name]
        ours, reference = by_name["ours"], by_name["reference"]
        bars.append((MEMORY, ours["activations MiB"] / reference["activations MiB"]))
        return [*bars, (STRAW_MAN, reference["GFLOP/s"] / by_name[PRODUCTS]["GFLOP/s"])]
    fed = [row for row in rows if "data share" in row]
    h200 = bench.device.type == "cuda" and "H200" in torch.cuda.get_device_name(bench.device)
    bars = [(H200_BARS[bench.recipe], row["images/s"]) for row in fed if h200 and bench.size == "base"]
    return bars + [(DATA_SHARE, row["data share"]) for row in fed]


def place_of(bench: Bench, levers: bool, standard: bool = True) -> tuple[str, str]:
    """Return the benchmark and the variant under which figures are kept; each system is a benchmark of its own.

    `standard` is a run whose figures compare with those that the README shows.
    """
    cpu = bench.device.type == "cpu"
    name, default = (
        ("train_step", bench.recipe == "veri") if bench.recipe in RECIPES else (f"step_{bench.recipe}", True)
    )
    official = cpu and default and (bench.size, bench.batch_size) == ("small", *CPU_BATCHES) and not levers and standard
    place = (*([bench.recipe] if name == "train_step" else []), bench.size, bench.device.type, f"b{bench.batch_size}")
    return name, "" if official else "-".join([*place, *(["levers"] if cpu and levers else [])])


def can_compile(device: torch.device) -> bool:
    """Return whether torch.compile works here; print why not."""
    try:
        check_compiler(device)
    except ConfigError as error:
        print(f"nothing is compiled: {error}")
        return False
    return True


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    keep_freed_memory()
    seed_everything(0)
    device = resolve_device(args.device, "0")
    cpu = device.type == "cpu"
    size = args.size or ("small" if cpu else "base")
    if args.recipe in systems.SYSTEMS and size not in systems.CLIPS:
        raise ConfigError(f"--size {size} is not of --recipe {args.recipe}, which has {', '.join(systems.CLIPS)}")
    compiles = (args.compile or device.type == "cuda") and can_compile(device)
    for batch_size in args.batch or (CPU_BATCHES if cpu else GPU_BATCHES):
        steps = args.steps or (1 if cpu else 20)
        bench = Bench(args.recipe, size, device, batch_size, steps, args.repeats, args.levers or not cpu, compiles)
        print(f"{file_of(args.recipe)}, {size}, batch {batch_size}, {device}")
        facts = (measure_batch if args.recipe in RECIPES else measure_system)(bench, args.profile)
        standard = (args.repeats, args.steps, args.compile, args.profile) == (REPEATS, None, False, False)
        name, variant = place_of(bench, args.levers, standard)
        keep(name, facts, variant)
        torch.compiler.reset()  # compiled graphs keep their models


if __name__ == "__main__":
    sys.exit(run_command(main))
