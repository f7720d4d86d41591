"""The model of several modalities against its formulas in float64: features, fusion, training rows, what is missing."""

from pathlib import Path

import open_clip
import pytest
import torch
from torch import nn

from model import make_model, multimodal
from model.parts import Part
from tests.model.builds import save
from tests.model.clip_files import OWN_SIZE, openai_clip, own_size
from tests.model.clip_reids import EMBED, TEXT, VIT, assert_near, in_float64, write_clip
from tests.model.irras import captions
from tests.model.multimodals import (
    ALL,
    BATCH,
    CLASSES,
    FUSION_HEADS,
    MISSING,
    OF_IMAGES,
    inputs_of,
    make_multimodal,
    multimodal_cfg,
    slow_z,
    spoilt,
    whole,
)
from tests.model.multimodals import WORDS as CAPTION
from tests.reference import slow_multimodal as slow
from tests.tolerance import bounds
from utils.errors import ConfigError

SEMANTIC = ("MODEL.MULTIMODAL.SEMANTIC", True)
ADAPTERS = ("MODEL.MULTIMODAL.RANK", 2, "MODEL.MULTIMODAL.ALPHA", 3.0)
TWO = ("MODEL.MULTIMODAL.MODALITIES", ("vis", "nir"))
WORDS = ("MODEL.MULTIMODAL.MODALITIES", ("vis", "text"))
FULL_SIZE = (384, 128)
Gradients = dict[str, torch.Tensor]


@pytest.fixture(params=[True, False], ids=["rows are told", "rows are not told"])
def told(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mask on the CPU, and one as on another device."""
    if not request.param:
        monkeypatch.setattr(multimodal, "_tells_rows", lambda mask: False)


def trained_step(model: nn.Module, inputs: dict, mask: dict | None) -> tuple[multimodal.ModelOutput, Gradients]:
    """Output and gradients of a loss that all of it reaches; statistics are in the model."""
    output = model.train()(inputs, mask)
    loss = sum(x.cos().sum() + x.square().sum() for x in (*output.logits, *output.pre_bn, *output.bnneck))
    loss.backward()
    return output, {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("opts", [(), ADAPTERS, TWO, WORDS])
def test_sets_are_rgb_and_every_combination_of_the_others(tmp_path, opts):
    model = make_multimodal(tmp_path, *opts)
    names = opts[1] if opts in (TWO, WORDS) else ALL
    assert model.modalities == names and list(model.sets) == slow.sets_of(names)
    assert len(model.sets) == 2 ** (len(names) - 1) and model.branches == {"global": EMBED}
    assert model.feat_dim == EMBED and model.num_class == CLASSES


@pytest.mark.parametrize(("opts", "scale"), [((), 0.25), (ADAPTERS, 1.5)])
def test_feature_of_each_modality_is_its_formula(tmp_path, opts, scale):
    model = make_multimodal(tmp_path, *opts)
    inputs = inputs_of(model)
    with torch.no_grad():
        for name, exact in slow_z(model, inputs, scale).items():
            assert_near(model.encode(name, inputs[name]), exact, name)
            assert_near(model.encode_batch({"modalities": {name: inputs[name]}}), exact, name)


@pytest.mark.parametrize("length", [77, 12])
def test_every_modality_begins_as_its_clip(tmp_path, length):
    clip, description = openai_clip(), write_clip(tmp_path, VIT)
    opts = ("MODEL.PRETRAIN_CHOICE", "imagenet", "MODEL.CLIP_LOCAL_PATH", save(clip.state_dict(), tmp_path))
    opts = own_size(*opts, "INPUT.TEXT.LENGTH", length)
    model = make_model(multimodal_cfg(description, *opts), CLASSES, 1, 1).eval()
    images = torch.randn(3, 3, *OWN_SIZE, generator=torch.Generator().manual_seed(1))
    words = captions()
    with torch.no_grad():
        for name in OF_IMAGES:
            torch.testing.assert_close(model.encode(name, images), clip.encode_image(images), atol=1e-5, rtol=1e-5)
        got = model.encode("text", words[:, :length])
        torch.testing.assert_close(got, clip.encode_text(words), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_folded_tower_is_a_plain_clip(tmp_path, name):
    model = make_multimodal(tmp_path, *own_size())
    folded = {name.removeprefix("visual."): value for name, value in model.merged_visual(name).items()}
    visual = open_clip.CLIP(EMBED, VIT, TEXT, quick_gelu=True).visual
    visual.load_state_dict(folded)
    images = torch.randn(3, 3, *OWN_SIZE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(visual.eval()(images), model.encode(name, images), **bounds(3000, 5.0))
    assert not any(value.requires_grad for value in folded.values())


@pytest.mark.parametrize("opts", [(), SEMANTIC, TWO, WORDS])
@pytest.mark.parametrize("mask", [None, MISSING], ids=["all there", "some missing"])
def test_training_rows_are_the_formulas(tmp_path, opts, mask, told):
    model = make_multimodal(tmp_path, *opts)
    inputs = inputs_of(model)
    exact = slow.training_rows(in_float64(model), slow_z(model, inputs), whole(mask or {}, inputs), FUSION_HEADS)
    output = model.train()(inputs, mask)
    assert torch.equal(output.extra["valid"], exact["valid"]) and output.projection is None
    assert set(output.extra) == {"valid"}
    for field in ("pre_bn", "bnneck", "logits"):
        got = getattr(output, field)
        assert len(got) == len(model.sets)
        assert_near(torch.stack(got, 1), exact[field], field)
        assert not torch.stack(got, 1)[~exact["valid"]].any()


@pytest.mark.parametrize("opts", [(), SEMANTIC])
def test_embedding_is_what_is_there_fused_and_normed_by_running_statistics(tmp_path, opts, told):
    model = make_multimodal(tmp_path, *opts)
    state, inputs = in_float64(model), inputs_of(model)
    z, there = slow_z(model, inputs), whole(MISSING, inputs)
    with torch.no_grad():
        for names in (("vis",), ("text",), ("sk", "text"), ("vis", "cp"), model.sets[-1], ALL):
            chosen = {name: inputs[name] for name in reversed(names)}
            exact = [
                slow.neck(torch.stack(slow.fused(state, z, t, names, FUSION_HEADS)), state)
                for t in (whole({}, inputs), there)
            ]
            got = model(chosen)
            assert_near(got, exact[0], str(names))
            assert torch.equal(got, model.embed(chosen))
            assert_near(model.embed_batch({"modalities": chosen}), exact[0], str(names))
            some = torch.stack([there[name] for name in names]).any(0)
            got = model.embed_batch({"modalities": chosen, "present": MISSING})
            assert_near(got, torch.where(some[:, None], exact[1], 0), str(names))


def test_fusion_of_features_is_the_embedding_in_any_order(tmp_path):
    model = make_multimodal(tmp_path, *SEMANTIC)
    inputs = inputs_of(model)
    valid = torch.tensor([[True] * 5, [False, True, True, False, False], [False] * 4 + [True]])
    mask = dict(zip(ALL, valid.t(), strict=True))
    with torch.no_grad():
        z = torch.stack([model.encode(name, inputs[name]) for name in ALL], 1)
        expected = model.embed(inputs, mask)
        for order in ([0, 1, 2, 3, 4], [3, 0, 4, 2, 1]):
            spoilt_z = torch.where(valid[..., None], z, torch.nan)[:, order]
            torch.testing.assert_close(model.fuse(spoilt_z, valid[:, order]), expected, **bounds(300, 5.0))
        nothing = model.fuse(z, torch.zeros_like(valid))
        assert torch.equal(nothing, torch.zeros(BATCH, EMBED))


@pytest.mark.parametrize("opts", [(), SEMANTIC])
def test_what_is_missing_changes_no_result_gradient_or_statistic(tmp_path, opts, told):
    runs = []
    for change in (lambda inputs: inputs, lambda inputs: spoilt(inputs, MISSING)):
        model = make_multimodal(tmp_path, *opts)
        output, gradients = trained_step(model, change(inputs_of(model)), MISSING)
        with torch.no_grad():
            embedding = model.eval()(change(inputs_of(model)), MISSING)
        runs.append((output, gradients, dict(model.bottleneck.named_buffers()), embedding))
    for clean, other in zip(*runs, strict=True):
        if isinstance(clean, torch.Tensor):
            assert torch.equal(clean, other) and clean.isfinite().all()
        elif isinstance(clean, dict):
            assert clean.keys() == other.keys() and all(torch.equal(clean[n], other[n]) for n in clean)
            assert all(value.isfinite().all() for value in clean.values())
        else:
            assert all(map(torch.equal, multimodal_tensors(clean), multimodal_tensors(other)))


def multimodal_tensors(output: multimodal.ModelOutput) -> list[torch.Tensor]:
    return [*output.logits, *output.pre_bn, *output.bnneck, output.extra["valid"]]


def test_a_mask_that_tells_rows_gives_what_one_that_does_not_gives(tmp_path, monkeypatch):
    runs = []
    for told_rows in (True, False):
        monkeypatch.setattr(multimodal, "_tells_rows", lambda mask, told_rows=told_rows: told_rows)
        model = make_multimodal(tmp_path)
        output, gradients = trained_step(model, inputs_of(model), MISSING)
        runs.append((multimodal_tensors(output), gradients))
    for one, other in zip(*(outputs for outputs, _ in runs), strict=True):
        torch.testing.assert_close(one, other, **bounds(3000, 5.0))
    assert runs[0][1].keys() == runs[1][1].keys()
    for name, gradient in runs[0][1].items():
        scale = max(1.0, gradient.abs().max().item())
        torch.testing.assert_close(gradient, runs[1][1][name], **bounds(3000, scale), msg=name)


@pytest.mark.parametrize("name", ["cp", "text"])
@pytest.mark.parametrize("how", ["left out", "masked throughout"])
def test_a_modality_that_a_batch_lacks_has_gradients_of_zero(tmp_path, name, how, told):
    model = make_multimodal(tmp_path)
    inputs, mask = inputs_of(model), {name: torch.zeros(BATCH, dtype=torch.bool)}
    if how == "left out":
        inputs, mask = {other: x for other, x in inputs.items() if other != name}, None
    output, gradients = trained_step(model, inputs, mask)
    has = torch.tensor([name not in names for names in model.sets])
    assert torch.equal(output.extra["valid"], has.expand(BATCH, -1))
    assert gradients.keys() == {n for n, weight in model.named_parameters() if weight.requires_grad}
    own = (
        [n for n in gradients if n.startswith("text.") or ".text" in n]
        if name == "text"
        else [n for n in gradients if f".{name}" in n]
    )
    assert len(own) > 10 and not any(gradients[n].any() for n in own)
    assert gradients["vision.blocks.0.q.weight"].any() and gradients["vision.blocks.0.q.lora_a.nir"].any()


def test_one_call_of_the_tower_serves_all_sets_of_a_modality(tmp_path):
    model, calls = make_multimodal(tmp_path), []
    model.vision.register_forward_hook(lambda module, given, result: calls.append(given[1]))
    model.text.ln_final.register_forward_hook(lambda *call: calls.append("text"))
    model.train()(inputs_of(model))
    assert calls == list(ALL)


def test_a_mask_that_tells_rows_spares_the_work_on_what_is_missing(tmp_path):
    model, sizes = make_multimodal(tmp_path), []
    model.vision.register_forward_hook(lambda module, given, result: sizes.append((given[1], len(given[0]))))
    model.train()(inputs_of(model), MISSING | {"cp": torch.zeros(BATCH, dtype=torch.bool)})
    assert sizes == [("vis", 3), ("nir", 2), ("sk", 1)]


def test_padding_of_captions_that_no_row_needs_is_not_read(tmp_path):
    model, lengths = make_multimodal(tmp_path), []
    model.text.token_embedding.register_forward_hook(lambda _, given, result: lengths.append(result.shape[1]))
    text = inputs_of(model)["text"]
    with torch.no_grad():
        z = model.encode("text", text)
        torch.testing.assert_close(model.encode_batch({"modalities": {"text": text}}), z, **bounds(1000, 5.0))
    assert lengths == [CAPTION, 12]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda model, x: model.embed({"ir": x["nir"]}), "'ir' is no modality of this model, which has vis, nir"),
        (lambda model, x: model.encode("sk", x["vis"]), "'sk' is no modality of this model, which has vis, nir"),
        (lambda model, x: model.train()({}), "no modality is given to this model, which has vis, nir"),
        (lambda model, x: model.encode_batch({"modalities": x}), "a batch of vis, nir, expected items of one modality"),
        (lambda model, x: model.merged_visual("text"), "'text' is no modality of images of this model, which has vis"),
    ],
)
def test_a_modality_that_the_model_lacks_is_quoted(tmp_path, call, words):
    model = make_multimodal(tmp_path, *TWO)
    with pytest.raises(ValueError, match=words):
        call(model, inputs_of(model))


def test_captions_that_are_too_long_are_one_clear_error(tmp_path):
    model = make_multimodal(tmp_path, "INPUT.TEXT.LENGTH", 10)
    text = torch.ones(2, 11, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"captions of 11 tokens for a model of 10 \(INPUT.TEXT.LENGTH\)"):
        model.encode("text", text)


def test_features_are_at_least_float32_under_autocast(tmp_path):
    model = make_multimodal(tmp_path)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model.train()(inputs_of(model), MISSING)
        with torch.no_grad():
            embedding = model.eval()(inputs_of(model), MISSING)
            z = model.encode("nir", inputs_of(model)["nir"])
    assert {x.dtype for x in (*output.pre_bn, *output.bnneck, embedding, z)} == {torch.float32}


def test_what_training_alone_reads_can_go(tmp_path):
    model = make_multimodal(tmp_path)
    inputs = inputs_of(model)
    with torch.no_grad():
        before = model(inputs)
        model.keep_embedding_only()
        assert torch.equal(model(inputs), before) and "classifier.weight" not in model.state_dict()


def test_statistics_of_the_neck_are_of_all_valid_rows_of_all_sets(tmp_path):
    model = make_multimodal(tmp_path, first=True).train()
    output = model(inputs_of(model), MISSING)
    rows = torch.stack(output.pre_bn, 1)[output.extra["valid"]].double()
    mean = 0.1 * rows.mean(0)
    assert_near(model.bottleneck.running_mean, mean)
    assert_near(model.bottleneck.running_var, 0.9 + 0.1 * rows.var(0))


def test_dropouts_act_where_they_are_asked_for(tmp_path):
    opts = ("MODEL.MULTIMODAL.DROPOUT", 0.4, "MODEL.MULTIMODAL.HEAD_DROPOUT", 0.7, "MODEL.DROP_PATH", 0.3, *SEMANTIC)
    model = make_multimodal(tmp_path, *opts)
    dropped = {name: module.p for name, module in model.named_modules() if isinstance(module, nn.Dropout)}
    assert dropped == {"head_dropout": 0.7, "fusion.mlp.3": 0.4, "fusion.mlp.5": 0.4, "semantic.proj.3": 0.4}
    assert model.fusion.attn.dropout == 0.4
    rates = [getattr(block.drop_1, "drop_prob", 0.0) for block in model.vision.blocks]
    assert (
        rates == pytest.approx([0.0, 0.15, 0.3]) == [getattr(b.drop_2, "drop_prob", 0.0) for b in model.vision.blocks]
    )
    inputs = inputs_of(model)
    with torch.no_grad():
        assert torch.equal(model(inputs), model(inputs))
        one, other = (model.train()(inputs).pre_bn[0] for _ in range(2))
    assert not torch.equal(one, other)


def kinds_of(model: nn.Module) -> dict[str, Part]:
    return {name: model.part_of(name) for name, _ in model.named_parameters()}


def test_trunk_is_what_clip_brings_and_all_modalities_share(tmp_path):
    model = make_multimodal(tmp_path, *SEMANTIC)
    parts = kinds_of(model)
    trunk = {name for name, part in parts.items() if part.kind == "trunk"}
    own = {n for n in parts if n.startswith("text.") and n != "text.text_projection"}
    own |= {n for n in parts if n.startswith(("vision.blocks.", "vision.ln_post.")) and ".lora_" not in n}
    assert trunk == own and {name for name, part in parts.items() if part.kind == "head"} == {"classifier.weight"}
    assert all(part.alike for part in parts.values() if part.kind == "new")
    layers = {
        "vision.tokenizers.sk.ln_pre.bias": 0,
        "text.token_embedding.weight": 0,
        "vision.blocks.0.fc1.lora_a.vis": 1,
        "vision.blocks.2.ln_1.weight": 3,
        "text.transformer.resblocks.1.ln_1.weight": 2,
        **dict.fromkeys(("vision.ln_post.bias", "vision.proj", "text.text_projection", "fusion.norm1.weight"), 4),
        **dict.fromkeys(("semantic.out.bias", "bottleneck.weight", "classifier.weight"), 4),
    }
    assert {name: parts[name].layer for name in layers} == layers


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_frozen_is_the_trunk_of_the_tower_that_is_asked_for(tmp_path, text, shared):
    opts = ("MODEL.MULTIMODAL.FREEZE_TEXT", text, "MODEL.MULTIMODAL.FREEZE_SHARED", shared)
    model = make_multimodal(tmp_path, *opts)
    frozen = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    trunk = {name for name, part in kinds_of(model).items() if part.kind == "trunk"}
    expected = {
        name for name in trunk if (text and name.startswith("text.")) or (shared and name.startswith("vision."))
    }
    assert frozen == expected | {"bottleneck.bias"}
    gradients = trained_step(model, inputs_of(model), None)[1]
    assert gradients.keys() == {name for name, _ in model.named_parameters()} - frozen
    assert all(gradients[name].any() for name in gradients if ".lora_b." in name)


def test_full_size_has_the_published_numbers_of_parameters(tmp_path):
    opts = ("MODEL.CLIP_BACKBONE", "ViT-B-16-quickgelu", "INPUT.SIZE_TRAIN", FULL_SIZE, "INPUT.SIZE_TEST", FULL_SIZE)
    with torch.device("meta"):
        model = make_model(multimodal_cfg("", *opts, "MODEL.MULTIMODAL.HEADS", 8), 400, 1, 1)
    sizes = {name: weight.numel() for name, weight in model.named_parameters()}
    adapters = [count for name, count in sizes.items() if ".lora_" in name]
    assert len(adapters) == 576 and sum(adapters) == 2_654_208
    tokenizers = [sum(n for name, n in sizes.items() if name.startswith(f"vision.tokenizers.{m}.")) for m in OF_IMAGES]
    assert tokenizers == [768 * (3 * 256 + 1 + 193 + 2)] * 4  # patches, class token, 24 x 8 + 1 positions, norm
    clip = sum(sizes.values()) - sum(adapters) - sum(tokenizers[1:])
    clip -= sum(n for name, n in sizes.items() if name.startswith(("fusion.", "bottleneck.", "classifier.")))
    assert clip == 149_620_736 - 4 * 768  # of CLIP without its scale, whose table here has four rows less
    assert len(model.sets) == 16 and model.feat_dim == 512


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (("MODEL.MULTIMODAL.HEADS", 5), "MODEL.MULTIMODAL.HEADS 5 does not divide 24"),
        (("MODEL.MULTIMODAL.RANK", 33), "MODEL.MULTIMODAL.RANK got 33, allowed: 1 to 32"),
    ],
)
def test_settings_that_do_not_fit_the_clip_are_refused(tmp_path, opts, words):
    with pytest.raises(ConfigError, match=words):
        make_multimodal(tmp_path, *opts)


@pytest.mark.parametrize(
    ("vision", "words"),
    [
        ({**VIT, "head_width": 24}, "heads of head_width 24 do not fill the width 32"),
        ({"image_size": 32, "layers": [1, 1, 1, 1], "width": 16, "head_width": 64}, "names a ResNet"),
    ],
)
def test_clip_that_cannot_serve_is_refused(tmp_path, vision, words):
    path = write_clip(tmp_path, vision)
    for opts in ((), TWO):
        with pytest.raises(ConfigError, match=words):
            make_model(multimodal_cfg(path, *opts), CLASSES, 1, 1)


def test_text_tower_is_built_where_captions_are_read_alone(tmp_path):
    path = Path(write_clip(tmp_path, VIT))
    path.write_text(path.read_text().replace("text_cfg", "other_cfg"))
    assert make_model(multimodal_cfg(str(path), *TWO), CLASSES, 1, 1).text is None
    with pytest.raises(ConfigError, match="text_cfg.*the modality text of MODEL.NAME multimodal.*leave text out"):
        make_model(multimodal_cfg(str(path)), CLASSES, 1, 1)
