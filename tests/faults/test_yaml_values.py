"""A value in a YAML is what stands there: text as written, numbers plain; and what a run keeps comes back."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yacs.config import CfgNode

from configs import load_cfg, restore_cfg
from configs.values import value_of
from utils.errors import ConfigError

pytestmark = pytest.mark.fault("bad input: YAML values")
RESNET = "MODEL:\n  NAME: resnet50\n"


def loaded(folder: Path, key: str, written: str) -> object:
    section, _, leaf = key.rpartition(".")
    lines = f"{leaf}: {written}\n" if not section else "".join(nested(section, f"{leaf}: {written}"))
    path = folder / "x.yml"
    path.write_text(RESNET + lines, encoding="utf-8")
    return value_of(load_cfg(path), key)


def nested(section: str, line: str) -> str:
    parts = section.split(".")
    heads = [f"{'  ' * depth}{part}:\n" for depth, part in enumerate(parts)]
    return "".join(heads) + f"{'  ' * len(parts)}{line}\n"


AS_WRITTEN = (
    *("0012", "012", "1_000", "1_0", "0x10", "0b1", "0o17", "10:30", "190:20:30", "1:2", "1.10", "1e5", "1E5", "+1"),
    *("2024-01-01", "2001-12-14t21:59:43.10-05:00", ".inf", "-.inf", ".nan", "yes", "no", "on", "off", "y", "n", "Yes"),
    *("True", "false", "None", "=", "<<", "NaN", "a b", "a#b", "C:\\data", "~/runs", "~nobody/x", "nulls", "é", "😀"),
    *("-1", "1,2", "1.", ".5", "00", "1__0", "0x", "(a)", "u'x", "b", "[x", "%x"),
)


@pytest.mark.parametrize("text", [text for text in AS_WRITTEN if text not in ("[x", "%x")])
def test_text_stays_as_it_is_written(tmp_path, text):
    assert loaded(tmp_path, "OUTPUT_DIR", text) == text


@pytest.mark.parametrize("text", ["~", "null", "[x", "%x", "'x'", "('x')", "- a", "# x", "&a", "*a", "!x", "a: b"])
def test_text_in_quotes_is_kept_whatever_it_looks_like(tmp_path, text):
    doubled = text.replace("'", "''")
    assert loaded(tmp_path, "OUTPUT_DIR", f"'{doubled}'") == text


def test_a_python_string_without_quotes_of_yaml_is_read_as_yacs_does(tmp_path):
    assert loaded(tmp_path, "OUTPUT_DIR", "('logs/x')") == "logs/x"
    assert loaded(tmp_path, "DATASETS.NAMES", "('veri')") == ("veri",)
    assert loaded(tmp_path, "DATASETS.VIEW_FILES", "[0012, 1e5, 2024-01-01, yes]") == (
        "0012",
        "1e5",
        "2024-01-01",
        "yes",
    )


@pytest.mark.parametrize("null", ["~", "null", "Null", "NULL"])
def test_a_null_is_no_text(tmp_path, null):
    with pytest.raises(ConfigError, match="x.yml:3: OUTPUT_DIR got .* means nothing in YAML; write '' for none"):
        loaded(tmp_path, "OUTPUT_DIR", null)


@pytest.mark.parametrize(
    ("written", "number"),
    [("120", 120), ("1_000", 1000), ("0x10", 16), ("0b11", 3), ("0o17", 15), ("'7'", 7), ("+5", 5), ("!!int 9", 9)],
)
def test_a_number_that_means_one_thing_is_read(tmp_path, written, number):
    assert loaded(tmp_path, "SOLVER.MAX_EPOCHS", written) == number


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("0120", "write 120 or 0o120"),
        ("+0120", "write +120 or +0o120"),
        ("0_120", "write 120 or 0o120"),
        ("089", "write 89"),
        ("10:30", "write it without ':'"),
        ("1:30:00", "write it without ':'"),
        ("2024-01-01", "expected a whole number"),
        ("1e3", "expected a whole number"),
        ("12.0", "expected a whole number"),
        (".inf", "expected a whole number"),
        ("yes", "expected a whole number"),
        ("True", "expected a whole number"),
        ("~", "has no value"),
        ("null", "has no value"),
        ("", "has no value"),
        ("{}", "has no value"),
        ("[3]", "expected a whole number"),
        ("'٣'", "expected a whole number"),
        ("1 000", "expected a whole number"),
        ("1_", "expected a whole number"),
        ("=", "expected a whole number"),
        ("9" * 5000, "expected a whole number"),
        ("9" * 4000, "too large"),
        ("0x" + "f" * 20_000, "too large"),
        ("{a: 1}", "unknown key SOLVER.MAX_EPOCHS.a"),
        ("!!python/object/apply:os.system [ls]", "the tag 'tag:yaml.org,2002:python/object/apply:os.system'"),
        ("!!binary aGk=", "the tag 'tag:yaml.org,2002:binary' is not read"),
        ("!!timestamp 2024-01-01", "is not read"),
        ("!own 3", "the tag '!own' is not read"),
    ],
)
def test_any_other_number_is_refused_with_what_may_be_meant(tmp_path, written, words):
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, "SOLVER.MAX_EPOCHS", written)
    assert words in str(caught.value) and "x.yml:" in str(caught.value)


@pytest.mark.parametrize("written", [".inf", "-.inf", ".nan", "nan", "inf", "1e400", "1:30", "9" * 400, "1+2j", "0,1"])
def test_a_learning_rate_is_a_finite_number(tmp_path, written):
    with pytest.raises(ConfigError, match=r"x.yml:(4: )?.*SOLVER.BASE_LR got"):
        loaded(tmp_path, "SOLVER.BASE_LR", written)


@pytest.mark.parametrize("word", ["yes", "Yes", "YES", "on", "On", "true", "True", "TRUE", "'yes'"])
def test_every_word_for_yes_switches_on_and_its_opposite_off(tmp_path, word):
    opposite = {"yes": "no", "on": "off", "true": "false"}[word.strip("'").lower()]
    for key, on, off in (("TEST.FLIP", True, False), ("TEST.FEAT_NORM", "yes", "no")):
        assert loaded(tmp_path, key, word) == on and loaded(tmp_path, key, opposite) == off


@pytest.mark.parametrize("word", ["y", "n", "Y", "1", "0", "tRue", "ja", "[True]", "t", "~"])
def test_a_switch_takes_no_other_word(tmp_path, word):
    with pytest.raises(ConfigError, match="expected True or False|has no value"):
        loaded(tmp_path, "TEST.FLIP", word)


ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=40)


def kept(values: dict[str, object]) -> CfgNode:
    """Return what a run reads again of a configuration with these values, which differ from the defaults."""
    tree = CfgNode({"MODEL": {"NAME": "resnet50"}})
    for key, value in values.items():
        section, _, leaf = key.rpartition(".")
        (tree.setdefault(section, CfgNode()) if section else tree)[leaf] = value
    return restore_cfg(tree.dump(default_flow_style=None), "kept")


@settings(max_examples=40, deadline=None)
@given(ANY_TEXT, st.lists(ANY_TEXT, max_size=3), st.floats(1e-300, 100), st.integers(1, 100_000))
def test_what_a_run_keeps_is_what_is_read_again(text, items, rate, epochs):
    values = {
        "OUTPUT_DIR": text,
        "DATASETS.VIEW_FILES": tuple(items),
        "SOLVER.BASE_LR": rate,
        "SOLVER.MAX_EPOCHS": epochs,
    }
    cfg = kept(values)
    assert {key: value_of(cfg, key) for key in values} == values


@pytest.mark.parametrize(
    "text", [*AS_WRITTEN, "~", "null", "('x')", "'x'", '"x"', "", " ", "\n", "\0", "\x85", "\udcff"]
)
def test_a_kept_text_comes_back(text):
    assert text == kept({"OUTPUT_DIR": text}).OUTPUT_DIR


def test_a_whole_configuration_comes_back():
    cfg = load_cfg("configs/VeRi/vit_transreid.yml", ["OUTPUT_DIR", "('0012')", "TEST.WEIGHT", "1e5"])
    assert (cfg.OUTPUT_DIR, cfg.TEST.WEIGHT) == ("0012", "1e5")
    assert restore_cfg(cfg.dump(), "kept") == restore_cfg(cfg.dump(default_flow_style=None), "kept") == cfg
