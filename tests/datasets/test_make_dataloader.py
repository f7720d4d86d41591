"""From archives to loaders: relabelling, joining, side information checks."""

import numpy as np
import pytest
import torch

from configs import load_cfg
from datasets import ReIDData, make_dataloader
from datasets.bases import ReIDDataset, Sample
from datasets.make_dataloader import join_training_sets, make_datasets
from tests.datasets.trees import write_person_archive, write_text
from utils.errors import DataError


def dataset(name, pids, camids, viewid=0):
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


def test_a_test_camera_without_embedding_is_refused_only_when_cameras_are_embedded(tmp_path, tiny_config):
    write_person_archive(tmp_path / "market1501")  # trains on cameras 1 and 2, tests on camera 6
    base = ["DATASETS.NAMES", "market1501", "DATASETS.ROOT_DIR", str(tmp_path), "MODEL.SIE_VIEW", "False"]
    base += ["SOLVER.IMS_PER_BATCH", "4", "MODEL.SIE_CAMERA"]
    with pytest.raises(DataError, match="camera number 5 .* MODEL.SIE_CAMERA False"):
        make_dataloader(load_cfg(tiny_config, [*base, "True"]))
    assert make_dataloader(load_cfg(tiny_config, [*base, "False"])).camera_num == 2


def test_every_name_of_the_configuration_has_a_loader(tiny_config):
    from configs.validate import CHOICES

    for name in CHOICES["DATASETS.NAMES"]:
        if name == "synthetic":  # draws its images instead of missing them
            continue
        opts = ["DATASETS.NAMES", name, "DATASETS.ROOT_DIR", "/nowhere", "DATASETS.TABLE", "/nowhere/x.csv"]
        with pytest.raises(DataError, match="/nowhere"):
            make_datasets(load_cfg(tiny_config, opts))
