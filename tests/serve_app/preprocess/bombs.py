"""Files that are made to cost their reader more than they cost their sender."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from zipfile import ZipFile

from PIL import Image

from tests.serve_app.preprocess.pictures import encoded, large_png, noise, png

_SMALL = noise(40, 30)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _after_header(chunk: bytes, data: bytes) -> bytes:
    """A PNG with one more chunk behind its first."""
    return data[:33] + chunk + data[33:]


def _zeros(size: int) -> bytes:
    """Deflated to a thousandth."""
    packer = zlib.compressobj(9)
    piece = bytes(2**20)
    return b"".join(packer.compress(piece) for _ in range(size // 2**20)) + packer.flush()


def _tiff(*entries: tuple[int, int, int, int], after: int = 0) -> bytes:
    """Tag, type, count, value of each; ``after``: where the next directory is."""
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + struct.pack("<I", after)


def _tiff_of(width: int, height: int, strip_bytes: int, *more: tuple[int, int, int, int]) -> bytes:
    shape = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1)]
    strip = [(262, 3, 1, 1), (273, 4, 1, 8), (278, 4, 1, height), (279, 4, 1, strip_bytes)]
    return _tiff(*shape, *strip, *more)


def _gif(width: int, height: int, frames: int, block: bytes) -> bytes:
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02" + block
    return head + frame * frames + b"\x3b"


def _webp(width: int, height: int) -> bytes:
    """A lossless header that declares more than comes."""
    bits = (width - 1) | (height - 1) << 14
    body = b"\x2f" + struct.pack("<I", bits) + bytes(12)
    chunk = b"VP8L" + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def _progressive_scans(times: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again: each is a whole pass."""
    data = encoded(noise(320, 240).resize((3000, 2000)), "JPEG", progressive=True, quality=30)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * times + data[-2:]


def _zip() -> bytes:
    stream = BytesIO()
    with ZipFile(stream, "w") as archive:
        archive.writestr("run.exe", b"MZ")
    return stream.getvalue()


def bombs() -> dict[str, bytes]:
    """Refused or harmless; each by what it tries."""
    small, line = encoded(_SMALL, "PNG"), b"\x05\x84\x8f\xa9\xcb\xed\x0f\x00"
    return {
        "a PNG of 400 megapixels in 40 kB": png(20_000, 20_000, 8, 0, bytes(64)),
        "a PNG of 2^31 pixels a side": png(2**31 - 1, 2**31 - 1, 8, 2, b""),
        "a PNG of one line and 2^30 columns": png(2**30, 1, 1, 0, bytes(64)),
        "a PNG just within the limit": large_png(3900),
        "a PNG text of a gigabyte": _after_header(
            _chunk(b"zTXt", b"Comment\0\0" + _zeros(2**30)), small
        ),
        "a PNG profile of a gigabyte": _after_header(
            _chunk(b"iCCP", b"profile\0\0" + _zeros(2**30)), small
        ),
        "a PNG of a hundred thousand empty chunks": _after_header(
            _chunk(b"IDAT", b"") * 100_000, small
        ),
        "a PNG that unpacks to a gigabyte more than it needs": small[:33]
        + _chunk(b"IDAT", _zeros(2**30))
        + _chunk(b"IEND", b""),
        "a GIF of 65,535 pixels a side": _gif(65_535, 65_535, 1, line),
        "a GIF of ten thousand frames": _gif(40, 30, 10_000, line),
        "a GIF whose blocks never end": _gif(40, 30, 1, b"\xff" + bytes(255)) * 4000,
        "a GIF of a comment of megabytes": b"GIF89a"
        + struct.pack("<HHBBB", 9, 9, 0, 0, 0)
        + b"\x21\xfe"
        + (b"\xff" + b"x" * 255) * 8000,
        "a WebP of 16,384 pixels a side": _webp(16_384, 16_384),
        "a TIFF of 2^31 pixels a side": _tiff_of(2**31 - 1, 2**31 - 1, 64),
        "a TIFF of 60,000 pixels a side": _tiff_of(60_000, 60_000, 64),
        "a TIFF whose strip lies outside": _tiff_of(1000, 1000, 2**32 - 1),
        "a TIFF with 2^32 - 1 values in a tag": _tiff_of(40, 30, 64, (700, 1, 2**32 - 1, 8)),
        "a TIFF whose directory follows itself": _tiff((256, 4, 1, 40), (257, 4, 1, 30), after=8),
        "a TIFF of 65,535 entries": b"II*\0" + struct.pack("<IH", 8, 65_535) + bytes(700_000),
        "a BMP of 2^31 pixels a side": b"BM"
        + struct.pack("<IHHI", 100, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 2**31 - 1, 2**31 - 1, 1, 24, 0, 0, 0, 0, 0, 0),
        "a JPEG of 65,535 pixels a side": encoded(_SMALL, "JPEG").replace(
            struct.pack(">HH", 30, 40), b"\xff\xff\xff\xff"
        ),
        "a JPEG of two hundred scans more": _progressive_scans(200),
        "a JPEG that never ends": encoded(_SMALL, "JPEG")[:-2] + b"\xff\x00" * 2_000_000,
        "a JPEG of comments alone": b"\xff\xd8" + b"\xff\xfe\xff\xff" * 100 + bytes(6_000_000),
        "an AVIF of boxes in boxes": b"\0\0\0\x18ftypavif\0\0\0\0avifmif1"
        + b"".join(struct.pack(">I", 2**20 - 8 * n) + b"meta" for n in range(100_000)),
        "a HEIF of items without number": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
        + struct.pack(">I4sI", 500_000, b"meta", 0)
        + struct.pack(">I4sIH", 499_000, b"iloc", 0, 65_535)
        + bytes(498_000),
    }


def polyglots() -> dict[str, bytes]:
    """Pictures that are something else as well, and what only says it is one."""
    photo, drawing = encoded(_SMALL, "JPEG"), encoded(_SMALL, "PNG")
    return {
        "a PNG that is a ZIP": drawing + _zip(),
        "a JPEG that is a ZIP": photo + _zip(),
        "a JPEG with PHP in a comment": photo[:2]
        + b"\xff\xfe\x00\x1e<?php system($_GET['x']); ?>"
        + photo[2:],
        "a GIF that is JavaScript": encoded(_SMALL, "GIF") + b"*/=1;alert(1)",
        "a PNG that is HTML": drawing + b"<script>alert(1)</script>",
        "a GIF that is a shell script": b"GIF89a=1;#!/bin/sh\nrm -rf /\n" + bytes(800),
        "a PDF that says it is a PNG": b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\n",
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n",
        "an SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        "XML entities": b"<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><x>&a;</x>",
        "an ICO": encoded(_SMALL, "ICO"),
        "JPEG 2000": encoded(_SMALL, "JPEG2000"),
        "a pickle": b"\x80\x04\x95\x1d\0\0\0\0\0\0\0\x8c\x05posix\x8c\x06system\x93.",
        "a PNG within a PNG's text": _after_header(
            _chunk(b"tEXt", b"Comment\0" + drawing), drawing
        ),
        "nothing": b"\0",
    }


def truncated() -> dict[str, bytes]:
    """Every format, ended early."""
    image = Image.effect_mandelbrot((200, 150), (-3, -2.5, 2, 2.5), 40).convert("RGB")
    cut = {}
    for form in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "HEIF", "AVIF"):
        data = encoded(image, form)
        for share in (0.1, 0.5, 0.9):
            cut[f"{share:.0%} of a {form}"] = data[: int(len(data) * share)]
    return cut
