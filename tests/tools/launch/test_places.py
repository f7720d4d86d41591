"""Which device a number of --gpus stands for, what a process there sees, and what contradicts the flag."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from configs import load_cfg
from tests.fake_runner import write_config
from tools.launch.places import Place, check_gpus, find_places
from utils.errors import ConfigError


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """count(n, visible): torch counts n devices, and CUDA_VISIBLE_DEVICES is `visible`."""

    def pretend(number: int, visible: str | None = None) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return pretend


@pytest.mark.parametrize(
    ("number", "visible", "gpus", "expected"),
    [
        (4, None, [0, 3], ["0", "3"]),
        (4, None, [2, 2], ["2", "2"]),  # two at once on one device
        (2, "5,7", [0, 1], ["5", "7"]),
        (3, "5, GPU-8932f937, 7", [1, 2], ["GPU-8932f937", "7"]),
        (1, "3,-1,2", [0], ["3"]),  # CUDA reads up to the first that is not there
    ],
)
def test_a_number_counts_the_devices_that_the_user_leaves_visible(count, number, visible, gpus, expected):
    count(number, visible)
    assert find_places(gpus) == [Place(gpu, entry) for gpu, entry in zip(gpus, expected, strict=True)]


@pytest.mark.parametrize(
    ("number", "visible", "gpus", "said"),
    [
        (0, None, [0, 1], ["--gpus 0 1: found no CUDA device;", "nvidia-smi", "drop --gpus"]),
        (0, "", [0], ["found no CUDA device (CUDA_VISIBLE_DEVICES is '')"]),
        (4, None, [0, 4], ["--gpus 0 4: there is no device 4, devices 0 to 3 are here"]),
        (1, None, [1], ["there is no device 1, device 0 alone is here"]),
        (2, "4,5", [0, 4], ["devices 0 to 1 are here (CUDA_VISIBLE_DEVICES is '4,5')"]),
    ],
)
def test_a_device_that_is_not_there_is_one_clear_line(count, number, visible, gpus, said):
    count(number, visible)
    with pytest.raises(ConfigError) as caught:
        find_places(gpus)
    assert all(words in str(caught.value) for words in said) and "\n" not in str(caught.value)


def test_without_gpus_there_is_one_place_that_changes_nothing(count):
    count(0)
    (place,) = find_places(None)
    assert place.environment() is os.environ and place.opts() == () and place.prefix("x, seed 0") == ""


def test_a_process_on_a_device_sees_that_one_alone_as_its_first(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    place = Place(1, "6")
    own = {"CUDA_VISIBLE_DEVICES": "6"}
    assert place.environment() == {**os.environ, **own}
    assert place.opts() == ("MODEL.DEVICE_ID", "0") and place.prefix("x, seed 0") == "[gpu 1 | x, seed 0] "
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,6"


@pytest.mark.parametrize(
    ("opts", "said"),
    [
        (["MODEL.DIST_TRAIN", "True"], "MODEL.DIST_TRAIN True"),
        (["MODEL.DEVICE", "cpu"], "MODEL.DEVICE is cpu"),
        (["MODEL.DEVICE", "mps"], "MODEL.DEVICE is mps"),
        (["MODEL.DEVICE_ID", "1"], "--gpus 0 1 contradicts MODEL.DEVICE_ID 1"),
    ],
)
def test_a_configuration_that_contradicts_the_flag_is_refused(tmp_path, opts, said):
    cfg = load_cfg(write_config(tmp_path, "x"), opts)
    with pytest.raises(ConfigError, match=said):
        check_gpus(cfg, opts, [0, 1])
    check_gpus(cfg, opts, None)


@pytest.mark.parametrize("opts", [[], ["MODEL.DEVICE", "cuda"], ["MODEL.DEVICE_ID", "0"]])
def test_a_device_id_of_the_yaml_gives_way(tmp_path, opts):
    config = write_config(tmp_path, "x")
    text = Path(config).read_text().replace("MODEL:\n", "MODEL:\n  DEVICE_ID: ('3')\n")
    Path(config).write_text(text)
    check_gpus(load_cfg(config, opts), opts, [0])
