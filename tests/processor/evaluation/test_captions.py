"""Tests that search images with captions: against a loop in float64, and what is left in files and log."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from yacs.config import CfgNode

from datasets import ReIDData, make_dataloader
from datasets.read import Counts, Told
from processor import do_inference
from processor.evaluation.cautions import cautions
from processor.evaluation.embed import embed, make_embedding
from processor.evaluation.evaluate import evaluate, log_results, rank_options
from processor.evaluation.outcome import evaluate_one
from processor.periodic import evaluate_references
from tests.datasets.captioned import caption_cfg, entries_of, write_captioned
from tests.datasets.trees import write_text
from tests.tolerance import bounds
from utils.ranking.slices import query_slices, read_slices
from utils.test_folder import TestFolder, read_result

WIDTH = 6
CPU = torch.device("cpu")
RANKS = {"Rank-1": 1, "Rank-5": 5, "Rank-10": 10}


class TwoTowers(nn.Module):
    """Images and captions as vectors, by two linear maps: what a system of captions is asked for."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.image = nn.Parameter(torch.randn(3 * 16 * 8, WIDTH, generator=generator))
        self.words = nn.Parameter(torch.randn(49408, WIDTH, generator=generator))
        self.asked: list[set[str]] = []

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) @ self.image

    def encode_text(self, ids: torch.Tensor) -> torch.Tensor:
        return (self.words[ids] * (ids > 0)[..., None]).sum(1)

    def embed_batch(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        self.asked.append(set(batch))
        return self.encode_image(batch["images"]) if "images" in batch else self.encode_text(batch["caption_ids"])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_captioned(tmp_path, entries_of({"train": (1, 2), "test": (7, 3, 60, 8, 15)}))


def features_by_hand(cfg: CfgNode, model: TwoTowers, data: ReIDData) -> tuple[np.ndarray, np.ndarray]:
    """Return unit features float64 of the images and of the captions of the test set."""
    images, captions = data.test.loaders
    numbers = (cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD)
    mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in numbers)
    seen, read = [], []
    for batch in images:
        pixels = (batch["images"].double() / 255 - mean) / std
        mirror = pixels.flip(3)
        parts = [view.flatten(1) @ model.image.double() for view in ((pixels, mirror) if cfg.TEST.FLIP else (pixels,))]
        seen.append(sum(parts) / len(parts))
    for batch in captions:
        for ids in batch["caption_ids"].tolist():
            read.append(sum(model.words.double()[token] for token in ids if token))
    return F.normalize(torch.cat(seen), dim=1).detach().numpy(), F.normalize(torch.stack(read), dim=1).detach().numpy()


def figures_by_hand(
    query: np.ndarray, gallery: np.ndarray, q_pids: np.ndarray, g_pids: np.ndarray
) -> dict[str, object]:
    """Return the metrics and the ap of each query by a loop."""
    aps, inps, firsts = [], [], []
    for one, pid in zip(query, q_pids, strict=True):
        order = np.argsort(-(gallery @ one), kind="stable")
        places = 1 + np.flatnonzero(g_pids[order] == pid)
        aps.append(np.mean(np.arange(1, len(places) + 1) / places))
        inps.append(len(places) / places[-1])
        firsts.append(places[0])
    ranks = {name: np.mean(np.array(firsts) <= rank) for name, rank in RANKS.items()}
    return {"mAP": np.mean(aps), "mINP": np.mean(inps), **ranks, "ap": aps}


@pytest.mark.parametrize("flip", [False, True])
def test_the_figures_are_those_of_a_loop_over_captions(root, flip):
    cfg = caption_cfg(root, "TEST.FLIP", flip)
    data, model = make_dataloader(cfg), TwoTowers()
    result = do_inference(cfg, model, data)
    images, captions = features_by_hand(cfg, model, data)
    pids = data.test.labels.pids
    expected = figures_by_hand(captions, images, pids[len(images) :], pids[: len(images)])
    aps = expected.pop("ap")
    np.testing.assert_allclose(result["per_query"]["ap"], aps, atol=1e-12)
    assert {name: result[name] for name in expected} == {name: pytest.approx(value) for name, value in expected.items()}
    written = [caption for one in entries_of({"test": (7, 3, 60, 8, 15)}) for caption in one["captions"]]
    assert result["num_query"] == result["num_valid_query"] == len(written)
    assert len(result["per_query"]["path"]) == len(written) and "sets" not in result
    assert all(np.isnan(result["per_query"]["brightness"])) and 0 < result["mAP"] < 1


def test_captions_are_neither_mirrored_nor_do_they_reach_the_tower_of_images(root):
    cfg = caption_cfg(root, "TEST.FLIP", True)
    data, model = make_dataloader(cfg), TwoTowers()
    do_inference(cfg, model, data)
    assert [keys & {"images", "caption_ids"} for keys in model.asked] == [{"images"}] * 4 + [{"caption_ids"}] * 3


def test_embeddings_of_captions_are_those_of_encode_text(root, caplog):
    caplog.set_level("INFO")
    cfg = caption_cfg(root, "TEST.FLIP", True)
    data, model = make_dataloader(cfg), TwoTowers()
    embedded = embed(model, data.test.loaders, make_embedding(cfg, torch.device("cpu")))
    images, captions = features_by_hand(cfg, model, data)
    found = embedded.feat.double().numpy()
    np.testing.assert_allclose(found, np.concatenate([images, captions]), **bounds(3 * 16 * 8))
    assert f"{len(images)} images and {len(captions)} captions embedded in float32 on cpu" in caplog.text


def test_images_that_search_captions_are_a_set_of_their_own_which_the_metrics_leave_out(root):
    plain, both = caption_cfg(root), caption_cfg(root, "TEST.I2T", True)
    data, model = make_dataloader(both), TwoTowers()
    result, without = do_inference(both, model, data), do_inference(plain, model, make_dataloader(plain))
    assert {name: result[name] for name in ("mAP", "num_query", *RANKS)} == {
        name: without[name] for name in ("mAP", "num_query", *RANKS)
    }
    images, captions = features_by_hand(both, model, data)
    pids = data.test.labels.pids
    expected = figures_by_hand(images, captions, pids[: len(images)], pids[len(images) :])
    expected["num_query"] = len(images)
    del expected["ap"]
    assert result["i2t"] == {name: pytest.approx(value) for name, value in expected.items()}
    assert result["i2t"] is result["sets"]["i2t"] and "i2t" not in without
    assert result["sets"]["t2i"]["mAP"] == result["mAP"]
    counted = result["per_query"]["weight"] > 0
    assert counted.sum() == len(captions) and set(result["per_query"]["set"][counted]) == {"t2i"}


def test_a_caption_that_finds_nothing_is_left_out_and_counted(root):
    rows = [
        f"RSTPReid/imgs/{one['img_path']},{one['id']},{role},{caption}"
        for one in entries_of({"test": (7, 3, 60)})
        for role in (["query"] if one["id"] == 3 else ["query", "gallery"])
        for caption in one["captions"]
    ]
    table = write_text(root / "own.csv", "path,pid,split,caption", *rows)
    cfg = caption_cfg(root, "DATASETS.NAMES", ("table",), "DATASETS.TABLE", str(table))
    told = Told(Counts(2, 1, 1), ("table",))
    result = do_inference(cfg, TwoTowers(), make_dataloader(cfg, counts=lambda: told))
    aps, lost = result["per_query"]["ap"], result["per_query"]["pid"] == 3
    assert lost.sum() == result["num_query"] - result["num_valid_query"] > 0
    assert np.isnan(aps[lost]).all() and result["mAP"] == pytest.approx(np.nanmean(aps))


def test_a_test_leaves_its_captions_intervals_and_slices_by_length(root, tmp_path):
    cfg = caption_cfg(root, "TEST.I2T", True)
    data, folder = make_dataloader(cfg), TestFolder(tmp_path / "out")
    result = evaluate_one(cfg, TwoTowers(), data.test, folder, {"weight": "a.pth", "weight_sha256": "0"})
    summary = read_result(folder)
    assert summary["num_query"] == result.num_query and summary["sets"]["i2t"]["num_query"] == 9
    assert "i2t" not in summary  # once
    low, high = summary["interval"]["mAP"]
    assert low < summary["mAP"] < high
    worst = json.loads(folder.analysis.read_text())["worst"]
    assert {one["path"] for one in worst} <= {*data.test.loaders[1].dataset.captions}
    assert all(image["path"].endswith(".jpg") for one in worst for image in one["ranks"])
    slices = read_slices(folder.slices)
    assert {part.kind for part in slices} == {"words", "matches"}
    by_words = {part.query: part.num_query for part in slices if part.kind == "words"}
    counts = [len(caption.split()) for caption in data.test.loaders[1].dataset.captions]
    assert by_words == {"1-8": sum(n <= 8 for n in counts), "9-16": sum(8 < n <= 16 for n in counts)}


def test_slices_by_words_divide_all_captions_and_leave_sets_without_weight_out():
    words = np.array([1, 8, 9, 33, 48, 64, 65, 300, 0, 0])
    columns = {name: np.zeros(10, dtype=np.int64) for name in ("first_hit", "pid", "viewid")}
    columns |= {
        "ap": np.linspace(0.1, 1, 10),
        "num_pos": np.ones(10, dtype=np.int64),
        "brightness": np.full(10, np.nan),
    }
    parts = query_slices(columns | {"words": words, "weight": np.array([1.0] * 8 + [0.0] * 2)}, 0.35)
    found = {(part.kind, part.query): part.num_query for part in parts}
    assert found == {
        **{("words", name): count for name, count in [("1-8", 2), ("9-16", 1), ("33-48", 2), ("49-64", 1), ("65-", 2)]},
        ("matches", "1"): 8,
    }
    assert next(part.mAP for part in parts if part.query == "65-") == pytest.approx((0.7 + 0.8) / 2)


def test_a_tower_that_gives_every_caption_one_vector_is_told_although_images_differ(root, caplog):
    data = make_dataloader(caption_cfg(root))
    images, captions = (len(loader.dataset) for loader in data.test.loaders)
    generator = torch.Generator().manual_seed(0)
    feat = torch.cat([torch.randn(images, 4, generator=generator), torch.ones(captions, 4)])
    (line,) = cautions(data.test.loaders, feat)
    assert line.startswith(f"the embeddings of all {captions} captions are alike") and line in caplog.text
    assert cautions(data.test.loaders, torch.randn(images + captions, 4, generator=generator)) == ()


def test_the_log_tells_figures_of_captions_with_three_decimals(root, caplog):
    cfg = caption_cfg(root, "TEST.I2T", True)
    data = make_dataloader(cfg)
    result = evaluate(data.test, embed(TwoTowers(), data.test.loaders, make_embedding(cfg, CPU)), rank_options(cfg))
    caplog.clear()
    with caplog.at_level("INFO"):
        log_results(result, "Test Results")
    assert f"mINP: {100 * result.metrics['mINP']:.3f}%" in caplog.text
    assert f"CMC curve, Rank-1  :{100 * result.metrics['Rank-1']:.3f}%" in caplog.text
    assert f"i2t: mAP {100 * result.sets['i2t']['mAP']:.3f}%" in caplog.text


def test_raw_pixels_are_no_reference_for_captions(root, caplog):
    caplog.set_level("INFO")
    cfg = caption_cfg(root)
    records: list[tuple] = []
    run = SimpleNamespace(
        cfg=cfg,
        data=make_dataloader(cfg),
        stage=SimpleNamespace(model=TwoTowers()),
        embedding=make_embedding(cfg, torch.device("cpu")),
        ranks=SimpleNamespace(rank=0),
        recorder=SimpleNamespace(write=lambda kind, *_: records.append((kind, _[-1]["name"]))),
    )
    evaluate_references(run)
    assert records == [("reference", "untrained")] and "raw pixels" not in caplog.text
