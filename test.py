"""Test one checkpoint: python test.py --config_file configs/VeRi/vit_base.yml TEST.WEIGHT logs/x/transformer_120.pth"""

from utils.interrupts import take_over

if __name__ == "__main__":
    take_over()  # Ctrl-C, before the imports that take time

import logging
import shlex
import sys
from functools import partial
from pathlib import Path

from utils.commands import parse_config_args
from utils.errors import ConfigError, RunError, run_command
from utils.paths import existing_file
from utils.test_folder import TestFolder

logger = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Test TEST.WEIGHT on each test set; the results and report.html are left in OUTPUT_DIR. Returns the exit code 0.

    Those of test sets after the first of DATASETS.TESTS have a folder each, of their name.
    """
    args = parse_config_args(argv, "test.py", "Test one checkpoint (TEST.WEIGHT path).")
    from configs import find_notices, load_cfg
    from configs.compare import changes_from_defaults

    cfg = load_cfg(args.config_file, args.opts).clone()
    cfg.defrost()
    cfg.MODEL.DIST_TRAIN = False  # a test runs in one process
    cfg.freeze()
    if not cfg.TEST.WEIGHT:
        raise ConfigError("TEST.WEIGHT is empty; give the checkpoint to test: TEST.WEIGHT path/to/transformer_120.pth")
    weight = existing_file(cfg.TEST.WEIGHT, "TEST.WEIGHT")

    from processor.evaluation.embed import announce_precision
    from processor.provenance import find_environment
    from utils.device import resolve_device
    from utils.distributed import find_ranks
    from utils.file_lock import locked
    from utils.logger import log_start, setup_logger
    from utils.run_folder import check_places, make_folder

    find_ranks(cfg.MODEL.DIST_TRAIN)  # refuses several processes before each of them writes
    device = resolve_device(cfg.MODEL.DEVICE, cfg.MODEL.DEVICE_ID)
    folder = TestFolder(make_folder(cfg.OUTPUT_DIR, "OUTPUT_DIR"))
    further = [file for name in cfg.DATASETS.TESTS[1:] for file in folder.further(name).files]
    check_places((folder.log, *folder.files, *further), "test")
    with locked(folder.lock, f"OUTPUT_DIR '{folder.path}'"):  # two tests there would mix their files
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
    from processor.evaluation.outcome import check_unchanged, describe_test, evaluate_one, warn_of_other_data
    from processor.tracking import track_test
    from processor.trained import told_by
    from utils.device import seed_everything

    seed_everything(cfg.SOLVER.SEED)
    data = make_dataloader(cfg, counts=partial(told_by, cfg, weight))
    warn_of_other_data(cfg, weight, data)
    model = make_model(cfg, data.num_classes, data.camera_num, data.view_num, pretrained=False).to(device)
    facts = describe_test(cfg, weight, data, origin)
    model.load_param(cfg.TEST.WEIGHT)
    check_unchanged(weight, facts)
    merge_lora(model)  # adapters cost nothing at test
    first, *others = data.tests.values()
    folder.summary.unlink(missing_ok=True)  # what stands there is no result of this test
    further = {test.name: evaluate_one(cfg, model, test, folder.further(test.name), facts) for test in others}
    facts["tests"] = {name: result.metrics for name, result in further.items()}
    evaluate_one(cfg, model, first, folder, facts)
    if cfg.TEST.REPORT:
        for tested in (*(folder.further(name) for name in further), folder):
            _report(tested)
    track_test(cfg, weight, folder)


def _report(folder: TestFolder) -> None:
    """Write the page of one test; the result stands without it."""
    from tools.report import write_test_report
    from tools.report.places import ANYWHERE

    try:
        write_test_report(folder, ANYWHERE)
    except (OSError, ConfigError, RunError) as error:
        logger.warning("no whole report in '%s': %s", folder.path, error)


if __name__ == "__main__":
    sys.exit(run_command(main))
