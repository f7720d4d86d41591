"""The sentence of a report and of a launch says what the numbers say, and no more."""

from types import SimpleNamespace
from typing import Any

import pytest

from tests.pages import README, blocks_of
from tools.study.verdict import Verdict, against_references, verdict_on_launch, verdict_on_test

SUMMARY = {"mAP": 0.3594, "interval": {"mAP": [0.326, 0.396]}, "epoch": 30}
REFERENCES = {"raw_pixels": {"mAP": 0.0537}, "untrained": {"mAP": 0.031}}


def said(summary: dict[str, Any], references: dict, last: int | None, best: tuple[int, float] | None) -> str:
    return verdict_on_test(summary, "mAP", "standard", references, (last, best)).text


def test_the_figure_its_interval_raw_pixels_and_the_best_epoch_are_one_sentence():
    sentence = "35.9 mAP (95 %: 32.6 to 39.6), 6.7 times raw pixels (5.4); best epoch is the last."
    assert said(SUMMARY, REFERENCES, 30, (30, 0.3594)) == sentence


def test_what_is_not_known_is_not_said():
    assert said({"mAP": 0.5}, {}, None, None) == "50.0 mAP."
    assert said(SUMMARY, {}, None, None) == "35.9 mAP (95 %: 32.6 to 39.6)."
    assert said(SUMMARY, {}, 120, None).endswith(", epoch 30 of 120.")
    assert verdict_on_test({"mAP": 0.5}, "mAP", "trapezoid", {}, (None, None)).figure == "50.0 mAP (trapezoid AP)"


def test_an_epoch_that_looks_better_on_the_test_set_is_named_as_what_it_is():
    words = said(SUMMARY, {}, 30, (20, 0.371))
    assert words.endswith("epoch 20 would show 37.1, but only the test set can tell.")


def test_cautions_are_pointed_at():
    assert said(SUMMARY | {"cautions": ["all alike"]}, {}, 30, None).endswith("; see the caution below.")


@pytest.mark.parametrize(
    ("value", "found", "words"),
    [
        (0.36, {"raw_pixels": 0.06, "untrained": 0.01}, "6.0 times raw pixels (6.0)"),
        (0.36, {"untrained": 0.03}, "12.0 times the untrained model (3.0)"),
        (0.36, {"raw_pixels": 0.34}, "not clearly more than raw pixels (34.0)"),
        (0.36, {"raw_pixels": 0.40}, "less than raw pixels (40.0)"),
        (0.36, {"raw_pixels": 0.0}, "raw pixels: 0.0"),
        (0.36, {}, ""),
    ],
)
def test_a_comparison_with_raw_pixels_is_no_praise_where_they_are_near(value, found, words):
    assert against_references(value, (0.33, 0.39), found) == words


def experiment(value: float, difference: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Return what a verdict reads of the summary of an experiment."""
    best = {"epoch": 30, "mAP": value}
    own = {
        "recipe": f"r{value}",
        "name": f"n{value}",
        "dataset": "VeRi-776",
        "data_fingerprints": ["d"],
        "epochs": 30,
        "num_seeds": {"last": 2},
        "mean": {"last": {"mAP": value}, "best": {"mAP": value}},
        "std": {"last": {"mAP": 0.01}},
        "interval": {"last": {"mAP": [value - 0.1, value + 0.1]}},
        "reference": {},
        "seeds": {"0": {"last": best, "best": best}, "1": {"last": best, "best": best}},
    }
    return own | ({"difference": difference} if difference else {}) | changes


def differing(value: float, significant: bool, p_seeds: float | None = 0.01) -> dict[str, Any]:
    return {"value": value, "interval": [value - 0.01, value + 0.01], "significant": significant, "p_seeds": p_seeds}


EXPERIMENT = SimpleNamespace(model_name="transformer", test_settings={"TEST.AP": "standard"})


def verdict(*summaries: dict[str, Any]) -> Verdict | None:
    return verdict_on_launch([EXPERIMENT] * len(summaries), summaries)


def launch(*summaries: dict[str, Any]) -> str:
    return verdict(*summaries).text


def test_one_experiment_has_its_spread_and_its_best_epochs():
    assert launch(experiment(0.4)) == "40.0 mAP (95 %: 30.0 to 50.0), sd 1.0 over 2 seeds; best epoch is the last."
    seeds = {str(seed): {"last": {"epoch": 30}, "best": {"epoch": epoch}} for seed, epoch in ((0, 20), (1, 30))}
    other = experiment(0.4, seeds=seeds, mean={"last": {"mAP": 0.4}, "best": {"mAP": 0.42}}, num_seeds={"last": 1})
    assert launch(other).endswith("one seed; epochs 20, 30 would show 42.0, but only the test set can tell.")


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (differing(0.1, True), ", significant over test identities and seeds."),
        (differing(0.1, True, None), ", significant over test identities, with one seed on a side."),
        (differing(0.1, False), ", not significant."),
    ],
)
def test_the_best_of_several_is_compared_with_the_first(difference, words):
    start = "50.0 mAP by 2 r0.5, the highest of 2 (95 %: 40.0 to 60.0), +10.0 points of mAP on 1 r0.4"
    assert launch(experiment(0.4), experiment(0.5, difference)) == f"{start} (95 %: +9.0 to +11.0){words}"


def test_a_first_experiment_that_stays_the_best_says_what_the_others_are():
    worse, alike = experiment(0.3, differing(-0.1, True)), experiment(0.39, differing(-0.01, False))
    assert launch(experiment(0.4), worse, alike).endswith("1 of 2 others significantly below it.")
    assert launch(experiment(0.4), alike).endswith("none of the others differs from it significantly.")
    assert "equalled by 1 of 1 others" in launch(experiment(0.4), experiment(0.4, recipe="other"))


def test_other_images_do_not_compete_and_nothing_is_said_without_a_result():
    assert launch(experiment(0.4), experiment(0.9, dataset="MSMT17 V1")).startswith("40.0 mAP by 1 r0.4 (95 %")
    assert "1 on other images left out" in launch(experiment(0.4), experiment(0.9, dataset="MSMT17 V1"))
    nothing = experiment(0.4, num_seeds={"last": 0})
    for summaries in ([nothing], [nothing, nothing]):
        assert verdict(*summaries) is None


def test_the_readme_shows_the_sentence_of_its_own_figures():
    references = {"raw_pixels": {"mAP": 0.0539}, "untrained": {"mAP": 0.0306}}
    mean, interval = {"last": {"mAP": 0.3592}}, {"last": {"mAP": [0.3261, 0.396]}}
    found = experiment(0.3592, mean=mean, interval=interval, reference=references, num_seeds={"last": 1})
    (block,) = [block.text for block in blocks_of(README) if "raw pixels" in block.text]
    assert launch(found) in block.splitlines()
    for figure in ("35.92", "32.61 - 39.60", "5.39", "3.06"):
        assert figure in block
