"""The exported graph in both formats: how it is recorded, written, and run again."""

import contextlib
import copy
import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from datasets.tokens import tokenize
from model.irra import Irra
from processor.evaluation.embed import weigh_parts
from utils.errors import ConfigError

METADATA = "preprocessing"  # name of the JSON text in either format
OPSET = 18
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
ONNX_LIMIT = 2**31  # bytes of one protobuf file
FLOAT_BYTES = 4
UNKNOWN = -1  # label of an unknown camera or viewpoint
QUIET_RUNTIME = 3  # onnxruntime's level of errors; it warns of inputs with a default otherwise

Labels = Mapping[str, torch.Tensor]  # camids, viewids: int64 [B]; mask: bool [B, M]
Runner = Callable[[torch.Tensor, Labels], torch.Tensor]  # images or captions [B, ...], labels -> embedding [B, D]


class Inputs(NamedTuple):
    """What a graph takes."""

    name: str  # of the first input: images | caption_ids | tokens | features
    example: torch.Tensor  # two rows of it: exporters take a batch of one for a constant
    labels: tuple[str, ...] = ()  # camids, viewids: may be left out
    has_sides: bool = False  # whether the module to record has arguments for labels, read or not
    more: Mapping[str, torch.Tensor] = {}  # two rows of what must be given, too

    @property
    def names(self) -> tuple[str, ...]:
        """All inputs in their order."""
        return (self.name, *self.more, *self.labels)


class Embedder(nn.Module):
    """Images [B, 3, H, W] and labels [B] or [1] -> embedding [B, D] as tests compute it; a copy of `model` on the CPU.

    `pixels` is (mean, std) of RGB in 0..1 where the images are float32 RGB in 0..255, None where they are normalised.
    `flip` averages with the mirror image, `part_weights` are those of `weigh_parts`, `unit` normalises the embedding.
    """

    input = "images"

    def __init__(
        self,
        model: nn.Module,
        pixels: tuple[Sequence[float], Sequence[float]] | None,
        flip: bool,
        unit: bool,
        part_weights: Sequence[float] = (),
    ) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).cpu().float()
        if isinstance(model, Irra):
            self.model.keep_image_tower_only()
        else:
            self.model.keep_embedding_only()
        self.flip, self.unit, self.normalise = flip, unit, pixels is not None
        self.part_weights, self.branches = tuple(part_weights), dict(model.branches)
        if pixels is not None:
            mean, std = (torch.tensor(row, dtype=torch.float32).reshape(3, 1, 1) for row in pixels)
            self.register_buffer("pixel_mean", mean)  # an exported graph may call a node `mean`
            self.register_buffer("pixel_std", std)
        self.requires_grad_(False).eval()

    def forward(
        self, images: torch.Tensor, camids: torch.Tensor | None = None, viewids: torch.Tensor | None = None
    ) -> torch.Tensor:
        if self.normalise:
            images = (images / 255 - self.pixel_mean) / self.pixel_std
        batch = {"images": images, "camids": camids, "viewids": viewids}
        feat = self.model.embed_batch(batch)
        if self.flip:
            feat = (feat + self.model.embed_batch({**batch, "images": images.flip(3)})) / 2
        if self.part_weights:
            feat = weigh_parts(feat, self.branches, self.part_weights)
        return F.normalize(feat, dim=1) if self.unit else feat


class TextEmbedder(nn.Module):
    """Captions [B, L] int64 -> embedding [B, D] as tests compute it; a copy of `model` on the CPU.

    `part_weights` are those of `weigh_parts`, `unit` normalises the embedding (L2).
    """

    input = "caption_ids"

    def __init__(self, model: Irra, unit: bool, part_weights: Sequence[float] = ()) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).cpu().float()
        self.model.keep_text_tower_only()
        self.unit, self.part_weights, self.branches = unit, tuple(part_weights), dict(model.branches)
        self.requires_grad_(False).eval()

    def forward(self, caption_ids: torch.Tensor) -> torch.Tensor:
        feat = self.model.encode_text(caption_ids)
        if self.part_weights:
            feat = weigh_parts(feat, self.branches, self.part_weights)
        return F.normalize(feat, dim=1) if self.unit else feat


class WithDefaults(nn.Module):
    """A traced `Embedder` whose labels may be left out; scripted, since a trace has no optional inputs."""

    def __init__(self, traced: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.traced = traced
        self.height, self.width = size

    def forward(
        self, images: torch.Tensor, camids: torch.Tensor | None = None, viewids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the embedding [B, D] of images [B, 3, H, W]; labels int64 [B], None or negative = unknown."""
        if images.shape[2] != self.height or images.shape[3] != self.width:
            raise ValueError(f"images must be {self.height} x {self.width} pixels")
        unknown = torch.full((1,), -1, dtype=torch.int64, device=images.device)
        return self.traced(
            images, camids if camids is not None else unknown, viewids if viewids is not None else unknown
        )


class OfSize(nn.Module):
    """A traced tower of images of one modality, which refuses another size than that of its trace."""

    def __init__(self, traced: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.traced = traced
        self.height, self.width = size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return what the tower makes of images [B, 3, H, W]: [B, D]."""
        if images.shape[2] != self.height or images.shape[3] != self.width:
            raise ValueError(f"images must be {self.height} x {self.width} pixels")
        return self.traced(images)


def label_inputs(model: nn.Module) -> dict[str, int]:
    """Return the side information that a model reads: {"camids": cameras, "viewids": viewpoints} of the sides on."""
    return {name: count for name, count in zip(("camids", "viewids"), model.side_counts, strict=True) if count}


def image_inputs(size: tuple[int, int], model: nn.Module | None = None) -> Inputs:
    """Return what a graph of images of `size` = (height, width) takes, with the labels that a `model` reads."""
    images = torch.zeros(2, 3, *size)
    return Inputs("images", images, tuple(label_inputs(model)), has_sides=True) if model else Inputs("images", images)


def token_inputs(name: str, length: int) -> Inputs:
    """Return what a graph of captions of `length` tokens takes, by this name."""
    return Inputs(name, torch.stack([tokenize("one", length), tokenize("one two", length)]))


def feature_inputs(items: int, width: int) -> Inputs:
    """Return what the graph of a fusion takes: features [batch, items, width] and their mask."""
    return Inputs("features", torch.zeros(2, items, width), more={"mask": torch.ones(2, items, dtype=torch.bool)})


def check_packages(fmt: str) -> None:
    """Raise ConfigError where a package that the format needs is not installed."""
    missing = [name for name in ONNX_PACKAGES if fmt == "onnx" and importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"--format onnx needs {', '.join(missing)}: pip install {' '.join(ONNX_PACKAGES)}")


def write_torchscript(embedder: nn.Module, inputs: Inputs, metadata: str, path: Path) -> None:
    """Trace the model and write it with `metadata` as an extra file."""
    labels = torch.tensor([0, UNKNOWN])
    with _quiet(), torch.no_grad():
        given = (inputs.example, *inputs.more.values(), *([labels, labels] if inputs.has_sides else []))
        module = torch.jit.trace(embedder, given, check_trace=False)
        if inputs.name == "images":
            wrapper = WithDefaults if inputs.has_sides else OfSize
            module = torch.jit.script(wrapper(module, tuple(inputs.example.shape[2:])))
        # through Python: where torch itself meets a full disk, it aborts the process
        with open(path, "wb") as stream:
            torch.jit.save(module, stream, _extra_files={METADATA: metadata})


def write_onnx(embedder: nn.Module, inputs: Inputs, metadata: str, path: Path) -> None:
    """Export the model and write it with `metadata` among its properties.

    The label inputs have initialisers of the same name, [-1], which ONNX takes as defaults: a runtime fills in an input
    that is not fed, and the one number stands for the whole batch. Raises ConfigError for a model of 2 GiB or more.
    """
    import onnx

    weights = FLOAT_BYTES * sum(weight.numel() for weight in embedder.state_dict().values())
    if weights >= ONNX_LIMIT:
        raise ConfigError(
            f"--format onnx: the model has {weights / 2**30:.1f} GiB of weights, and one ONNX file holds less than 2; "
            "use --format torchscript"
        )
    names = list(inputs.names)
    labels = {name: torch.tensor([0, UNKNOWN]) for name in inputs.labels}
    batch = torch.export.Dim("batch")
    with _quiet(), torch.no_grad():
        recorded = torch.export.export(
            *(embedder, (inputs.example,), {**inputs.more, **labels}),
            dynamic_shapes={name: {0: batch} for name in names},
            strict=False,
        )
        program = torch.onnx.export(
            recorded, dynamo=True, opset_version=OPSET, input_names=names, output_names=["embedding"], verbose=False
        )
    result = program.model.graph.outputs[0]
    for value in (value for node in program.model.graph for value in node.outputs):
        if value.name == result.name and value is not result:  # a table of tokens is looked up by a node `embedding`
            value.name = f"{value.name}_within"
    proto = program.model_proto
    for value in (value for value in proto.graph.input if value.name in inputs.labels):
        value.type.tensor_type.shape.dim[0].dim_param = f"{value.name}_count"  # the batch, or 1
        proto.graph.initializer.append(onnx.helper.make_tensor(value.name, onnx.TensorProto.INT64, [1], [UNKNOWN]))
    del proto.graph.value_info[:]  # inner shapes, recorded for labels [batch]
    onnx.helper.set_model_props(proto, {METADATA: metadata})
    onnx.save(proto, path)


def run_torchscript(path: Path) -> Runner:
    """Return a function that runs the file on the CPU."""
    with _quiet():
        module = torch.jit.load(str(path), map_location="cpu")

    def run(rows: torch.Tensor, labels: Labels) -> torch.Tensor:
        with torch.no_grad():
            return module(rows, **labels)

    return run


def run_onnx(path: Path) -> Runner:
    """Return a function that runs the file with onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = QUIET_RUNTIME
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    first = session.get_inputs()[0].name

    def run(rows: torch.Tensor, labels: Labels) -> torch.Tensor:
        feeds = {first: rows, **labels}
        return torch.from_numpy(session.run(None, {name: value.numpy() for name, value in feeds.items()})[0])

    return run


WRITERS = {"onnx": write_onnx, "torchscript": write_torchscript}
RUNNERS = {"onnx": run_onnx, "torchscript": run_torchscript}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' progress and deprecations off the screen."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
