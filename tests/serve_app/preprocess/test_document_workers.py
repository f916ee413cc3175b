"""Documents through real worker processes: drawn alike everywhere, and never dear to others."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from serve_app.errors import InvalidRequest
from serve_app.preparing import Preprocess
from serve_app.preprocess.documents import drawn_pages
from serve_app.preprocess.turns import Turn
from serve_app.preprocess.wish import FIRST_FRAME, Pages, Wish
from serve_app.preprocess.workers import CutPicture, Workers
from serve_app.telemetry import WorkerMetrics
from shards.pixels import patches
from tests.serve_app.preprocess.pdfs import BLUE, GREEN, RED, Page, content_pdf, pdf
from tests.serve_app.preprocess.pictures import encoded, noise

ENABLED = {"enabled": True, "max_pages": 8}
TURN = Turn("team", "request")
PLACE = "messages[0].content[1].document_url"
ALL = Pages(dpi=72)


@contextmanager
def pool(timeout_s: float) -> Iterator[Workers]:
    config = Preprocess.model_validate(
        {
            "workers": 1,
            "documents": ENABLED,
            "picture_timeout_s": timeout_s,
            "worker_memory_bytes": 2**28,
        }
    )
    workers = Workers(config, WorkerMetrics())
    yield workers
    workers.close()


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with pool(timeout_s=60) as workers:
        yield workers


async def cut(
    workers: Workers, data: bytes, wish: Wish = ALL, sides: tuple[int, ...] = (1024,)
) -> tuple[CutPicture[np.ndarray], ...]:
    return await workers.cut(data, wish, sides, PLACE, TURN, np.copy)


async def refused(workers: Workers, data: bytes) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        await cut(workers, data)
    assert caught.value.param == PLACE
    # Whoever comes next finds a worker.
    assert await cut(workers, pdf(Page()))
    return caught.value


async def test_pages_come_back_bit_for_bit(workers):
    document = pdf(Page(300, 200, RED), Page(2000, 500, GREEN), Page(100, 100, BLUE))
    sight = await workers.look(document, ALL, PLACE, TURN)
    assert (sight.sizes, sight.numbers, sight.total) == (
        ((300, 200), (2000, 500), (100, 100)),
        (1, 2, 3),
        3,
    )
    sides = (128, 1024, 100)
    found = await cut(workers, document, sides=sides)
    drawn = drawn_pages(document, sight, sides, PLACE)
    for one, page, side in zip(found, drawn, sides, strict=True):
        grid, values = patches(page, side)
        assert one.grid == grid
        assert np.array_equal(one.patches, values)


async def test_text_is_drawn_though_no_font_can_be_opened(workers):
    """One of the standard fonts, which files need not bring along."""
    document = content_pdf(b"BT /F1 40 Tf 10 30 Td (Pixtral) Tj ET", 200, 100)
    [page] = await cut(workers, document)
    white = page.patches.max()
    assert 0.05 < (page.patches < white - 1).mean() < 0.5


async def test_a_document_is_no_picture_and_a_picture_no_document(workers):
    assert (await refused(workers, encoded(noise(), "PNG"))).code == "invalid_document"
    with pytest.raises(InvalidRequest) as caught:
        await cut(workers, pdf(Page()), FIRST_FRAME)
    assert caught.value.code == "unsupported_picture"


async def test_a_refusal_passes_the_border_in_its_own_words(workers):
    error = await refused(workers, pdf(*[Page()] * 9))
    assert error.code == "too_many_pages"
    assert error.message == (
        "more than 8 pages of a document of 9 are asked for; name at most 8 in pages"
    )
    assert (await refused(workers, pdf(Page(), password="secret"))).code == "encrypted_document"


def packed(chunk: bytes, times: int) -> bytes:
    """``chunk`` so often, deflated, without ever being there."""
    packer = zlib.compressobj(9)
    first = packer.compress(chunk) + packer.flush(zlib.Z_FULL_FLUSH)
    # Whatever comes after a full flush is packed alike.
    again = packer.compress(chunk) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + again * (times - 1) + packer.flush()


async def test_an_image_larger_than_memory_is_drawn_line_by_line(workers):
    """600 megabytes of black, in a file of half a megabyte and with 256 of memory."""
    side = 14_000
    pixels = packed(bytes(3 * side * 100), side // 100)
    image = (
        b"<< /Type /XObject /Subtype /Image /Width %d /Height %d /ColorSpace /DeviceRGB"
        b" /BitsPerComponent 8 /Filter /FlateDecode /Length %d >>\nstream\n%s\nendstream"
        % (side, side, len(pixels), pixels)
    )
    [page] = await cut(workers, content_pdf(b"200 0 0 100 0 0 cm /I1 Do", 200, 100, image))
    assert np.array_equal(page.patches, patches(Image.new("RGB", (200, 100)))[1])


async def test_a_page_of_gigabytes_costs_its_sender_alone(workers):
    """Of what is drawn, 2 gigabytes: pdfium ends the process that it cannot go on in."""
    strokes = packed(b"1 0 0 rg 0 0 200 100 re f\n" * 400_000, 200)
    error = await refused(workers, content_pdf(strokes, 200, 100, entries=b"/Filter /FlateDecode "))
    assert (error.code, error.message) == ("invalid_document", "the document cannot be decoded")


async def test_a_page_that_takes_for_ever_is_given_up():
    """Curves across all of the page, far more than are drawn in a minute."""
    shape = b"q 0.9 0 0.3 rg 0 0 m 3000 10 4 3000 900 900 c f* Q\n"
    endless = content_pdf(shape * 380_000, 3000, 3000)
    with pool(timeout_s=1) as workers, pytest.raises(InvalidRequest) as caught:
        await cut(workers, endless)
    error = caught.value
    assert error.code == "document_too_costly"
    assert error.message == ("the document takes too much time to decode; at most 1 s are spent")
