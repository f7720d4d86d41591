"""Test one checkpoint: python test.py --config_file configs/VeRi/vit_base.yml TEST.WEIGHT logs/x/transformer_120.pth"""

import logging
import shlex
import sys
from pathlib import Path

from utils.commands import parse_config_args
from utils.errors import ConfigError, run_command
from utils.test_folder import TestFolder

logger = logging.getLogger(__name__)


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

    from processor.evaluation.embed import announce_precision
    from processor.provenance import find_environment
    from utils.device import resolve_device
    from utils.distributed import find_ranks
    from utils.logger import log_start, setup_logger
    from utils.run_folder import make_folder

    find_ranks(cfg.MODEL.DIST_TRAIN)  # refuses several processes before each of them writes
    device = resolve_device(cfg.MODEL.DEVICE, cfg.MODEL.DEVICE_ID)
    folder = TestFolder(make_folder(cfg.OUTPUT_DIR, "OUTPUT_DIR"))
    setup_logger(folder.log)
    command = sys.argv if argv is None else ["test.py", *argv]
    log_start(shlex.join(command), "\n".join(changes_from_defaults(cfg)), str(device), find_notices(cfg))
    announce_precision(cfg, device)  # refuses what it cannot do before the images are read
    config_file = str(Path(args.config_file).resolve())
    origin = {"command": command, "config_file": config_file, "environment": find_environment(str(device))}
    _test(cfg, weight, folder, origin, device)
    return 0


def _test(cfg, weight: Path, folder: TestFolder, origin: dict, device) -> None:
    """From the configuration to the results of every test set, one call per step."""
    from datasets import make_dataloader
    from model import make_model
    from model.layers.lora import merge_lora
    from processor.evaluation.outcome import describe_test, evaluate_one, warn_of_other_data
    from utils.device import seed_everything
    from utils.run_folder import epoch_of

    seed_everything(cfg.SOLVER.SEED)
    data = make_dataloader(cfg)
    warn_of_other_data(cfg, weight, data)
    model = make_model(cfg, data.num_classes, data.camera_num, data.view_num, pretrained=False).to(device)
    model.load_param(cfg.TEST.WEIGHT)
    merge_lora(model)  # adapters cost nothing at test
    facts = describe_test(cfg, weight, epoch_of(weight), data, origin)
    first, *others = data.tests.values()
    folder.summary.unlink(missing_ok=True)  # what stands there is no result of this test
    further = {test.name: evaluate_one(cfg, model, test, folder.further(test.name), facts) for test in others}
    facts["tests"] = {name: result.metrics for name, result in further.items()}
    evaluate_one(cfg, model, first, folder, facts)
    if cfg.TEST.REPORT:
        for tested in (*(folder.further(name) for name in further), folder):
            _report(tested)


def _report(folder: TestFolder) -> None:
    """Write the page of one test; the result stands without it."""
    from tools.report import write_test_report

    try:
        write_test_report(folder)
    except OSError as error:
        logger.warning("no whole report in '%s' (%s); make room and test again", folder.path, error)


if __name__ == "__main__":
    sys.exit(run_command(main))
