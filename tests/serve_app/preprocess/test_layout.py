"""Files become pictures in their place, and what does not fit is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from serve_app.errors import InvalidRequest
from serve_app.messages import PictureSource, PrepareRequest
from serve_app.preprocess.layout import Layout, Place, lay_out
from serve_app.preprocess.sizing import PictureLimits, Scaling
from serve_app.preprocess.wish import Frames, Pages, Sight, Wish
from shards.conversation import Conversation, Image, Message, Text
from shards.tokenizer import Tokenizer

FILE = Path(MistralTokenizer._data_path()) / "mistral_instruct_tokenizer_241114.model.v7m1"
LIMITS = PictureLimits(1024)
FIRST, SECOND, THIRD = "first file", "second file", "third file"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(FILE)


def request_of(
    *wishes: Wish,
    parts: tuple[Text | Image, ...] = (),
    max_pictures: int | None = None,
    max_prompt_tokens: int | None = None,
) -> PrepareRequest:
    """A question about a file for each wish, in the order of ``parts``."""
    names = (FIRST, SECOND, THIRD)
    pictures = tuple(
        PictureSource(b"", name, wish=wish) for name, wish in zip(names, wishes, strict=False)
    )
    content = parts or tuple(map(Image, range(len(wishes))))
    conversation = Conversation((Message("user", content),))
    return PrepareRequest("id", conversation, pictures, max_pictures, max_prompt_tokens)


def sight(*sizes: tuple[int, int], first: int = 0) -> Sight:
    return Sight(sizes, tuple(range(first, first + len(sizes))), 99)


def grids(layout: Layout) -> list[tuple[int, int]]:
    return [(shown.grid.rows, shown.grid.columns) for shown in layout.shown]


def test_what_a_file_becomes_stands_where_the_file_stood(tokenizer):
    request = request_of(
        Frames(count=2),
        Frames(),
        Pages(),
        parts=(Text("a"), Image(0), Text("b"), Image(1), Text("c"), Image(2), Text("d")),
    )
    sights = [
        sight((16, 16), (16, 32)),
        sight((16, 48)),
        sight((32, 16), (48, 16), (64, 16), first=4),
    ]
    layout = lay_out(request, sights, tokenizer, LIMITS)

    written = Conversation(
        (
            Message(
                "user",
                (
                    *(Text("a"), Image(0), Image(1), Text("b"), Image(2)),
                    *(Text("c"), Image(3), Image(4), Image(5), Text("d")),
                ),
            ),
        )
    )
    sizes = [size for each in sights for size in each.sizes]
    assert layout.prompt == tokenizer.encode(written, sizes)
    assert layout.places == (
        Place(0, 0),
        Place(0, 1),
        Place(1, 0),
        *(Place(2, i) for i in range(3)),
    )
    assert grids(layout) == [(1, 1), (2, 1), (3, 1), (1, 2), (1, 3), (1, 4)]
    assert [(shown.param, shown.frame, shown.page) for shown in layout.shown] == [
        (FIRST, 0, None),
        (FIRST, 1, None),
        (SECOND, None, None),
        *((THIRD, None, page) for page in (4, 5, 6)),
    ]


def test_a_picture_that_is_shown_first_keeps_its_place(tokenizer):
    """mistral-common puts the last picture of a turn of text before the text."""
    request = request_of(Frames(), parts=(Text("what?"), Image(0)))
    layout = lay_out(request, [sight((16, 32))], tokenizer, LIMITS)
    assert (layout.places, grids(layout)) == ((Place(0, 0),), [(2, 1)])


def test_patches_are_cut_under_the_sides_that_were_counted(tokenizer):
    request = request_of(Frames(count=2), Frames())
    sights = [sight((2000, 1000), (64, 64)), sight((900, 900))]
    layout = lay_out(request, sights, tokenizer, PictureLimits(1024, 1000, 1500))
    assert sum(shown.grid.tokens for shown in layout.shown) == layout.prompt.image_tokens <= 1500
    for place, shown in zip(layout.places, layout.shown, strict=True):
        width, height = sights[place.source].sizes[place.index]
        assert shown.size == (width, height)
        side = layout.max_sides[place.source][place.index]
        assert side <= max(width, height)
        assert (shown.scaling is None) == (side == max(width, height))
    scalings = [shown.scaling for shown in layout.shown]
    assert scalings == [Scaling.REQUEST_LIMIT, None, Scaling.REQUEST_LIMIT]


def test_frames_and_pages_are_counted(tokenizer):
    sights = [sight((16, 16), (16, 16)), sight((16, 16), first=1)]
    lay_out(request_of(Frames(count=2), Pages(), max_pictures=3), sights, tokenizer, LIMITS)
    with pytest.raises(InvalidRequest, match=r"^3 pictures .* at most 2 may$") as caught:
        lay_out(request_of(Frames(count=2), Pages(), max_pictures=2), sights, tokenizer, LIMITS)
    assert (caught.value.param, caught.value.code) == ("messages", "too_many_pictures")


def test_a_prompt_beyond_its_room_is_refused_with_each_picture_s_tokens(tokenizer):
    sights = [sight((64, 64)), sight((1024, 1024), (1024, 512), first=3)]
    fits = lay_out(request_of(Frames(), Pages()), sights, tokenizer, LIMITS)
    count = len(fits.prompt.token_ids)
    request = request_of(Frames(), Pages(), max_prompt_tokens=count)
    assert lay_out(request, sights, tokenizer, LIMITS) == fits
    narrow = request_of(Frames(), Pages(), max_prompt_tokens=count - 1)
    with pytest.raises(InvalidRequest) as caught:
        lay_out(narrow, sights, tokenizer, LIMITS)
    assert (caught.value.param, caught.value.code) == ("messages", "context_length_exceeded")
    assert caught.value.message == (
        f"the pictures take {20 + 4160 + 2080} tokens (first file: 20, second file page 3: 4160,"
        f" second file page 4: 2080) and the text 3, and there is room for {count - 1}; send fewer"
        " or smaller pictures, or ask for detail: low"
    )


def test_of_many_pictures_some_are_told(tokenizer):
    many = [sight(*[(64, 64)] * 20)]
    with pytest.raises(InvalidRequest) as caught:
        lay_out(request_of(Frames(count=20), max_prompt_tokens=9), many, tokenizer, LIMITS)
    assert "first file frame 7: 20, and 12 more)" in caught.value.message


def test_a_text_too_long_is_not_refused_here(tokenizer):
    """The gateway says it better, knowing what may be shortened."""
    request = request_of(parts=(Text("word " * 50),), max_prompt_tokens=9)
    assert len(lay_out(request, [], tokenizer, LIMITS).prompt.token_ids) > 50


def test_a_conversation_without_files_stays_as_it_is():
    spoken = Conversation((Message("user", (Text("a"),)),))
    assert spoken.expanded([]) == spoken
    shown = Conversation((Message("user", (Image(0), Text("a"), Image(1))),))
    assert shown.expanded([1, 1]) == shown
