import math

import open_clip
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from open_clip.tokenizer import SimpleTokenizer

from datasets.tokens import (
    END_ID,
    LENGTH,
    MASK_ID,
    START_ID,
    count_tokens,
    mask_tokens,
    spelled,
    tokenize,
    tokenize_all,
    words_of,
)

CAPTION = "A woman in a red coat with a black bag."
PUBLISHED = SimpleTokenizer()
SIGMAS = 6  # of a binomial count: 2 in a billion


def masked(rows: int, seed: int = 0, caption: str = CAPTION, **shares: float) -> tuple[torch.Tensor, ...]:
    """Return the tokens of `rows` equal captions, masked, and their labels, all [rows, LENGTH]."""
    ids = tokenize(caption).expand(rows, LENGTH)
    return ids, *mask_tokens(ids, torch.Generator().manual_seed(seed), **shares)


def close(count: int, draws: int, share: float) -> bool:
    return abs(count - draws * share) <= SIGMAS * math.sqrt(draws * share * (1 - share)) + 1e-9


def test_the_tokens_of_a_caption_are_those_that_clip_was_trained_with():
    # "a photo of a cat", from OpenAI's own tokenizer
    assert tokenize("a photo of a cat", 9).tolist() == [49406, 320, 1125, 539, 320, 2368, 49407, 0, 0]


@pytest.mark.parametrize(
    "caption",
    [
        CAPTION,
        "He's 25 -- wearing (dark) T-shirt & shoes!!  \t two\nlines",
        "caf\u00e9 &amp;amp; bar &lt;b&gt; \u201cquoted\u201d \u2014 na\u00efve",
        "&amp;lt; twice escaped",
        "schÃ¶n",
        "<end_of_text> <start_of_text>",
        "",
        "   ",
        "\u98a8 \U0001f600",
        "a\x1b[31mb\x00c",
        "word " * 100,
    ],
)
def test_captions_have_the_tokens_of_open_clip(caption):
    expected = open_clip.get_tokenizer("ViT-B-16")([caption])[0]
    assert torch.equal(tokenize(caption), expected)
    assert tokenize(caption).dtype == torch.int64


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_any_text_has_the_tokens_of_open_clip(caption):
    words = PUBLISHED.encode(caption)
    assert MASK_ID not in tokenize(caption).tolist()
    if MASK_ID not in words:
        assert tokenize(caption)[: len(words) + 2].tolist() == [START_ID, *words, END_ID][:LENGTH]
        assert count_tokens(caption) == len(words) + 2


@given(st.text(st.sampled_from("ab '&;<lt\t.3"), max_size=30))
def test_plain_captions_have_the_tokens_of_open_clip(caption):
    assert tokenize(caption, 64)[: count_tokens(caption)].tolist() == [START_ID, *PUBLISHED.encode(caption), END_ID]


def test_no_word_is_the_mask_and_jekyll_keeps_its_letters():
    assert PUBLISHED.encode("jekyll") == [MASK_ID]
    words = tokenize("Dr. Jekyll, jekyll's jekylls")
    assert MASK_ID not in words.tolist()
    assert PUBLISHED.decode([word for word in words.tolist() if word not in (START_ID, END_ID, 0)]) == (
        "dr . jekyll , jekyll 's jekylls "
    )


def test_a_long_caption_loses_its_last_words_and_not_its_end():
    whole, cut = tokenize("red blue green black", 6), tokenize("red blue green black", 4)
    assert torch.equal(cut, torch.cat([whole[:3], torch.tensor([END_ID])]))
    assert count_tokens("red blue green black") == 6
    assert tokenize("red", 2).tolist() == [START_ID, END_ID]
    with pytest.raises(ValueError, match="length must be at least 2"):
        tokenize("red", 1)


def test_many_captions_are_the_rows_of_each():
    captions = [CAPTION, "", "a man"]
    assert torch.equal(tokenize_all(captions, 9), torch.stack([tokenize(caption, 9) for caption in captions]))
    assert tokenize_all([], 9).shape == (0, 9)


def test_masking_leaves_the_caption_as_it_was_and_follows_the_generator():
    ids = tokenize(CAPTION)
    before = ids.clone()
    first = mask_tokens(ids, torch.Generator().manual_seed(3))
    again = mask_tokens(ids, torch.Generator().manual_seed(3))
    other = [mask_tokens(ids, torch.Generator().manual_seed(seed))[1] for seed in range(20)]
    assert torch.equal(ids, before)
    assert all(torch.equal(one, two) and one.dtype == torch.int64 for one, two in zip(first, again, strict=True))
    assert not all(torch.equal(first[1], labels) for labels in other)


def test_start_end_and_padding_stay_and_labels_are_the_words_that_stood_there():
    ids, mlm_ids, labels = masked(2000, rate=0.6)
    is_word = (ids > 0) & (ids < MASK_ID)
    assert torch.equal(mlm_ids[~is_word], ids[~is_word]) and not labels[~is_word].any()
    assert torch.equal(labels[labels > 0], ids[labels > 0])
    assert torch.equal(mlm_ids[labels == 0], ids[labels == 0])
    assert torch.equal(mlm_ids.argmax(dim=-1), ids.argmax(dim=-1))  # the end token stays the largest
    assert mlm_ids.min() >= 0 and mlm_ids[is_word].min() >= 1


def test_shares_of_masked_replaced_and_kept_words_are_those_asked_for():
    rate, mask_share, keep_share = 0.3, 0.5, 0.2
    ids, mlm_ids, labels = masked(20_000, rate=rate, mask_share=mask_share, keep_share=keep_share)
    asked = labels[:, 2:12] > 0  # without the first word, which may be forced
    words, became = ids[:, 2:12][asked], mlm_ids[:, 2:12][asked]
    assert close(int(asked.sum()), asked.numel(), rate)
    assert close(int((became == MASK_ID).sum()), len(words), mask_share)
    assert close(int((became == words).sum()), len(words), keep_share + (1 - mask_share - keep_share) / (MASK_ID - 1))


def test_replacements_are_drawn_from_all_words_alike():
    _, mlm_ids, labels = masked(30_000, rate=1.0, mask_share=0.0, keep_share=0.0)
    drawn = mlm_ids[labels > 0]
    assert drawn.min() >= 1 and drawn.max() < MASK_ID
    for quarter in range(4):
        low, high = 1 + quarter * (MASK_ID - 1) // 4, 1 + (quarter + 1) * (MASK_ID - 1) // 4
        assert close(int(((drawn >= low) & (drawn < high)).sum()), len(drawn), (high - low) / (MASK_ID - 1))


@pytest.mark.parametrize(("caption", "words"), [("man", 1), ("a man", 2), (CAPTION, 11)])
def test_the_first_word_is_asked_for_where_no_word_was_drawn(caption, words):
    _, mlm_ids, labels = masked(20_000, caption=caption)
    assert (labels > 0).any(dim=-1).all()
    assert close(int((labels[:, 1] > 0).sum()), len(labels), 0.15 + 0.85**words)
    never = mask_tokens(tokenize(caption), rate=0.0)
    assert never[0][1] == MASK_ID and (never[1] > 0).sum() == 1


def test_without_words_nothing_is_asked_for():
    ids = tokenize("")
    mlm_ids, labels = mask_tokens(ids, rate=1.0)
    assert torch.equal(mlm_ids, ids) and not labels.any()


def test_a_mask_in_the_caption_is_no_word_and_the_first_word_behind_it_is_forced():
    ids = torch.tensor([START_ID, MASK_ID, 320, 786, END_ID])
    mlm_ids, labels = mask_tokens(ids, rate=0.0)
    assert mlm_ids.tolist() == [START_ID, MASK_ID, MASK_ID, 786, END_ID]
    assert labels.tolist() == [0, 0, 320, 0, 0]


def test_shares_above_one_are_refused():
    with pytest.raises(ValueError, match="mask_share 0.8 and keep_share 0.3 exceed 1"):
        mask_tokens(tokenize(CAPTION), mask_share=0.8, keep_share=0.3)


@pytest.mark.parametrize("length", [77, 6, 3])
@pytest.mark.parametrize("caption", [CAPTION, "", "A woman's overcoat, 23 jekyll & naïve café 车", "?!"])
def test_words_are_spelled_with_the_places_of_their_tokens(caption, length):
    ids, found = tokenize(caption, length).tolist(), spelled(caption, length)
    assert [place for _, places in found for place in places] == [*range(1, ids.index(END_ID))]
    for word, places in found[:-1]:  # the last one may be cut
        assert words_of(word) == [ids[place] for place in places]


def test_tokens_of_one_word_are_joined_and_digits_stand_alone():
    words = [word for word, _ in spelled("A Woman's overcoats, 23 jekyll")]
    assert words == ["a", "woman", "'s", "overcoats", ",", "2", "3", "jekyll"]
