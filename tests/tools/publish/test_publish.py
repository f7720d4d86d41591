"""A published folder gives the model back to the bit, tells nothing of its machine, and is whole or none."""

import getpass
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from tests.tools.photos import write_photos
from tests.tools.publish.families import embeddings, write_family
from tools.feature_extractor import FeatureExtractor
from tools.publish import write
from tools.publish.__main__ import main
from tools.publish.write import Wanted, publish
from utils.checkpoint import read_provenance, read_weights, save_weights
from utils.checksum import sealed
from utils.digest import sha256_of
from utils.errors import DataError, RunError, run_command
from utils.published_folder import PublishedFolder
from utils.test_folder import METRICS

FAMILIES = ("transreid", "pcb", "clip_reid", "irra", "multimodal")
SECRET = "/home/jane.doe/secret place"  # stands in what a run tells
FIGURES = {name: 0.5 + 0.05 * number for number, name in enumerate(METRICS)}
INTERVAL = {name: [value - 0.04, value + 0.03] for name, value in FIGURES.items()}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_photos(tmp_path_factory.mktemp("photos"))


def write_test(folder: Path, weight: Path, **more: object) -> None:
    """Write the summary.json of a test of `weight`."""
    summary = {"schema": 1, **FIGURES, "interval": INTERVAL, "num_query": 24, "num_valid_query": 20, "num_trials": 1}
    summary |= {
        "dataset": "VeRi-776",
        "weight": str(weight),
        "weight_sha256": sha256_of(weight),
        "precision": "float32",
    }
    summary |= {"settings": {"DATASETS.VIEW_FILES": [SECRET]}, "command": ["test.py", SECRET]}
    summary |= {"notes": [f"no '{SECRET}/keypoint_train.txt', 3 images were left out"], "cmc": [0.65, 0.7], **more}
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(sealed(summary))


@pytest.fixture(scope="module")
def run(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two epochs with averaged weights, and beside it the tests of all of them."""
    run = tmp_path_factory.mktemp("jane") / "veri_seed0_run"
    shutil.copytree(trained_run, run)
    told = json.loads((run / "env.json").read_text())
    command = ["/home/jane/code/train.py", "--config_file", "/home/jane/code/configs/VeRi/vit_base.yml"]
    command += ["DATASETS.ROOT_DIR", SECRET, "OUTPUT_DIR", f"{SECRET}/logs", "SOLVER.SEED", "3"]
    (run / "env.json").write_text(json.dumps(told | {"command": command}))
    last = run / "transformer_2.pth"
    moved = {name: value + 0.01 for name, value in read_weights(last, "test").items() if value.is_floating_point()}
    weights = torch.load(last, weights_only=True) | moved
    averaged = type(torch.load(last, weights_only=True))(weights)
    averaged._metadata = {}
    save_weights(averaged, run / "transformer_ema_2.pth", read_provenance(last) | {"stage": "ema"})
    tests = run.parent / "veri_seed0_test"
    write_test(tests / "epoch_2", last)
    write_test(tests / "epoch_1", run / "transformer_1.pth", mAP=0.1)
    write_test(tests / "ema" / "epoch_2", run / "transformer_ema_2.pth", mAP=0.7)
    return run


@pytest.fixture(scope="module")
def published(run: Path, tmp_path_factory: pytest.TempPathFactory) -> PublishedFolder:
    """The last epoch of the run, published; read only."""
    folder = PublishedFolder(tmp_path_factory.mktemp("published") / "veri_vit")
    assert run_command(main, ["--run", str(run), "--out", str(folder.path), "--licence", "CC-BY-4.0"]) == 0
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_what_was_published_embeds_as_the_run_does_to_the_bit_wherever_it_lies(family, tmp_path, trained_run, photos):
    run = write_family(family, tmp_path, trained_run)
    expected = embeddings(FeatureExtractor.from_run(run), photos)
    publish(Wanted(str(run), name="model"), PublishedFolder(tmp_path / "first"))
    shutil.move(tmp_path / "first", tmp_path / "moved")
    if run != trained_run:
        shutil.rmtree(run)  # with the description of its CLIP
    feat = embeddings(FeatureExtractor.from_pretrained(tmp_path / "moved"), photos)
    assert feat.dtype == expected.dtype and torch.equal(feat, expected)


def test_files_that_are_published_tell_nothing_of_their_machine(run, published, tiny_root):
    private = [SECRET, "jane", str(tiny_root), str(run), str(Path.home()) + "/", f"/{getpass.getuser()}/"]
    for path in published.files:
        if path.exists():
            content = path.read_bytes().decode("utf-8", errors="replace")
            assert [word for word in private if word in content] == [], path.name
    command = json.loads(published.provenance.read_text())["command"]
    assert command == "python train.py --config_file configs/VeRi/vit_base.yml SOLVER.SEED 3"


def test_figures_and_intervals_are_those_of_the_test_of_these_very_weights(run, published):
    (test,) = json.loads(published.metrics.read_text())["tests"]
    assert {name: test[name] for name in METRICS} == FIGURES and test["interval"] == INTERVAL
    assert test["notes"] == ["no 'keypoint_train.txt', 3 images were left out"]
    assert not {"weight", "settings", "command", "per_query"} & test.keys()


def test_the_card_has_figures_data_command_licences_and_what_the_hub_reads(published):
    text = published.card.read_text()
    _, head, body = text.split("---\n", 2)
    head = yaml.safe_load(head)
    assert head["license"] == "cc-by-4.0" and "transformer" in head["tags"]
    (result,) = head["model-index"][0]["results"]
    assert result["dataset"]["name"] == "VeRi-776"
    assert {one["type"]: one["value"] for one in result["metrics"]} == {
        n: round(100 * v, 2) for n, v in FIGURES.items()
    }
    assert "| VeRi-776 | 50.00 (46.00 to 53.00) | 55.00 (51.00 to 58.00) |" in body
    for words in (
        "python train.py --config_file configs/VeRi/vit_base.yml",
        "These weights: CC-BY-4.0.",
        "from_pretrained",
    ):
        assert words in body
    assert [line for line in body.splitlines() if line.startswith("#")] == [
        *("# veri_vit", "## Figures", "## Use", "## Training", "## Licences", "## Limits")
    ]


def test_a_test_with_other_settings_than_the_model_stands_beside_the_plain_one_and_says_so(run, tmp_path):
    weight, config = run / "transformer_2.pth", yaml.safe_load((run / "config.yaml").read_text())
    for name, mAP, flip, ranking in (
        ("plain", 0.5, False, {}),
        ("flip", 0.6, True, {}),
        ("re", 0.7, False, {"k1": 20}),
    ):
        settings = config | {"TEST": config["TEST"] | {"FLIP": flip, "AMP": "bf16"}}
        more = {"ranking": {"ap": "standard", "re_ranking": ranking}} if ranking else {}
        write_test(tmp_path / "tests" / name, weight, mAP=mAP, config=settings, **more)
    folder = PublishedFolder(tmp_path / "model")
    assert run_command(main, ["--run", str(run), "--out", str(folder.path), "--tests", str(tmp_path / "tests")]) == 0
    expected = {"VeRi-776": 50.0, "VeRi-776 (TEST.FLIP True)": 60.0, "VeRi-776 (re_ranking k1 20)": 70.0}
    _, head, body = folder.card.read_text().split("---\n", 2)
    results = yaml.safe_load(head)["model-index"][0]["results"]
    assert {one["dataset"]["name"]: one["metrics"][0]["value"] for one in results} == expected
    assert [f"| {title} | {mAP:.2f} (" in body for title, mAP in expected.items()] == [True] * 3
    assert "- VeRi-776 (TEST.FLIP True): the settings in brackets" in body


HOSTILE = 'a"b `c` <img src=x> [d](http://e)\n---\n# f\n```\n\x1b[31m| g'


def test_no_text_of_a_run_or_a_test_is_markup_of_the_card(run, tmp_path):
    other = shutil.copytree(run, tmp_path / "run")
    told = json.loads((other / "env.json").read_text())
    command = ["train.py", "--config_file", "a.yml", "MODEL.PROMPT", HOSTILE]
    (other / "env.json").write_text(json.dumps(told | {"command": command, "device_name": HOSTILE}))
    more = {"dataset": HOSTILE, "notes": [HOSTILE], "cautions": [HOSTILE], "groups": {HOSTILE: FIGURES}}
    write_test(other / "tests", other / "transformer_2.pth", **more)
    folder = PublishedFolder(tmp_path / "model")
    publish(Wanted(str(other), name=HOSTILE), folder)
    _, head, body = folder.card.read_text().split("---\n", 2)
    assert yaml.safe_load(head)["model-index"][0]["results"][0]["dataset"]["name"] == HOSTILE
    lines = body.splitlines()
    assert [line for line in lines if line.startswith("#")][1:] == [
        *("## Figures", "## Use", "## Training", "## Licences", "## Limits")
    ]
    fences = [number for number, line in enumerate(lines) if line.startswith("```")]
    assert [lines[number] for number in fences] == ["```python", "```", "```text", "```"]
    compile("\n".join(lines[fences[0] + 1 : fences[1]]), "the card", "exec")
    outside = [*lines[: fences[0]], *lines[fences[1] : fences[2]], *lines[fences[3] :]]
    assert not [line for line in outside if re.search(r"(?<!\\)(<img|\[d\]|`c`)", line)] and "\x1b" not in body


def test_an_edited_card_leaves_the_model_whole_and_a_second_publication_replaces_all(run, tmp_path, capsys):
    out = PublishedFolder(tmp_path / "model")
    words = ["--run", str(run), "--out", str(out.path), "--epoch", "1"]
    assert run_command(main, words) == 0
    out.card.write_text("# My model\n")
    assert FeatureExtractor.from_pretrained(out.path).cfg.MODEL.NAME == "transformer"
    (out.path / "metrics.json.1.tmp").write_text("left by one that was killed")
    assert run_command(main, [*words[:-1], "2"]) == 0
    assert "transformer_2.pth, VeRi-776 50.00 mAP" in capsys.readouterr().out
    assert out.card.read_text() != "# My model\n"


def test_raw_weights_are_published_unless_averaged_ones_are_asked_for(run, published, tmp_path, photos):
    assert run_command(main, ["--run", str(run), "--averaged", "--out", str(tmp_path / "ema")]) == 0
    averaged = PublishedFolder(tmp_path / "ema")
    assert json.loads(averaged.metrics.read_text())["tests"][0]["mAP"] == 0.7
    assert "averaged weights (SOLVER.EMA) of epoch 2" in averaged.card.read_text()
    assert "raw weights of epoch 2" in published.card.read_text()
    expected = FeatureExtractor.from_checkpoint(run / "transformer_ema_2.pth")(photos)
    assert torch.equal(FeatureExtractor.from_pretrained(averaged.path)(photos), expected)
    assert not torch.equal(FeatureExtractor.from_pretrained(published.path)(photos), expected)


def test_a_folder_that_is_half_written_is_never_read(run, tmp_path, monkeypatch):
    """Killed before each file in turn, also over an older publication: whole before, refused after."""
    names = ("save_safetensors", "write_text_atomic", "_write_json", "write_card", "write_list")
    folder = PublishedFolder(tmp_path / "model")
    for name in names:
        with monkeypatch.context() as patch:
            patch.setattr(write, name, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                publish(Wanted(str(run), 1, name="model"), folder)
        with pytest.raises(DataError, match="no whole published model: it has no published.json"):
            FeatureExtractor.from_pretrained(folder.path)
    publish(Wanted(str(run), 1, name="model"), folder)
    FeatureExtractor.from_pretrained(folder.path)


def test_a_file_that_is_missing_or_another_one_is_named(published, tmp_path):
    for number, path in enumerate(published.required):
        copy = PublishedFolder(shutil.copytree(published.path, tmp_path / f"{number}"))
        other = copy.path / path.name
        other.write_bytes(other.read_bytes()[:-1] + b"?")
        with pytest.raises(DataError, match=f"{path.name} is not what was published"):
            FeatureExtractor.from_pretrained(copy.path)
        other.unlink()
        with pytest.raises(DataError, match=f"it has no {path.name}"):
            FeatureExtractor.from_pretrained(copy.path)


def test_weights_that_the_folder_does_not_give_back_are_not_published(run, tmp_path, monkeypatch):
    honest = write.save_safetensors
    monkeypatch.setattr(
        write,
        "save_safetensors",
        lambda weights, *rest: honest({**weights, **{next(iter(weights)): next(iter(weights.values())) + 1}}, *rest),
    )
    with pytest.raises(RunError, match="the folder alone does not give it back: another "):
        publish(Wanted(str(run), name="model"), PublishedFolder(tmp_path / "model"))
    with pytest.raises(DataError, match="no whole published model"):
        FeatureExtractor.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epoch", "7"], "has no epoch 7"),
        (["--epoch", "1", "--averaged"], "no averaged weights of epoch 1; it holds those of epochs 2"),
        (["--tests", "nowhere"], "--tests 'nowhere' holds no whole test of"),
        (["--push", "jane"], "--push got 'jane', expected user/name"),
        (["--push", "jane/a..b"], "--push got 'jane/a..b', expected user/name"),
        (["--licence", "my own"], "expected an identifier"),
        (["--private"], "--private goes with --push"),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_code_2(run, tmp_path, words, message, capsys):
    try:
        code = run_command(main, ["--run", str(run), "--out", str(tmp_path / "model"), *words])
    except SystemExit as ended:  # of the parser
        code = ended.code
    errors = capsys.readouterr().err.splitlines()
    assert code == 2 and [message in line for line in errors if line.startswith("error: ")] == [True]
    assert not (tmp_path / "model").exists()


def test_a_folder_with_something_else_is_left_alone(run, tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert run_command(main, ["--run", str(run), "--out", str(tmp_path)]) == 2
    assert "holds thesis.tex; name a folder of its own" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_without_a_test_is_published_without_figures(run, tmp_path, caplog):
    lonely = tmp_path / "lonely"
    lonely.mkdir()
    shutil.copy(run / "transformer_1.pth", lonely)
    assert run_command(main, ["--run", str(lonely), "--out", str(tmp_path / "model")]) == 0
    assert "no test of" in caplog.text
    assert "there are no figures" in PublishedFolder(tmp_path / "model").card.read_text()
