"""Test one checkpoint: python test.py --config_file configs/VeRi/vit_base.yml TEST.WEIGHT logs/x/transformer_120.pth"""

import re
import shlex
import sys
from pathlib import Path

from utils.commands import parse_config_args
from utils.errors import ConfigError, run_command


def main(argv: list[str] | None = None) -> int:
    """Test TEST.WEIGHT on each test set; the results and report.html are left in OUTPUT_DIR. Returns the exit code 0.

    Those of test sets after the first of DATASETS.TESTS have a folder each, of their name.
    """
    args = parse_config_args(argv, "test.py", "Test one checkpoint (TEST.WEIGHT path).")
    from configs import find_notices, load_cfg
    from configs.compare import changes_from_defaults

    cfg = load_cfg(args.config_file, [*args.opts, "MODEL.DIST_TRAIN", "False"])  # a test runs in one process
    weight = Path(cfg.TEST.WEIGHT)
    if not weight.is_file():
        given = f"TEST.WEIGHT: no file '{weight}'" if cfg.TEST.WEIGHT else "TEST.WEIGHT is empty"
        raise ConfigError(f"{given}; give the checkpoint to test: TEST.WEIGHT path/to/transformer_120.pth")

    from utils.device import announce_amp, resolve_device
    from utils.distributed import find_ranks
    from utils.logger import log_start, setup_logger
    from utils.run_folder import find_environment, make_folder

    find_ranks(cfg.MODEL.DIST_TRAIN)  # refuses several processes before each of them writes
    device = resolve_device(cfg.MODEL.DEVICE, cfg.MODEL.DEVICE_ID)
    folder = make_folder(cfg.OUTPUT_DIR, "OUTPUT_DIR")
    setup_logger(folder / "test_log.txt")
    command = sys.argv if argv is None else ["test.py", *argv]
    log_start(shlex.join(command), "\n".join(changes_from_defaults(cfg)), str(device), find_notices(cfg))
    announce_amp(cfg.TEST.AMP, device, "TEST.AMP")  # refuses what it cannot do before the images are read
    config_file = str(Path(args.config_file).resolve())
    origin = {"command": command, "config_file": config_file, "environment": find_environment(str(device))}
    _test(cfg, weight, folder, origin, device)
    return 0


def _test(cfg, weight: Path, folder: Path, origin: dict, device) -> None:
    """From the configuration to the results of every test set, one call per step."""
    from configs.titles import names_of_tests
    from datasets import make_dataloader
    from datasets.make_dataloader import further_tests
    from model import make_model
    from model.layers.lora import merge_lora
    from processor.outcome import describe_test, evaluate_one, warn_of_other_data
    from utils.device import seed_everything
    from utils.results import METRICS, RESULT_NAME

    seed_everything(cfg.SOLVER.SEED)
    data = make_dataloader(cfg)
    warn_of_other_data(cfg, weight, data)
    model = make_model(cfg, data.num_classes, data.camera_num, data.view_num, pretrained=False).to(device)
    model.load_param(cfg.TEST.WEIGHT)
    merge_lora(model)  # adapters cost nothing at test
    numbered = re.fullmatch(r".*_(\d+)", weight.stem)
    facts = describe_test(cfg, weight, int(numbered[1]) if numbered else None, data, origin)
    others = further_tests(cfg, data)
    (folder / RESULT_NAME).unlink(missing_ok=True)  # nothing is missing: what stands there is no result of this test
    further = {name: evaluate_one(cfg, model, other, name, folder / name, facts) for name, other in others.items()}
    facts["tests"] = {name: {metric: results[metric] for metric in METRICS} for name, results in further.items()}
    evaluate_one(cfg, model, data, names_of_tests(cfg)[0], folder, facts)


if __name__ == "__main__":
    sys.exit(run_command(main))
