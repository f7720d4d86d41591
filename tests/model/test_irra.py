"""IRRA's features, guesses and attention against the formulas in float64."""

import pytest
import torch
from torch import nn

from tests.model.builds import images
from tests.model.clip_reids import EMBED, assert_near, in_float64
from tests.model.irras import CLASSES, EVERY, HEADS, SIZE, captions, make_irra, masked
from tests.reference import slow_irra as slow
from utils.errors import ConfigError

BATCH = 3
PLACES = ((0, 1), (1, 4), (1, 9), (2, 1))  # row by row
BATCHES = {"as they come": 77, "cut by the caller": 12}
SWITCHES = {"padding counts": False, "padding is masked": True}


def patches_of(model: nn.Module, batch: torch.Tensor, stride: int = 16) -> torch.Tensor:
    return slow.image_tokens(in_float64(model), batch.double(), (stride, stride), HEADS["image"])


def logits_of(
    model: nn.Module, batch: torch.Tensor, ids: torch.Tensor, labels: torch.Tensor, padding: bool
) -> torch.Tensor:
    """What the formulas make of whole captions of 77 tokens."""
    state, patches = in_float64(model), patches_of(model, batch)
    rows = zip(ids.tolist(), labels.tolist(), patches, strict=True)
    return torch.cat([slow.word_logits(state, *row, HEADS["text"], padding) for row in rows])


@pytest.mark.parametrize("stride", [16, 12])
def test_feature_of_an_image_is_its_class_token(tmp_path, stride):
    model, batch = make_irra(tmp_path, "MODEL.STRIDE_SIZE", [stride, stride]), images(BATCH, SIZE)
    with torch.no_grad():
        got = model(batch)
        tokens = model.base_model.image_tokens(batch)
        assert torch.equal(got, model.encode_image(batch)) and torch.equal(got, model.embed_batch({"images": batch}))
    expected = patches_of(model, batch, stride)
    assert got.shape == (BATCH, EMBED) and model.branches == {"global": EMBED} and model.feat_dim == EMBED
    assert_near(got, expected[:, 0])
    assert_near(tokens, expected)


def test_feature_of_a_caption_is_its_end_token_whatever_padding_follows(tmp_path):
    model, ids = make_irra(tmp_path), captions()
    expected = slow.text_features(in_float64(model), ids.tolist(), HEADS["text"])
    with torch.no_grad():
        for given in (ids, ids[:, :20], ids[:, :12]):
            assert_near(model.encode_text(given), expected)
            assert_near(model.embed_batch({"caption_ids": given}), expected)
        assert_near(model.encode_text(ids[2:, :3]), expected[2:])


def test_image_wins_in_a_batch_of_both(tmp_path):
    model, batch = make_irra(tmp_path), {"images": images(BATCH, SIZE), "caption_ids": captions()}
    with torch.no_grad():
        assert torch.equal(model.embed_batch(batch), model.encode_image(batch["images"]))


@pytest.mark.parametrize("length", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("padding", SWITCHES.values(), ids=SWITCHES)
def test_training_output_is_the_formulas(tmp_path, padding, length):
    model, batch, ids = make_irra(tmp_path, "MODEL.CMT_MASK_PADDING", padding), images(BATCH, SIZE), captions()
    hidden, labels = masked(ids, PLACES)
    output = model.train()(batch, ids[:, :length], hidden[:, :length], labels[:, :length])
    state = in_float64(model)
    image, text = patches_of(model, batch)[:, 0], slow.text_features(state, ids.tolist(), HEADS["text"])
    for got in (output.pre_bn, output.bnneck):
        assert len(got) == 2
        assert_near(got[0], image, "images")
        assert_near(got[1], text, "captions")
    for got, feature in zip(output.logits, (image, text), strict=True):
        assert got.shape == (BATCH, CLASSES)
        assert_near(got, slow.linear(feature, state, "classifier"))
    assert output.projection is None and set(output.extra) == {"mlm_logits", "mlm_targets"}
    assert output.extra["mlm_targets"].tolist() == [ids[place].item() for place in PLACES]
    assert_near(output.extra["mlm_logits"], logits_of(model, batch, hidden, labels, padding), "guesses")


def test_padding_changes_guesses_unless_it_is_masked(tmp_path):
    model, batch, ids = make_irra(tmp_path), images(BATCH, SIZE), captions()
    hidden, labels = masked(ids, PLACES)
    counted, left_out = (logits_of(model, batch, hidden, labels, padding) for padding in (False, True))
    assert (counted - left_out).norm() > 1e-3 * left_out.norm()


def test_features_of_masked_captions_where_that_is_asked_for(tmp_path):
    model, batch, ids = make_irra(tmp_path, "INPUT.TEXT.MASK_CAPTION", True), images(BATCH, SIZE), captions()
    hidden, labels = masked(ids, PLACES)
    output = model.train()(batch, ids, hidden, labels)
    assert_near(output.pre_bn[1], slow.text_features(in_float64(model), hidden.tolist(), HEADS["text"]))
    assert_near(output.extra["mlm_logits"], logits_of(model, batch, hidden, labels, False))
    assert torch.equal(model(batch, ids).pre_bn[1], model.encode_text(ids[:, :12]))


@pytest.mark.parametrize(("mask_caption", "calls"), [(True, 1), (False, 2)])
def test_one_forward_of_the_text_tower_serves_both_where_it_can(tmp_path, mask_caption, calls):
    model, ids, seen = make_irra(tmp_path, "INPUT.TEXT.MASK_CAPTION", mask_caption), captions(), []
    model.base_model.token_embedding.register_forward_hook(lambda *call: seen.append(call))
    model.train()(images(BATCH, SIZE), ids, *masked(ids, PLACES))
    assert len(seen) == calls


def test_padding_is_left_out_where_nothing_reads_it(tmp_path):
    ids, lengths = captions(), []
    for opts in ((), ("MODEL.CMT_MASK_PADDING", True)):
        model = make_irra(tmp_path, *opts).train()
        model.base_model.token_embedding.register_forward_hook(lambda _, given, result: lengths.append(result.shape[1]))
        model(images(BATCH, SIZE), ids, *masked(ids, PLACES))
    assert sorted(lengths) == [12, 12, 12, 77]


def test_no_word_asked_for_gives_no_row_and_gradients_of_zero(tmp_path):
    model, ids = make_irra(tmp_path).train(), captions()
    extra = model(images(BATCH, SIZE), ids, ids, torch.zeros_like(ids)).extra
    assert extra["mlm_logits"].shape == (0, 49408) and extra["mlm_targets"].shape == (0,)
    extra["mlm_logits"].sum().backward()
    assert model.mlm_head.fc.weight.grad.count_nonzero() == 0


@pytest.mark.parametrize("opts", [(), ("INPUT.TEXT.MASK_CAPTION", True), ("MODEL.CMT_MASK_PADDING", True)])
def test_without_labels_nothing_is_guessed_and_all_that_guesses_has_a_gradient_of_zero(tmp_path, opts):
    model, batch, ids, ran = make_irra(tmp_path, *opts).train(), images(BATCH, SIZE), captions(), []
    hidden, labels = masked(ids, PLACES)
    expected = model(batch, ids, hidden, labels)
    for part in (model.cross_attn, model.cross_modal_transformer, model.mlm_head):
        part.register_forward_hook(lambda *call: ran.append(call))
    output = model(batch, ids, hidden)
    assert not ran and output.extra.keys() == {"mlm_logits"} and output.extra["mlm_logits"].shape == (0, 49408)
    for got, wanted in zip(output.pre_bn + output.logits, expected.pre_bn + expected.logits, strict=True):
        assert_near(got, wanted.double())
    output.extra["mlm_logits"].sum().backward()
    reached = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert reached == {n for n, _ in model.named_parameters() if not n.startswith(("base_model", "classifier"))}
    assert not any(weight.grad.any() for weight in model.parameters() if weight.grad is not None)


def test_captions_that_are_too_long_are_one_clear_error(tmp_path):
    model, batch = make_irra(tmp_path, "INPUT.TEXT.LENGTH", 12), images(BATCH, SIZE)
    ids, words = captions(length=13), r"captions of 13 tokens for a model of 12 \(INPUT.TEXT.LENGTH\); datasets.tokens"
    with pytest.raises(ValueError, match=words):
        model.encode_text(ids)
    with pytest.raises(ValueError, match=words):
        model.embed_batch({"caption_ids": ids})
    for opts in ((), ("MODEL.CMT_MASK_PADDING", True)):
        model = make_irra(tmp_path, "INPUT.TEXT.LENGTH", 12, *opts).train()
        with pytest.raises(ValueError, match=words):
            model(batch, ids[:, :12], *masked(ids, PLACES))
    assert model.encode_text(ids[:, :12]).shape == (BATCH, EMBED)


def test_labels_of_captions_that_are_not_there_are_one_clear_error(tmp_path):
    ids = captions()
    with pytest.raises(ValueError, match="mlm_labels without mlm_ids"):
        make_irra(tmp_path).train()(images(BATCH, SIZE), ids, mlm_labels=ids)


def test_guesses_teach_both_towers(tmp_path):
    model, ids = make_irra(tmp_path).train(), captions()
    model(images(BATCH, SIZE), ids, *masked(ids, PLACES)).extra["mlm_logits"].square().sum().backward()
    taught = {name for name, weight in model.named_parameters() if weight.grad is not None and weight.grad.any()}
    assert {name for name, _ in model.named_parameters()} - taught == {"classifier.weight", "classifier.bias"}


def test_words_look_at_patches_as_the_formula_says(tmp_path):
    model, batch, ids = make_irra(tmp_path), images(BATCH, SIZE), captions()
    with torch.no_grad():
        got = model.word_attention(batch, ids)
    state = in_float64(model)
    assert got.shape == (BATCH, 77, 6)
    for row, (caption, patches) in enumerate(zip(ids.tolist(), patches_of(model, batch), strict=True)):
        shares = slow.cross_attention(state, slow.words(state, caption, HEADS["text"]), patches)[1]
        assert_near(got[row], shares.mean(0)[:, 1:])


def test_words_of_a_model_without_guesses_look_at_nothing(tmp_path):
    with pytest.raises(ConfigError, match="LOSS.TEXT.NAMES has no mlm"):
        make_irra(tmp_path, "LOSS.TEXT.NAMES", ["itc"]).word_attention(images(BATCH, SIZE), captions())


@pytest.mark.parametrize(
    ("names", "logits", "extra"), [(EVERY, 2, True), (["sdm", "id"], 2, False), (["itc"], 0, False), (["mlm"], 0, True)]
)
def test_only_parts_that_the_losses_need_exist(tmp_path, names, logits, extra):
    model, ids = make_irra(tmp_path, "LOSS.TEXT.NAMES", names).train(), captions()
    output = model(images(BATCH, SIZE), ids, *masked(ids, PLACES))
    assert len(output.logits) == logits and bool(output.extra) == extra
    parts = {name.split(".")[0] for name in model.state_dict()}
    cross = {"cross_attn", "cross_modal_transformer", "ln_pre_t", "ln_pre_i", "ln_post", "mlm_head"}
    assert parts == {"base_model"} | ({"classifier"} if logits else set()) | (cross if extra else set())


def test_what_training_alone_reads_can_go(tmp_path):
    model, batch, ids = make_irra(tmp_path), images(BATCH, SIZE), captions()
    with torch.no_grad():
        before = model(batch), model.encode_text(ids)
        model.keep_embedding_only()
        assert {name.split(".")[0] for name in model.state_dict()} == {"base_model"}
        assert torch.equal(model(batch), before[0]) and torch.equal(model.encode_text(ids), before[1])


def test_features_are_at_least_float32_under_autocast(tmp_path):
    model, ids = make_irra(tmp_path).train(), captions()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(images(BATCH, SIZE), ids, *masked(ids, PLACES))
    assert {feature.dtype for feature in output.pre_bn} == {torch.float32}
