"""Train, test and summarise over seeds: python run_phased_loss.py --config configs/VeRi/vit_base.yml --seeds 0 1 2"""

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from utils.errors import ConfigError, RunError, run_command
from utils.launch_args import config_label, default_prefix, experiment_name, parse_args
from utils.results import METRICS, RESULT_NAME, read_result, result_settings, why_untested
from utils.run_folder import make_folder, read_metrics
from utils.summary import SeedResults, build_summary, format_table, pick_references, write_summary

ROOT = Path(__file__).resolve().parent
SHARED_SUMMARY = "phased_loss_best_summary.json"  # copy of the latest summary under the name that Model B's users know
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=auto")  # one process per GPU
CTRL_C_CODES = (130, -signal.SIGINT)
CHILD_GRACE_S = 30


class Experiment(NamedTuple):
    """What all seeds of a launch share."""

    root: Path  # absolute
    name: str
    config: str  # absolute path of the YAML
    opts: list[str]  # KEY VALUE pairs for train.py and test.py
    distributed: bool  # MODEL.DIST_TRAIN: train.py needs torchrun
    model_name: str  # prefix of the checkpoint files
    last_epoch: int
    test_settings: dict[str, Any]

    def run_folder(self, seed: int) -> Path:
        return self.root / f"{self.name}_seed{seed}_run"

    def test_folder(self, seed: int) -> Path:
        return self.root / f"{self.name}_seed{seed}_test"

    def checkpoint(self, seed: int, epoch: int) -> Path:
        return self.run_folder(seed) / f"{self.model_name}_{epoch}.pth"


def main(argv: list[str] | None = None) -> int:
    """Train and test every seed, write and print the summary.

    The same command again resumes training and tests what has no whole result. Returns 0, 1 when a test failed, or the
    exit code of a training that failed.
    """
    args = parse_args(argv)
    from configs import load_cfg

    cfg = load_cfg(args.config, args.opts)
    experiment = make_experiment(args, cfg)
    print_start(experiment, args, cfg)
    failed: list[dict[str, Any]] = []
    summary, exit_code = None, 0
    for seed in args.seeds:
        exit_code = train_seed(experiment, seed)
        if exit_code:
            break
        if args.test:
            failed += run_tests(experiment, seed)
        summary = save_summary(experiment, args, cfg, failed)
    if summary:
        print_summary(experiment, summary)
    return exit_code or int(bool(failed))


def make_experiment(args: argparse.Namespace, cfg) -> Experiment:
    """Return what all seeds share; ConfigError for a name that cannot be a folder or a root that cannot be written."""
    first = cfg.DATASETS.NAMES[0]
    name = experiment_name(
        args.ds_prefix if args.ds_prefix is not None else default_prefix(first),
        args.tag if args.tag is not None else config_label(args.config),
        stamp=os.environ.get("RUN_TAG_TS", ""),
    )
    return Experiment(
        root=Path(os.path.abspath(make_folder(args.output_root, "--output-root"))),
        name=name,
        config=os.path.abspath(args.config),
        opts=args.opts,
        distributed=cfg.MODEL.DIST_TRAIN,
        model_name=cfg.MODEL.NAME,
        last_epoch=cfg.SOLVER.MAX_EPOCHS,
        test_settings=result_settings(cfg),
    )


def run_child(command: list[str]) -> int:
    """Run a command in the repository, its output going to the terminal; returns its exit code (-n: signal n)."""
    process = subprocess.Popen(command, cwd=ROOT)

    def end_both(number: int, _frame: object) -> NoReturn:
        process.terminate()  # or it would go on alone
        raise SystemExit(128 + number)

    previous = signal.signal(signal.SIGTERM, end_both)
    try:
        return process.wait()
    except KeyboardInterrupt:
        try:
            process.wait(CHILD_GRACE_S)  # the terminal's Ctrl-C reached it too; let it say where it stopped
        except subprocess.TimeoutExpired:
            process.kill()
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)


def _run(script: str, experiment: Experiment, *own_opts: str, launcher: Sequence[str] = ()) -> int:
    command = [sys.executable, *launcher, script, "--config_file", experiment.config, *experiment.opts, *own_opts]
    _say(f"$ {shlex.join(command)}")
    return run_child(command)


def train_seed(experiment: Experiment, seed: int) -> int:
    """Train one seed to the last epoch, unless that is done; returns the exit code to end with, 0 = go on.

    Raises ConfigError when the finished run was trained with other settings, RunError when train.py leaves no weights.
    """
    folder, last = experiment.run_folder(seed), experiment.checkpoint(seed, experiment.last_epoch)
    if last.is_file():
        _check_same_settings(experiment, seed)
        _say(f"seed {seed}: already trained to epoch {experiment.last_epoch} in '{folder}'")
        return 0
    launcher = TORCHRUN if experiment.distributed else ()
    own_opts = ("SOLVER.SEED", str(seed), "OUTPUT_DIR", str(folder))
    exit_code = _run("train.py", experiment, *own_opts, launcher=launcher)
    if exit_code < 0:
        print(
            f"error: seed {seed}: train.py was killed by signal {-exit_code}; the same command continues",
            file=sys.stderr,
        )
        return 128 - exit_code
    if not exit_code and not last.is_file():
        raise RunError(f"seed {seed}: train.py ended without writing '{last}'; see '{folder / 'train_log.txt'}'")
    return exit_code


def _check_same_settings(experiment: Experiment, seed: int) -> None:
    """Refuse results that other settings made: a run keeps its resolved configuration in config.yaml."""
    import yaml

    from configs import load_cfg
    from configs.compare import find_differences

    recorded = experiment.run_folder(seed) / "config.yaml"
    if not recorded.is_file():
        return
    try:
        saved = yaml.safe_load(recorded.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        saved = None
    if not isinstance(saved, dict):
        raise ConfigError(
            f"'{recorded}' is damaged; move '{recorded.parent}' away, or give this experiment its own --tag"
        )
    now = yaml.safe_load(load_cfg(experiment.config, [*experiment.opts, "SOLVER.SEED", str(seed)]).dump())
    differing = find_differences(saved, now)
    if differing:
        raise ConfigError(
            f"'{recorded.parent}' was trained with other settings: {'; '.join(differing)}; set them back, or give this "
            "experiment its own --tag"
        )


def run_tests(experiment: Experiment, seed: int) -> list[dict[str, Any]]:
    """Test each checkpoint up to the last epoch that has no whole result of its own; returns the failed tests."""
    failed = []
    pattern = re.compile(rf"{re.escape(experiment.model_name)}_(\d+)\.pth")
    found = [pattern.fullmatch(path.name) for path in experiment.run_folder(seed).glob("*.pth")]
    epochs = sorted(int(match[1]) for match in found if match)
    for epoch in [epoch for epoch in epochs if epoch <= experiment.last_epoch]:
        folder, weight = experiment.test_folder(seed) / f"epoch_{epoch}", experiment.checkpoint(seed, epoch)
        reason = why_untested(folder, weight, experiment.test_settings)
        if reason is None:
            _say(f"seed {seed}, epoch {epoch}: already tested in '{folder}'")
            continue
        _say(f"seed {seed}, epoch {epoch}: {reason}")
        make_folder(str(folder), "--output-root")
        (folder / RESULT_NAME).unlink(missing_ok=True)  # what stands there is not a result of this test
        exit_code = _run("test.py", experiment, "TEST.WEIGHT", str(weight), "OUTPUT_DIR", str(folder))
        if exit_code in CTRL_C_CODES:
            raise KeyboardInterrupt
        if exit_code or read_result(folder) is None:
            failed.append({"seed": seed, "epoch": epoch, "exit_code": exit_code, "folder": str(folder)})
    return failed


def collect_results(experiment: Experiment, seed: int) -> SeedResults:
    """Return what lies in the folders of one seed: valid test results up to the last epoch, and reference figures."""
    epochs, fingerprints = {}, set()
    for folder in experiment.test_folder(seed).glob("epoch_*"):
        number = folder.name.removeprefix("epoch_")
        if not number.isdigit() or int(number) > experiment.last_epoch:
            continue
        epoch = int(number)
        if why_untested(folder, experiment.checkpoint(seed, epoch), experiment.test_settings) is None:
            result = read_result(folder)
            epochs[epoch] = {name: result[name] for name in METRICS}
            fingerprints |= {result["data_fingerprint"]} if "data_fingerprint" in result else set()
    references = pick_references(read_metrics(experiment.run_folder(seed)))
    return SeedResults(seed, epochs, references, fingerprints)


def save_summary(experiment: Experiment, args: argparse.Namespace, cfg, failed: list[dict[str, Any]]) -> dict[str, Any]:
    """Write the summary files of all seeds of this launch as far as they have results; returns the summary."""
    results = [collect_results(experiment, seed) for seed in args.seeds]
    facts = {
        "name": experiment.name,
        "timestamp": datetime.now().astimezone().isoformat(timespec="seconds"),
        "epochs": cfg.SOLVER.MAX_EPOCHS,
        "save_every": cfg.SOLVER.CHECKPOINT_PERIOD,
        "config": experiment.config,
        "opts": experiment.opts,
        "data_root": cfg.DATASETS.ROOT_DIR,
        "switches": [],
    }
    summary = build_summary(results, experiment.last_epoch, facts, failed)
    json_paths, csv_path = _summary_paths(experiment)
    write_summary(summary, results, json_paths, csv_path)
    return summary


def _summary_paths(experiment: Experiment) -> tuple[list[Path], Path]:
    start = experiment.root / f"{experiment.name}_summary"
    return [start.with_name(f"{start.name}.json"), experiment.root / SHARED_SUMMARY], start.with_name(
        f"{start.name}.csv"
    )


def print_start(experiment: Experiment, args: argparse.Namespace, cfg) -> None:
    """Print what will run, and each override as `KEY old -> new`."""
    from configs import load_cfg
    from configs.compare import flatten

    seeds = " ".join(map(str, args.seeds))
    _say(f"{experiment.name}: seeds {seeds}, epoch {experiment.last_epoch}, folders in '{experiment.root}'")
    try:
        before = flatten(load_cfg(args.config))
    except ConfigError:  # the YAML alone may be incomplete, what counts was checked with the overrides
        before = {}
    after = flatten(cfg)
    for key in args.opts[::2]:
        _say(f"  {key} {before.get(key, '?')} -> {after[key]}")


def print_summary(experiment: Experiment, summary: dict[str, Any]) -> None:
    """Print the table, what failed, and where the files are."""
    _say(f"\n{experiment.name}: external tests, in percent\n{format_table(summary)}\n{summary['note']}")
    if len(summary["data_fingerprints"]) > 1:
        _say("warning: the tests saw different data; delete the epoch_* folders of the older ones to test them again")
    for test in summary["failed_tests"]:
        _say(
            f"failed: seed {test['seed']}, epoch {test['epoch']}, exit code {test['exit_code']}, see "
            f"'{test['folder']}'; the same command tests it again"
        )
    json_paths, csv_path = _summary_paths(experiment)
    _say("\n".join(f"written: {path}" for path in (*json_paths, csv_path)))


def _say(text: str) -> None:
    print(text, flush=True)  # the children write to the same stream, so nothing may wait in a buffer


if __name__ == "__main__":
    sys.exit(run_command(main))
