"""Names of modalities and of sets of them: what users write, and what is meant."""

import pytest

from configs.modalities import (
    ALIASES,
    MODALITIES,
    group_name,
    in_order,
    is_modality,
    modality_of,
    parse_set,
    set_name,
    sets_of,
)

THE_15 = (
    *("NIR", "SK", "CP", "TEXT", "NIR+SK", "NIR+CP", "NIR+TEXT", "SK+CP", "SK+TEXT", "CP+TEXT"),
    *("NIR+SK+CP", "NIR+SK+TEXT", "NIR+CP+TEXT", "SK+CP+TEXT", "NIR+SK+CP+TEXT"),
)


def test_sets_are_rgb_and_fifteen_of_a_query():
    assert [set_name(names) for names in sets_of(MODALITIES)] == ["VIS", *THE_15]


@pytest.mark.parametrize("given", [("text", "vis"), ("vis", "text")])
def test_sets_of_some_modalities_stand_in_the_order_of_all(given):
    assert sets_of(given) == (("vis",), ("text",))
    assert sets_of((*given, "nir"))[1:] == (("nir",), ("text",), ("nir", "text"))


@pytest.mark.parametrize(
    ("word", "expected"),
    [("RGB", "vis"), ("Infrared", "nir"), ("sketch", "sk"), ("CPencil", "cp"), ("Caption", "text"), ("NIR", "nir")],
)
def test_users_names_mean_modalities_in_any_case(word, expected):
    assert modality_of(word) == expected and is_modality(word)


def test_every_name_means_a_modality_and_none_two():
    assert set(ALIASES.values()) <= set(MODALITIES) and not set(ALIASES) & set(MODALITIES)
    assert ALIASES == {
        **{"rgb": "vis", "visible": "vis", "v": "vis", "ir": "nir", "infrared": "nir", "sketch": "sk"},
        **{"cpencil": "cp", "colorpencil": "cp", "coloredpencil": "cp", "txt": "text", "caption": "text"},
    }


@pytest.mark.parametrize("word", ["thermal", "", "vis "])
def test_unknown_word_is_quoted(word):
    assert not is_modality(word)
    with pytest.raises(ValueError, match=f"'{word}' is no modality; there are vis, nir, sk, cp, text"):
        modality_of(word)


@pytest.mark.parametrize(("name", "expected"), [("NIR+TEXT", ("nir", "text")), ("txt + ir", ("text", "nir"))])
def test_a_set_is_read_in_its_order(name, expected):
    assert parse_set(name) == expected
    assert parse_set(set_name(expected)) == expected


@pytest.mark.parametrize(("name", "words"), [("NIR+ir", "names a modality twice"), ("NIR+", "'' is no modality")])
def test_a_set_that_is_none_is_refused(name, words):
    with pytest.raises(ValueError, match=words.replace("+", r"\+")):
        parse_set(name)


def test_modalities_are_put_in_order_by_their_own_names_and_other_words_stay():
    assert in_order(("txt", "RGB", "ir")) == ("vis", "nir", "text")
    assert in_order(("thermal", "rgb", "vis")) == ("vis", "vis", "thermal") and in_order(()) == ()


def test_group_of_a_size():
    assert [group_name(size) for size in (1, 4)] == ["MM-1", "MM-4"]
