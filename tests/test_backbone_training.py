"""CLIP fusion, adapters and timm trunks through train.py and test.py on a tiny archive."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

import test as tester
import train
from datasets.test_set import TestSet
from model.layers.lora import LoRALinear
from processor.evaluation import outcome
from processor.evaluation.embed import Embedded, Embedding
from tests.tolerance import bounds
from utils.checkpoint import read_weights
from utils.errors import DataError

TINY_CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 4, "vocab_size": 16, "width": 16, "heads": 1, "layers": 1},
}
TERMS = 1000  # numbers added up one after the other: 192 pixels, 350 numbers in each of two blocks
ONE_EPOCH = ("SOLVER.MAX_EPOCHS", 1, "TEST.NECK_FEAT", "before")


@pytest.fixture
def clip(tmp_path: Path) -> tuple:
    """Options that switch on the fusion with a tiny tower, whose weights (the text tower's too) lie in a file."""
    import open_clip

    path = tmp_path / "tiny_clip.json"
    path.write_text(json.dumps(TINY_CLIP))
    open_clip.add_model_config(path)
    torch.manual_seed(4)
    weights = tmp_path / "clip.pth"
    torch.save(open_clip.create_model(path.stem).state_dict(), weights)
    tower = ("MODEL.CLIP_BACKBONE", path, "MODEL.CLIP_LOCAL_PATH", weights, "MODEL.CLIP_INPUT_SIZE", [16, 16])
    return ("MODEL.USE_CLIP", True, *tower)


@pytest.fixture
def go(tiny_config: Path, tmp_path: Path) -> Callable[..., Path]:
    """go(train_or_test, folder, *opts) runs a command and returns its folder."""

    def run(command: ModuleType, folder: str, *opts: object) -> Path:
        output = ("OUTPUT_DIR", tmp_path / folder)
        assert command.main(["--config_file", str(tiny_config), *map(str, (*ONE_EPOCH, *opts, *output))]) == 0
        return tmp_path / folder

    return run


def precisions(folder: Path) -> np.ndarray:
    return np.load(folder / "per_query.npz")["ap"]


@pytest.fixture
def tested(monkeypatch: pytest.MonkeyPatch) -> list[tuple[nn.Module, torch.Tensor]]:
    """Filled with model and embeddings of every test; a precision may jump where two distances nearly tie."""
    seen, original = [], outcome.embed_test

    def spy(model: nn.Module, test: TestSet, how: Embedding) -> Embedded:
        embedded = original(model, test, how)
        seen.append((model, embedded.feat.clone()))
        return embedded

    monkeypatch.setattr(outcome, "embed_test", spy)
    return seen


@pytest.mark.parametrize(
    "fusion", [(), ("MODEL.CLIP_FUSION", "quickwin"), ("MODEL.CLIP_FUSION", "concat"), ("MODEL.CLIP_FINETUNE", False)]
)
def test_fused_model_trains_tests_and_goes_on(fusion, clip, go):
    run = go(train, "run", *clip, *fusion)
    before = read_weights(run / "transformer_1.pth", "TEST.WEIGHT")
    result = go(tester, "test", *clip, *fusion, "TEST.WEIGHT", run / "transformer_1.pth")
    assert 0 < json.loads((result / "summary.json").read_text())["mAP"] <= 1
    go(train, "run", *clip, *fusion, "SOLVER.MAX_EPOCHS", 2)
    after = read_weights(run / "transformer_2.pth", "TEST.WEIGHT")
    assert before.keys() == after.keys()
    tower = [name for name in after if name.startswith("clip_model.")]
    moved = [name for name in tower if not torch.equal(before[name], after[name])]
    assert bool(moved) == (fusion in ((), ("MODEL.CLIP_FUSION", "quickwin")))


@pytest.mark.slow
def test_trained_with_clip_and_tested_without(clip, go):
    run = go(train, "run", *clip)
    fused = go(tester, "with", *clip, "TEST.WEIGHT", run / "transformer_1.pth")
    plain = go(tester, "without", "TEST.WEIGHT", run / "transformer_1.pth")
    log = (plain / "test_log.txt").read_text()
    assert "trained with a CLIP fusion that this model lacks" in log and "(clip_model, fuse_proj_global_min)" in log
    assert "set MODEL.USE_CLIP, CLIP_IMPL and CLIP_FUSION as in its training" in log
    assert len(precisions(plain)) == len(precisions(fused))


def test_trained_without_clip_and_tested_with_it(clip, go, tested):
    run = go(train, "run")
    weight = ("TEST.WEIGHT", run / "transformer_1.pth")
    with pytest.raises(DataError, match="fuse_proj_global_min.weight.*MODEL.USE_CLIP False.*CLIP_FUSION concat"):
        go(tester, "minimal", *clip, *weight)
    plain = precisions(go(tester, "plain", *weight))
    light = ("MODEL.CLIP_FUSION", "concat", "MODEL.CLIP_CONCAT_WEIGHT", 1e-6)
    go(tester, "light", *clip, *light, *weight)
    (_, expected), (_, feat) = tested
    own = expected.shape[1]
    torch.testing.assert_close(feat[:, :own], expected, **bounds(TERMS, 0.1))
    assert 0 < feat[:, own:].abs().max() < 2e-6
    heavy = ("MODEL.CLIP_FUSION", "concat", "MODEL.CLIP_CONCAT_WEIGHT", 2.0)
    assert not np.allclose(precisions(go(tester, "heavy", *clip, *heavy, *weight)), plain, atol=1e-3)


@pytest.mark.slow
def test_adapters_train_resume_and_are_merged_at_test(go, tested):
    first = go(train, "first")
    start = ("MODEL.PRETRAIN_CHOICE", "self", "MODEL.PRETRAIN_PATH", first / "transformer_1.pth")
    lora = (*start, "MODEL.LORA.RANK", 2, "SOLVER.LAYER_DECAY", 0.9)
    run = go(train, "run", *lora)
    go(train, "run", *lora, "SOLVER.MAX_EPOCHS", 2)
    frozen, trained = (read_weights(path, "") for path in (first / "transformer_1.pth", run / "transformer_2.pth"))
    name = "base.blocks.0.attn.qkv"
    assert torch.equal(trained[f"{name}.weight"], frozen[f"{name}.weight"]) and trained[f"{name}.lora_b"].any()
    go(tester, "adapted", *lora, "TEST.WEIGHT", run / "transformer_2.pth")
    go(tester, "folded", "TEST.WEIGHT", run / "transformer_2.pth")  # the YAML knows nothing of adapters
    (one, adapted), (other, folded) = tested
    torch.testing.assert_close(folded, adapted, **bounds(TERMS, 0.1))
    assert not [layer for model in (one, other) for layer in model.modules() if isinstance(layer, LoRALinear)]


@pytest.mark.parametrize("name", ["vit_small_patch16_dinov3", "eva02_tiny_patch14_224", "vit_base_patch16_siglip_224"])
def test_timm_trunk_trains_resumes_and_tests(name, go):
    opts = ("MODEL.TRANSFORMER_TYPE", f"timm/{name}", "MODEL.FREEZE_BLOCKS", 1, "SOLVER.LAYER_DECAY", 0.8)
    run = go(train, "run", *opts)
    go(train, "run", *opts, "SOLVER.MAX_EPOCHS", 2)
    before, after = (read_weights(run / f"transformer_{epoch}.pth", "") for epoch in (1, 2))
    assert torch.equal(before["base.blocks.0.norm1.weight"], after["base.blocks.0.norm1.weight"])
    assert not torch.equal(before["b1.0.norm1.weight"], after["b1.0.norm1.weight"])
    assert (go(tester, "test", *opts, "TEST.WEIGHT", run / "transformer_2.pth") / "summary.json").is_file()
