"""From files to pixels: both decoders against Pillow itself, and what happens to files that are none."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from datasets import decode, torch_datasets
from datasets.bases import Sample
from datasets.decode import read_image, resize
from datasets.image_files import read_header
from datasets.torch_datasets import ImageDataset
from utils.errors import DataError

BOTH = pytest.mark.parametrize("decoder", ["torchvision", "pillow"])
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    """Return a random RGB image with coarse and fine structure."""
    rng = np.random.default_rng(seed)
    layers = [
        Image.fromarray(rng.integers(0, 256, (-(-height // side), -(-width // side), 3), dtype=np.uint8))
        for side in (3, 8, 24)
    ]
    return Image.fromarray(
        np.mean([layer.resize((width, height), Image.Resampling.BICUBIC) for layer in layers], 0).astype(np.uint8)
    )


def jpeg(image: Image.Image, path: Path, **options: object) -> str:
    image.save(path, "JPEG", quality=90, **options)
    return str(path)


def by_pillow(path: str, size: tuple[int, int], resize_filter: str) -> np.ndarray:
    with pytest.MonkeyPatch.context() as patch, Image.open(path) as image:
        patch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        return np.asarray(image.convert("RGB").resize(size[::-1], FILTERS[resize_filter]), dtype=int)


def differences(path: str, size: tuple[int, int], resize_filter: str) -> np.ndarray:
    """Return the differences of the fast decoder to Pillow, absolute, in grey levels."""
    got = read_image(path, size, resize_filter, "torchvision")
    assert got.shape == (3, *size) and got.dtype == torch.uint8
    return np.abs(got.permute(1, 2, 0).numpy() - by_pillow(path, size, resize_filter))


@pytest.mark.parametrize("resize_filter", FILTERS)
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
@pytest.mark.parametrize("shape", [(64, 48), (40, 30), (64, 30)])
def test_without_shrinking_the_fast_decoder_gives_pillows_pixels(tmp_path, shape, options, resize_filter):
    path = jpeg(picture(*shape), tmp_path / "a.jpg", **options)
    off = differences(path, (64, 48), resize_filter)
    assert off.max() <= (0 if shape == (64, 48) else 1) and off.mean() < 0.01  # torch's weights have 16 bits


@pytest.mark.parametrize("resize_filter", FILTERS)
@pytest.mark.parametrize(("shape", "mean"), [((250, 300), 0.01), ((400, 420), 0.02), ((300, 250), 0.3)])
def test_where_a_side_shrinks_pixels_differ_by_a_rounding(tmp_path, shape, mean, resize_filter):
    """(300, 250): Pillow starts with the columns, torch always with the rows, and each rounds in between."""
    off = differences(jpeg(picture(*shape), tmp_path / "a.jpg"), (256, 256), resize_filter)
    assert off.max() <= 4 and off.mean() <= mean


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_jpegs_become_rgb(tmp_path, mode):
    path = jpeg(picture(30, 40).convert(mode), tmp_path / "a.jpg")
    assert differences(path, (30, 40), "bicubic").max() == 0
    off = differences(path, (60, 50), "bicubic")
    assert off.max() <= 1 and off.mean() < 0.01


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1"])
def test_other_formats_become_the_same_pixels_as_a_jpeg(tmp_path, mode):
    picture(30, 40).convert(mode).save(tmp_path / "a.png")
    assert differences(str(tmp_path / "a.png"), (30, 40), "bilinear").max() == 0
    off = differences(str(tmp_path / "a.png"), (60, 50), "bilinear")
    assert off.max() <= 1 and off.mean() < 0.01


def test_an_image_in_memory_is_read_as_its_file(tmp_path):
    path = jpeg(picture(90, 40), tmp_path / "a.jpg")
    for decoder in ("torchvision", "pillow"):
        with Image.open(path) as image:
            assert torch.equal(
                resize(image, (64, 64), "bicubic", decoder), read_image(path, (64, 64), "bicubic", decoder)
            )


def test_lanczos_is_pillows(tmp_path):
    path = jpeg(picture(90, 40), tmp_path / "a.jpg")
    ours, theirs = (read_image(path, (64, 64), "lanczos", decoder) for decoder in ("torchvision", "pillow"))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_a_truncated_jpeg_is_completed_as_pillow_does(tmp_path, share):
    stream = io.BytesIO()
    jpeg(picture(60, 40), stream)
    content = stream.getvalue()
    path = tmp_path / "cut.jpg"
    path.write_bytes(content[: int(share * len(content))])
    assert differences(str(path), (60, 40), "bicubic").max() == 0


@BOTH
def test_an_exif_orientation_is_not_applied(tmp_path, decoder):
    image = picture(60, 40)
    image.getexif()[0x0112] = 6  # stored turned by a quarter
    turned = jpeg(image, tmp_path / "turned.jpg", exif=image.getexif())
    plain = jpeg(image, tmp_path / "plain.jpg")
    assert torch.equal(*(read_image(path, (60, 40), "bicubic", decoder) for path in (turned, plain)))


@BOTH
def test_a_jpeg_of_too_many_pixels_is_refused(tmp_path, monkeypatch, decoder):
    path = jpeg(picture(800, 900), tmp_path / "big.jpg")
    for module in ("decode", "image_files"):
        monkeypatch.setattr(f"datasets.{module}.MAX_PIXELS", 300_000)
    with pytest.raises(DataError, match=r"big.jpg' does not decode \(900 x 800 pixels, readable are 1 to 300,000"):
        read_image(path, (8, 8), "bilinear", decoder)


@BOTH
def test_a_short_jpeg_whose_header_promises_billions_of_pixels_is_refused(tmp_path, decoder):
    content = bytearray(Path(jpeg(picture(60, 40), tmp_path / "small.jpg", exif=b"\xff\xc0" * 20)).read_bytes())
    frame = content.index(b"\xff\xc0\x00\x11")
    content[frame + 5 : frame + 9] = b"\xff\xdc" * 2  # height and width
    (tmp_path / "liar.jpg").write_bytes(content)
    with pytest.raises(DataError, match="liar.jpg' does not decode .*decompression bomb"):
        read_image(str(tmp_path / "liar.jpg"), (8, 8), "bilinear", decoder)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"exif": b"Exif\0\0" + b"\xff\xc0" * 20}])
def test_the_header_of_a_jpeg_tells_its_pixels(tmp_path, options):
    content = np.fromfile(jpeg(picture(61, 43), tmp_path / "a.jpg", **options), dtype=np.uint8)
    assert read_header(content).pixels == 61 * 43
    filled = np.insert(content, 2, [255, 255])  # bytes that only fill
    assert read_header(filled).pixels == 61 * 43
    assert all(read_header(content[:end]).pixels in (0, 61 * 43) for end in range(len(content)))


@pytest.mark.parametrize("lost", ["torchvision.io.decode_jpeg", "torch.ops.image.decode_jpeg"])
def test_a_torchvision_without_jpeg_gives_the_same_pixels_and_says_so_once(tmp_path, monkeypatch, caplog, lost):
    path = jpeg(picture(60, 40), tmp_path / "a.jpg")
    decode.jpeg_decoder.cache_clear()
    expected = read_image(path, (8, 8), "bilinear", "torchvision")  # loads what is taken away
    decode.jpeg_decoder.cache_clear()
    torch_datasets.say_slow_decoding.cache_clear()
    monkeypatch.delattr(lost)
    if lost.startswith("torch.ops"):
        monkeypatch.setattr("torch.ops.image", object())
    assert decode.jpeg_decoder() is None
    sample = Sample(path, 0, 0, 0)
    for _ in range(2):
        images = ImageDataset([sample], (8, 8), "bilinear", "torchvision")
        assert torch.equal(images[0][0], expected)
    assert [record.message for record in caplog.records] == [
        "INPUT.DECODER torchvision: this torchvision cannot decode JPEG, so Pillow does, to the same pixels but slower"
    ]
    monkeypatch.undo()
    decode.jpeg_decoder.cache_clear()


def test_decoder_pillow_resizes_with_pillows_filter_to_rgb(tmp_path):
    path = tmp_path / "a.png"
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    Image.fromarray(pixels).save(path)  # greyscale
    got = read_image(str(path), (8, 10), "bicubic", "pillow")
    expected = np.asarray(Image.open(path).convert("RGB").resize((10, 8), Image.Resampling.BICUBIC))
    assert got.shape == (3, 8, 10) and got.dtype == torch.uint8
    np.testing.assert_array_equal(got.permute(1, 2, 0).numpy(), expected)


@BOTH
def test_sixteen_bit_greyscale_keeps_its_shades(tmp_path, decoder):
    ramp = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    got = read_image(str(tmp_path / "deep.png"), (64, 64), "bilinear", decoder)
    np.testing.assert_array_equal(got[0].numpy(), (ramp.astype(np.int64) // 257).astype(np.uint8))
    assert torch.equal(got[0], got[1])


@BOTH
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_every_pillow_mode_becomes_rgb(tmp_path, mode, decoder):
    image = Image.new("RGB", (8, 8), (200, 100, 50)).convert(mode)
    image.save(tmp_path / "x.tif") if mode not in ("HSV",) else image.convert("RGB").save(tmp_path / "x.tif")
    assert read_image(str(tmp_path / "x.tif"), (8, 8), "bilinear", decoder).shape == (3, 8, 8)


@BOTH
@pytest.mark.parametrize("content", [b"", b"not a picture", b"\xff\xd8\xff\xe0broken"])
def test_a_file_that_does_not_decode_is_named(tmp_path, content, decoder):
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match="bad.jpg' does not decode"):
        read_image(str(path), (8, 8), "bilinear", decoder)


@BOTH
def test_a_missing_file_is_named(tmp_path, decoder):
    with pytest.raises(DataError, match="gone.jpg' is missing"):
        read_image(str(tmp_path / "gone.jpg"), (8, 8), "bilinear", decoder)


@BOTH
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_grey_has_the_shades_of_pillow_in_three_equal_channels(tmp_path, decoder, kind):
    path = tmp_path / "image"
    picture(40, 24, seed=3).save(path, kind)
    with Image.open(path) as image:
        whole = np.asarray(image.convert("RGB").convert("L"))
    got = read_image(str(path), (40, 24), "bilinear", decoder, grey=True)
    assert got.shape == (3, 40, 24) and all(np.array_equal(channel, whole) for channel in got.numpy())
    shrunk = read_image(str(path), (20, 12), "bilinear", decoder, grey=True)
    expected = np.asarray(Image.fromarray(whole).resize((12, 20), Image.Resampling.BILINEAR), dtype=int)
    assert (np.abs(shrunk.numpy() - expected) <= (0 if decoder == "pillow" else 1)).all()
    with Image.open(path) as image:
        assert torch.equal(resize(image, (20, 12), "bilinear", decoder, grey=True), shrunk)


@BOTH
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_what_is_grey_already_keeps_its_shades(tmp_path, decoder, kind):
    path = tmp_path / "image"
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(path, kind)
    plain, grey = (read_image(str(path), (8, 8), "bilinear", decoder, grey=grey) for grey in (False, True))
    assert torch.equal(plain, grey)
    equal = tmp_path / "rgb.png"
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16).repeat(3).reshape(16, 16, 3)).save(equal)
    plain, grey = (read_image(str(equal), (16, 16), "bilinear", decoder, grey=grey) for grey in (False, True))
    assert torch.equal(plain, grey)
