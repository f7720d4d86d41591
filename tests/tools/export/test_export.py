"""Exported files run in their own runtimes and give the embeddings of the model, or are not kept."""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest
import torch
from yacs.config import CfgNode

from datasets.make_transforms import make_transforms
from processor.trained import Trained
from tests.model import clips, trunks
from tests.model.builds import TINY_VIT, images, make_cfg
from tests.tolerance import bounds
from tests.tools.export.exports import BOTH, CAMERAS, PROVENANCE, SMALL, VIEWS, make_trained, small
from tools.export import graphs
from tools.export.exporter import export_model
from utils.digest import sha256_of

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated:FutureWarning")

TERMS = 2000  # numbers added up one after the other: 768 pixels, up to 600 numbers in each of two blocks
SIDES = {"camids": CAMERAS, "viewids": VIEWS}
JPM = ("MODEL.JPM", True)
BEFORE = ("TEST.NECK_FEAT", "before")
PCB = (
    *("MODEL.NAME", "pcb", "MODEL.PCB.TRUNK", "tiny", "MODEL.PCB.PARTS", 2, "MODEL.PCB.PART_DIM", 5),
    *("MODEL.PCB.GLOBAL_DIM", 6, "INPUT.SIZE_TRAIN", [48, 32], "INPUT.SIZE_TEST", [48, 32]),
)
SHALLOW = ("MODEL.VIT.DEPTH", 2)  # an export takes a second for each block
PLAIN = {
    "transreid": (*TINY_VIT, *SHALLOW, *BOTH, *JPM, "MODEL.STRIDE_SIZE", [6, 5]),
    "cameras alone, flipped, not normalised": (*SMALL, *BOTH[:2], "TEST.FLIP", True, "TEST.FEAT_NORM", "no", *BEFORE),
    "viewpoints alone": (*SMALL, *BOTH[2:]),
    "no side information, adapters": (*SMALL, "MODEL.LORA.RANK", 2),
    "resnet": ("MODEL.NAME", "resnet50", "INPUT.SIZE_TRAIN", [48, 32], "INPUT.SIZE_TEST", [48, 32]),
    "part branches": (*PCB, "MODEL.PCB.GATE", True, "MODEL.PCB.PART_POOL", "gem", "MODEL.PCB.OWN_STAGE4", True),
}
FUSIONS = tuple(clips.variants(clips.Sources("", "", "")))
ZOO = (*PLAIN, *trunks.KINDS, *FUSIONS)
FAST = (
    "transreid",
    "cameras alone, flipped, not normalised",
    "resnet",
    "part branches",
    "hf concat",
)


def cfg_of(name: str, sources: clips.Sources) -> CfgNode:
    if name in PLAIN:
        return make_cfg(*PLAIN[name])
    if name in trunks.KINDS:
        return trunks.kind_cfg(name, *(() if name == "siglip" else JPM), *BOTH[2:])
    return make_cfg(*TINY_VIT, *SHALLOW, *JPM, *BOTH, *clips.CALM, *clips.variants(sources)[name])


def onnx_run(path: Path) -> Callable[..., torch.Tensor]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(batch: torch.Tensor, **labels: torch.Tensor) -> torch.Tensor:
        feeds = {"images": batch.numpy(), **{name: value.numpy() for name, value in labels.items()}}
        return torch.from_numpy(session.run(None, feeds)[0])

    return run


LOADERS = {"onnx": onnx_run, "torchscript": torch.jit.load}


@torch.no_grad()
def expected(
    trained: Trained, batch: torch.Tensor, camids: torch.Tensor | None = None, viewids: torch.Tensor | None = None
) -> torch.Tensor:
    """Embed images with the model itself."""
    model = trained.model
    feat = model(batch, camids, viewids)
    if trained.cfg.TEST.FLIP:
        feat = (feat + model(torch.flip(batch, (3,)), camids, viewids)) / 2
    return feat / feat.norm(dim=1, keepdim=True) if trained.cfg.TEST.FEAT_NORM == "yes" else feat


def check_against_torch(run: Callable[..., torch.Tensor], trained: Trained) -> None:
    batch = images(16, tuple(trained.cfg.INPUT.SIZE_TEST))
    drawn = {name: torch.randint(-1, count, (16,)) for name, count in graphs.label_inputs(trained.model).items()}
    for labels in [{}, drawn] if drawn else [{}]:
        theirs = expected(trained, batch, **labels)
        for count in (1, 3, 16):
            ours = run(batch[:count], **{name: values[:count] for name, values in labels.items()})
            torch.testing.assert_close(ours, theirs[:count], **bounds(TERMS))


@pytest.mark.parametrize("name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in ZOO])
@pytest.mark.parametrize("fmt", graphs.WRITERS)
def test_exported_file_gives_the_embedding_of_the_model_in_any_batch(fmt, name, sources, tmp_path):
    trained = make_trained(cfg_of(name, sources), tmp_path)
    export_model(trained, tmp_path / "file", fmt)
    check_against_torch(LOADERS[fmt](tmp_path / "file"), trained)


@pytest.fixture(scope="module")
def both_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Path]:
    """A small model with side information in both formats, normalised inside."""
    folder = tmp_path_factory.mktemp("both")
    trained = small(folder, *BOTH, "INPUT.FILTER_TEST", "lanczos", "INPUT.PIXEL_MEAN", [0.4, 0.5, 0.6])
    for fmt in graphs.WRITERS:
        export_model(trained, folder / fmt, fmt, normalise=True)
    return trained, folder


def test_side_information_changes_what_both_files_return(both_files):
    _, folder = both_files
    batch = 255 * torch.rand(4, 3, 32, 24)
    for run in (load(folder / fmt) for fmt, load in LOADERS.items()):
        unknown = run(batch)
        for name, count in SIDES.items():
            labels = {name: torch.tensor([0, 1, count - 1, -1])}
            known, both = run(batch, **labels), run(batch, **dict.fromkeys(SIDES, labels[name] % VIEWS))
            assert (known - unknown).abs().amax(1)[:3].min() > 1e-3 < (known - both).abs().amax()
            torch.testing.assert_close(known[3], unknown[3], **bounds(TERMS))


def test_labels_beyond_the_table_are_refused_by_both_files(both_files):
    _, folder = both_files
    batch = torch.rand(2, 3, 32, 24)
    for run in (load(folder / fmt) for fmt, load in LOADERS.items()):
        for labels in ({"camids": torch.tensor([0, CAMERAS])}, {"viewids": torch.tensor([VIEWS, 0])}):
            with pytest.raises(Exception, match="invalid index|out of bounds"):
                run(batch, **labels)


def test_images_of_another_size_are_refused_by_both_files(both_files):
    _, folder = both_files
    for run in (load(folder / fmt) for fmt, load in LOADERS.items()):
        with pytest.raises(Exception, match="dimensions|must be 32 x 24 pixels"):
            run(torch.rand(2, 3, 24, 32))


def test_normalisation_inside_is_that_of_the_test_transform(both_files):
    trained, folder = both_files
    pixels = torch.randint(256, (3, 3, 32, 24), dtype=torch.uint8)
    _, transform = make_transforms(trained.cfg)
    theirs = expected(trained, transform(pixels))
    for run in (load(folder / fmt) for fmt, load in LOADERS.items()):
        torch.testing.assert_close(run(pixels.float()), theirs, **bounds(TERMS))


def test_metadata_of_both_files_says_what_a_user_must_know(both_files):
    trained, folder = both_files
    session = onnxruntime.InferenceSession(str(folder / "onnx"))
    extra = {graphs.METADATA: ""}
    torch.jit.load(folder / "torchscript", _extra_files=extra)
    texts = [session.get_modelmeta().custom_metadata_map[graphs.METADATA], extra[graphs.METADATA]]
    for metadata in map(json.loads, texts):
        versions = {"torch": torch.__version__, "project": "0.1.0"}
        assert metadata == versions | PROVENANCE | {
            "schema": 1,
            "size": [32, 24],
            "resize_filter": "lanczos",
            "channel_order": "RGB",
            "mean": [0.4, 0.5, 0.6],
            "std": [0.229, 0.224, 0.225],
            "normalised_inside": True,
            "feature_norm": True,
            "flip": False,
            "branches": {"global": 24},
            "part_weights": [],
            "camera_num": CAMERAS,
            "view_num": VIEWS,
            "weight": "transformer_7.pth",
            "weight_sha256": sha256_of(trained.weight),
        }
    assert [value.name for value in session.get_inputs()] == ["images"]
    defaults = {value.name: value.shape for value in session.get_overridable_initializers()}
    assert defaults == {"camids": ["camids_count"], "viewids": ["viewids_count"]}
    assert [value.name for value in session.get_outputs()] == ["embedding"]


def test_weights_of_branches_are_in_the_file(tmp_path):
    jigsaw = ("MODEL.JPM", True, "MODEL.DEVIDE_LENGTH", 2, "MODEL.SHIFT_NUM", 2)
    trained = small(tmp_path, *jigsaw, "TEST.PART_WEIGHTS", (0.5, 0.0, 2.0))
    (parity,) = export_model(trained, tmp_path / "model.pt", "torchscript").values()
    assert parity.cosine > 0.9999
    embedding = torch.jit.load(tmp_path / "model.pt")(torch.randn(3, 3, 32, 24)).reshape(3, 3, -1)
    lengths = torch.tensor([0.5, 0.0, 2.0]).div(2.5).sqrt().expand(3, 3)
    torch.testing.assert_close(embedding.norm(dim=2), lengths, **bounds(TERMS))


def test_exporting_leaves_the_model_as_it_was(tmp_path):
    trained = small(tmp_path)
    trained.model.double()
    before = copy.deepcopy(trained.model.state_dict())
    export_model(trained, tmp_path / "model.pt", "torchscript")
    after = trained.model.state_dict()
    assert all(torch.equal(before[name], value) and value.dtype == before[name].dtype for name, value in after.items())
    assert any(weight.requires_grad for weight in trained.model.parameters())
