"""Query sets of several modalities: fused queries and galleries, their figures, gains and gaps, against naive loops."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from configs import get_cfg_defaults
from datasets.test_set import TestSet, Trial, query_names
from datasets.transforms import brightness
from processor.evaluation.analysis import Analyst, shown_trials
from processor.evaluation.embed import embed, embed_batch, encode_row, prepare_modal_rows
from processor.evaluation.evaluate import RankOptions, evaluate, log_results, rank_options, search
from processor.evaluation.modalities import REMOVED, missing_scores, modality_gains, score_modalities, without_some
from tests.processor.evaluation.modal_tests import (
    EACH,
    GROUPS,
    HOW,
    PERSONS,
    Fusing,
    fuse_by_hand,
    make_embedded,
    make_features,
    make_modal_test,
    make_trials,
)
from tests.reference import slow_query_sets as slow
from utils.ranking.set_scores import MissingScore
from utils.statistics.bootstrap import mean_interval
from utils.statistics.paired import holm, pair_queries, sign_flip_test
from utils.test_folder import METRICS
from utils.typed_csv import read_rows, write_rows

DEPTH = 2
OPTIONS = RankOptions(10, depth=DEPTH)


@pytest.fixture
def model() -> Fusing:
    return Fusing()


def slow_lists(
    test: TestSet, trial: Trial, model: Fusing, queries: list[list[int]] | None = None, unit: bool = True
) -> list[list[bool]]:
    rows = (trial.query.tolist() if queries is None else queries), trial.gallery.tolist()
    return slow.ranked(rows, make_features().double().tolist(), test.labels.pids.tolist(), fuse_by_hand(model, unit))


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("gallery", [("vis",), ("vis", "nir")])
def test_sets_groups_and_score_are_those_of_a_loop_over_single_queries(model, unit, gallery, caplog):
    test = make_modal_test(trials=make_trials(gallery))
    result = evaluate(test, make_embedded(model, unit), OPTIONS)
    expected = {trial.set: slow.figures(slow_lists(test, trial, model, unit=unit), DEPTH) for trial in test.trials}
    for name, figures in result.sets.items():
        assert figures == pytest.approx(expected[name], abs=1e-12)
        assert figures[f"mAP@{DEPTH}"] != figures["mAP"]
    for name, members in GROUPS.items():
        for metric in (*METRICS, f"mAP@{DEPTH}"):
            wanted = slow.mean([expected[member][metric] for member in members])
            assert result.groups[name][metric] == pytest.approx(wanted, abs=1e-12)
    for metric in METRICS:
        assert result.metrics[metric] == pytest.approx(slow.score(expected, GROUPS, metric), abs=1e-12)
    assert result.num_query - result.num_valid_query == sum(2 if name[0] in "NS" else 1 for name in result.sets)
    with caplog.at_level("INFO"):
        log_results(result, "title")
    assert f"mAP@{DEPTH} {result.groups['MM-2'][f'mAP@{DEPTH}']:.1%}" in caplog.text


def test_a_gallery_that_all_sets_share_is_fused_once(model):
    test = make_modal_test()
    evaluate(test, make_embedded(model), OPTIONS)
    gallery, queries = (PERSONS - 1) * EACH["vis"], Counter(len(trial.query) for trial in test.trials)
    assert gallery not in queries and Counter(model.fused_rows) == queries + Counter([gallery])


def test_what_is_junk_for_one_item_of_a_gallery_entry_is_junk(model):
    trial = make_trials(("vis", "nir"))[0]
    test = make_modal_test(trials=(trial,), junk=lambda _, query, gallery: query[:, None] == gallery)
    searched = search(test, make_embedded(model), OPTIONS)
    junk = searched.protocol.mask(0, len(trial.query))
    expected = [[items[0] in entry for entry in trial.gallery.tolist()] for items in trial.query.tolist()]
    assert junk.any() and junk.tolist() == expected


def test_keys_of_the_system_give_the_depth_and_others_have_none():
    cfg = get_cfg_defaults()
    assert rank_options(cfg).depth is None
    cfg.MODEL.NAME, cfg.TEST.AP_DEPTH = "multimodal", 20
    assert rank_options(cfg).depth == 20 and rank_options(cfg).named() == {}


def test_rows_are_encoded_once_and_normalised_only_when_they_are_fused(model):
    test = make_modal_test()
    embedded = embed(model, test.loaders, HOW)
    torch.testing.assert_close(embedded.feat, make_features())  # z, as it is
    rows = torch.from_numpy(test.trials[3].query)
    expected = F.normalize(embedded.feat[rows].amax(1) @ model.matrix, dim=1)
    torch.testing.assert_close(embedded.fuse(embedded.feat[rows], rows >= 0), expected.detach())
    plain = embed(model, test.loaders, HOW._replace(unit=False))
    lengths = plain.fuse(plain.feat[rows], rows >= 0).norm(dim=1)
    assert (lengths - 1).abs().min() > 1e-3


def test_the_mirror_is_averaged_before_the_fusion_and_captions_have_none():
    class Tower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.arange(12.0).view(1, 12))

        def encode_batch(self, batch: dict) -> torch.Tensor:
            (values,) = batch["modalities"].values()
            return (values.flatten(1)[:, :4].float() * self.weight[:, :4]).cumsum(1)

    images, tokens = torch.rand(3, 3, 2, 2), torch.randint(9, (3, 4))
    how, tower = HOW._replace(flip=True), Tower()
    got = embed_batch(tower, {"modalities": {"sk": images}}, how)
    both = [encode_row(tower, {"modalities": {"sk": one}}) for one in (images, images.flip(3))]
    torch.testing.assert_close(got, (both[0] + both[1]).detach() / 2)
    assert not torch.allclose(got, both[0])
    words = embed_batch(tower, {"modalities": {"text": tokens}}, how)
    torch.testing.assert_close(words, encode_row(tower, {"modalities": {"text": tokens}}).detach())


@pytest.mark.parametrize(("modality", "told"), [("vis", True), ("nir", True), ("sk", False), ("cp", False)])
def test_photos_tell_their_brightness_and_drawings_and_captions_do_not(modality, told):
    images = torch.randint(256, (4, 3, 6, 5), dtype=torch.uint8)
    transforms = {modality: lambda values: values.float() / 255}
    batch = prepare_modal_rows({"modalities": {modality: images}}, torch.device("cpu"), transforms)
    torch.testing.assert_close(batch["modalities"][modality], images.float() / 255)
    assert ("brightness" in batch) is told
    if told:
        torch.testing.assert_close(batch["brightness"], brightness(images))
    tokens = torch.randint(9, (4, 7))
    batch = prepare_modal_rows({"modalities": {"text": tokens}}, torch.device("cpu"), {})
    assert torch.equal(batch["modalities"]["text"], tokens) and "brightness" not in batch


def test_gains_are_those_of_the_same_queries_without_a_modality(model):
    test = make_modal_test()
    result = evaluate(test, make_embedded(model), OPTIONS)
    gains = modality_gains(test, make_embedded(model), OPTIONS, result)
    names = test.labels.more["modality"].tolist()
    assert [(one.set, one.modality) for one in gains] == [
        *(("NIR+SK", name) for name in ("nir", "sk")),
        *(("SK+TEXT", name) for name in ("sk", "text")),
        *(("NIR+SK+TEXT", name) for name in ("nir", "sk", "text")),
    ]
    trials, plain = {trial.set: trial for trial in test.trials}, []
    for one in gains:
        trial = trials[one.set]
        whole = [slow.ap_at(matches) for matches in slow_lists(test, trial, model)]
        left = [slow.without(query, one.modality, names) for query in trial.query.tolist()]
        less = [slow.ap_at(matches) for matches in slow_lists(test, trial, model, left)]
        assert one.mAP == pytest.approx(slow.mean(whole)) and one.without == pytest.approx(slow.mean(less))
        valid = [place for place, value in enumerate(whole) if not math.isnan(value)]
        change = np.array([whole[place] - less[place] for place in valid])
        pids = test.labels.pids[trial.query[valid, 0]]
        assert one.difference == pytest.approx(change.mean()) and one.num_query == len(valid)
        assert (one.low, one.high) == pytest.approx(mean_interval(change, pids, (-1, 1)))
        plain.append(sign_flip_test(np.bincount(pids, change)))
    assert [one.p for one in gains] == pytest.approx(holm(plain))


def test_a_modality_that_no_query_has_beside_another_or_no_one_found_gains_nothing(model):
    """Of one query alone both items are there, and it has no match; the other queries are infrared images alone."""
    whole = make_trials(sets=(("nir", "sk"),))[0]
    alone = whole.query.copy()
    alone[:-1, 1] = -1
    for query, names in ((alone, []), (np.where(alone == alone[-1, 1], -1, alone), []), (whole.query, ["nir", "sk"])):
        test = make_modal_test(trials=(whole._replace(query=query),), groups={})
        result = evaluate(test, make_embedded(model), OPTIONS)
        gains = modality_gains(test, make_embedded(model), OPTIONS, result)
        assert [one.modality for one in gains] == names


def test_scores_of_sets_and_groups_have_intervals_over_persons(model):
    test = make_modal_test()
    result = evaluate(test, make_embedded(model), OPTIONS)
    scores, _ = score_modalities(test, make_embedded(model), OPTIONS, result)
    assert [one.name for one in scores] == [*GROUPS, *result.sets]
    assert [one.size for one in scores] == [1, 2, 3, 1, 1, 1, 2, 2, 3]
    for one in scores:
        members = GROUPS.get(one.name, (one.name,))
        assert one.group == ("" if one.kind == "group" else next(name for name in GROUPS if one.name in GROUPS[name]))
        figures = (result.groups | result.sets)[one.name]
        assert (one.mAP, one.R1) == (figures["mAP"], figures["Rank-1"])
        values, units, weights = [], [], []
        for member in members:  # by hand: each set weighs alike, whatever its size
            rows = (result.per_query["set"] == member) & (result.per_query["first_hit"] >= 0)
            values += result.per_query["ap"][rows].tolist()
            units += result.per_query["pid"][rows].tolist()
            weights += [1 / rows.sum()] * rows.sum()
        low, high = mean_interval(np.array(values), np.array(units), (0, 1), np.array(weights))
        assert (one.low, one.high) == pytest.approx((low, high)) and low <= one.mAP <= high
        assert (one.num_query, one.num_id) == (len(values), len(set(units)))


def test_a_test_without_modalities_has_no_scores_of_them(model):
    test = make_modal_test()
    plain = test._replace(labels=test.labels._replace(more={}))
    result = evaluate(plain, make_embedded(model), OPTIONS)
    assert score_modalities(plain, make_embedded(model), OPTIONS, result) == ([], [])


def test_each_item_goes_with_its_probability_one_stays_and_what_is_out_stays_out():
    query = np.array([[4, 7, 9]]).repeat(10_000, axis=0)
    before = query
    for share in REMOVED:
        left = without_some(query, share, seed=1)
        assert ((left == query) | (left == -1)).all() and (left[before < 0] == -1).all() and (left >= 0).any(1).all()
        before = left
        counts = Counter(tuple(row for row in rows if row >= 0) for rows in left.tolist())
        for outcome, chance in slow.all_thinned([4, 7, 9], share).items():
            # five standard deviations of a share of as many draws
            assert counts[outcome] / len(query) == pytest.approx(chance, abs=5 * math.sqrt(chance / len(query)) + 1e-12)
    assert (without_some(query, 0.5, 1) == without_some(query, 0.5, 1)).all()
    assert (without_some(query, 0.5, 1) != without_some(query, 0.5, 2)).any()
    assert without_some(np.array([[3, -1]]), 0.99, 0).tolist() == [[3, -1]]


def test_the_curve_of_missing_items_is_that_of_the_largest_set(model):
    test = make_modal_test()
    scores = missing_scores(test, make_embedded(model), OPTIONS)
    trial = test.trials[-1]
    assert [one.removed for one in scores] == list(REMOVED) == [0, 0.25, 0.5, 0.75]
    for one in scores:
        left = without_some(trial.query, one.removed, 0)
        aps = [slow.ap_at(matches) for matches in slow_lists(test, trial, model, left.tolist())]
        assert one.set == "NIR+SK+TEXT" and one.mAP == pytest.approx(slow.mean(aps))
        assert one.items == pytest.approx((left >= 0).sum(1).mean()) and one.low <= one.mAP <= one.high
    assert [one.items for one in scores] == sorted({one.items for one in scores}, reverse=True)
    result = evaluate(test, make_embedded(model), OPTIONS)
    assert scores[0].mAP == result.sets["NIR+SK+TEXT"]["mAP"]


def test_queries_of_one_item_have_nothing_to_miss_and_that_is_said(model, caplog):
    test = make_modal_test(trials=make_trials(sets=(("nir",), ("sk",))), groups={})
    assert missing_scores(test, make_embedded(model), OPTIONS) == []
    assert "TEST.MISSING: no query of Toy has several items" in caplog.text


def test_the_worst_queries_are_those_of_the_weakest_set_of_each_group_with_all_their_items(model):
    cfg, test = get_cfg_defaults(), make_modal_test()
    embedded = make_embedded(model)
    analyst = Analyst(cfg, test)
    result = evaluate(test, embedded, OPTIONS, analyst.watch)
    numbers = shown_trials(test, result)
    shown = [test.trials[number].set for number in numbers]
    weakest = [min(members, key=lambda name: result.sets[name]["mAP"]) for members in GROUPS.values()]
    assert shown == weakest
    searched = search(test, embedded, OPTIONS, numbers[1])
    rows = result.per_query["set"] == shown[1]
    scores = {name: result.per_query[name][rows] for name in ("ap", "num_pos", "first_hit")}
    worst = analyst.analyse(result).worst
    count = len(worst) // len(numbers)
    assert count == 12 // len(GROUPS) and [query["set"] for query in worst] == np.repeat(shown, count).tolist()
    first = worst[count]
    assert first["ap"] == np.nanmin(scores["ap"]) and first["set"] == shown[1]
    query = searched.trial.query[np.nanargmin(scores["ap"])].tolist()
    assert [item["path"] for item in first["items"]] == [test.labels.names[row] for row in query]
    assert [item["modality"].upper() for item in first["items"]] == shown[1].split("+")
    assert all(entry["modality"] == "vis" and "camid" not in entry for entry in first["ranks"])


def test_of_a_test_of_one_set_the_worst_queries_are_those_of_that_set(model):
    test = make_modal_test(trials=make_trials(sets=(("text",),)), groups={"MM-1": ("TEXT",)})
    assert shown_trials(test, evaluate(test, make_embedded(model), OPTIONS)) == [0]


def test_a_query_of_many_letters_has_a_short_name_that_is_the_same_under_any_root():
    here, there = make_modal_test("/a/very/long/root"), make_modal_test("C:\\data")
    long = "A man " + "in a red coat " * 20
    for test in (here, there):
        test.labels.names[-2:] = [long + "with a bag", long + "with a hat"]
    for trial in here.trials:
        names = query_names(here.labels, trial.query)
        assert names.tolist() == query_names(there.labels, trial.query).tolist()
        assert len({*names.tolist()}) == len(names) and max(map(len, names)) < 130
    name = query_names(here.labels, here.trials[3].query[:1])[0]
    assert name.count("nir/0000/_back_0.jpg + sk/0000/") == 1


def test_tests_under_different_roots_are_paired_by_all_items_of_their_queries(model):
    results = []
    for folder in ("here", "/there/it/is"):
        test = make_modal_test(folder)
        order = np.random.default_rng(len(folder)).permutation(len(test.trials[3].query))
        trial = test.trials[3]._replace(query=test.trials[3].query[order])
        results.append(evaluate(test._replace(trials=(trial,), groups={}), make_embedded(model), OPTIONS).per_query)
    first, second = pair_queries([("a", results[0]), ("b", results[1])])
    np.testing.assert_array_equal(first["ap"], second["ap"])
    assert first["path"].tolist() == second["path"].tolist() != results[1]["path"].tolist()


def test_a_query_tells_the_side_of_its_first_drawing(model):
    per_query = evaluate(make_modal_test(), make_embedded(model), OPTIONS).per_query
    for name, view, path in zip(per_query["set"], per_query["view"], per_query["path"], strict=True):
        sketch = next((part for part in path.split(" + ") if part.startswith("sk/")), "")
        assert view == (-1 if "SK" not in name else 0 if "_front_" in sketch else 1)


def test_tables_of_scores_are_read_as_they_were_written(tmp_path):
    rows = [MissingScore("NIR+SK", 0.25, 1.5, 0.4, 0.3, float("nan"))]
    write_rows(tmp_path / "missing.csv", MissingScore, rows)
    np.testing.assert_equal(read_rows(tmp_path / "missing.csv", MissingScore, "scores"), rows)
