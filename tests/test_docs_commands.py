"""Every command of README.md and docs/ runs, in a folder where what the pages build on is small.

The launcher's trainings and tests are played by a stand-in. A block that cannot run as it stands says what it needs; of
such a block all is tried that does not need it.
"""

import json
import pickle
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.startup import find_commands
from configs import load_cfg
from datasets import synthetic_orbench, synthetic_persons, synthetic_text
from datasets.synthetic import load as synthetic
from datasets.synthetic.plan import plan_identities, plan_shots
from tests.fake_runner import FakeRunner, queries
from tests.pages import (
    CODE_TUTORIALS,
    EVERY_PAGE,
    README,
    ROOT,
    Block,
    blocks_of,
    ids,
    inline_commands,
    prose_of,
    words_of,
)
from tests.test_docs import section
from tests.tools.irra_runs import write_irra_run
from tests.tools.modal_runs import write_modal_run
from tools.launch.arguments import parse_args
from tools.study.names import config_label, default_prefix, experiment_name
from utils.commands import config_parser
from utils.errors import USER_ERROR_CODE, run_command
from utils.test_folder import METRICS

QUERY = "0081_c010_00066990_0.jpg"
COMPARED = {"baseline": 0.40, "supcon": 0.45}  # experiments and their mAP
MISSING = "/path/to/data"
PICTURES = ("ranks", "attention", "parts", "words", "embedding")  # commands of tools.visualize
EXAMPLES = {"tools.onnx_example", "tools.qdrant_example"}
BENCHMARKS = ("benchmarks/train_step.py", "benchmarks/tracking.py")  # with flags that pages name
MUTATION = "tests.mutation"  # a command whose packages the tests do without
OPTIONAL = {"pre-commit"}  # packages that a page tells to install and nothing here needs
FOREIGN_FLAGS = {"--nproc_per_node", "--logdir", "--cpus-per-task", "--requeue"}  # of torchrun, tensorboard, sbatch


@pytest.fixture(scope="module")
def irra_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of a tiny IRRA; read only."""
    return write_irra_run(tmp_path_factory.mktemp("irra") / "run")


@pytest.fixture(scope="module")
def modal_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of a tiny model of five modalities; read only."""
    return write_modal_run(tmp_path_factory.mktemp("modal") / "run")


def draw_small_sets(patch: pytest.MonkeyPatch) -> None:
    """Let the sets that draw themselves have a few identities."""
    small = partial(synthetic.draw_synthetic_veri, num_train_ids=1, num_test_ids=2)
    patch.setattr(synthetic, "draw_synthetic_veri", small)
    captioned = partial(synthetic_text.draw_synthetic_text, num_train_ids=2, num_val_ids=1, num_test_ids=1)
    patch.setattr(synthetic_text, "draw_synthetic_text", captioned)
    persons = partial(synthetic_persons.draw_synthetic_persons, num_train_ids=1, num_test_ids=1)
    patch.setattr(synthetic_persons, "draw_synthetic_persons", persons)
    modal = partial(synthetic_orbench.draw_synthetic_orbench, num_train_ids=1, num_test_ids=1)
    patch.setattr(synthetic_orbench, "draw_synthetic_orbench", modal)


@pytest.fixture(scope="module")
def drawn_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `data` with small drawn sets; read only."""
    folder = tmp_path_factory.mktemp("drawn") / "data"
    with pytest.MonkeyPatch.context() as patch:
        draw_small_sets(patch)
        synthetic_text.load_synthetic_text(folder)
        synthetic_orbench.load_synthetic_orbench(folder)
        synthetic.load_synthetic(folder)
    return folder


@pytest.fixture
def workplace(
    tmp_path: Path,
    drawn_data: Path,
    trained_run: Path,
    irra_run: Path,
    modal_run: Path,
    runner: FakeRunner,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The working directory: configs/, small data, a trained run and results under the names of the pages."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    draw_small_sets(monkeypatch)
    runner.held_out = {10: 0.5}  # of the sweep that a page shows, at its last epoch
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "logs").mkdir()
    for name in ("synthetic_baseline", "table_baseline", "clip_reid_person_vit_clipreid"):
        (tmp_path / "logs" / f"{name}_seed0_run").symlink_to(trained_run)
    (tmp_path / "logs" / "my_run").symlink_to(trained_run)
    runs = (("synthetic_text", "irra.yml", irra_run), ("synthetic_orbench", "multimodal.yml", modal_run))
    for data, recipe, run in runs:
        words = experiment_name(default_prefix(data), None, None, config_label(recipe), ())
        (tmp_path / "logs" / f"{words}_seed0_run").symlink_to(run)
    (tmp_path / "captions.txt").write_text("a red pickup\na yellow bus\n")
    lists = {"trainval_im_names": ["1_1_1.jpg"], "test_im_names": ["2_1_1.jpg", "2_2_1.jpg"], "test_marks": [0, 1]}
    (tmp_path / "partitions.pkl").write_bytes(pickle.dumps(lists))
    for name, mean_ap in COMPARED.items():
        for seed in range(3):
            folder = tmp_path / "logs" / f"veri776_{name}_seed{seed}_test" / "epoch_120"
            folder.mkdir(parents=True)
            np.savez(folder / "per_query.npz", **queries(mean_ap + 0.01 * seed))
            content = dict.fromkeys(METRICS, 0.5) | {"data_fingerprint": "d"}
            (folder / "summary.json").write_text(json.dumps(content))
    shutil.copytree(drawn_data, tmp_path / "data")
    drawn = tmp_path / "data" / "synthetic_veri"
    image = next((drawn / "image_query").glob("*.jpg"))
    (tmp_path / "photos").mkdir()
    loose = (tmp_path / name for name in ("a.jpg", "b.jpg", "photos/a.jpg"))
    for copy in (drawn / "image_query" / QUERY, drawn / "image_test" / QUERY, *loose):
        shutil.copy(image, copy)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def main_of(target: str) -> Callable[[list[str] | None], int | None]:
    """Return `main` of a script (`train.py`) or of a module or package that is a command (`tools.report`)."""
    name = target.removesuffix(".py").replace("/", ".")
    is_package = find_spec(name).submodule_search_locations is not None
    return import_module(f"{name}.__main__" if is_package else name).main


def target_of(words: list[str]) -> tuple[str, list[str]]:
    """Split what follows `python` or `torchrun` into the script or module and its arguments."""
    start = next(i for i, word in enumerate(words) if word == "-m" or word.endswith(".py"))
    words = words[start + (words[start] == "-m") :]
    return words[0], words[1:]


def run_python(words: list[str], mark: str) -> None:
    """Run what follows `python`: it ends well, or, where data are missing that it reads at once, names them."""
    target, arguments = target_of(words)
    if target in ("venv", MUTATION) or mark in ("needs a run", "needs a login"):
        return
    if target == "train.py" and mark == "takes minutes":  # its recipe is tried below, with its keys
        return
    if target == "pytest":
        assert all((ROOT / word).exists() for word in arguments if word.endswith(".py"))
        return
    if "--summarise" in arguments:  # what is summed up has run before
        run_python([word for word in words if word != "--summarise"], mark)
    expected = {0}
    if target == "tools.check":  # of data that are missing, or of the small set, in which pictures stand twice
        expected = {USER_ERROR_CODE} if mark == "needs data" else {0, 1}
    assert run_command(main_of(target), arguments) in expected, shlex.join(words)


def check_install(words: list[str]) -> None:
    """Assert that `pip install` names files, or packages that the tests require."""
    assert words[0] == "install"
    values = {before: word for before, word in zip(words, words[1:], strict=False) if before in ("-r", "--index-url")}
    files = [word for before, word in zip(words, words[1:], strict=False) if before == "-r"]
    packages = [word for word in words[1:] if not word.startswith("-") and word not in (*files, *values.values())]
    assert all((ROOT / name).is_file() for name in files)
    known = "".join((ROOT / name).read_text() for name in ("requirements.txt", "requirements-test.txt"))
    assert [package for package in packages if not re.search(rf"^{package}\b", known, re.MULTILINE)] == [
        package for package in packages if package in OPTIONAL
    ]


def run_block(block: Block, folder: Path) -> None:
    """Run the commands of a bash block in order."""
    for command in block.commands:
        for part in command.split(" && "):
            words = words_of(part, folder)
            program = words[0].rpartition("/")[2]
            if program in ("python", "python3"):
                run_python(words[1:], block.mark)
            elif program == "pip":
                assert block.mark, "pip needs a network"
                check_install(words[1:])
            elif program in ("ruff", "pre-commit"):  # tests/test_style.py runs the one, the other needs a network
                assert block.mark, part
            else:
                assert program in ("mkdir", "cp"), f"no test runs {part}"
                subprocess.run(words, cwd=folder, check=True)


RUN_HERE = [  # tests/test_tutorials.py has those that change the code; the blocks of the Chinese README are equal
    page for page in EVERY_PAGE if page not in CODE_TUTORIALS and page.name != "README.zh-CN.md"
]


@pytest.mark.parametrize("page", RUN_HERE, ids=ids(RUN_HERE))
def test_commands_in_blocks_run(page, workplace, monkeypatch, capsys):
    blocks = blocks_of(page)
    for number, block in enumerate(blocks):
        capsys.readouterr()
        folder = workplace
        if block.language == "bash" and "run_phased_loss.py" in block.text:  # which refuses what another block left
            folder = workplace / f"launch_{number}"
            folder.mkdir()
            (folder / "configs").symlink_to(ROOT / "configs")
        monkeypatch.chdir(folder)
        if block.language == "bash":
            run_block(block, folder)
        shown = capsys.readouterr()
        if block.mark == "needs data" and "tools.check" in block.text:
            assert MISSING in shown.err
        if "--show-schedule" in block.text:
            assert shown.out == blocks[number + 1].text
        if block.language == "python":
            names = {"pil_image": Image.open("a.jpg"), "array": np.zeros((40, 30, 3), np.uint8)}
            exec(block.text, names)
            if "FeatureExtractor" in block.text:
                assert len(names["feat"]) == 3 and names["feat"].norm(dim=1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("page", RUN_HERE, ids=ids(RUN_HERE))
def test_commands_in_blocks_name_configurations_keys_and_flags_that_exist(page, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    lines = [line for block in blocks_of(page) if block.language == "bash" for line in block.commands]
    for command in (part for line in lines for part in line.split(" && ")):
        if not re.match(r"(\S*/)?(python|torchrun) ", command) or "-m pytest" in command:
            continue
        target, arguments = target_of(words_of(command))
        if target == "run_phased_loss.py":
            args = parse_args(arguments)
            for config in (name for group in args.config for name in group):
                load_cfg(config, args.opts)
        elif "--config_file" in arguments:
            args = config_parser(target, "").parse_args([word for word in arguments if word != "--show-schedule"])
            load_cfg(args.config_file, args.opts)
        elif target not in EXAMPLES:  # which have no --help
            assert flags_in(" ".join(arguments)) <= flags_in(help_of(target, capsys)), command


def test_the_query_of_the_pages_is_an_image_of_the_drawn_set():
    identities = plan_identities(0, synthetic.NUM_TRAIN_IDS, synthetic.NUM_TEST_IDS)
    shots = [shot for identity in identities for shot in plan_shots(0, identity) if shot.is_query]
    assert QUERY in {shot.name for shot in shots}


def help_of(target: str, capsys: pytest.CaptureFixture) -> str:
    """Return what a command prints for --help, those of its own commands included; of MUTATION its source."""
    if target == MUTATION:
        return (ROOT / "tests" / "mutation" / "__main__.py").read_text(encoding="utf-8")
    arguments = [[name, "--help"] for name in PICTURES] if target == "tools.visualize" else [["--help"]]
    for words in arguments:
        with pytest.raises(SystemExit) as ended:
            main_of(target)(words)
        assert ended.value.code == 0
    return capsys.readouterr().out


def flags_in(text: str) -> set[str]:
    """Return the flags (`--save-every`) that a text names."""
    return set(re.findall(r"(?<![\w-])--[a-zA-Z][\w-]*", text))


@pytest.mark.parametrize("page", EVERY_PAGE, ids=ids(EVERY_PAGE))
def test_commands_in_sentences_and_tables_exist_with_their_flags(page, capsys):
    for command in inline_commands(page):
        target, arguments = target_of(command.split())
        if target == "pytest" or "<" in target:  # tools.<name>
            continue
        assert find_spec(target.removesuffix(".py").replace("/", ".")) is not None, command
        flags = {word for word in arguments if word.startswith("--")}
        assert not flags or flags <= flags_in(help_of(target, capsys)), command


@pytest.mark.parametrize("page", EVERY_PAGE, ids=ids(EVERY_PAGE))
def test_every_flag_on_a_page_is_one_of_a_command(page, capsys):
    targets = {call[-1] for call in find_commands().values()} | {*BENCHMARKS, MUTATION}
    known = FOREIGN_FLAGS.union(*(flags_in(help_of(target, capsys)) for target in targets))
    assert flags_in(prose_of(page)) - known == set()


def test_the_table_of_commands_has_them_all():
    table = section(README, "Commands")
    named = {
        target_of(command.split())[0] for command in inline_commands(README) if command in table.replace("\\|", "|")
    }
    assert named == {call[-1] for call in find_commands().values()} | EXAMPLES
