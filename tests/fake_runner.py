"""What the launcher's tests share: a stand-in for train.py and test.py, and a launch on a small config."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import run_phased_loss
from configs import load_cfg
from configs.compare import result_settings
from tests.reference.slow_statistics import table_of
from tools.launch.children import Children
from tools.launch.older import count_results
from tools.launch.places import Place
from tools.launch.screen import Listener
from tools.report.page import RESULTS
from tools.study.experiment import Experiment
from tools.study.response import Response
from utils.digest import sha256_of
from utils.errors import run_command
from utils.run_folder import EMA, RunFolder
from utils.run_record import RunRecord, read_record, write_record
from utils.statistics.bootstrap import PerQuery
from utils.test_folder import METRICS

YAML = """# a config for these tests
MODEL:
  NAME: transformer
  TRANSFORMER_TYPE: vit_tiny_patch16_224_TransReID
DATASETS:
  NAMES: veri
SOLVER:
  MAX_EPOCHS: 3
  CHECKPOINT_PERIOD: 1
"""
# appended to YAML: SupCon, phases with TripletX in the second, and a smaller K in the first; routing
PHASED = """DATALOADER: {SAMPLER: softmax_triplet, PHASED: {ENABLE: True}}
LOSS:
  TRIPLETX: {ENABLE: True}
  SUPCON: {ENABLE: True}
  PHASED:
    ENABLE: True
    BOUNDARIES: [2, 3]
    METRIC_SEQ: [triplet, tripletx, triplet]
    W_SUP_SPEC: ['const:0.0', 'const:0.3', 'const:0.3']
"""
ROUTED = """DATALOADER: {SAMPLER: softmax_triplet, PHASED: {ENABLE: True}}
LOSS: {TRIPLETX: {ENABLE: True}, SUPCON: {ENABLE: True}, BRIGHTNESS: {ENABLE: True}}
"""


def score(seed: int, epoch: int) -> dict[str, float]:
    """Metrics of a fake test: epoch 2 is the best of seed 0, and differs from the last."""
    base = 0.3 + 0.1 * seed + {1: 0.0, 2: 0.2, 3: 0.1}.get(epoch, 0.05)
    return {name: round(base + 0.01 * i, 4) for i, name in enumerate(METRICS)}


def queries(mean_ap: float) -> PerQuery:
    """Arrays of a fake per_query.npz: 20 identities with two queries each, whose mAP is `mean_ap`."""
    return table_of(mean_ap + np.linspace(-0.1, 0.1, 40), np.repeat(np.arange(20), 2))


AVERAGED_GAIN = 0.02  # mAP of averaged weights


class FakeRunner:
    """Stands for Children.run: records commands; train writes checkpoints by period, test writes its two files."""

    def __init__(self) -> None:
        self.commands = []
        self.places = []  # where each of them ran
        self.train_code = 0
        self.fails_in = ""  # train_code applies where the run folder's name holds this
        self.test_codes = {}  # epoch -> exit code
        self.says = ""  # on stderr, by what fails
        self.write_metrics = False
        self.gains = {}  # experiment -> what its mAP and that of its queries has more
        self.held_out = {}  # epoch -> mAP on held-out identities
        self.held_out_gains = {}  # experiment -> what its mAP on held-out identities has more
        self.generation = 1  # of runs: one that begins in a later one is another run

    def __call__(self, command: list[str], place: Place, listener: Listener) -> int:
        assert command[0] == sys.executable and command[2] == "--config_file" and Path(command[3]).is_absolute()
        opts = dict(zip(command[4::2], command[5::2], strict=True))
        self.commands.append((command[1], opts))
        self.places.append(place)
        code = self.train(command[3], opts) if command[1] == "train.py" else self.test(command[3], opts)
        for line in self.says.splitlines() if code else ():
            listener.hear_error(line)
        return code

    def train(self, config: str, opts: dict[str, str]) -> int:
        cfg = load_cfg(config, [word for pair in opts.items() for word in pair])
        folder = Path(cfg.OUTPUT_DIR)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(cfg.dump())
        if self.train_code and self.fails_in in folder.name:
            return self.train_code
        run = RunFolder(folder, cfg.MODEL.NAME)
        record = read_record(run) or RunRecord(f"{folder.name}, {self.generation}", {}, cfg.dump())
        period, last = cfg.SOLVER.CHECKPOINT_PERIOD, cfg.SOLVER.MAX_EPOCHS
        for epoch in range(1, last + 1):
            is_kept = epoch == last or (period and epoch % period == 0)
            for path in (run.checkpoint(epoch), *([run.ema(epoch)] if cfg.SOLVER.EMA else ())) if is_kept else ():
                path.write_text(f"weights {path.stem} {cfg.SOLVER.SEED} of {record.run}")
                record.checkpoints[path.name] = sha256_of(path)
        write_record(run, record)
        more = self.held_out_gains.get(folder.name.rpartition("_seed")[0], 0.0)
        records = [
            {"kind": "val", "epoch": epoch, **dict.fromkeys(METRICS, ap + more)} for epoch, ap in self.held_out.items()
        ]
        for epoch, ap in self.held_out.items():
            np.savez(run.held_out(epoch), **queries(ap + more))
        if self.write_metrics:
            records.append({"kind": "reference", "epoch": 0, "name": "raw_pixels", "mAP": 0.05, "Rank-1": 0.125})
        (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        return 0

    def test(self, config: Path, opts: dict[str, str]) -> int:
        weight, folder = Path(opts["TEST.WEIGHT"]), Path(opts["OUTPUT_DIR"])
        epoch = int(weight.stem.rpartition("_")[2])
        code = self.test_codes.get(epoch, 0)
        if code:
            return code
        name, _, tail = weight.parent.name.rpartition("_seed")
        cfg = load_cfg(config, [word for pair in opts.items() for word in pair])
        metrics = score(int(tail.split("_")[0]), epoch)
        gain = self.gains.get(name, 0.0) + (AVERAGED_GAIN if f"_{EMA}_" in weight.name else 0.0)
        metrics["mAP"] = round(metrics["mAP"] + gain, 4)
        content = {"epoch": epoch, **metrics, "weight_sha256": sha256_of(weight), "data_fingerprint": "d"}
        content["run"] = read_record(RunFolder(weight.parent, cfg.MODEL.NAME)).run
        content["settings"] = json.loads(json.dumps(result_settings(cfg)))
        content["tests"] = {other: metrics for other in cfg.DATASETS.TESTS[1:]}
        for place in (folder, *(folder / other for other in content["tests"])):
            place.mkdir(exist_ok=True)
            np.savez(place / "per_query.npz", **queries(metrics["mAP"]))
            own = {"files": {"per_query.npz": sha256_of(place / "per_query.npz")}}
            (place / "summary.json").write_text(json.dumps(content | own))
        return 0

    def trained(self) -> list[str]:
        """Return the names of the run folders that were trained."""
        return [Path(opts["OUTPUT_DIR"]).name for script, opts in self.commands if script == "train.py"]

    def take(self) -> list[str]:
        """Return and forget what ran, as 'train 0' and 'test 0 2'."""
        words = []
        for script, opts in self.commands:
            seed = opts["OUTPUT_DIR"].rpartition("_seed")[2].split("_")[0]
            epoch = opts["OUTPUT_DIR"].rpartition("epoch_")[2]
            words.append(f"train {seed}" if script == "train.py" else f"test {seed} {epoch}")
        self.commands.clear()
        return words


def install(monkeypatch: pytest.MonkeyPatch) -> FakeRunner:
    """Put a FakeRunner in the place of Children.run, take the launcher's variables away, and return it."""
    fake = FakeRunner()
    monkeypatch.setattr(Children, "run", fake)
    monkeypatch.setattr("tools.launch.launch.write_launch_report", write_fake_report)  # its charts take a second
    monkeypatch.setattr("tools.launch.sweeping.write_sweep_report", write_fake_sweep_report)
    for name in ("OUTPUT_ROOT", "DATASETS_ROOT", "RUN_TAG_TS"):
        monkeypatch.delenv(name, raising=False)
    return fake


def write_fake_report(
    path: Path, experiments: Sequence[Experiment], summaries: Sequence[dict], results: object, command: str
) -> Path:
    """Stand for the report: what it is asked to show."""
    results = RESULTS.format(count=count_results(summaries))
    path.write_text(f"{command}: {[summary['name'] for summary in summaries]}\n{results}")
    return path


def write_fake_sweep_report(
    path: Path, response: Response, tested: object, also_tested: Sequence[str], command: str
) -> Path:
    """Stand for the report of a sweep."""
    results = RESULTS.format(count=response.count)
    path.write_text(f"{command}: {[point.name for point in response.points]}\n{results}")
    return path


def write_config(folder: Path, name: str, more: str = "") -> str:
    """Write a config like that of `make_launch`, with more sections; returns its path as text."""
    path = folder / f"{name}.yml"
    path.write_text(YAML + more)
    return str(path)


def make_launch(folder: Path) -> Callable[..., int]:
    """Return launch(*words, seeds=("0",)) -> exit code, with a config and the output root `logs` in `folder`.

    `configs` (paths) replace that config.
    """
    own = write_config(folder, "deit_transreid_stride_mine")

    def launch(*words: str, seeds: Sequence[str] = ("0",), configs: Sequence[str] = (own,)) -> int:
        argv = ["--config", *configs, "--output-root", str(folder / "logs"), "--seeds", *seeds, *words]
        return run_command(run_phased_loss.main, argv)

    return launch


def summary_of(logs: Path, name: str = "veri776_mine") -> dict[str, Any]:
    """Return the summary that a launch left."""
    return json.loads((logs / f"{name}_summary.json").read_text())
