"""What is said of a run: its command and words without places, and which weights it began with."""

import pytest

from configs.publishing import without_places
from tests.cfgs import cfg_with
from tools.publish.origin import public_command, without_paths
from tools.publish.trunk import UNKNOWN, first_weights_of

PUBLIC = {
    "DATASETS.TABLE": "/home/jane/pets.csv",
    "MODEL.PRETRAIN_PATH": "/home/jane/jx_vit_base_p16_224-80ecf9dd.pth",
    "MODEL.CLIP_BACKBONE": "/home/jane/clip.json",
}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("/opt/x/train.py --config_file configs/VeRi/a.yml", "train.py --config_file configs/VeRi/a.yml"),
        ("train.py --config=/home/jane/r/configs/VeRi/a.yml", "train.py --config=configs/VeRi/a.yml"),
        ("train.py --config_file C:\\jane\\a.yml SOLVER.SEED 1", "train.py --config_file a.yml SOLVER.SEED 1"),
        ("train.py --config_file jane/a.yml", "train.py --config_file a.yml"),
        ("train.py --config_file ../a.yml OUTPUT_DIR logs/jane", "train.py --config_file a.yml"),
        ("train.py MODEL.DEVICE cuda DATASETS.ROOT_DIR d SOLVER.AMP off", "train.py SOLVER.AMP off"),
        ("train.py DATASETS.TABLE /home/jane/pets.csv", "train.py DATASETS.TABLE table.csv"),
        (
            "train.py MODEL.PRETRAIN_PATH ~/jx_vit_base_p16_224-80ecf9dd.pth MODEL.CLIP_BACKBONE jane.json",
            "train.py MODEL.PRETRAIN_PATH jx_vit_base_p16_224-80ecf9dd.pth MODEL.CLIP_BACKBONE clip.json",
        ),
        ("train.py --api-key abcdef", "train.py --api-key '***'"),
    ],
)
def test_a_command_loses_its_places(words, expected):
    public = without_places(cfg_with(*(part for pair in PUBLIC.items() for part in pair)))
    assert public_command(words.split(" "), public).replace("***", "'***'").replace("''", "'") == f"python {expected}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mAP / Rank-1 of 3/4 and/or 1 km/h", None),
        ("https://example.org/a/b", None),
        ("VeRi's train / test images' labels", None),
        ("no '/data/jane/VeRi/list.txt', left out", "no 'list.txt', left out"),
        ("no 'data/jane doe/list.txt'", "no 'list.txt'"),
        ("in /home/jane/x.", "in <path>"),
        ("in ~/x and ~jane/y, both", "in <path> and <path>, both"),
        (r"in C:\Users\jane\x, and \\server\share\x", "in <path>, and <path>"),
        ("token=hf_abcdefghijklmnopqrst", "token=***"),
    ],
)
def test_words_lose_paths_and_secrets_alone(text, expected):
    assert without_paths({"notes": [text, 3, None]}) == {"notes": [text if expected is None else expected, 3, None]}


@pytest.mark.parametrize(
    ("opts", "what", "licence"),
    [
        (("MODEL.PRETRAIN_CHOICE", "none"), "random, trained from scratch", ""),
        (("MODEL.NAME", "resnet50"), "timm's resnet50.tv_in1k", "bsd-3-clause"),
        (("MODEL.NAME", "pcb", "MODEL.PCB.TRUNK", "resnet50"), "timm's resnet50.tv_in1k", "bsd-3-clause"),
        (
            ("MODEL.NAME", "transformer", "MODEL.TRANSFORMER_TYPE", "vit_base_patch16_224_TransReID"),
            *("timm's vit_base_patch16_224.orig_in21k_ft_in1k", "apache-2.0"),
        ),
        (("MODEL.PRETRAIN_PATH", "/x/resnet50-19c8e357.pth"), "torchvision's resnet50", "BSD-3-Clause"),
        (("MODEL.PRETRAIN_PATH", "/home/jane/mine.pth"), "those of a file", UNKNOWN),
        (
            ("MODEL.NAME", "irra", "MODEL.CLIP_PRETRAIN", "openai"),
            "open_clip's ViT-B-16 with the weights openai",
            "MIT",
        ),
        (("MODEL.NAME", "ViT-B-16"), "open_clip's ViT-B-16-quickgelu with the weights openai", "MIT"),
        (("MODEL.NAME", "irra", "MODEL.CLIP_LOCAL_PATH", "/x/y.pt"), "a CLIP (ViT-B-16) from a file", UNKNOWN),
    ],
)
def test_first_weights_are_named_with_their_licence(opts, what, licence):
    (first,) = first_weights_of(cfg_with(*opts))
    assert first.what.startswith(what) and first.licence == licence and "jane" not in first.what
