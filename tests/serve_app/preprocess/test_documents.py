"""Pages of PDF documents, as pdfium draws them."""

from __future__ import annotations

import random

import pytest
from PIL import Image

from serve_app.errors import InvalidRequest
from serve_app.preprocess.documents import drawn_pages, look_at_pages
from serve_app.preprocess.wish import Pages, Sight
from tests.serve_app.preprocess.pdfs import BLUE, GREEN, RED, Page, pdf

PLACE = "messages[0].content[1].document_url"
THREE = pdf(Page(colour=RED), Page(144, 72, GREEN), Page(216, 36, BLUE))
WHITE = (255, 255, 255)


def look(data: bytes, *ranges: tuple[int, int | None], dpi: int = 72, most: int = 10) -> Sight:
    return look_at_pages(data, Pages(ranges, dpi), most, PLACE)


def draw(data: bytes, sight: Sight, max_side: int = 1024) -> list[Image.Image]:
    return list(drawn_pages(data, sight, [max_side] * len(sight.sizes), PLACE))


def refused(data: bytes, *ranges: tuple[int, int | None], most: int = 10) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        look(data, *ranges, most=most)
    assert caught.value.param == PLACE
    return caught.value


def corners(image: Image.Image) -> list[object]:
    """Colours of upper left, upper right, lower left, lower right."""
    left, right, top, bottom = 2, image.width - 3, 2, image.height - 3
    return [
        image.getpixel(at) for at in ((left, top), (right, top), (left, bottom), (right, bottom))
    ]


def test_every_page_is_shown_unless_some_are_named():
    assert look(THREE) == Sight(((72, 144), (144, 72), (216, 36)), (1, 2, 3), 3)
    assert look(THREE, (2, None)).numbers == (2, 3)
    assert look(THREE, (3, 3), (1, 2)).numbers == (3, 1, 2)
    assert look(THREE, (3, 3), (3, 3)).sizes == ((216, 36), (216, 36))


@pytest.mark.parametrize(("dpi", "size"), [(72, (72, 144)), (150, (150, 300)), (10, (10, 20))])
def test_a_page_is_as_large_as_its_dots_per_inch_make_it(dpi, size):
    sight = look(THREE, (1, 1), dpi=dpi)
    assert sight.sizes == (size,)
    [image] = draw(THREE, sight)
    assert (image.mode, image.size) == ("RGB", size)


def test_pages_are_drawn_on_white_in_the_order_asked_for():
    blue, red = draw(THREE, look(THREE, (3, 3), (1, 1)))
    assert corners(blue) == [WHITE, WHITE, (0, 0, 255), WHITE]
    assert corners(red) == [WHITE, WHITE, (255, 0, 0), WHITE]


def test_a_page_is_drawn_no_larger_than_it_is_seen():
    """A poster at 600 dots per inch would be 36 megapixels."""
    poster = pdf(Page(720, 720))
    sight = look(poster, dpi=600)
    assert sight.sizes == ((6000, 6000),)
    [image] = draw(poster, sight, max_side=256)
    assert image.size == (256, 256)


@pytest.mark.parametrize(
    ("turned", "where"), [(0, 2), (90, 0), (180, 1), (270, 3)], ids=["0", "90", "180", "270"]
)
def test_turned_pages_are_upright(turned, where):
    page = pdf(Page(72, 144, RED, turned=turned))
    sight = look(page)
    assert sight.sizes == (((144, 72) if turned % 180 else (72, 144)),)
    [image] = draw(page, sight)
    assert [colour != WHITE for colour in corners(image)] == [at == where for at in range(4)]


def test_filled_in_forms_are_shown():
    page = pdf(Page(72, 144, RED, form=BLUE))
    [image] = draw(page, look(page))
    assert corners(image) == [WHITE, (0, 0, 255), (255, 0, 0), WHITE]


def test_a_page_that_is_not_there_is_refused_with_the_numbers():
    error = refused(THREE, (4, 4))
    assert error.code == "no_such_page"
    assert error.message == "page 4 is asked for, and the document has 3"
    assert refused(THREE, (2, 9)).message.startswith("page 9 ")
    assert refused(THREE, (5, None)).message.startswith("page 5 ")


def test_more_pages_than_allowed_are_refused_with_the_numbers():
    assert len(look(THREE, most=3).sizes) == 3
    error = refused(THREE, most=2)
    assert error.code == "too_many_pages"
    assert "more than 2 pages of a document of 3" in error.message
    # The hundred ranges of a body, each of all pages.
    assert refused(THREE, *[(1, None)] * 100, most=10).code == "too_many_pages"


def test_a_password_is_not_guessed():
    assert refused(pdf(Page(), password="secret")).code == "encrypted_document"


def test_a_document_that_everybody_may_open_is_drawn():
    page = pdf(Page(), password="")
    [image] = draw(page, look(page))
    assert corners(image) == [WHITE, WHITE, (255, 0, 0), WHITE]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"%PDF-",
        b"%PDF-1.7\nnothing of the kind",
        b"\x89PNG\r\n\x1a\n",
        b"prefix " + THREE,
        THREE[: len(THREE) // 2],
        pdf(),
    ],
)
def test_what_is_no_readable_document_is_refused(data):
    assert refused(data).code == "invalid_document"


@pytest.mark.parametrize("box", ["[0 0 0 0]", "[0 0 nan 5]", "[0 0 1e39 1e39]", "[]"])
def test_a_page_without_a_size_is_a_letter(box):
    assert look(pdf(Page(media_box=box))).sizes == ((612, 792),)


def test_paper_of_any_size_becomes_a_picture_that_is_seen():
    for width, height, size in ((0.001, 0.001, (1, 1)), (3_000_000, 9, (3_000_000, 9))):
        page = pdf(Page(media_box=f"[0 0 {width} {height}]"))
        sight = look(page)
        assert sight.sizes == (size,)
        assert max(draw(page, sight)[0].size) <= 1024


def test_no_damage_raises_anything_but_a_refusal():
    rng = random.Random(1)
    refusals = 0
    for _ in range(150):
        damaged = bytearray(THREE)
        for _ in range(rng.randint(1, 12)):
            damaged[rng.randrange(8, len(damaged))] = rng.randrange(256)
        try:
            sight = look(bytes(damaged))
            draw(bytes(damaged), sight, max_side=64)
        except InvalidRequest:
            refusals += 1
    assert 0 < refusals < 150
