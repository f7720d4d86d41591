"""Test one checkpoint: python test.py --config_file configs/VeRi/vit_base.yml TEST.WEIGHT logs/x/transformer_120.pth"""

import re
import shlex
import sys
from pathlib import Path

from utils.commands import parse_config_args
from utils.errors import ConfigError, run_command


def main(argv: list[str] | None = None) -> int:
    """Test TEST.WEIGHT; leave summary.json, per_query.npz and test_log.txt in OUTPUT_DIR. Returns the exit code 0."""
    args = parse_config_args(argv, "test.py", "Test one checkpoint (TEST.WEIGHT path).")
    from configs import find_notices, load_cfg
    from configs.compare import changes_from_defaults

    cfg = load_cfg(args.config_file, [*args.opts, "MODEL.DIST_TRAIN", "False"])  # a test runs in one process
    weight = Path(cfg.TEST.WEIGHT)
    if not weight.is_file():
        given = f"TEST.WEIGHT: no file '{weight}'" if cfg.TEST.WEIGHT else "TEST.WEIGHT is empty"
        raise ConfigError(f"{given}; give the checkpoint to test: TEST.WEIGHT path/to/transformer_120.pth")

    from utils.device import resolve_device
    from utils.logger import log_start, setup_logger
    from utils.results import RESULT_NAME, result_settings
    from utils.run_folder import make_folder

    device = resolve_device(cfg.MODEL.DEVICE, cfg.MODEL.DEVICE_ID)
    folder = make_folder(cfg.OUTPUT_DIR, "OUTPUT_DIR")
    (folder / RESULT_NAME).unlink(missing_ok=True)  # what stands there is not a result of this test
    setup_logger(folder / "test_log.txt")
    command = shlex.join(sys.argv if argv is None else ["test.py", *argv])
    log_start(command, "\n".join(changes_from_defaults(cfg)), str(device), find_notices(cfg))

    from datasets import make_dataloader
    from model import make_model
    from model.layers.lora import merge_lora
    from processor import do_inference
    from processor.inference import log_results, save_results
    from utils.device import seed_everything

    seed_everything(cfg.SOLVER.SEED)
    data = make_dataloader(cfg)
    model = make_model(cfg, data.num_classes, data.camera_num, data.view_num, pretrained=False).to(device)
    model.load_param(cfg.TEST.WEIGHT)
    merge_lora(model)  # adapters cost nothing at test
    results = do_inference(cfg, model, data)
    log_results(results, f"Test Results - {weight}")
    numbered = re.fullmatch(r".*_(\d+)", weight.stem)
    save_results(results, folder, weight, int(numbered[1]) if numbered else None, result_settings(cfg))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
