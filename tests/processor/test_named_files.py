"""Files that keys name are looked for before the images: where both are absent, the error is of the file."""

import pytest

import train
from configs import load_cfg
from processor.named_files import check_named_files
from utils.errors import ConfigError

SMALL, PCB, CLIP = "configs/Synthetic/baseline.yml", "configs/Synthetic/pcb.yml", "configs/Synthetic/multimodal.yml"
ABSENT = {
    "MODEL.PRETRAIN_PATH": (SMALL, ["MODEL.PRETRAIN_CHOICE", "finetune", "MODEL.PRETRAIN_PATH", "no/first.pth"]),
    "MODEL.CLIP_LOCAL_PATH": (CLIP, ["MODEL.CLIP_LOCAL_PATH", "no/tower.pt"]),
    "DISTILL.TEACHER_RUN": (PCB, ["DISTILL.TEACHER_RUN", "no/run"]),
    "DISTILL.TEACHER_WEIGHT": (PCB, ["DISTILL.TEACHER_WEIGHT", "no/teacher.pth"]),
    "DISTILL.TEACHER_CONFIG": (PCB, ["DISTILL.TEACHER_WEIGHT", "no/t.pth", "DISTILL.TEACHER_CONFIG", "no/t.yml"]),
}


@pytest.mark.parametrize("key", ABSENT)
def test_an_absent_file_is_told_before_the_images_are_looked_for(key, tmp_path):
    recipe, opts = ABSENT[key]
    folders = ["DATASETS.NAMES", "market1501", "DATASETS.ROOT_DIR", str(tmp_path), "OUTPUT_DIR", str(tmp_path / "run")]
    with pytest.raises(ConfigError, match=rf"^{key}: .*no/\w+"):
        train.main(["--config_file", recipe, *opts, *(folders if recipe == SMALL else folders[2:])])


@pytest.mark.parametrize("key", ABSENT)
def test_a_run_that_goes_on_needs_its_teacher_alone(key):
    recipe, opts = ABSENT[key]
    cfg = load_cfg(recipe, opts)
    if key.startswith("DISTILL"):
        with pytest.raises(ConfigError, match=key):
            check_named_files(cfg, first_weights=False)
    else:
        check_named_files(cfg, first_weights=False)


def test_a_file_that_nothing_reads_is_not_asked_for():
    check_named_files(load_cfg(SMALL, ["MODEL.CLIP_LOCAL_PATH", "no/tower.pt", "MODEL.PRETRAIN_PATH", "no/first.pth"]))
