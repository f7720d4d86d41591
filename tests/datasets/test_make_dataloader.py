"""From archives to loaders: relabelling, joining, side information checks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from configs import get_cfg_defaults, load_cfg
from configs.keys import KEYS
from configs.titles import CAPTIONED, MULTIMODAL
from datasets import ReIDData, make_dataloader, make_transforms
from datasets.bases import ReIDDataset, Sample
from datasets.join import join_training_sets
from datasets.read import make_datasets
from datasets.read_captions import make_caption_datasets
from datasets.read_multimodal import make_multimodal_datasets
from datasets.training_set import check_training_set
from datasets.transforms import BatchTransform
from datasets.two_views import TwoViews
from tests.datasets.trees import write_person_archive, write_text
from utils.errors import ConfigError, DataError


def dataset(name: str, pids: Sequence[int], camids: Sequence[int], viewid: int = 0) -> ReIDDataset:
    train = [
        Sample(f"{name}/{i}.jpg", pid, camid, viewid) for i, (pid, camid) in enumerate(zip(pids, camids, strict=True))
    ]
    return ReIDDataset(name, train, [], [])


def test_training_labels_ascend_without_gaps():
    joined = join_training_sets([dataset("a", [702, 5, 702, 30], [0, 3, 1, 0])])
    assert [sample.pid for sample in joined] == [2, 0, 2, 1]
    assert [sample.camid for sample in joined] == [0, 3, 1, 0]


def test_joined_sets_share_neither_identities_nor_cameras():
    joined = join_training_sets([dataset("a", [5, 9], [0, 3]), dataset("b", [9, 5, 7], [0, 1, 0], viewid=2)])
    assert [sample.pid for sample in joined] == [0, 1, 4, 2, 3]
    assert [sample.camid for sample in joined] == [0, 3, 4, 5, 4]
    assert [sample.viewid for sample in joined] == [0, 0, 2, 2, 2]


def test_loaders_unpack_in_transreids_order(tiny_config):
    data = make_dataloader(load_cfg(tiny_config))
    train_loader, normal_loader, val_loader, num_query, num_classes, camera_num, view_num = data
    assert (num_query, num_classes, camera_num, view_num) == (36, 8, 3, 2)
    assert isinstance(data, ReIDData) and len(val_loader.dataset) == 36 + 72
    batch = next(iter(train_loader))
    assert batch["images"].shape == (16, 3, 32, 32) and batch["images"].dtype == torch.uint8
    assert sorted(np.bincount(batch["pids"], minlength=8)) == [2] * 8
    assert len(train_loader) == sum(1 for _ in train_loader)
    normal = torch.cat([batch["pids"] for batch in normal_loader])
    assert normal.tolist() == [sample.pid for sample in train_loader.dataset.samples]


def test_num_instance_of_the_first_epoch_wins_over_the_key(tiny_config):
    data = make_dataloader(load_cfg(tiny_config), num_instance=4)
    assert (data.train_loader.sampler.num_instances, data.train_loader.sampler.num_identities) == (4, 4)


def test_k_changes_in_place_reach_a_loader_with_living_workers(tiny_config):
    data = make_dataloader(load_cfg(tiny_config, ["DATALOADER.NUM_WORKERS", "1"]))
    counts = []
    for k in (2, 4):
        data.train_loader.sampler.set_num_instances(k)
        counts.append({int(n) for batch in data.train_loader for n in batch["pids"].bincount() if n})
    assert counts == [{2}, {4}]


def test_loading_leaves_the_global_random_state_alone(tiny_config):
    data = make_dataloader(load_cfg(tiny_config, ["DATALOADER.NUM_WORKERS", "1"]))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for _ in data.train_loader:
        pass
    assert torch.equal(before, torch.get_rng_state())


PHASED_K = [
    *("LOSS.PHASED.ENABLE", "True", "LOSS.PHASED.BOUNDARIES", "[3]", "LOSS.PHASED.METRIC_SEQ", "['triplet']"),
    *("LOSS.PHASED.W_METRIC_SEQ", "[1.0]", "LOSS.PHASED.W_SUP_SPEC", "['const:0.0', 'const:0.3']"),
    *("LOSS.SUPCON.ENABLE", "True", "DATALOADER.PHASED.ENABLE", "True", "DATALOADER.PHASED.K_OTHER", "4"),
    *("DATALOADER.NUM_INSTANCE", "16", "SOLVER.IMS_PER_BATCH", "16", "DATALOADER.PHASED.K_WHEN_SUPCON"),
]


def test_k_to_begin_with_is_that_of_epoch_one(tiny_config):
    sampler = make_dataloader(load_cfg(tiny_config, [*PHASED_K, "8"])).train_loader.sampler
    assert (sampler.num_instances, sampler.num_identities) == (4, 4)


def test_a_later_k_that_the_training_set_cannot_serve_is_refused_at_the_start(tiny_config):
    words = r"K 1 \(DATALOADER.PHASED.K_OTHER, epoch 3\) needs 16 identities, the training set has 8"
    opts = [*PHASED_K, "2", "LOSS.PHASED.W_SUP_SPEC", "['const:0.3', 'const:0.0']", "MODEL.TRIPLET_LOSS_WEIGHT", "0.0"]
    opts += ["LOSS.PHASED.W_METRIC_SEQ", "[0.0]", "DATALOADER.PHASED.K_OTHER", "1"]
    with pytest.raises(ConfigError, match=words):
        make_dataloader(load_cfg(tiny_config, opts), 2)
    make_dataloader(load_cfg(tiny_config, [*opts, "SOLVER.MAX_EPOCHS", "2"]), 2)  # epoch 3 is never reached
    make_dataloader(load_cfg(tiny_config, opts))  # nothing is trained


def test_a_k_of_a_loss_that_the_training_set_cannot_serve_names_its_key(tiny_config):
    words = r"K 2 \(DATALOADER.PHASED.K_WHEN_SUPCON, epoch 3\) needs 16 identities, the training set has 8.*at most 16"
    with pytest.raises(ConfigError, match=words):
        make_dataloader(load_cfg(tiny_config, [*PHASED_K, "2", "SOLVER.IMS_PER_BATCH", "32"]), 4)


@pytest.mark.parametrize(("sampler", "sizes"), [("softmax", [32, 16]), ("random", [32])])
def test_the_random_sampler_drops_a_short_last_batch(tiny_config, sampler, sizes):
    opts = ["DATALOADER.SAMPLER", sampler, "SOLVER.IMS_PER_BATCH", "32"]
    loader = make_dataloader(load_cfg(tiny_config, opts)).train_loader
    assert [len(batch["pids"]) for batch in loader] == sizes and len(loader) == len(sizes)


def test_the_random_sampler_wants_one_whole_batch(tiny_config):
    opts = ["DATALOADER.SAMPLER", "random", "SOLVER.IMS_PER_BATCH", "64"]
    with pytest.raises(ConfigError, match="IMS_PER_BATCH 64 exceeds the 48 training images"):
        make_dataloader(load_cfg(tiny_config, opts))


def one_camera(tmp_path: Path, tiny_root: Path) -> list[str]:
    """Return options for a data set whose training images are all from one camera."""
    rows = ["path,pid,camid,viewid,split"]
    for pid in range(1, 9):
        path = f"{tiny_root}/VeRi/image_train/{pid:04d}_c001"
        rows += [f"{path}_{shot:08d}_0.jpg,{pid},0,0,train" for shot in range(2)]
    path = f"{tiny_root}/VeRi/image_train/0001_c00"
    rows += [f"{path}2_00000000_0.jpg,1,0,0,query", f"{path}3_00000000_0.jpg,1,1,0,gallery"]
    table = write_text(tmp_path / "table.csv", *rows)
    return ["DATASETS.NAMES", "table", "DATASETS.TABLE", str(table), "MODEL.SIE_CAMERA", "False"]


@pytest.mark.parametrize(("cam_aware", "rule"), [("True", "class"), ("False", "class+camera")])
def test_supcon_between_cameras_wants_two(tmp_path, tiny_root, tiny_config, cam_aware, rule):
    opts = [*one_camera(tmp_path, tiny_root), "LOSS.SUPCON.ENABLE", "True"]
    opts += ["LOSS.SUPCON.CAM_AWARE", cam_aware, "LOSS.SUPCON.POS_RULE", rule]
    with pytest.raises(DataError, match="more than one camera.*CAM_AWARE False and LOSS.SUPCON.POS_RULE class"):
        make_dataloader(load_cfg(tiny_config, opts), 2)
    make_dataloader(load_cfg(tiny_config, opts))  # nothing is trained


def test_cameras_count_within_an_identity():
    cfg = get_cfg_defaults()
    cfg.LOSS.SUPCON.ENABLE = True
    apart = [Sample("a", 0, 0, 0), Sample("b", 0, 0, 0), Sample("c", 1, 1, 0), Sample("d", 1, 1, 0)]
    with pytest.raises(DataError, match="no training identity is seen by more than one camera"):
        check_training_set(cfg, apart, 1)
    check_training_set(cfg, [*apart, Sample("e", 1, 0, 0)], 1)


def test_one_identity_for_each_process_is_refused_where_a_loss_needs_negatives(tiny_config):
    gathered = ["SOLVER.IMS_PER_BATCH", "16", "DATALOADER.NUM_INSTANCE", "4"]
    opts = [*gathered, "SOLVER.GATHER_FEATURES", "False"]
    train = [Sample("a", pid, camid, 0) for pid in range(8) for camid in range(4)]
    check_training_set(load_cfg(tiny_config, opts), train, 2)
    words = "leaves one identity on each of 4 processes.*use at least 32, a smaller K, or SOLVER.GATHER_FEATURES True"
    with pytest.raises(ConfigError, match=words):
        check_training_set(load_cfg(tiny_config, opts), train, 4)
    check_training_set(load_cfg(tiny_config, [*opts, "MODEL.TRIPLET_LOSS_WEIGHT", "0"]), train, 4)
    check_training_set(load_cfg(tiny_config, gathered), train, 4)  # a loss sees the identities of all processes


def test_processes_that_train_together_share_the_test_images(tiny_config, monkeypatch):
    monkeypatch.setattr("datasets.loaders.num_processes", lambda: 5)
    rows = []
    for rank in range(5):
        monkeypatch.setattr("datasets.loaders.own_rank", lambda rank=rank: rank)
        rows += list(make_dataloader(load_cfg(tiny_config)).val_loader.sampler)
    assert rows == [*range(108), 107, 107]  # five shards of 22


@pytest.mark.parametrize(
    "opts",
    [
        ["LOSS.SUPCON.ENABLE", "False"],
        ["LOSS.SUPCON.ENABLE", "True", "LOSS.SUPCON.CAM_AWARE", "False"],
        [
            *("LOSS.SUPCON.ENABLE", "True", "MODEL.TRAINING_MODE", "self_supervised"),
            *("DATALOADER.SAMPLER", "random", "MODEL.JPM", "False"),
        ],
    ],
    ids=["off", "any camera", "self-supervised"],
)
def test_one_camera_serves_where_positives_need_no_second(tmp_path, tiny_root, tiny_config, opts):
    assert make_dataloader(load_cfg(tiny_config, [*one_camera(tmp_path, tiny_root), *opts]), 2).camera_num == 1


def test_supcon_between_cameras_trains_where_there_are_several(tiny_config):
    assert make_dataloader(load_cfg(tiny_config, ["LOSS.SUPCON.ENABLE", "True"]), 2).camera_num == 3


def test_self_supervised_training_sees_two_views_with_the_configured_strengths(tiny_config):
    opts = ["MODEL.TRAINING_MODE", "self_supervised", "DATALOADER.SAMPLER", "random", "LOSS.SUPCON.ENABLE", "True"]
    opts += [
        "MODEL.JPM",
        "False",
        "INPUT.PROB",
        "0.1",
        "INPUT.SSL.CROP_SCALE",
        "[0.2, 0.9]",
        "INPUT.SSL.CROP_RATIO",
        "[0.5, 2.0]",
    ]
    opts += ["INPUT.SSL.JITTER", "[0.1, 0.2, 0.3, 0.4]", "INPUT.SSL.JITTER_PROB", "0.6", "INPUT.SSL.GREY_PROB", "0.7"]
    cfg = load_cfg(tiny_config, opts)
    train, test = make_transforms(cfg)
    assert isinstance(train, TwoViews) and isinstance(test, BatchTransform)
    assert (train.flip_prob, train.crop_scale, train.crop_ratio) == (0.1, [0.2, 0.9], [0.5, 2.0])
    assert (train.jitter, train.jitter_prob, train.grey_prob) == ([0.1, 0.2, 0.3, 0.4], 0.6, 0.7)
    batch = next(iter(make_dataloader(cfg).train_loader))
    assert train(batch["images"]).shape == (32, 3, 32, 32) and test(batch["images"]).shape == (16, 3, 32, 32)


def test_supervised_training_sees_one_view(tiny_config):
    train, test = make_transforms(load_cfg(tiny_config))
    assert isinstance(train, BatchTransform) and (train.flip_prob, train.padding, train.erase_prob) == (0.5, 2, 0.5)
    assert isinstance(test, BatchTransform) and (test.flip_prob, test.padding, test.erase_prob) == (0, 0, 0)


def test_several_names_train_together_and_test_on_the_first(tiny_config, tiny_root, tmp_path):
    rows = ["path,pid,camid,viewid,split"]
    rows += [f"{tiny_root}/VeRi/image_train/0001_c001_{shot:08d}_0.jpg,blue,{shot},0,train" for shot in range(2)]
    rows += [f"{tiny_root}/VeRi/image_train/0001_c002_{shot:08d}_0.jpg,red,{shot},0,train" for shot in range(2)]
    rows += [f"{tiny_root}/VeRi/image_train/0001_c003_00000000_0.jpg,blue,0,0,query"]
    rows += [f"{tiny_root}/VeRi/image_train/0001_c003_00000001_0.jpg,blue,1,0,gallery"]
    table = write_text(tmp_path / "table.csv", *rows)
    cfg = load_cfg(tiny_config, ["DATASETS.NAMES", "('veri', 'table')", "DATASETS.TABLE", str(table)])
    data = make_dataloader(cfg)
    assert (data.num_classes, data.camera_num, data.num_query) == (10, 5, 36)


def test_a_test_camera_that_training_has_not_seen_is_told_as_unknown_and_still_filters(tmp_path, tiny_config, caplog):
    write_person_archive(tmp_path / "market1501")  # trains on cameras 1 and 2, tests on camera 6
    base = ["DATASETS.NAMES", "market1501", "DATASETS.ROOT_DIR", str(tmp_path), "MODEL.SIE_VIEW", "False"]
    base += ["SOLVER.IMS_PER_BATCH", "4", "MODEL.SIE_CAMERA"]
    with caplog.at_level("WARNING"):
        data = make_dataloader(load_cfg(tiny_config, [*base, "True"]))
    assert "a camera unknown to training" in caplog.text and "neutral" in caplog.text
    told = torch.cat([batch["camids"] for batch in data.val_loader]).tolist()
    true = data.test.labels.camids.tolist()
    assert 5 in true and told == [camid if camid < 2 else -1 for camid in true]
    caplog.clear()
    with caplog.at_level("WARNING"):
        assert make_dataloader(load_cfg(tiny_config, [*base, "False"])).camera_num == 2
    assert "unknown to training" not in caplog.text


def test_every_name_of_the_configuration_has_a_loader(tiny_config):
    for name in KEYS["DATASETS.NAMES"].choices:
        if name.startswith("synthetic"):  # draw their images instead of missing them
            continue
        opts = ["DATASETS.ROOT_DIR", "/nowhere", "DATASETS.TABLE", "/nowhere/x.csv"]
        opts += ["DATASETS.WILDLIFE", "/nowhere/y.csv"]
        read = make_caption_datasets if name in CAPTIONED else make_datasets
        read = make_multimodal_datasets if name in MULTIMODAL else read
        with pytest.raises(DataError, match="/nowhere"):
            read(load_cfg(tiny_config, opts), [name])
