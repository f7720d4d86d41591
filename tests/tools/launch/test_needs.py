"""What a launch says that it will draw and download agrees with what the code draws and downloads."""

from pathlib import Path

import pytest
import timm
import torch

from configs import load_cfg
from datasets import synthetic
from datasets.synthetic.once import VERSION_FILE
from tests.pages import ROOT
from tools.launch.needs import CLIP_MB, DRAWN, FINISHED, TRUNK_MB, find_needs

MB = 1e6


def needs(recipe: str, *opts: str, root: Path, **how: bool) -> list[str]:
    return find_needs(load_cfg(ROOT / "configs" / recipe, ["DATASETS.ROOT_DIR", str(root), *opts]), **how)


def test_a_drawn_set_is_told_until_it_is_finished(tmp_path):
    (line,) = needs("Synthetic/baseline.yml", root=tmp_path)
    folder = tmp_path / "synthetic_veri"
    assert line.startswith("draws 3,027 images, 11 MB, into") and str(folder) in line
    folder.mkdir()
    assert needs("Synthetic/baseline.yml", root=tmp_path) == [line]
    (folder / FINISHED).touch()
    assert needs("Synthetic/baseline.yml", root=tmp_path) == []


def test_folders_and_mark_are_those_of_the_drawing():
    folders = {synthetic.FOLDER, synthetic.TEXT_FOLDER, synthetic.PERSON_FOLDER, synthetic.MODAL_FOLDER}
    assert {folder for folder, *_ in DRAWN.values()} == folders and FINISHED == VERSION_FILE


@pytest.mark.parametrize(
    ("recipe", "opts", "told"),
    [
        ("VeRi/vit_transreid_stride.yml", (), ["of vit_base_patch16_224_TransReID, about 350 MB"]),
        ("VeRi/vit_transreid_stride.yml", ("MODEL.PRETRAIN_PATH", "/w.pth"), []),
        ("VeRi/vit_transreid_stride.yml", ("MODEL.PRETRAIN_CHOICE", "none"), []),
        ("Market/resnet50.yml", (), ["of resnet50, about 100 MB"]),
        ("Market/pcb_r50.yml", (), ["of resnet50, about 100 MB"]),
        ("CLIP-ReID/veri_vit_prom.yml", (), ["the CLIP ViT-B-16-quickgelu (openai), about 600 MB"]),
        ("Synthetic/clip_reid.yml", (), []),
        ("VeRi/clip_transreid.yml", (), ["of timm/vit_base_patch16_clip_quickgelu_224.openai, about 350 MB"]),
    ],
)
def test_what_is_downloaded_is_told_with_its_size(tmp_path, recipe, opts, told):
    lines = [line for line in needs(recipe, *opts, root=tmp_path) if line.startswith("downloads")]
    assert len(lines) == len(told) and all(word in line for word, line in zip(told, lines, strict=True)), lines


def test_a_run_that_goes_on_downloads_nothing(tmp_path):
    assert needs("VeRi/vit_transreid_stride.yml", root=tmp_path, first_weights=False) == []


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("resnet101", "resnet101"),
        ("resnet50", "resnet50"),
        ("tiny", "deit_tiny_patch16_224"),
        ("small", "vit_small_patch16_224"),
        ("base", "vit_base_patch16_224"),
    ],
)
def test_sizes_are_those_of_the_published_weights(word, name):
    with torch.device("meta"):
        model = timm.create_model(name)
    assert TRUNK_MB[word] == pytest.approx(4 * sum(weight.numel() for weight in model.parameters()) / MB, rel=0.05)


@pytest.mark.parametrize("name", ["ViT-B-16", "ViT-B-32", "RN50"])
def test_sizes_of_clips_are_those_of_the_published_weights(name):
    open_clip = pytest.importorskip("open_clip")
    with torch.device("meta"):
        model = open_clip.CLIP(**open_clip.get_model_config(name))
    assert CLIP_MB[name] == pytest.approx(4 * sum(weight.numel() for weight in model.parameters()) / MB, rel=0.05)
