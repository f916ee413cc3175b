"""Pages of PDF documents as pictures, drawn by pdfium. Their text is not extracted.

Bytes are a caller's and may be hostile, and pdfium is C++ and safe for one thread alone: both
functions run in a sandboxed process only. No page is drawn larger than it will be seen, however
large the paper and however many dots per inch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from PIL import Image

from serve_app.errors import InvalidRequest
from serve_app.preprocess.wish import Pages, Sight
from shards.grid import scaled_size

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument

_POINTS_PER_INCH = 72


def look_at_pages(data: bytes, pages: Pages, max_pages: int, param: str) -> Sight:
    """The sizes of the pages asked for at their dots per inch, upright.

    Raises:
        InvalidRequest: no readable PDF, one that asks for a password, a page that is not there, or
            more than ``max_pages``.
    """
    with _opened(data, param) as document:
        numbers = _numbers(pages, len(document), max_pages, param)
        sizes = tuple(_size(document, number, pages.dpi, param) for number in numbers)
        return Sight(sizes, numbers, len(document))


def drawn_pages(
    data: bytes, sight: Sight, max_sides: Sequence[int], param: str
) -> Iterator[Image.Image]:
    """Each page of ``sight`` in mode RGB on white, with filled-in forms and annotations.

    Args:
        max_sides: one a page, in pixels; a page that is longer is drawn so long.

    Raises:
        InvalidRequest: a page cannot be read.
    """
    with _opened(data, param) as document:
        document.init_forms()
        for number, size, max_side in zip(sight.numbers, sight.sizes, max_sides, strict=True):
            yield _drawn(document, number, scaled_size(*size, max_side), param)


@contextmanager
def _opened(data: bytes, param: str) -> Iterator[PdfDocument]:
    from pypdfium2 import PdfDocument, PdfiumError
    from pypdfium2.raw import FPDF_ERR_PASSWORD

    # pdfium takes a PDF out of whatever surrounds it; what is sent as one shall be one.
    if not data.startswith(b"%PDF-"):
        raise _broken(param)
    try:
        document = PdfDocument(data)
    except PdfiumError as error:
        if error.err_code == FPDF_ERR_PASSWORD:
            raise InvalidRequest(
                "the document is encrypted; send it without its password",
                param=param,
                code="encrypted_document",
            ) from None
        raise _broken(param) from None
    with closing(document):
        yield document


def _numbers(pages: Pages, total: int, most: int, param: str) -> tuple[int, ...]:
    """Of the pages, from 1."""
    wanted: list[int] = []
    for first, last in pages.ranges or ((1, None),):
        beyond = max(first, last or 1)
        if beyond > total:
            raise InvalidRequest(
                f"page {beyond} is asked for, and the document has {total}",
                param=param,
                code="no_such_page",
            )
        wanted += range(first, (last or total) + 1)
        if len(wanted) > most:
            raise InvalidRequest(
                f"more than {most} pages of a document of {total} are asked for; name at most"
                f" {most} in pages",
                param=param,
                code="too_many_pages",
            )
    return tuple(wanted)


def _size(document: PdfDocument, number: int, dpi: int, param: str) -> tuple[int, int]:
    """Width and height in pixels of a page that may be as large as its file says."""
    from pypdfium2 import PdfiumError

    try:
        points = document.get_page_size(number - 1)
    except PdfiumError:
        raise _broken(param) from None
    width, height = (side * dpi / _POINTS_PER_INCH for side in points)
    if not (math.isfinite(width) and math.isfinite(height) and width > 0 < height):
        raise _broken(param)
    return max(1, round(width)), max(1, round(height))


def _drawn(document: PdfDocument, number: int, size: tuple[int, int], param: str) -> Image.Image:
    from pypdfium2 import PdfBitmap, PdfiumError, raw

    try:
        page = document[number - 1]
    except PdfiumError:
        raise _broken(param) from None
    bitmap = PdfBitmap.new_native(*size, raw.FPDFBitmap_BGR, rev_byteorder=True)
    with closing(page), closing(bitmap):
        bitmap.fill_rect((255, 255, 255, 255), 0, 0, *size)
        place = (bitmap, page, 0, 0, *size, 0, raw.FPDF_ANNOT | raw.FPDF_REVERSE_BYTE_ORDER)
        raw.FPDF_RenderPageBitmap(*place)
        if document.formenv is not None:
            raw.FPDF_FFLDraw(document.formenv, *place)
        image: Image.Image = bitmap.to_pil()
        return image


def _broken(param: str) -> InvalidRequest:
    return InvalidRequest(
        "the document is not a readable PDF", param=param, code="invalid_document"
    )
