"""One way to load for all systems: what a system's rules decide, and the report."""

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from model.weights.load import LoadReport, WeightRules, Weights, load_param, load_weights
from utils.errors import ConfigError, DataError


class Pair(nn.Module):
    """A system of its own: a trunk that embeds, a classifier that does not."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.trunk = nn.Linear(2, 3)
        self.classifier = nn.Linear(3, classes, bias=False)


class PairRules:
    """Its files call the trunk `encoder`; those with a decoder are of its relative."""

    grid = None

    def translate(self, weights: Weights) -> Weights:
        return {name.replace("encoder.", "trunk."): value for name, value in weights.items()}

    def deciding_keys(self, name: str) -> str:
        return "PAIR.WIDTH decides it" if name.startswith("trunk.") else ""

    def refusal(self, weights: Weights) -> str:
        return " has a decoder; set PAIR.DECODER True" if any("decoder" in name for name in weights) else ""

    def warnings(self, report: LoadReport) -> list[str]:
        return [f"{name} is not used here" for name in report.surplus]


RULES: WeightRules = PairRules()


def write(folder: Path, **weights: torch.Tensor | None) -> str:
    """Write a file of `Pair`, with these weights in place of its own or, where None, without them."""
    state = {"encoder.weight": torch.ones(3, 2), "encoder.bias": torch.ones(3), "classifier.weight": torch.ones(2, 3)}
    path = folder / "pair.pth"
    torch.save({k: v for k, v in (state | weights).items() if v is not None}, path)
    return str(path)


def test_a_system_is_loaded_by_its_own_rules_alone(tmp_path, caplog):
    model, path = Pair(), write(tmp_path)
    with caplog.at_level(logging.INFO):
        report = load_param(model, RULES, path)
    assert report == LoadReport(f"TEST.WEIGHT '{path}'", tuple(model.state_dict()), (), (), (), {})
    assert all(torch.equal(value, torch.ones_like(value)) for value in model.state_dict().values())
    assert [record.levelno for record in caplog.records] == [logging.INFO] and caplog.records[0].msg == "%s"
    assert caplog.records[0].getMessage() == str(report) == f"TEST.WEIGHT '{path}': 3 weights matched"


def test_warnings_of_the_rules_end_the_report_and_raise_its_level(tmp_path, caplog):
    report = load_param(Pair(), RULES, write(tmp_path, other=torch.ones(1)), "KEY")
    assert report.warnings == ("other is not used here",) and str(report).endswith("; other is not used here")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_what_no_embedding_needs_may_differ(tmp_path):
    report = load_param(Pair(classes=5), RULES, write(tmp_path))
    assert report.misshaped == {"classifier.weight": ((2, 3), (5, 3))}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"decoder.weight": torch.ones(1)}, "KEY 'PATH' has a decoder; set PAIR.DECODER True"),
        ({"encoder.bias": None}, "KEY 'PATH': trunk.bias [3] is not in the file; PAIR.WIDTH decides it"),
        ({"encoder.bias": torch.full((3,), torch.nan)}, "KEY 'PATH': trunk.bias holds values that are not finite; "),
    ],
)
def test_a_file_that_the_rules_refuse_leaves_the_model_as_it_was(change, words, tmp_path):
    model, path = Pair(), write(tmp_path, **change)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(DataError) as caught:
        load_param(model, RULES, path, "KEY")
    assert str(caught.value).startswith(words.replace("PATH", path))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_absent_file_names_its_key(tmp_path):
    with pytest.raises(ConfigError, match="KEY: no file"):
        load_param(Pair(), RULES, tmp_path / "nothing.pth", "KEY")


def test_report_counts_and_names_every_kind():
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    weights = {"0.weight": torch.ones(3, 2), "0.bias": torch.ones(3), "1.weight": torch.ones(9, 3), "x": torch.ones(1)}
    report = load_weights(module, weights, "FILE", lambda name: "")
    assert report.matched == ("0.weight", "0.bias")
    assert report.missing == ("1.bias",)
    assert report.surplus == ("x",)
    assert report.misshaped == {"1.weight": ((9, 3), (4, 3))}
    text = str(report)
    assert text.startswith("FILE: 2 weights matched; 1 missing (1.bias); 1 surplus (x)")
    assert "1.weight [9, 3] for [4, 3]" in text and "\n" not in text
    assert torch.equal(module[0].weight, torch.ones(3, 2))


def test_long_lists_are_cut_in_the_report():
    module = nn.ParameterDict({f"w{number}": torch.zeros(1) for number in range(9)})
    report = load_weights(module, {"w0": torch.ones(1)}, "FILE", lambda name: "")
    assert "8 missing (w1, w2, w3, w4, ... 4 more)" in str(report)


def test_nothing_is_loaded_when_something_that_matters_does_not_fit():
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    weights = {"0.weight": torch.ones(3, 2), "0.bias": torch.ones(3), "1.weight": torch.ones(9, 3)}
    expected = r"FILE: 1.weight is \[9, 3\] in the file, but \[4, 3\] in this model; KEY decides it \(1 more weights"
    with pytest.raises(DataError, match=expected):
        load_weights(module, weights, "FILE", lambda name: "KEY decides it")
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
