"""What the report's tests share: the files of a test, made up, and the elements of a page."""

import html
import json
import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from configs import load_cfg
from tests.reference.slow_statistics import table_of
from utils.ranking.slices import Slice, write_slices
from utils.run_record import RunRecord, write_record

PAGE_OF_A_TEST = r"[\w.-]+_test/(ema/)?epoch_\d+/([\w.-]+/)?report\.html"  # beside the page of a launch
ADDRESSES = ("href", "xlink:href", "src", "srcset", "action", "formaction", "data", "poster", "background")
VOID = {"meta", "link", "img", "br", "hr", "input"}
WEIGHT_SHA256 = "ab" * 32
METRICS = {"mAP": 0.36041, "mINP": 0.15462, "Rank-1": 0.48103, "Rank-5": 0.82864, "Rank-10": 0.95245}


def make_images(folder: Path, count: int, size: tuple[int, int] = (64, 48)) -> list[str]:
    """Write `count` pictures and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        pixels = np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((size[1] // 4, size[0] // 4, 1))).astype(np.uint8)
        paths.append(str(folder / f"{number:04d}_c{number % 5:03d}.jpg"))
        Image.fromarray(pixels).save(paths[-1])
    return paths


def make_summary(config: Mapping[str, Any], config_file: str, **changes: Any) -> dict[str, Any]:
    """Return the content of a summary.json."""
    cmc = np.minimum(1, 0.48103 + 0.01 * np.arange(50))
    return {
        "schema": 1,
        "epoch": 30,
        **METRICS,
        "interval": {"mAP": [0.33012, 0.39077], "mINP": [0.12, 0.19], "Rank-1": [0.4201, 0.5402]},
        "tests": {"msmt17_v2": {name: value / 2 for name, value in METRICS.items()}},
        "tpr_at_fpr": {"0.001": 0.21, "0.01": 0.43, "0.1": 0.79},
        "num_query": 210,
        "num_valid_query": 207,
        "num_trials": 1,
        "cmc": cmc.tolist(),
        "weight": "logs/run/transformer_30.pth",
        "weight_sha256": WEIGHT_SHA256,
        "train_fingerprint": "69c1e654d7c01cdd",
        "data_fingerprint": "511d9856a020a642",
        "dataset": "synthetic VeRi",
        "environment": {"python": "3.11.7", "torch": "2.9.0", "device": "cpu", "git_commit": "0123abcd"},
        "command": ["test.py", "--config_file", config_file, "TEST.WEIGHT", "logs/run/transformer_30.pth"],
        "config_file": config_file,
        "config": config,
        "settings": {"DATASETS.VEHICLEID_TEST_SIZE": 800},
        "notes": ["3 images without a viewpoint were left out"],
        **changes,
    }


def make_analysis(paths: list[str], queries: int = 12, best: int = 6) -> dict[str, Any]:
    """Return the content of an analysis.json whose rank lists draw on `paths`."""
    rng = np.random.default_rng(1)
    edges = np.linspace(0, 2, 41)
    middle = (edges[1:] + edges[:-1]) / 2
    fpr = np.concatenate([[0], np.logspace(-4, 0, 60)])
    status = ("wrong", "junk", "right", "wrong")
    worst = []
    for query in range(queries):
        ranks = [
            {
                "path": paths[(query + 3 * rank + 1) % len(paths)],
                "pid": 10 + rank,
                "camid": rank % 5,
                "distance": round(0.2 + 0.03 * rank + 0.001 * query, 6),
                "status": status[rank % 4],
            }
            for rank in range(10)
        ]
        own = {"path": paths[query % len(paths)], "pid": query, "camid": 1, "ap": 0.01 + 0.01 * query}
        worst.append({**own, "num_pos": 6, "first_hit": 2, "ranks": ranks})
    return {
        "schema": 1,
        "distance": {
            "edges": edges.tolist(),
            "positive": (1000 * np.exp(-(((middle - 0.6) / 0.2) ** 2))).astype(int).tolist(),
            "negative": (90000 * np.exp(-(((middle - 1.1) / 0.2) ** 2)) + rng.integers(0, 9, 40)).astype(int).tolist(),
        },
        "roc": {"fpr": fpr.tolist(), "tpr": (fpr**0.2).tolist()},
        "tpr_at_fpr": {"0.001": 0.21, "0.01": 0.43, "0.1": 0.79},
        "worst": worst,
        "best": [one | {"ap": 1.0 - 0.01 * number, "first_hit": 0} for number, one in enumerate(worst[:best])],
    }


def make_slices(cameras: int = 6) -> list[Slice]:
    """Return slices of every kind."""
    rng = np.random.default_rng(2)
    slices = []
    for a in range(cameras):
        for b in range(cameras):
            values = (float("nan"), float("nan")) if a == b else rng.uniform(0.1, 0.9, 2).round(4)
            slices.append(Slice("camera_pair", str(a), str(b), 0 if a == b else 17, 0 if a == b else 9, *values))
    slices += [Slice("viewpoint", str(view), "", 30 + view, 20, 0.3 + view / 20, 0.5) for view in range(3)]
    slices += [Slice("brightness", name, "", 50, 20, 0.4, 0.5) for name in ("dark 0-0.35", "bright 0.35-1")]
    slices += [Slice("matches", name, "", 40, 20, 0.5, 0.6) for name in ("1", "2-3", "4-7")]
    return slices


def write_folder(
    folder: Path, summary: Mapping[str, Any], analysis: Mapping[str, Any] | None, with_slices: bool = True
) -> None:
    """Write the files of a test."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps(summary))
    np.savez(folder / "per_query.npz", **table_of([0.5, 0.2], [1, 2]))
    for name, metrics in summary.get("tests", {}).items():
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "summary.json").write_text(json.dumps({"weight_sha256": WEIGHT_SHA256, **metrics}))
        np.savez(folder / name / "per_query.npz", **table_of([0.5, 0.2], [1, 2]))
    if analysis is not None:
        (folder / "analysis.json").write_text(json.dumps(analysis))
    if with_slices:
        write_slices(folder / "slices.csv", make_slices())


def blank_chart(figure: Figure) -> str:
    """Stands for `tools.svg.to_svg` where a test does without the drawing; its id is the title and the width."""
    title, width = html.escape(figure.get_label()), figure.get_figwidth()
    namespace = 'xmlns="http://www.w3.org/2000/svg"'
    return f'<svg {namespace} viewBox="0 0 1 1" role="img" aria-label="{title}" id="{title} {width}"></svg>'


class Page(HTMLParser):
    """The elements of a page as (tag, attributes), their text, and what is wrong with their nesting."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.problems: list[str] = []
        self._open: list[str] = []
        self.feed(content)
        self.close()
        self.problems += [f"<{tag}> is never closed" for tag in self._open]
        self.text = "".join(self.words)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if len(dict(attrs)) != len(attrs):
            self.problems.append(f"<{tag}> has an attribute twice")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.problems.append(f"</{tag}> closes another element")

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def check(self) -> None:
        """Assert what holds for every page: well formed, complete by itself, and usable without seeing it."""
        assert not self.problems
        assert [tag for tag, _ in self.elements].count("h1") == 1
        ids = [attributes["id"] for _, attributes in self.elements if "id" in attributes]
        assert len(ids) == len(set(ids))
        levels = [int(tag[1]) for tag, _ in self.elements if re.fullmatch("h[1-6]", tag)]
        assert levels[0] == 1 and all(below - above <= 1 for above, below in pairwise(levels))
        within = [link["href"] for link in self.find("a") if not re.fullmatch(PAGE_OF_A_TEST, link["href"])]
        assert all(link.removeprefix("#") in ids for link in within)
        assert all(cell.get("scope") in ("row", "col") for cell in self.find("th"))
        assert len(self.find("thead")) == len(self.find("table")) == len(self.find("caption"))
        assert all(image["src"].startswith("data:image/jpeg;base64,") and image["alt"] for image in self.find("img"))
        assert all(drawing["aria-label"] for drawing in self.find("svg"))
        assert not self.find("script", "iframe", "object", "embed", "form", "base", "foreignobject")
        for tag, attributes in self.elements:
            assert not [name for name in attributes if name.startswith("on")]
            addresses = [value for name, value in attributes.items() if name in ADDRESSES]
            fetched = [value for value in addresses if tag != "a" or not re.fullmatch(PAGE_OF_A_TEST, value)]
            assert all(value.startswith(("#", "data:")) for value in fetched), (tag, attributes)
            assert "url(" not in (attributes.get("style") or "").replace("url(#", "")

    def find(self, *tags: str) -> list[dict[str, str | None]]:
        """Return the attributes of each element of these tags, in order."""
        return [attributes for tag, attributes in self.elements if tag in tags]


def make_launch(root: Path, configs: Sequence[str], seeds: Sequence[int], opts: Sequence[str] = ()) -> tuple:
    """Return experiments, summaries and results of a launch whose runs and tests are made up in `root`."""
    from tools.launch.arguments import parse_args
    from tools.launch.plan import plan_launch
    from tools.study.results import summarise

    words = ["--config", *configs, "--seeds", *map(str, seeds), "--output-root", str(root)]
    experiments = plan_launch(parse_args([*words, *(["--opts", *opts] if opts else [])]))
    paths = make_images(root / "images", 20)
    for experiment in experiments:
        for seed in seeds:
            run = experiment.run_folder(seed)
            fill_run(run.path, experiment.last_epoch, seed)
            weights = {run.checkpoint(epoch).name: WEIGHT_SHA256 for epoch in (1, experiment.last_epoch)}
            write_record(run, RunRecord("0f", weights))
            run.config.write_text("their checkpoints were deleted")
            for epoch in (1, experiment.last_epoch):
                cfg = json.loads(json.dumps(load_cfg(experiment.config, experiment.opts)))
                changes = {"epoch": epoch, "settings": experiment.test_settings, "mAP": 0.1 + epoch / 100 + seed / 1000}
                summary = make_summary(cfg, experiment.config, **changes)
                write_folder(experiment.test_folder(seed, epoch).path, summary, make_analysis(paths))
    summaries, results = zip(*(summarise(one, seeds, []) for one in experiments), strict=True)
    return experiments, list(summaries), list(results)


def fill_run(folder: Path, epochs: int, seed: int) -> None:
    """Write metrics.jsonl and env.json of a run with two phases and two records an epoch."""
    folder.mkdir(parents=True)
    records = []
    for epoch in range(1, epochs + 1):
        tag, rate = "A" if epoch <= epochs // 2 else "B", 0.001 * epoch
        records.append({"kind": "phase", "epoch": epoch, "iteration": 20 * epoch, "phase": tag, "lr": rate})
        for step in (10, 20):
            loss = 8 / epoch + seed / 10 + step / 100
            losses = {"loss": loss, "id": loss / 2, "triplet": loss / 4, "acc": 0.1 * epoch, "lr": rate}
            records.append({"kind": "train", "epoch": epoch, "iteration": 20 * epoch + step, **losses})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    environment = {"python": "3.11.7", "torch": "2.9.0", "device": "cpu", "data_fingerprint": "69c1e654d7c01cdd"}
    (folder / "env.json").write_text(json.dumps(environment))
