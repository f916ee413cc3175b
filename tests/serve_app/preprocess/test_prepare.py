"""Conversations and pictures in, token ids and patches out."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from PIL import Image as Pillow

from serve_app.errors import InvalidRequest
from serve_app.messages import PictureSource, PrepareRequest
from serve_app.preparing import Preprocess
from serve_app.preprocess.prepare import Preparer
from serve_app.preprocess.workers import Workers
from shards.conversation import Conversation, Image, Message, Text
from shards.errors import RequestError
from shards.pixels import patches
from shards.tokenizer import Tokenizer
from tests.serve_app.preprocess.shared_workers import preparer as make_preparer

FILE = Path(MistralTokenizer._data_path()) / "mistral_instruct_tokenizer_241114.model.v7m1"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(FILE)


@pytest.fixture
def preparer(tokenizer) -> Preparer[np.ndarray]:
    return make_preparer(tokenizer, Preprocess())


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The places whose pictures were decoded."""
    places: list[str] = []

    cut = Workers.cut

    async def spy(workers: Workers, *arguments: Any) -> Any:
        places.append(arguments[3])
        return await cut(workers, *arguments)

    monkeypatch.setattr(Workers, "cut", spy)
    return places


def picture(width: int, height: int, colour: str) -> Pillow.Image:
    image = Pillow.new("RGB", (width, height), colour)
    image.putpixel((0, 0), (1, 2, 3))
    return image


def as_png(image: Pillow.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


RED, BLUE = picture(40, 20, "red"), picture(17, 50, "blue")
TWO_TURNS = Conversation(
    (
        Message("user", (Text("first"), Image(0), Text("and"), Image(1))),
        Message("assistant", (Text("seen"),)),
        Message("user", (Text("once more"), Image(0))),
    )
)


def ask(conversation: Conversation, *pictures: bytes, most: int | None = None) -> PrepareRequest:
    sources = tuple(PictureSource(data, f"place {index}") for index, data in enumerate(pictures))
    return PrepareRequest("request", conversation, sources, most)


async def test_pictures_come_in_the_order_in_which_the_prompt_shows_them(preparer, tokenizer):
    prepared = await preparer.prepare(ask(TWO_TURNS, as_png(RED), as_png(BLUE)))

    expected = tokenizer.encode(TWO_TURNS, [RED.size, BLUE.size])
    assert prepared.token_ids == expected.token_ids
    assert (prepared.text_tokens, prepared.image_tokens) == (
        expected.text_tokens,
        expected.image_tokens,
    )
    for cut, image in zip(prepared.pictures, (RED, BLUE, RED), strict=True):
        grid, patch_values = patches(image)
        assert cut.picture.grid == grid
        assert np.array_equal(cut.patches, patch_values)
    features = sum(cut.picture.grid.patches for cut in prepared.pictures)
    assert prepared.token_ids.count(tokenizer.vocabulary.image_id) == features


async def test_a_turn_that_is_shown_picture_first_keeps_pictures_and_grids_together(preparer):
    swapped = Conversation(
        (
            Message("user", (Image(1), Image(0))),
            Message("assistant", (Text("seen"),)),
            Message("user", (Text("and this?"), Image(2))),
        )
    )
    wide = picture(90, 10, "green")
    prepared = await preparer.prepare(ask(swapped, as_png(RED), as_png(BLUE), as_png(wide)))
    assert [cut.patches.tolist() for cut in prepared.pictures] == [
        patches(image)[1].tolist() for image in (BLUE, RED, wide)
    ]


async def test_text_alone_needs_no_pictures(preparer):
    prepared = await preparer.prepare(ask(Conversation((Message("user", (Text("hello"),)),))))
    assert prepared.pictures == ()
    assert prepared.image_tokens == 0
    assert prepared.text_tokens == len(prepared.token_ids) > 3


async def test_equal_pictures_are_decoded_once(preparer, decoded):
    both = Conversation((Message("user", (Image(0), Text("or"), Image(1), Image(2))),))
    prepared = await preparer.prepare(ask(both, as_png(RED), as_png(BLUE), as_png(RED)))
    assert decoded == ["place 0", "place 1"]
    first, _, third = prepared.pictures
    assert first.patches is third.patches


async def test_a_bad_picture_is_named_by_its_place(preparer):
    with pytest.raises(InvalidRequest, match="not a JPEG") as caught:
        await preparer.prepare(ask(TWO_TURNS, as_png(RED), b"no picture"))
    assert caught.value.param == "place 1"


@pytest.mark.parametrize("pictures", [(), (as_png(RED),), (as_png(RED),) * 3])
async def test_a_wrong_count_of_pictures_is_refused_undecoded(preparer, decoded, pictures):
    with pytest.raises(RequestError, match=f"2 pictures are named but {len(pictures)} came"):
        await preparer.prepare(ask(TWO_TURNS, *pictures))
    assert decoded == []


async def test_more_pictures_than_allowed_are_refused_undecoded(preparer, decoded):
    request = ask(TWO_TURNS, as_png(RED), as_png(BLUE), most=1)
    with pytest.raises(InvalidRequest, match="at most 1 may") as caught:
        await preparer.prepare(request)
    assert (caught.value.param, caught.value.code) == ("messages", "too_many_pictures")
    assert decoded == []
    assert (await preparer.prepare(ask(TWO_TURNS, as_png(RED), as_png(BLUE), most=2))).pictures


async def test_an_impossible_conversation_is_refused_undecoded(preparer, decoded):
    ends_wrong = Conversation(TWO_TURNS.messages[:2])
    with pytest.raises(RequestError, match="last message"):
        await preparer.prepare(ask(ends_wrong, as_png(RED), as_png(BLUE)))
    assert decoded == []


async def test_the_configured_limits_hold(tokenizer):
    strict = make_preparer(tokenizer, Preprocess(max_picture_pixels=400))
    with pytest.raises(InvalidRequest, match="at most 400"):
        await strict.prepare(ask(TWO_TURNS, as_png(RED), as_png(BLUE)))
