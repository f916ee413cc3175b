"""PDF documents written by hand: pages of one colour, turned, with a form, encrypted."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

Colour = tuple[float, float, float]
RED: Colour = (1, 0, 0)
GREEN: Colour = (0, 1, 0)
BLUE: Colour = (0, 0, 1)
_PADDING = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")
_ID = b"0123456789abcdef"
_NO_PERMISSIONS = struct.pack("<i", -4)


@dataclass(frozen=True)
class Page:
    """Points; the colour fills the lower left quarter of the paper before it is turned.

    ``form``: its colour fills a form's field in the upper right quarter.
    """

    width: float = 72
    height: float = 144
    colour: Colour = RED
    turned: int = 0
    form: Colour | None = None
    media_box: str | None = None


def pdf(*pages: Page, password: str | None = None) -> bytes:
    """``password``: encrypts it, RC4 of 40 bits; an empty one is asked of nobody."""
    objects: dict[int, bytes] = {}
    kids, fields, number = [], [], 3
    for page in pages:
        kids.append(number)
        objects[number + 1] = _stream(_filled(page.colour, page.width / 2, page.height / 2))
        annotations = b""
        if page.form is not None:
            fields.append(number + 2)
            annotations = b"/Annots [%d 0 R]" % (number + 2)
            objects[number + 2] = _field(page, number + 3)
            box = b"/Type /XObject /Subtype /Form /BBox [0 0 %g %g] /Resources << >> " % (
                page.width / 2,
                page.height / 2,
            )
            filled = _filled(page.form, page.width / 2, page.height / 2)
            objects[number + 3] = _stream(filled, box)
        media_box = (page.media_box or f"[0 0 {page.width:g} {page.height:g}]").encode()
        objects[number] = (
            b"<< /Type /Page /Parent 2 0 R /MediaBox %s /Rotate %d /Resources << >>"
            b" /Contents %d 0 R %s >>" % (media_box, page.turned, number + 1, annotations)
        )
        number += 4
    form = b"/AcroForm << /Fields [%s] >>" % _references(fields) if fields else b""
    objects[1] = b"<< /Type /Catalog /Pages 2 0 R %s >>" % form
    objects[2] = b"<< /Type /Pages /Kids [%s] /Count %d >>" % (_references(kids), len(kids))
    trailer = b"/Root 1 0 R /ID [<%s> <%s>]" % ((_ID.hex().encode(),) * 2)
    if password is not None:
        key, encrypt = _encryption(password)
        objects = {name: _encrypted(name, body, key) for name, body in objects.items()}
        objects[number] = encrypt
        trailer += b" /Encrypt %d 0 R" % number
    return _file(objects, trailer)


def _file(objects: dict[int, bytes], trailer: bytes) -> bytes:
    written, places = b"%PDF-1.7\n", {}
    for number, body in sorted(objects.items()):
        places[number] = len(written)
        written += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    size = max(objects) + 1
    table = b"0000000000 65535 f \n"
    for number in range(1, size):
        known = number in places
        table += b"%010d %05d %s \n" % (places.get(number, 0), 0 if known else 1, b"fn"[known:][:1])
    return written + b"xref\n0 %d\n%strailer\n<< /Size %d %s >>\nstartxref\n%d\n%%%%EOF\n" % (
        size,
        table,
        size,
        trailer,
        len(written),
    )


def _references(numbers: list[int]) -> bytes:
    return b" ".join(b"%d 0 R" % number for number in numbers)


def _filled(colour: Colour, width: float, height: float) -> bytes:
    return b"%g %g %g rg 0 0 %g %g re f" % (*colour, width, height)


def _stream(content: bytes, entries: bytes = b"") -> bytes:
    return b"<< %s/Length %d >>\nstream\n%s\nendstream" % (entries, len(content), content)


def _field(page: Page, appearance: int) -> bytes:
    return (
        b"<< /Type /Annot /Subtype /Widget /FT /Btn /Ff 65536 /T (a) /F 4 /Rect [%g %g %g %g]"
        b" /AP << /N %d 0 R >> >>"
        % (page.width / 2, page.height / 2, page.width, page.height, appearance)
    )


def _encryption(password: str) -> tuple[bytes, bytes]:
    """The standard handler's key, and the dictionary that asks for it."""
    user = (password.encode() + _PADDING)[:32]
    owner = _rc4(hashlib.md5(user).digest()[:5], user)
    key = hashlib.md5(user + owner + _NO_PERMISSIONS + _ID).digest()[:5]
    check = _rc4(key, _PADDING)
    return key, b"<< /Filter /Standard /V 1 /R 2 /P -4 /O <%s> /U <%s> >>" % (
        owner.hex().encode(),
        check.hex().encode(),
    )


def _encrypted(number: int, body: bytes, key: bytes) -> bytes:
    """Streams are; there are no strings."""
    head, marker, rest = body.partition(b"\nstream\n")
    if not marker:
        return body
    content = rest.removesuffix(b"\nendstream")
    own = hashlib.md5(key + struct.pack("<I", number)[:3] + b"\0\0").digest()[:10]
    return head + marker + _rc4(own, content) + b"\nendstream"


def _rc4(key: bytes, data: bytes) -> bytes:
    state = list(range(256))
    j = 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    i = j = 0
    out = bytearray()
    for byte in data:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        out.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(out)


def content_pdf(
    content: bytes, width: int, height: int, image: bytes | None = None, entries: bytes = b""
) -> bytes:
    """One page of what ``content`` draws, with Helvetica as F1 and perhaps an object as I1.

    ``entries``: of the content's own dictionary.
    """
    named = b"" if image is None else b"/XObject << /I1 5 0 R >>"
    objects = {
        1: b"<< /Type /Catalog /Pages 2 0 R >>",
        2: b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        3: b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 %d %d] /Contents 4 0 R /Resources <<"
        b" /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> %s >> >>"
        % (width, height, named),
        4: _stream(content, entries),
    }
    if image is not None:
        objects[5] = image
    return _file(objects, b"/Root 1 0 R")
