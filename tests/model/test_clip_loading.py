"""Checkpoints with and without CLIP: what they hold, what is refused, and what is translated."""

import io
import logging

import pytest
import torch
from torch import nn

from model.families.clip_fusion import make_fused
from model.weights.pretrained import load_rest
from model.weights.transreid import BEYOND_THE_TRUNK
from tests.model import clips
from tests.model.builds import images, make_cfg, make_tiny, save
from tests.model.clips import CALM, FROZEN, FUSED, JPM, RANDOM, Sources, build
from tests.model.refusal import refuse

ALL = (*FUSED, "concat", "hf concat")
FREEZABLE = ("minimal", "quickwin", "hf")


def bytes_of(state: dict[str, torch.Tensor]) -> int:
    stream = io.BytesIO()
    torch.save(state, stream)
    return len(stream.getvalue())


@pytest.mark.parametrize("opts", [(), FROZEN, ("MODEL.JPM", False)])
@pytest.mark.parametrize("variant", ALL)
def test_checkpoint_survives_the_round_trip(variant, opts, sources, tmp_path):
    trained, fresh = (build(sources, variant, *opts, seed=seed) for seed in (1, 2))
    with torch.no_grad():
        for weight in trained.parameters():
            if weight.requires_grad:
                weight += 0.1 * torch.randn_like(weight)
    trained(images(4))  # moves the running statistics
    report = fresh.load_param(save(trained.state_dict(), tmp_path))
    assert len(report.matched) == len(trained.state_dict())
    assert not (report.missing or report.surplus or report.misshaped or report.warnings)
    assert torch.equal(trained.eval()(images()), fresh.eval()(images()))


@pytest.mark.parametrize("variant", FREEZABLE)
def test_frozen_tower_is_in_no_checkpoint_which_still_loads_strictly(variant, sources):
    trained, fresh = (build(sources, variant, *FROZEN, seed=seed) for seed in (1, 2))
    state = trained.state_dict()
    assert not any(name.startswith("clip_model.") for name in state)
    fresh.load_state_dict(state)
    assert torch.equal(trained.eval()(images()), fresh.eval()(images()))
    inner = torch.nn.ModuleDict({"module": fresh})  # as DistributedDataParallel holds it
    assert inner.state_dict().keys() == {f"module.{name}" for name in state}
    inner.load_state_dict({f"module.{name}": value for name, value in state.items()})
    del state["base.norm.weight"]
    with pytest.raises(RuntimeError, match="base.norm.weight"):
        fresh.load_state_dict(state)


def test_checkpoint_of_a_frozen_tower_is_smaller_than_the_tower(tmp_path):
    wide = clips.write_description(tmp_path / "wide.json", width=256, layers=3)
    weights = save(clips.make_open_clip(width=256, layers=3).state_dict(), tmp_path, "wide.pt")
    opts = (*FROZEN, "MODEL.USE_CLIP", True, "MODEL.CLIP_BACKBONE", wide, "MODEL.CLIP_LOCAL_PATH", weights)
    model = make_tiny(*JPM, *opts, "MODEL.CLIP_INPUT_SIZE", (32, 32))
    assert bytes_of(model.state_dict()) < bytes_of(model.clip_model.state_dict())


def test_frozen_random_tower_stays_in_the_checkpoint_and_that_is_said(sources, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        trained, fresh = (build(sources, "minimal", *FROZEN, *RANDOM, seed=seed) for seed in (1, 2))
    assert caplog.text.count("the frozen CLIP tower has random weights") == 2
    assert any(name.startswith("clip_model.") for name in trained.state_dict())
    fresh.load_param(save(trained.state_dict(), tmp_path))
    assert torch.equal(trained.eval()(images()), fresh.eval()(images()))
    fresh.load_state_dict(trained.state_dict())


@pytest.mark.parametrize("variant", FREEZABLE)
def test_model_for_a_checkpoint_needs_no_weights_of_a_trained_tower(variant, sources, tmp_path):
    trained = clips.redraw(build(sources, variant))
    state = save(trained.state_dict(), tmp_path)
    opts = dict(zip(*[iter(clips.variants(sources)[variant])] * 2, strict=True))
    if variant == "hf":
        opts["MODEL.CLIP_LOCAL_PATH"] = str(clips.write_hf(tmp_path / "config only", weights=False))
    else:
        opts["MODEL.CLIP_LOCAL_PATH"] = "not/here"
    cfg = make_cfg(*[item for pair in opts.items() for item in pair])
    settings = {"num_class": 5, "jigsaw": trained.jigsaw}
    fresh = make_fused(cfg, make_tiny(*CALM, seed=3).base, settings, trained_elsewhere=True)
    fresh.load_param(state)
    assert torch.equal(trained.eval()(images()), fresh.eval()(images()))


def test_frozen_tower_has_its_weights_even_when_a_checkpoint_follows(sources):
    cfg = make_cfg(*clips.variants(sources)["minimal"], *FROZEN)
    model = make_fused(cfg, make_tiny().base, {"num_class": 5}, trained_elsewhere=True)
    theirs = torch.load(sources.weights, weights_only=True)["visual.conv1.weight"]
    assert torch.equal(model.clip_model.visual.conv1.weight, theirs)


LACKS = {
    "minimal": r"lacks fuse_proj_global_min.weight, fuse_proj_global_min.bias, clip_model.\* \(32 weights\): ",
    "quickwin": r"lacks fuse_ln_global_backbone.weight, .*fuse_gate_local.2.bias, .*fuse_proj_local.bias, clip_model",
    "hf": r"lacks fuse_fc.weight, fuse_fc.bias, afem.group_weight, .*afem.linear.1.running_var, sem_refine_proj.weight",
    "hf without afem": r"lacks fuse_fc.weight, fuse_fc.bias, sem_refine_proj.weight, sem_refine_proj.bias, clip_model",
    "hf without refine": r"lacks fuse_fc.weight, fuse_fc.bias, clip_model",
}


@pytest.mark.parametrize("variant", FUSED)
def test_checkpoint_without_fusion_is_refused_with_all_that_it_lacks_and_the_ways_out(variant, sources, tmp_path):
    ways_out = "without CLIP fusion; set MODEL.USE_CLIP False, or MODEL.CLIP_FUSION concat, .*PRETRAIN_CHOICE finetune"
    state = make_tiny(*JPM, seed=1).state_dict()
    refuse(build(sources, variant), state, tmp_path, f"{LACKS[variant]}.*{ways_out}")


def test_what_a_frozen_tower_lacks_is_not_listed(sources, tmp_path):
    words = "lacks fuse_proj_global_min.weight, fuse_proj_global_min.bias: it was trained without CLIP fusion"
    refuse(build(sources, "minimal", *FROZEN), make_tiny(*JPM).state_dict(), tmp_path, words)


def test_other_mistakes_are_still_named_first(sources, tmp_path):
    model = build(sources, "minimal")
    refuse(model, {"visual.conv1.weight": torch.ones(1)}, tmp_path, "holds a CLIP model")
    narrow = build(sources, "minimal", "MODEL.VIT.EMBED_DIM", 16).state_dict()
    refuse(model, narrow, tmp_path, r"base.cls_token is \[1, 1, 16\] in the file")
    state = model.state_dict()
    odd = state | {"fuse_proj_global_min.weight": torch.zeros(24, 56)}
    refuse(model, odd, tmp_path, r"fuse_proj_global_min.weight is \[24, 56\] .* \[24, 40\] .*MODEL.CLIP_FUSION")
    wide = state | {"clip_model.visual.positional_embedding": torch.zeros(17, 40)}
    refuse(model, wide, tmp_path, r"positional_embedding is \[17, 40\] .*MODEL.CLIP_BACKBONE")


def test_checkpoint_of_a_frozen_tower_does_not_fit_a_trained_one(sources, tmp_path):
    state = build(sources, "minimal", *FROZEN).state_dict()
    words = (
        r"lacks clip_model.\* \(32 weights\): it was trained with a frozen CLIP tower; set MODEL.CLIP_FINETUNE False"
    )
    refuse(build(sources, "minimal"), state, tmp_path, words)


@pytest.mark.parametrize(
    ("theirs", "ours", "words"),
    [
        ("quickwin", "minimal", "its fusion is that of MODEL.CLIP_IMPL open_clip and MODEL.CLIP_FUSION quickwin"),
        ("minimal", "quickwin", "its fusion is that of MODEL.CLIP_IMPL open_clip and MODEL.CLIP_FUSION minimal"),
        ("hf", "minimal", "its fusion is that of MODEL.CLIP_IMPL hf"),
        ("minimal", "hf", "its fusion is that of MODEL.CLIP_IMPL open_clip and MODEL.CLIP_FUSION minimal"),
    ],
)
def test_checkpoint_of_another_fusion_is_named(theirs, ours, words, sources, tmp_path):
    refuse(build(sources, ours), build(sources, theirs).state_dict(), tmp_path, words)


@pytest.mark.parametrize("variant", ["concat", "hf concat"])
def test_concat_takes_a_checkpoint_trained_without_clip(variant, sources, tmp_path):
    plain, model = make_tiny(*JPM, seed=1), build(sources, variant, seed=2)
    report = model.load_param(save(plain.state_dict(), tmp_path))
    assert report.missing == ("clip_fingerprint",) and not (report.surplus or report.warnings)
    own = torch.nn.functional.normalize(plain.eval()(images()), dim=1)
    torch.testing.assert_close(model.eval()(images())[:, : own.shape[1]], own)


def test_fused_checkpoint_in_concat_is_a_warning(sources, tmp_path):
    trained, model = build(sources, "minimal", *FROZEN, seed=1), build(sources, "concat", seed=2)
    report = model.load_param(save(trained.state_dict(), tmp_path))
    assert report.surplus == ("fuse_proj_global_min.weight", "fuse_proj_global_min.bias")
    assert "trained with a CLIP fusion that this model lacks" in report.warnings[0]


def test_concat_with_random_weights_needs_their_checkpoint(sources, tmp_path):
    words = r"lacks clip_model.\* .*: random weights \(MODEL.CLIP_PRETRAIN ''\) cannot be had again"
    refuse(build(sources, "concat", *RANDOM), make_tiny(*JPM).state_dict(), tmp_path, words)


@pytest.mark.parametrize("variant", FUSED)
def test_fused_checkpoint_in_a_model_without_clip_is_a_warning(variant, sources, tmp_path, caplog):
    trained, plain = build(sources, variant, *FROZEN, seed=1), make_tiny(*JPM, seed=2)
    with caplog.at_level(logging.WARNING):
        report = plain.load_param(save(trained.state_dict(), tmp_path))
    assert set(report.surplus) == {name for name in trained.state_dict() if name not in plain.state_dict()}
    assert "trained with a CLIP fusion that this model lacks" in caplog.text and "MODEL.USE_CLIP" in caplog.text


def as_older(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.replace("fuse_proj_global_min.", "fuse_proj_global."): value for name, value in state.items()}


def test_older_name_of_the_minimal_projection_is_taken(sources, tmp_path):
    trained, fresh = (build(sources, "minimal", seed=seed) for seed in (1, 2))
    report = fresh.load_param(save(as_older(trained.state_dict()), tmp_path))
    assert not (report.missing or report.surplus)
    assert torch.equal(trained.eval()(images()), fresh.eval()(images()))


def test_older_name_is_not_taken_from_quickwin_nor_in_another_shape_nor_beside_the_newer_one(sources):
    model = build(sources, "minimal")
    rules = model.weight_rules()
    quickwin = build(sources, "quickwin").state_dict()
    assert quickwin["fuse_proj_global.weight"].shape == model.fuse_proj_global_min.weight.shape
    assert "fuse_proj_global_min.weight" not in rules.translate(quickwin)
    state = model.state_dict()
    other = as_older(state) | {"fuse_proj_global.weight": torch.zeros(24, 56)}
    assert "fuse_proj_global_min.weight" not in rules.translate(other)
    both = state | {"fuse_proj_global.weight": torch.zeros(24, 40)}
    assert torch.equal(rules.translate(both)["fuse_proj_global_min.weight"], state["fuse_proj_global_min.weight"])


@pytest.mark.parametrize("dimensions", [2, 3])
def test_position_table_of_model_bs_hf_tower_is_taken(dimensions, sources, tmp_path):
    trained, fresh = (clips.redraw(build(sources, "hf", seed=seed)) for seed in (1, 2))
    state = trained.state_dict()
    table = state.pop("clip_model.embeddings.position_embedding.weight")
    state["clip_model.embeddings.position_embedding"] = table.unsqueeze(0) if dimensions == 3 else table
    report = fresh.load_param(save(state, tmp_path))
    assert not (report.missing or report.surplus)
    assert torch.equal(trained.eval()(images()), fresh.eval()(images()))


def as_model_b(trained: nn.Module, sources: Sources) -> dict[str, torch.Tensor]:
    """Return the checkpoint that Model B writes: with the whole open_clip model, text tower included."""
    whole = {f"clip_model.{name}": value for name, value in torch.load(sources.weights, weights_only=True).items()}
    return {name: value for name, value in trained.state_dict().items() if not name.startswith("clip_")} | whole


def test_model_bs_checkpoint_with_its_whole_frozen_clip_loads_and_that_is_said(sources, tmp_path, caplog):
    size = ("MODEL.CLIP_INPUT_SIZE", (32, 32))
    trained, fresh = (build(sources, "minimal", *FROZEN, *size, seed=seed) for seed in (1, 2))
    state = as_model_b(trained, sources)
    assert "clip_model.token_embedding.weight" in state
    with caplog.at_level(logging.INFO):
        report = fresh.load_param(save(state, tmp_path))
    assert report.missing == ("clip_fingerprint",) and not (report.surplus or report.warnings)
    count = sum(name.startswith("clip_model.") for name in state)
    assert (
        f"{count} weights clip_model.* of the file are ignored: the tower is that of MODEL.CLIP_LOCAL_PATH"
        in caplog.text
    )
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert torch.equal(trained.eval()(images()), fresh.eval()(images()))


def test_ignored_tower_that_is_another_one_is_a_warning(sources, tmp_path, caplog):
    trained, fresh = build(sources, "minimal", seed=1), build(sources, "minimal", *FROZEN, seed=2)
    with torch.no_grad():
        trained.clip_model.visual.ln_post.bias += 0.01
    with caplog.at_level(logging.WARNING):
        fresh.load_param(save(trained.state_dict(), tmp_path))
    assert "although they are not those of MODEL.CLIP_LOCAL_PATH" in caplog.text
    assert "set MODEL.CLIP_FINETUNE True" in caplog.text


def test_half_precision_of_the_same_tower_is_no_other_one(sources, tmp_path, caplog):
    trained, fresh = build(sources, "minimal", seed=1), build(sources, "minimal", *FROZEN, seed=2)
    state = {k: v.half() if v.is_floating_point() else v for k, v in trained.state_dict().items()}
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        fresh.load_param(save(state, tmp_path))
    assert not caplog.records


def test_text_tower_in_the_file_of_a_trained_tower_is_left_out(sources, tmp_path, caplog):
    size = ("MODEL.CLIP_INPUT_SIZE", (32, 32))
    trained, fresh = (build(sources, "minimal", *size, seed=seed) for seed in (1, 2))
    with caplog.at_level(logging.INFO):
        report = fresh.load_param(save(as_model_b(trained, sources), tmp_path))
    assert not (report.missing or report.surplus or report.warnings)
    assert "clip_model.* of the file are no part of the image tower: ignored" in caplog.text


@pytest.mark.parametrize("variant", FUSED)
def test_finetune_goes_on_with_tower_and_fusion(variant, sources, tmp_path):
    trained, fresh = clips.redraw(build(sources, variant, seed=1)), build(sources, variant, seed=2)
    load_rest(fresh, fresh.weight_rules(), trained.state_dict(), BEYOND_THE_TRUNK["finetune"], "x")
    ours, theirs = fresh.state_dict(), trained.state_dict()
    names = [name for name in theirs if name.startswith(("clip_model.", "fuse_", "afem.", "sem_refine_proj."))]
    assert names and all(torch.equal(ours[name], theirs[name]) for name in names)


def test_finetune_starts_a_fusion_from_a_checkpoint_without_one(sources, tmp_path):
    plain = make_tiny(*JPM, *CALM, seed=1)
    path = save(plain.state_dict(), tmp_path)
    opts = ("MODEL.PRETRAIN_CHOICE", "finetune", "MODEL.PRETRAIN_PATH", path)
    model = build(sources, "minimal", *opts, seed=2)
    ours, theirs = model.state_dict(), plain.state_dict()
    assert all(
        torch.equal(ours[name], theirs[name]) for name in theirs if name.startswith(("base.blocks.0", "b1", "b2"))
    )


@pytest.mark.parametrize(("trained_with", "tested_with"), [(True, False), (False, True)])
def test_another_use_of_afem_than_in_training_is_a_warning(trained_with, tested_with, sources, tmp_path):
    trained = build(sources, "hf", "MODEL.CLIP_USE_AFEM", trained_with).train()
    trained(images(4))
    path = save(trained.state_dict(), tmp_path)
    how = "with" if trained_with else "without"
    report = build(sources, "hf", "MODEL.CLIP_USE_AFEM", tested_with).load_param(path)
    assert report.warnings == (
        f"the checkpoint was trained {how} AFEM; set MODEL.CLIP_USE_AFEM and CLIP_USE_SEM_REFINE as in its training",
    )
    assert build(sources, "hf", "MODEL.CLIP_USE_AFEM", trained_with).load_param(path).warnings == ()
