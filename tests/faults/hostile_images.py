"""Image files as a hostile stranger builds them: other formats under the name of one, and bombs."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from datasets import image_files

FORMATS = {
    "JPEG": {"quality": 90},
    "PNG": {},
    "BMP": {},
    "GIF": {},
    "TIFF": {"compression": "tiff_lzw"},
    "WEBP": {"quality": 80},
    "MPO": {"save_all": True},
}


def photo(height: int = 40, width: int = 30) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (-(-height // 4), -(-width // 4), 3), dtype=np.uint8)
    return Image.fromarray(np.kron(pixels, np.ones((4, 4, 1), dtype=np.uint8))[:height, :width])


def saved(kind: str, image: Image.Image | None = None, **options: object) -> bytes:
    stream = io.BytesIO()
    (photo() if image is None else image).save(stream, kind, **(FORMATS.get(kind, {}) | options))
    return stream.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, rows: bytes = b"", depth: int = 8, colour: int = 2) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def jpeg_of(width: int, height: int, marks: bytes = b"") -> bytes:
    """Return a small JPEG whose header promises another size, `marks` before its frame."""
    content = bytearray(saved("JPEG"))
    frame = content.index(b"\xff\xc0\x00\x11")
    content[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(content[:frame] + marks + content[frame:])


def many_scans(count: int) -> bytes:
    content = saved("JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * count + b"\xff\xd9"


def webp_of(width: int, height: int) -> bytes:
    """Return a lossless WebP whose header promises another size."""
    content = bytearray(saved("WEBP", lossless=True))
    bits = (width - 1) | (height - 1) << 14
    content[21:25] = struct.pack("<I", bits | struct.unpack("<I", content[21:25])[0] & 0xF0000000)
    return bytes(content)


def bmp_of(width: int, height: int) -> bytes:
    content = bytearray(saved("BMP"))
    content[18:26] = struct.pack("<ii", width, height)
    return bytes(content)


def gif_of(width: int, height: int) -> bytes:
    content = bytearray(saved("GIF"))
    content[6:10] = struct.pack("<HH", width, height)
    return bytes(content)


def tiff_of(mode: str) -> bytes:
    return saved("TIFF", photo().convert(mode))


EPS = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 30 40\n%%EndComments\n(touched) (w) file closefile\nshowpage\n%%EOF\n"
)
FOREIGN = {  # content of a file that is named .jpg
    "eps": EPS,
    "eps behind a binary header": struct.pack("<IIIIIIIH", 0xC6D3D0C5, 30, len(EPS), 0, 0, 0, 0, 0xFFFF) + EPS,
    "postscript": b"%!PS\n(touched) (w) file closefile\nshowpage\n",
    "pdf": b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n",
    "svg": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect/></svg>',
    "html": b"<!DOCTYPE html><html><body><img src='a.jpg'></body></html>",
    "xpm": b'/* XPM */\nstatic char *a[] = {"1 1 1 1", "a c #ff0000", "a"};\n',
    "xbm": b"#define a_width 8\n#define a_height 1\nstatic char a_bits[] = {0x01};\n",
    "ppm": b"P6\n2 2\n255\n" + bytes(12),
    "pgm of text": b"P2\n2 2\n255\n1 2 3 4\n",
    "psd": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 4, 4, 8, 3) + bytes(12) + b"\0\0" + bytes(48),
    "ico": saved("ICO", photo(16, 16)),
    "icns": saved("ICNS", photo(16, 16)),
    "tga": saved("TGA"),
    "pcx": saved("PCX"),
    "sgi": saved("SGI"),
    "dds": saved("DDS"),
    "im": saved("IM"),
    "spider": saved("SPIDER", photo().convert("F")),
    "fits": b"SIMPLE  =                    T".ljust(80) + b"END".ljust(2800),
    "fli": struct.pack("<IHHHHHH", 128, 0xAF11, 1, 8, 8, 8, 3) + bytes(112),
    "wmf": b"\xd7\xcd\xc6\x9a\0\0" + struct.pack("<hhhhH", 0, 0, 9, 9, 96) + bytes(12),
    "wal": bytes(100),
    "zip": b"PK\x03\x04" + bytes(60),
    "gzip": b"\x1f\x8b\x08" + bytes(40),
    "elf": b"\x7fELF" + bytes(60),
    "shell script": b"#!/bin/sh\ntouch touched\n",
    "pickle": b"\x80\x04\x95" + b"cposix\nsystem\n(S'touch touched'\ntR.",
    "empty": b"",
    "one byte": b"\xff",
    "start of a jpeg": b"\xff\xd8\xff",
    "start of a png": b"\x89PNG\r\n\x1a\n",
    "start of a gif": b"GIF89a",
    "start of a bmp": b"BM",
    "start of a tiff": b"II*\0\x08\0\0\0",
    "start of a webp": b"RIFF\x10\0\0\0WEBPVP8 ",
    "zeros": bytes(5000),
    "text": b"not a picture",
}
BOMBS = {
    "png of 100,000 x 100,000": png(100_000, 100_000),
    "png of 2**31 columns": png(2**31 - 1, 1),
    "png without columns": png(0, 4),
    "png just over the bound": png(image_files.MAX_PIXELS + 1, 1, depth=1, colour=0),
    "jpeg of 65,500 x 65,500": jpeg_of(65_500, 65_500),
    "jpeg without rows": jpeg_of(30, 0),
    "jpeg of 65,500 x 65,500 behind a mark without length": jpeg_of(65_500, 65_500, b"\xff\x01"),
    "jpeg with 30,000 bytes in its header": jpeg_of(30, 40, b"\0" * 30_000),
    "jpeg with 30,000 fill bytes": jpeg_of(30, 40, b"\xff" * 30_000),
    "jpeg of 600 scans": many_scans(600),
    "webp of 16,383 x 16,383": webp_of(16_383, 16_383),
    "bmp of 2**30 columns": bmp_of(2**30, 4),
    "gif of 65,535 x 65,535": gif_of(65_535, 65_535),
    "floats of unknown range": tiff_of("F"),
}
