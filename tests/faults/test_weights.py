"""Weight files of every kind that is none: one line that names the file and the way out, and nothing is changed."""

import logging
import os
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import test as test_command
import train
from model.weights.clip_towers import load_hf, load_open_clip
from model.weights.load import load_weights
from processor.trained import load_trained
from tests.commands import args_for
from tests.faults.mistakes import refusal
from tests.faults.weight_files import BARE, BESIDE, NAME, READ, REFUSED, WEIGHTS
from tools.feature_extractor import FeatureExtractor
from utils.checkpoint import PROVENANCE, read_provenance, read_weights, save_weights
from utils.errors import ConfigError, DataError

pytestmark = [
    pytest.mark.fault("bad input: weight files"),
    pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore:.*nested", "ignore:.*parse CSR", "ignore:Sparse CSR"),
    pytest.mark.filterwarnings(
        "ignore:.*quantiz", "ignore:Detected pickle protocol", "ignore:TypedStorage", "ignore:Duplicate name"
    ),
]
KEY = "TEST.WEIGHT"
IN_COMMANDS = ("html", "whole model", "sparse", "complex", "half a file", "terabytes of one value")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "x.pth"


@pytest.mark.parametrize("kind", REFUSED)
def test_a_file_without_plain_weights_is_refused_in_one_line(file, kind):
    write, words = REFUSED[kind]
    write(file)
    started = time.perf_counter()
    with pytest.raises(DataError) as caught:
        read_weights(file, KEY)
    assert words in str(caught.value) and str(file) in str(caught.value) and KEY in str(caught.value)
    assert "\n" not in str(caught.value) and time.perf_counter() - started < 5
    assert read_provenance(file) is None


@pytest.mark.parametrize("kind", READ)
def test_weights_are_found_in_containers_and_formats_that_leave_no_doubt(file, kind):
    READ[kind](file)
    weights = read_weights(file, KEY)
    assert weights.keys() == WEIGHTS.keys()
    assert all(torch.equal(weights[name].float(), value) for name, value in WEIGHTS.items())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin", ""])
@pytest.mark.parametrize("kind", ["bare", "safetensors"])
def test_the_format_is_that_of_the_content_whatever_the_name(tmp_path, kind, suffix):
    file = tmp_path / f"x{suffix}"
    READ[kind](file)
    assert torch.equal(read_weights(file, KEY)[NAME], WEIGHTS[NAME])


@pytest.mark.parametrize("kind", BESIDE)
def test_averaged_weights_beside_the_raw_ones_are_said(file, caplog, kind):
    raw, averaged = BESIDE[kind]
    torch.save({averaged: BARE, raw: WEIGHTS}, file)
    assert read_weights(file, KEY).keys() == WEIGHTS.keys()
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert f"'{raw}' is taken" in record.getMessage() and f"'{averaged}'" in record.getMessage()
    assert f"[{averaged!r}], 'weights.pth')" in record.getMessage()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing.pth", "no file '.*nothing.pth'; weight files in '.*': none"),
        ("no/nothing.pth", "the folder '.*no' does not exist either"),
        ("folder", "is a folder, expected a weight file"),
        ("pipe", "is a pipe, expected a weight file"),
        ("x\0y", "NUL character"),
        ("~nobody_at_all/x.pth", "home folder that does not exist"),
        ("x" * 300, "cannot be used"),
        ("loop", "cannot be used"),
    ],
)
def test_a_path_of_no_file_says_what_is_there(tmp_path, name, words):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ConfigError, match=rf"{KEY}: .*{words}"):
        read_weights(name if name.startswith("~") else f"{tmp_path}/{name}", KEY)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.ones(2, 3, dtype=torch.int8), "holds whole numbers \\(int8\\) where this model has fractions"),
        (torch.ones(2, 3, dtype=torch.bool), "holds whole numbers \\(bool\\)"),
        (torch.full((2, 3), 1e300, dtype=torch.float64), "not finite"),
        (torch.full((2, 3), torch.nan), "not finite"),
        (torch.full((2, 3), torch.inf, dtype=torch.float16), "not finite"),
        (torch.ones(3, 2), r"weight is \[3, 2\] in the file"),
        (torch.ones(()), r"weight is \[\] in the file"),
    ],
    ids=lambda value: f"{value.dtype} {list(value.shape)}" if isinstance(value, torch.Tensor) else "",
)
def test_a_weight_that_is_no_number_of_the_model_leaves_the_model_as_it_was(value, words):
    layer = nn.Linear(3, 2)
    before = {name: weight.clone() for name, weight in layer.state_dict().items()}
    with pytest.raises(DataError, match=words):
        load_weights(layer, {"bias": torch.zeros(2), "weight": value}, "FILE", lambda name: "KEY decides it")
    assert all(torch.equal(before[name], weight) for name, weight in layer.state_dict().items())


@pytest.mark.parametrize("value", [3, "x", None, [1], {PROVENANCE: 3}, {PROVENANCE: ["x"]}, {}], ids=str)
def test_metadata_of_other_code_is_no_provenance(file, value):
    weights = nn.Linear(2, 2).state_dict()
    weights._metadata = value
    torch.save(weights, file)
    assert read_provenance(file) is None and len(read_weights(file, KEY)) == 2


ALIASES = "a: &a [1, 1]\nb: &b [*a, *a]\n" + "\n".join(
    f"{chr(99 + level)}: &{chr(99 + level)} [*{chr(98 + level)}, *{chr(98 + level)}]" for level in range(20)
)


@pytest.mark.parametrize("config", ["", "3", "{{{", "- 1", "[" * 300, ALIASES], ids=lambda text: text[:6])
def test_a_configuration_that_is_none_is_named(file, config):
    entries = {name: 1 for name in ("epoch", "num_classes", "camera_num", "view_num")}
    entries |= {"tested_on": "veri", "train_fingerprint": "", "test_fingerprint": "", "datasets": ["veri"], "schema": 1}
    save_weights(nn.Linear(2, 2).state_dict(), file, {**entries, "config": config})
    with pytest.raises(DataError, match=r"what it tells about its training is damaged \(config\)"):
        load_trained(file)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["git-lfs", "html", "numpy number", "sparse", "half a file", "two sets"])
def test_sources_of_clip_are_refused_too(tmp_path, sources, kind):
    write, words = REFUSED[kind]
    write(tmp_path / "pytorch_model.bin")
    for load, path in ((load_open_clip, tmp_path / "pytorch_model.bin"), (load_hf, tmp_path)):
        with pytest.raises(DataError) as caught:
            load(nn.Linear(1, 1), path, "MODEL.CLIP_LOCAL_PATH")
        assert words in str(caught.value) and "MODEL.CLIP_LOCAL_PATH" in str(caught.value)


@pytest.mark.parametrize("kind", IN_COMMANDS)
def test_commands_end_with_code_2_and_one_line(tiny_config, file, capsys, kind):
    write, words = REFUSED[kind]
    write(file)
    pretrained = ("MODEL.PRETRAIN_CHOICE", "imagenet", "MODEL.PRETRAIN_PATH", file)
    commands = ((test_command.main, (KEY, file)), (train.main, pretrained))
    for main, opts in commands[IN_COMMANDS.index(kind) % 2 :][:1]:
        assert words in refusal(main, *args_for(tiny_config, *opts), capsys=capsys)


OTHER = {  # settings that change the embedding but no shape -> what is said of each
    **{"MODEL.SIE_COE": ("1.0", "0.1 -> 1.0"), "MODEL.VIT.NUM_HEADS": ("4", "2 -> 4")},
    **{"INPUT.PIXEL_MEAN": ("[0.1, 0.2, 0.3]", "[0.485, 0.456, 0.406] -> [0.1, 0.2, 0.3]")},
    **{"MODEL.SHIFT_NUM": ("7", "5 -> 7"), "MODEL.SHUFFLE_GROUP": ("3", "2 -> 3")},
    **{"MODEL.RE_ARRANGE": ("False", "True -> False"), "INPUT.FILTER_TEST": ("bicubic", "bilinear -> bicubic")},
    **{"INPUT.DECODER": ("pillow", "torchvision -> pillow"), "TEST.NECK_FEAT": ("after", "before -> after")},
    **{"TEST.FLIP": ("True", "False -> True")},
}
ALIKE = ("MODEL.PRETRAIN_CHOICE", "imagenet", "MODEL.ID_LOSS_WEIGHT", "0.5", "TEST.IMS_PER_BATCH", "7")


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings of other settings than those of the training."""
    return [
        record.getMessage() for record in caplog.records if "was trained with other settings" in record.getMessage()
    ]


def test_the_test_command_lists_all_settings_that_change_the_embedding_in_one_warning(
    tiny_config, trained_run, tmp_path, caplog
):
    weight = trained_run / "transformer_2.pth"
    opts = [word for key, (value, _) in OTHER.items() for word in (key, value)]
    common = (KEY, weight, "TEST.REPORT", "False", "OUTPUT_DIR", tmp_path / "tested")
    assert test_command.main(args_for(tiny_config, *common, *ALIKE)) == 0
    assert said(caplog) == []
    assert test_command.main(args_for(tiny_config, *common, *opts)) == 0
    (line,) = said(caplog)
    assert str(weight) in line and all(f"{key} {words}" in line for key, (_, words) in OTHER.items())


def test_tools_say_it_too(trained_run, tmp_path, caplog):
    weight = trained_run / "transformer_2.pth"
    load_trained(weight)
    FeatureExtractor.from_run(trained_run, opts=ALIKE)
    assert said(caplog) == []
    FeatureExtractor.from_checkpoint(weight, opts=["MODEL.SIE_COE", "1.0"])
    assert len(said(caplog)) == 1 and "MODEL.SIE_COE 0.1 -> 1.0" in said(caplog)[0]
    other = tmp_path / "other.yml"
    other.write_text((trained_run.parent / "tiny.yml").read_text().replace("SIE_COE: 0.1", "SIE_COE: 2.0"))
    load_trained(weight, other)
    assert len(said(caplog)) == 2 and "MODEL.SIE_COE 0.1 -> 2.0" in said(caplog)[1]
