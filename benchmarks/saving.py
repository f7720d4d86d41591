"""Epochs with the state that a killed run continues from: written beside training, against written before it goes on.

All three ways train the same epochs of a recipe on the synthetic set, which is drawn where it is not there yet: nothing
is saved; the state is saved and awaited after each epoch; ours, which copies it and writes it during the next epoch,
the last one awaited. The files of both ways are asserted to hold equal states. Wall-clock time, in turns.

python benchmarks/saving.py                  (configs/Synthetic/baseline.yml, some four minutes with the drawing)
python benchmarks/saving.py --config configs/Synthetic/pcb.yml --root FOLDER
"""

import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import MIB, Bar, alternate, keep, make_parser
from configs import load_cfg
from datasets import make_dataloader
from model import make_model
from processor import make_stage
from processor.epoch import train_epoch
from processor.resume import save_state
from processor.stage import Stage
from utils.background import Background
from utils.checkpoint import load_file
from utils.commands import whole_number
from utils.distributed import find_ranks
from utils.errors import run_command
from utils.run_folder import RunFolder

RECIPE = "configs/Synthetic/baseline.yml"
EPOCHS, REPEATS, SEED = 3, 3, 0
BAR = Bar("an epoch with saving over one without", 1.03, 1.01, "x")
Save = Callable[[int], None]


def run_epochs(stage: Stage, epochs: int, save: Save, at_end: Callable[[], None]) -> None:
    """Train epochs, let each be saved, and wait for what is left of that."""
    for epoch in range(1, epochs + 1):
        stage.scheduler.step(epoch)
        stage.sampler.set_epoch(epoch)
        train_epoch(stage, stage.trained, stage.plan.at(epoch), lambda *_: None)
        save(epoch)
    at_end()


def main(argv: list[str] | None = None) -> None:
    parser = make_parser("benchmarks/saving.py", __doc__)
    parser.add_argument("--config", default=RECIPE, help=f"default: {RECIPE}")
    parser.add_argument(
        "--root", default="", metavar="FOLDER", help="that holds the data set (default: as the recipe says)"
    )
    parser.add_argument("--epochs", type=whole_number, default=EPOCHS, help=f"of a turn (default: {EPOCHS})")
    parser.add_argument("--repeats", type=whole_number, default=REPEATS, help=f"turns (default: {REPEATS})")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        opts = ("OUTPUT_DIR", folder, "MODEL.DEVICE", "cpu")
        opts += ("DATASETS.ROOT_DIR", args.root) if args.root else ()
        cfg = load_cfg(args.config, opts)
        data = make_dataloader(cfg, num_instance=cfg.DATALOADER.NUM_INSTANCE)
        torch.manual_seed(SEED)
        stage = make_stage(cfg, "main", make_model(cfg, data.num_classes, data.camera_num, data.view_num), data)
        ranks, background, file = find_ranks(dist_train=False), Background(), RunFolder(Path(folder), "").state

        def save(epoch: int, awaited: bool) -> None:
            progress = {"epoch": epoch, "iteration": 0, "evaluated": 0, "best": {}, "device": "cpu"}
            save_state(cfg, stage, ranks, progress | {"data_fingerprint": data.fingerprint}, background)
            if awaited:
                background.wait()

        run = partial(run_epochs, stage, args.epochs)
        ways = {
            "nothing saved": partial(run, lambda epoch: None, lambda: None),
            "awaited": partial(run, partial(save, awaited=True), lambda: None),
            "ours": partial(run, partial(save, awaited=False), background.wait),
        }
        check_equal(save, background, file)
        size = file.stat().st_size / MIB
        print(f"{args.config}, {args.epochs} epochs a turn, a state of {size:.1f} MiB")
        times = alternate(ways, args.repeats, threads=None, clock=time.perf_counter)
        background.close()
    least = {name: min(seconds) / args.epochs for name, seconds in times.items()}
    rows = [
        {"way": name, "s an epoch": median(seconds) / args.epochs, "least": least[name], "times nothing saved": value}
        for (name, seconds), value in zip(times.items(), _over_nothing(times), strict=True)
    ]
    value = rows[-1]["times nothing saved"]
    print(BAR.judge(value))
    if (args.config, args.epochs, args.repeats) == (RECIPE, EPOCHS, REPEATS):
        keep("saving", {"clock": "wall-clock seconds", "state MiB": size, "rows": rows, "bars": [BAR.facts(value)]})


def check_equal(save: Save, background: Background, file: Path) -> None:
    """Assert that the state is the same whether it is awaited or not."""
    states = []
    for awaited in (True, False):
        save(1, awaited=awaited)
        background.wait()
        states.append(load_file(file, "state"))
    one, two = states
    for name, weight in one["model"].items():
        torch.testing.assert_close(two["model"][name], weight, rtol=0, atol=0)
    if one.keys() != two.keys():
        raise AssertionError(f"the states hold {sorted(one)} and {sorted(two)}")
    print("equal: the states of both ways")


def _over_nothing(times: dict[str, list[float]]) -> list[float]:
    """Return the median, over the turns, of each way's time over that of training without saving in the same turn."""
    plain, *_ = times.values()
    return [median(one / other for one, other in zip(seconds, plain, strict=True)) for seconds in times.values()]


if __name__ == "__main__":
    sys.exit(run_command(main))
