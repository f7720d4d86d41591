"""What a test or a launch has shown, in one sentence: the figure, and what it means. Made of the numbers alone."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from configs.picking import USUAL, picked_by
from tools.study.ablation import recipe_names
from tools.study.experiment import Experiment
from tools.study.response import Response
from tools.study.summary import REFERENCES, Metrics
from utils.ap_rules import marked_metric

Summary = Mapping[str, Any]


class Verdict(NamedTuple):
    """A sentence in two parts: the figure, which stands out, and the rest; () of a launch without a result."""

    figure: str
    rest: str

    @property
    def text(self) -> str:
        return self.figure + self.rest


def percent(fraction: float) -> str:
    """Return a fraction in percent as sentences say it, e.g. 35.9."""
    return f"{100 * fraction:.1f}"


def _interval(interval: Sequence[float] | None) -> str:
    return f" (95 %: {percent(interval[0])} to {percent(interval[1])})" if interval else ""


def against_references(value: float, interval: Sequence[float] | None, found: Mapping[str, float]) -> str:
    """Return how a figure compares with raw pixels, else with the untrained model: `6.7 times raw pixels (5.4)`.

    `found` has their figures by name, see REFERENCES. What lies within the interval, or above, is said to.
    """
    name = next((name for name in REFERENCES if name in found), None)
    if name is None:
        return ""
    title, base = ("raw pixels" if name == "raw_pixels" else "the untrained model"), found[name]
    if base > value:
        return f"less than {title} ({percent(base)})"
    if interval and base >= interval[0]:
        return f"not clearly more than {title} ({percent(base)})"
    if round(1000 * base) == 0:
        return f"{title}: {percent(base)}"
    return f"{value / base:.1f} times {title} ({percent(base)})"


def verdict_on_test(
    summary: Summary,
    metric: str,
    ap_rule: str,
    references: Mapping[str, Metrics],
    epochs: tuple[int | None, tuple[int, float] | None],
) -> Verdict:
    """Return the verdict on one test by `metric`.

    `epochs` are the last of the training, None where it is not known, and the best tested one with its figure, None
    where only one was tested.
    """
    value, interval = summary[metric], summary.get("interval", {}).get(metric)
    found = {name: one[metric] for name, one in references.items() if metric in one}
    last, best = epochs
    epoch = summary.get("epoch")
    parts = [against_references(value, interval, found)]
    if best is not None:
        parts.append(_about_best(best, epoch, "the last"))
    elif epoch is not None and last is not None:
        parts.append(f"epoch {epoch} of {last}")
    if summary.get("cautions"):
        parts.append("see the caution below")
    return _sentence(f"{percent(value)} {marked_metric(metric, ap_rule)}", interval, parts)


def _about_best(best: tuple[int, float], shown: int, words: str) -> str:
    """Return that the epoch shown is the best on the test set, or which other one looks better there."""
    epoch, value = best
    if epoch == shown:
        return f"best epoch is {words}"
    return f"epoch {epoch} would show {percent(value)}, but only the test set can tell"


def _sentence(figure: str, interval: Sequence[float] | None, parts: Sequence[str], of: str = "") -> Verdict:
    """Return a verdict: the figure, ` of` what it is, its interval and further parts."""
    told = "; ".join(part for part in parts if part)
    known = "".join(filter(None, (of, _interval(interval))))
    return Verdict(figure, f"{known}{', ' if known and told else ': ' if told else ''}{told}.")


def deciding_metric(experiments: Sequence[Experiment]) -> str:
    """Return the metric that epochs are picked by where all experiments have one model, else mAP."""
    names = {one.model_name for one in experiments}
    return picked_by(names.pop())[0] if len(names) == 1 else USUAL[0]


def verdict_on_launch(experiments: Sequence[Experiment], summaries: Sequence[Summary]) -> Verdict | None:
    """Return the verdict on a launch at the last epoch; None where no seed has a result there.

    Of several experiments it is about the best of those that share test set and images with the first; the difference
    and its significance are those of the ablation table, by mAP.
    """
    metric, ap_rule = deciding_metric(experiments), experiments[0].test_settings["TEST.AP"]
    if len(summaries) == 1:
        return _of_one(summaries[0], metric, ap_rule)
    named = [*zip(range(1, len(summaries) + 1), recipe_names(summaries), summaries, strict=True)]
    done = [one for one in named if one[2]["num_seeds"]["last"]]
    keys = ("dataset", "data_fingerprints")
    alike = [one for one in done if all(one[2][key] == done[0][2][key] for key in keys)]
    if not alike:
        return None
    number, name, best = max(alike, key=lambda one: one[2]["mean"]["last"][metric])
    value, interval = best["mean"]["last"][metric], best["interval"].get("last", {}).get(metric)
    figure = f"{percent(value)} {marked_metric(metric, ap_rule)}"
    equal = sum(one[2]["mean"]["last"][metric] == value for one in alike) - 1
    rank = f"the highest of {len(alike)}" if not equal else f"equalled by {equal} of {len(alike) - 1} others"
    of = f" by {number} {name}" + (f", {rank}" if len(alike) > 1 else "")
    parts = [_against_first(number, best, [one[2] for one in alike], named[0][1])]
    others = len(done) - len(alike)
    if others:
        parts.append(f"{others} on other images left out")
    return _sentence(figure, interval, parts, of)


def _of_one(summary: Summary, metric: str, ap_rule: str) -> Verdict | None:
    count = summary["num_seeds"]["last"]
    if not count:
        return None
    value, interval = summary["mean"]["last"][metric], summary["interval"].get("last", {}).get(metric)
    found = {name: one[metric] for name, one in summary["reference"].items() if metric in one}
    spread = f"sd {percent(summary['std']['last'][metric])} over {count} seeds" if count > 1 else "one seed"
    best = [entry["best"]["epoch"] for entry in summary["seeds"].values() if entry["last"] and entry["best"]]
    epochs = "best epoch is the last" if set(best) == {summary["epochs"]} else _other_best(summary, metric, best)
    return _sentence(
        f"{percent(value)} {marked_metric(metric, ap_rule)}",
        interval,
        [against_references(value, interval, found), spread, epochs],
    )


def _other_best(summary: Summary, metric: str, best: Sequence[int]) -> str:
    """Return what the epochs that look best on the test set would show."""
    if not best or metric not in summary["mean"]["best"]:
        return ""
    which = f"epoch {best[0]}" if len(set(best)) == 1 else f"epochs {', '.join(map(str, best))}"
    return f"{which} would show {percent(summary['mean']['best'][metric])}, but only the test set can tell"


def _against_first(number: int, best: Summary, alike: Sequence[Summary], first: str) -> str:
    """Return how the best experiment differs from the first, or where it is the first what the others are."""
    if number == 1:
        differing = [one["difference"] for one in alike[1:] if "difference" in one]
        worse = sum(one["significant"] for one in differing)
        none = "none of the others differs from it significantly"
        return f"{worse} of {len(differing)} others significantly below it" if worse else none if differing else ""
    difference = best.get("difference")
    if difference is None:
        return f"no paired difference to 1 {first}"
    low, high = difference["interval"]
    told = f"{100 * difference['value']:+.1f} points of mAP on 1 {first} (95 %: {100 * low:+.1f} to {100 * high:+.1f})"
    if not difference["significant"]:
        return f"{told}, not significant"
    if difference["p_seeds"] is None:
        return f"{told}, significant over test identities, with one seed on a side"
    return f"{told}, significant over test identities and seeds"


def verdict_on_sweep(response: Response, summary: Summary, also_tested: Sequence[str]) -> Verdict:
    """Return the verdict on a sweep: what was chosen on held-out identities, and what it reached on the test set.

    `summary` is that of its test, {} while there is none; `also_tested` names other points with results there.
    """
    place, metric = response.chosen, response.metrics[0]
    if place is None:
        return Verdict("Nothing chosen", ": no point has all of its seeds.")
    point, total = response.points[place], len(response.points)
    held_out = f"{percent(point.mean[metric])} on held-out identities{_interval(point.interval.get(metric))}"
    whole = sum(not one.why_not for one in response.points)
    equal = sum(not one.why_not and one.mean[metric] == point.mean[metric] for one in response.points) - 1
    rank = f"equalled by {equal} of {whole - 1} others" if equal else f"the highest of {whole} points"
    of = rank + (f", {total - whole} more are not whole" if whole < total else "")
    chosen = f"{response.title(place)} chosen by {metric}: {held_out}, {of}"
    mean = summary.get("mean", {}).get("last", {}) if summary else {}
    if metric not in mean:
        return Verdict(
            f"{percent(point.mean[metric])} {metric}", f" on held-out identities: {response.title(place)}, {of}."
        )
    interval = summary["interval"].get("last", {}).get(metric)
    seen = f"; {len(also_tested)} other points have been tested too" if also_tested else ""
    return Verdict(f"{percent(mean[metric])} {metric}", f" on the test set{_interval(interval)}; {chosen}{seen}.")
