"""Train one model: python train.py --config_file configs/VeRi/vit_base.yml [KEY VALUE ...]"""

from utils.interrupts import take_over

if __name__ == "__main__":
    take_over()  # Ctrl-C, before the imports that take time

import contextlib
import shlex
import sys

from utils.commands import config_parser
from utils.errors import run_command

GUIDE = """\
Trains one model in OUTPUT_DIR; the same command again continues where it stopped.

  On drawn images, no download, three minutes on two CPU cores:
    python train.py --config_file configs/Synthetic/baseline.yml

  What it would train, epoch by epoch:
    python train.py --config_file configs/Market/vit_transreid_stride.yml --show-schedule

  On your data, in a folder of your own (any key may follow):
    python train.py --config_file configs/Market/resnet50.yml DATASETS.ROOT_DIR /path/to/data OUTPUT_DIR logs/mine

Recipes lie in configs/<data set>/; the first lines of each say what it trains and what to expect, docs/recipes.md
lists them. To train several seeds and test them: run_phased_loss.py.
"""


def main(argv: list[str] | None = None) -> int:
    """Train to SOLVER.MAX_EPOCHS in OUTPUT_DIR; the same command again continues. Returns the exit code 0."""
    parser = config_parser("train.py", "Train one model; the same command again continues where it stopped.", GUIDE)
    parser.add_argument(
        "--show-schedule", action="store_true", help="print losses, weights, PxK and learning rate per epoch, then end"
    )
    args = parser.parse_args(argv)
    from configs import find_notices, load_cfg

    cfg = load_cfg(args.config_file, args.opts)
    if args.show_schedule:
        from solver.preview import schedule_table

        print("\n".join([schedule_table(cfg), *(f"note: {notice}" for notice in find_notices(cfg))]))
        return 0

    from tools.launch.needs import find_needs
    from utils import distributed
    from utils.device import resolve_device
    from utils.logger import log_start, setup_logger
    from utils.run_folder import RunFolder, check_files, locked, make_folder

    command = sys.argv if argv is None else ["train.py", *argv]
    ranks = distributed.find_ranks(cfg.MODEL.DIST_TRAIN, command)
    device = resolve_device(cfg.MODEL.DEVICE, cfg.MODEL.DEVICE_ID, ranks.local_rank, ranks.world_size)
    folder = RunFolder(make_folder(cfg.OUTPUT_DIR, "OUTPUT_DIR"), cfg.MODEL.NAME)
    check_files(folder)
    with contextlib.ExitStack() as stack:
        stale_pid = stack.enter_context(locked(folder)) if ranks.rank == 0 else None
        stack.enter_context(distributed.joined(ranks, device))
        setup_logger(folder.log, ranks.rank)
        notices = find_notices(cfg) + find_needs(cfg, first_weights=not folder.state.is_file())
        if stale_pid is not None:
            notices.append(f"taking over the lock of process {stale_pid}, which ended without releasing it")
        log_start(shlex.join(command), cfg.dump(default_flow_style=None), str(device), notices)
        _train(cfg, folder, ranks, device)
    return 0


def _train(cfg, folder, ranks, device) -> None:
    """From the configuration to the last epoch, one call per step."""
    from datasets import make_dataloader
    from model import make_model
    from processor import PhasePlan, train_stages
    from processor.named_files import check_named_files
    from processor.provenance import describe_folder
    from processor.resume import find_state
    from utils.device import seed_everything

    check_named_files(cfg, first_weights=not folder.state.is_file())
    seed_everything(cfg.SOLVER.SEED)
    data = make_dataloader(cfg, PhasePlan(cfg).at(1).num_instance)
    state = find_state(cfg, data.fingerprint)
    if ranks.rank == 0:
        if state is None:  # what an earlier run left there proves nothing about this one
            folder.record.unlink(missing_ok=True)
        describe_folder(folder, cfg.dump(default_flow_style=None), str(device), data.fingerprint)
    model = make_model(cfg, data.num_classes, data.camera_num, data.view_num, pretrained=state is None).to(device)
    train_stages(cfg, model, data, state)


if __name__ == "__main__":
    sys.exit(run_command(main))
