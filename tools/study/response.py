"""What the points of a sweep have shown on held-out identities, and the one that these alone choose."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tools.study.experiment import Experiment
from tools.study.summary import (
    Metrics,
    find_intervals,
    mean_and_sd,
    pair_tables,
    percent_range,
    percents,
    seed_rows,
    write_files,
)
from utils.run_folder import of_stage, read_metrics
from utils.statistics.bootstrap import PerQuery
from utils.tables import align, markdown
from utils.test_folder import METRICS, has_metrics, read_table

SCHEMA = 1
CHOSEN = "*"  # marks the point that was chosen
OTHER_IMAGES = "other images held out"


class PointResult(NamedTuple):
    """One point: where it lies, and by seed what its last epoch reached on held-out identities."""

    name: str  # of the experiment
    recipe: str  # label of its YAML, "" where there is one alone
    values: dict[str, str]  # by key
    epoch: int  # its last
    held_out: dict[int, Metrics]  # by seed; one without a figure is left out
    interval: dict[str, list[float]]  # 95 %, over held-out identities of the mean over the seeds; {} = not known
    why_not: str  # why it cannot be chosen: a seed failed, or has not ended; "" = it can
    images: frozenset[bytes] = frozenset()  # digests of the held-out queries of its seeds, as far as they are known

    @property
    def mean(self) -> Metrics:
        return mean_and_sd([*self.held_out.values()])[0]

    @property
    def sd(self) -> Metrics:
        return mean_and_sd([*self.held_out.values()])[1]


class Response(NamedTuple):
    """All points of a sweep, in order, and what it says about itself."""

    kind: str  # grid or search
    names: dict[str, str]  # by key: what it is called in tables
    metrics: tuple[str, str]  # that decide, the first one first
    dataset: str
    seeds: tuple[int, ...]
    points: tuple[PointResult, ...]
    logarithmic: tuple[str, ...] = ()  # keys whose values were drawn by orders of magnitude

    @property
    def chosen(self) -> int | None:
        """Place of the chosen point; None while there is none."""
        return choose(self.points, self.metrics)

    @property
    def count(self) -> int:
        """Seeds that have a figure, over all points."""
        return sum(len(point.held_out) for point in self.points)

    def title(self, place: int) -> str:
        """Return a point in words, e.g. `BASE_LR 0.001, MARGIN 0.3`, after its recipe where there are several."""
        point = self.points[place]
        words = [f"{self.names[key]} {value or repr('')}" for key, value in point.values.items()]
        return ", ".join(filter(None, (point.recipe, *words)))


def choose(points: Sequence[PointResult], metrics: tuple[str, str]) -> int | None:
    """Return the place of the point with the highest mean on held-out identities; None where none is whole.

    The first of `metrics` decides, the second between equals, then the order. Results on the test set are no argument.
    """
    whole = [place for place, point in enumerate(points) if not point.why_not]
    return max(whole, key=lambda place: [points[place].mean[name] for name in metrics], default=None)


def idle_keys(response: Response) -> list[str]:
    """Return the keys whose values changed no figure: points that differ in nothing else are equal for each seed.

    Keys without such points are left out.
    """
    idle = []
    for key in response.names:
        groups: dict[tuple, list[dict[int, Metrics]]] = {}
        for point in response.points:
            others = (point.recipe, *(value for other, value in point.values.items() if other != key))
            groups.setdefault(others, []).extend([point.held_out] if not point.why_not else [])
        compared = [group for group in groups.values() if len(group) > 1]
        if compared and all(one == group[0] for group in compared for one in group):
            idle.append(key)
    return idle


def on_same_images(points: Sequence[PointResult]) -> tuple[PointResult, ...]:
    """Return the points, those without a choice whose seeds did not see the held-out queries of the first that did."""
    first = next((point.images for point in points if point.images), frozenset())
    return tuple(
        point._replace(why_not=OTHER_IMAGES) if not point.why_not and len(point.images | first) > 1 else point
        for point in points
    )


def read_point(
    experiment: Experiment, recipe: str, values: Mapping[str, str], seeds: Sequence[int], ended: Mapping[int, int]
) -> PointResult:
    """Return what a point's runs have recorded at their last epoch; `ended` are exit codes of trainings by seed."""
    held_out, tables = {}, []
    failed = [seed for seed, code in ended.items() if code]
    for seed in seeds:
        run = experiment.run_folder(seed)
        lines = of_stage(read_metrics(run.metrics), experiment.stages, experiment.stages[-1])
        own = [one for one in lines if one["kind"] == "val" and one["epoch"] == experiment.last_epoch]
        if own and has_metrics(own[-1]) and seed not in failed:
            held_out[seed] = {name: own[-1][name] for name in METRICS}
            tables.append(read_table(run.held_out(experiment.last_epoch)))
    left = [seed for seed in seeds if seed not in held_out and seed not in failed]
    lacking = {
        "failed": failed,
        "not finished": [seed for seed in left if seed not in ended],
        "without a figure on held-out identities": [seed for seed in left if seed in ended],
    }
    why_not = "; ".join(f"seed {', '.join(map(str, own))} {what}" for what, own in lacking.items() if own)
    interval = find_intervals(pair_tables(tables)) if tables else {}
    images = frozenset(_digest(table) for table in tables if table is not None)
    return PointResult(
        experiment.name, recipe, dict(values), experiment.last_epoch, held_out, interval, why_not, images
    )


def _digest(table: PerQuery) -> bytes:
    """Return a digest of the queries of a table, in whatever order, and wherever their folder lies."""
    names = (str(path).rpartition("/")[2] for path in table["path"].tolist())
    queries = sorted(f"{name}\0{pid}" for name, pid in zip(names, table["pid"].tolist(), strict=True))
    return hashlib.sha256("\0".join(queries).encode(errors="surrogatepass")).digest()


def response_rows(response: Response) -> list[list[str]]:
    """Return the rows of the table, the head first: each point with its mean on held-out identities, in percent."""
    several = any(point.recipe for point in response.points)
    metrics = dict.fromkeys((response.metrics[0], "mAP", "Rank-1", "mINP"))
    head = ["ID", *(["recipe"] if several else []), *response.names.values(), "epochs", "seeds"]
    rows = [[*head, response.metrics[0], "95 %", *[name for name in metrics if name != response.metrics[0]], "chosen"]]
    chosen = response.chosen
    for place, point in enumerate(response.points):
        cells = dict(zip(METRICS, percents(point.mean, point.sd if len(point.held_out) > 1 else None), strict=True))
        values = [point.values.get(key, "") or repr("") for key in response.names]
        facts = [str(place + 1), *([point.recipe] if several else []), *values, str(point.epoch)]
        first, *others = (cells[name] for name in metrics)
        interval = percent_range(point.interval.get(response.metrics[0]))
        mark = CHOSEN if place == chosen else point.why_not
        rows.append([*facts, str(len(point.held_out)), first, interval, *others, mark])
    return rows


def text_columns(response: Response) -> list[int]:
    """Return the columns of `response_rows` that hold words rather than numbers."""
    several = any(point.recipe for point in response.points)
    return [*([1] if several else []), len(response_rows(response)[0]) - 1]


def response_note(response: Response) -> str:
    """Return what the figures of the table are."""
    return (
        "Percent on identities held out of training, at the last epoch, mean (+- sd) over the seeds; 95 %: bootstrap "
        f"interval over these identities. {CHOSEN}: chosen, the highest {response.metrics[0]}. No figure here has seen "
        "the test set."
    ) + "".join(f" {key} changed no figure: nothing in this recipe seems to read it." for key in idle_keys(response))


def format_response(response: Response) -> str:
    """Return the table and its note as aligned text."""
    return f"{align(response_rows(response), text_columns(response))}\n\n{response_note(response)}"


def write_response(start: Path, response: Response, test: Mapping[str, Any], also_tested: Sequence[str]) -> list[Path]:
    """Write <start>.json, .csv (a row per point and seed) and .md; returns the paths.

    `test` is the summary of the chosen point on the test set, {} while there is none; `also_tested` are the names of
    other points that have results there.
    """
    chosen = response.chosen
    content = {
        "schema": SCHEMA,
        "kind": response.kind,
        "dataset": response.dataset,
        "keys": list(response.names),
        "metric": response.metrics[0],
        "seeds": list(response.seeds),
        "points": [_as_dict(point) for point in response.points],
        "chosen": None if chosen is None else response.points[chosen].name,
        "test": dict(test) or None,
        "also_tested": list(also_tested),
        "num_seeds": {"last": response.count},
    }
    rows: list[Sequence[Any]] = [("name", "recipe", *response.names, "seed", "epoch", *METRICS, "chosen")]
    for place, point in enumerate(response.points):
        values = [point.values.get(key, "") for key in response.names]
        for seed, metrics in point.held_out.items():
            figures = [metrics[name] for name in METRICS]
            rows.append((point.name, point.recipe, *values, seed, point.epoch, *figures, int(place == chosen)))
    text = f"# {start.name}\n\n{markdown(response_rows(response))}\n\n{response_note(response)}\n"
    if test:
        text += f"\n## {response.title(chosen)} on the test set\n\n{markdown(seed_rows(dict(test)))}\n"
    return write_files(start, content, rows, text)


def _as_dict(point: PointResult) -> dict[str, Any]:
    held_out = {str(seed): metrics for seed, metrics in point.held_out.items()}
    own = {name: value for name, value in point._asdict().items() if name != "images"}
    return own | {"held_out": held_out, "mean": point.mean, "sd": point.sd}
