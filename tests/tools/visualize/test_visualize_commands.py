"""python -m tools.visualize on a tiny model: the files it leaves, and one line for each mistake."""

import csv
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from configs import load_cfg
from datasets import make_dataloader
from model import make_model
from processor.evaluation.embed import embed, make_embedding
from processor.evaluation.evaluate import do_inference
from processor.provenance import describe_run
from processor.trained import load_trained
from tests import commands
from tests.conftest import TINY_YAML
from tools.visualize.__main__ import main
from utils.checkpoint import save_weights

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def run(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose weights are those after initialisation."""
    folder = tmp_path_factory.mktemp("run")
    return make_run(folder, TINY_YAML.format(root=tiny_root, output=folder))


def make_run(folder: Path, text: str, *opts: str) -> Path:
    (folder / "given.yml").write_text(text)
    cfg = load_cfg(folder / "given.yml", opts)
    torch.manual_seed(0)
    data = make_dataloader(cfg)
    model = make_model(cfg, data.num_classes, data.camera_num, data.view_num)
    save_weights(model.state_dict(), folder / "transformer_2.pth", describe_run(cfg, 2, data))
    return folder


visualize = partial(commands.run, main)


def one_error(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    (line,) = captured.err.strip().splitlines()
    assert line.startswith("error: ") and not captured.out
    return line


def test_ranks_draws_the_worst_queries_first(run, tmp_path, capsys):
    assert visualize("ranks", "--run", run, "--out", tmp_path / "r", "--num-queries", 5, "--topk", 3) == 0
    names = sorted(path.name for path in (tmp_path / "r").iterdir())
    assert len(names) == 6 and names[-1] == "overview.png"
    assert capsys.readouterr().out == f"5 rank lists and overview.png in {tmp_path / 'r'}\n"
    trained = load_trained(run / "transformer_2.pth")
    per_query = do_inference(trained.cfg, trained.model, make_dataloader(trained.cfg))["per_query"]
    worst = np.argsort(per_query["ap"], kind="stable")[:5]
    for number, (name, row) in enumerate(zip(names, worst, strict=False), 1):
        values = {key: per_query[key][row] for key in ("ap", "pid", "camid", "path")}
        stem = Path(values["path"]).stem
        assert name == f"{number:03d}_ap{values['ap']:.2f}_pid{values['pid']}_c{values['camid']}_{stem}.png"


def test_ranks_of_chosen_identities_best_first(run, tmp_path):
    words = ("--pids", 11, 14, "--order", "best", "--seed", 1, "DATALOADER.NUM_WORKERS", "0")
    assert visualize("ranks", "--weights", run / "transformer_2.pth", "--out", tmp_path, *words) == 0
    names = [path.name for path in sorted(tmp_path.glob("0*.png"))]
    assert len(names) == 6 and all("_pid11_" in name or "_pid14_" in name for name in names)
    scores = [float(name.split("_ap")[1][:4]) for name in names]
    assert scores == sorted(scores, reverse=True)


def test_attention_draws_the_first_queries_and_loose_images(run, tmp_path):
    assert visualize("attention", "--run", run, "--epoch", 2, "--out", tmp_path / "a", "--num-images", 2) == 0
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["001_0009_c001_00000000_0.png", "002_0009_c002_00000000_0.png"]
    loose = tmp_path / "loose"
    (loose / "deep").mkdir(parents=True)
    Image.new("RGB", (200, 50), (90, 10, 10)).save(loose / "deep" / "wide.png")
    Image.new("L", (20, 90)).save(loose / "tall.jpg")
    words = ("--images", loose, "--head-fusion", "max")
    assert visualize("attention", "--run", run, *words, "--out", tmp_path / "b") == 0
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["001_wide.png", "002_tall.png"]
    wide, tall = (Image.open(path).size for path in sorted((tmp_path / "b").iterdir()))
    assert wide[0] > 6 * 200  # the image, the global and four local branches
    assert tall[1] > 2 * tall[0] / 6


def test_attention_of_a_query_uses_its_own_camera(run, tmp_path, monkeypatch):
    from model import rollout as attention

    seen = []
    original = attention.rollout

    def spy(
        model: nn.Module, images: torch.Tensor, cam_label: torch.Tensor, view_label: torch.Tensor, head_fusion: str
    ) -> dict[str, torch.Tensor]:
        seen.append((images, cam_label.tolist(), view_label.tolist()))
        return original(model, images, cam_label, view_label, head_fusion)

    monkeypatch.setattr(attention, "rollout", spy)
    assert visualize("attention", "--run", run, "--out", tmp_path, "--num-images", 3) == 0
    (_, cameras, views), *rest = seen
    assert (cameras, views, rest) == ([0, 1, 2], [0, 0, 0], [])
    assert visualize("attention", "--run", run, "--images", next(tmp_path.glob("001*")), "--out", tmp_path / "b") == 0
    assert seen[-1][1:] == ([-1], [-1])


def test_embedding_leaves_a_picture_and_its_coordinates(run, tmp_path):
    words = ("--num-ids", 4, "--method", "pca", "--colour", "camid")
    assert visualize("embedding", "--run", run, "--out", tmp_path, *words) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pca.csv", "pca_camid.png"]
    rows = list(csv.DictReader((tmp_path / "pca.csv").open()))
    assert len(rows) == 4 * 9 and len({row["pid"] for row in rows}) == 4  # 3 queries and 6 gallery images each
    assert sum(row["split"] == "query" for row in rows) == 12
    trained = load_trained(run / "transformer_2.pth")
    test = make_dataloader(trained.cfg).test
    how = make_embedding(trained.cfg, trained.device)
    feat = embed(trained.model, test.loaders, how).feat.cpu().numpy().astype(np.float64)
    paths = test.labels.names
    feat = feat[[paths.index(row["path"]) for row in rows]]
    axes = np.linalg.svd(feat - feat.mean(0), full_matrices=False)[2][:2]
    points = np.array([[float(row["x"]), float(row["y"])] for row in rows])
    np.testing.assert_allclose(np.abs(points), np.abs((feat - feat.mean(0)) @ axes.T), atol=1e-4)
    assert Image.open(tmp_path / "pca_camid.png").width > 1000


def test_more_identities_than_there_are_is_said(run, tmp_path, caplog):
    assert visualize("embedding", "--run", run, "--out", tmp_path, "--num-ids", 99) == 0
    assert "--num-ids 99: the test set has 12 identities, all are drawn" in caplog.text
    assert (tmp_path / "tsne_pid.png").is_file()


RUN = object()  # stands for the folder of the run


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "the following arguments are required: COMMAND"),
        (("rank",), "invalid choice: 'rank'"),
        (("ranks", "--run", RUN), "the following arguments are required: --out"),
        (("ranks", "--run", RUN, "--out", "o", "--topk", "0"), "got '0', need a whole number of at least 1"),
        (("ranks", "--run", RUN, "--out", "o", "--num-queries", "x"), "got 'x', need a whole number of at least 1"),
        (("ranks", "--run", RUN, "--out", "o", "--order", "first"), "invalid choice: 'first'"),
        (("ranks", "--run", RUN, "--out", "o", "--pids", "9", "99"), "--pids 99: no query shows this identity"),
        (("ranks", "--run", "nowhere", "--out", "o"), "run folder 'nowhere': no such folder"),
        (("ranks", "--out", "o"), "name the model by --run OUTPUT_DIR or by --weights FILE"),
        (("ranks", "--run", RUN, "--epoch", "7", "--out", "o"), "has no epoch 7; it holds epochs 2"),
        (("ranks", "--run", RUN, "--out", "o", "DATASETS.ROOT_DIR", "nowhere"), "nowhere"),
        (("attention", "--run", RUN, "--out", "o", "--images", "empty"), "--images 'empty' holds no image"),
        (
            ("attention", "--run", RUN, "--out", "o", "--images", "nowhere"),
            "--images: no file 'nowhere'; correct the path",
        ),
        (("attention", "--run", RUN, "--out", "o", "--images", "broken.jpg"), "image 'broken.jpg' does not decode"),
        (("attention", "--run", RUN, "--out", "o", "--head-fusion", "sum"), "--head-fusion got 'sum'"),
        (
            ("attention", "--run", RUN, "--out", "o", "--num-images", "-1"),
            "got '-1', need a whole number of at least 1",
        ),
        (("attention", "--run", RUN, "--out", "o", "--seed", "1"), "unrecognized arguments: --seed"),
        (("embedding", "--run", RUN, "--out", "o", "--perplexity", "500"), "--perplexity got 500"),
        (("embedding", "--run", RUN, "--out", "o", "--method", "umap"), "invalid choice: 'umap'"),
        (("embedding", "--run", RUN, "--out", "file"), "--out 'file'"),
        (("embedding", "--run", RUN, "--out", "o", "--seed", "-1"), "got '-1', need a whole number of 0 to 4294967295"),
        (("embedding", "--run", RUN, "--out", "o", "--seed", "4294967296"), "need a whole number of 0 to 4294967295"),
    ],
)
def test_a_mistake_is_one_line(words, message, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    (tmp_path / "file").write_text("")
    try:
        code = visualize(*(run if word is RUN else word for word in words))
    except SystemExit as stop:  # argparse's way out
        code = stop.code
    assert code == 2
    assert message in one_error(capsys)
    assert not list(tmp_path.rglob("*.png"))


def test_a_resnet_has_no_attention_maps(tiny_root, tmp_path, capsys):
    text = TINY_YAML.format(root=tiny_root, output=tmp_path)
    keys = ("MODEL.NAME", "resnet50", "MODEL.JPM", "False", "MODEL.SIE_CAMERA", "False", "MODEL.SIE_VIEW", "False")
    run = make_run(tmp_path, text, *keys)
    capsys.readouterr()
    assert visualize("attention", "--run", run, "--out", tmp_path / "o") == 2
    assert "the attention of ResNet50 cannot be rolled out" in one_error(capsys)


@pytest.mark.parametrize("name", [None, "ranks", "attention", "words", "embedding"])
def test_help_loads_nothing_heavy(name):
    words = ["--help"] if name is None else [name, "--help"]
    code = (
        "import sys, json\nfrom tools.visualize.__main__ import main\n"
        f"try:\n    main({words})\nexcept SystemExit:\n    pass\n"
        "print(json.dumps([name for name in ('torch', 'matplotlib', 'sklearn', 'datasets') if name in sys.modules]))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout.splitlines()[-1]) == []
