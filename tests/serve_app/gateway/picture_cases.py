"""What the official clients ask of pictures and are told of them, wherever the API runs."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest
from mistralai.client.models import ImageURLChunk, UserMessage
from PIL import Image

from shards.grid import patch_grid
from tests.serve_app.gateway.client_cases import Endpoint, data_url, image_part, text_part

PLACE = "messages[0].content[0].image_url"


def animation(frames: int, width: int = 40, height: int = 24) -> str:
    """A GIF of frames that differ, as a data URL."""
    images = [Image.new("RGB", (width, height), (8 * index, 99, 0)) for index in range(frames)]
    file = io.BytesIO()
    images[0].save(file, "GIF", save_all=True, append_images=images[1:])
    return "data:image/gif;base64," + base64.b64encode(file.getvalue()).decode()


def told(
    width: int, height: int, seen: tuple[int, int], scaled_by: str | None, **more: Any
) -> dict[str, Any]:
    """What is said of a picture; nothing of it cached unless ``more`` says so."""
    return {
        "param": PLACE,
        "width": width,
        "height": height,
        "seen_width": seen[0],
        "seen_height": seen[1],
        "scaled_by": scaled_by,
        "tokens": patch_grid(*seen).tokens,
        **more,
    }


class PictureCases:
    """Subclasses give an ``endpoint`` fixture."""

    def test_openai_is_told_of_each_picture(self, endpoint: Endpoint) -> None:
        part = image_part(33, 17)
        asked: Any = {
            "model": endpoint.model,
            "messages": [{"role": "user", "content": [part, text_part("What is it?")]}],
            "max_tokens": 2,
        }
        client = endpoint.openai()
        whole = client.chat.completions.create(**asked)
        [seen] = whole.usage.prompt_tokens_details.pictures
        assert seen == told(33, 17, (48, 32), None, cached_tokens=seen["cached_tokens"])
        *_, last = client.chat.completions.create(
            **asked, stream=True, stream_options={"include_usage": True}
        )
        [seen] = last.usage.prompt_tokens_details.pictures
        assert (seen["tokens"], seen["param"]) == (8, PLACE)

    def test_mistral_is_told_of_each_picture(self, endpoint: Endpoint) -> None:
        asked: Any = {
            "model": endpoint.model,
            "messages": [{"role": "user", "content": [image_part(33, 17), text_part("What?")]}],
            "max_tokens": 2,
        }
        client = endpoint.mistral()
        whole = client.chat.complete(**asked).usage
        *_, last = client.chat.stream(**asked)
        for usage in (whole, last.data.usage):
            [seen] = usage.additional_properties["prompt_tokens_details"]["pictures"]
            assert (seen["tokens"], seen["seen_width"], seen["seen_height"]) == (8, 48, 32)

    def test_a_text_is_told_of_no_pictures(self, endpoint: Endpoint) -> None:
        assert (
            "pictures" not in endpoint.chat(max_tokens=1).json()["usage"]["prompt_tokens_details"]
        )

    def test_low_detail_costs_a_fifteenth(self, endpoint: Endpoint) -> None:
        part = {"type": "image_url", "image_url": {"url": data_url(1024, 1024), "detail": "low"}}
        usage = (
            endpoint.openai()
            .chat.completions.create(
                model=endpoint.model,
                messages=[{"role": "user", "content": [part, text_part("What?")]}],
                max_tokens=1,
            )
            .usage.prompt_tokens_details
        )
        assert usage.image_tokens == 272
        assert usage.pictures[0]["scaled_by"] == "detail"

    @pytest.mark.parametrize("asks_beside", [True, False])
    def test_frames_are_pictures_in_the_place_of_their_file(
        self, endpoint: Endpoint, asks_beside: bool
    ) -> None:
        url = animation(9) if asks_beside else f"{animation(9)}#frames=3"
        image_url: dict[str, Any] = {"url": url, "frames": {"count": 3}} if asks_beside else {}
        part = {"type": "image_url", "image_url": image_url or url}
        usage = (
            endpoint.openai()
            .chat.completions.create(
                model=endpoint.model,
                messages=[{"role": "user", "content": [part, text_part("What happens?")]}],
                max_tokens=1,
            )
            .usage.prompt_tokens_details
        )
        assert [(seen["frame"], seen["tokens"]) for seen in usage.pictures] == [
            (0, 8),
            (4, 8),
            (8, 8),
        ]
        assert usage.image_tokens == 24

    def test_mistral_s_own_types_carry_what_stands_behind_a_url(self, endpoint: Endpoint) -> None:
        chunk = ImageURLChunk(image_url=f"{animation(5)}#indices=4,1")
        usage = (
            endpoint.mistral()
            .chat.complete(
                model=endpoint.model,
                messages=[UserMessage(content=[chunk])],
                max_tokens=1,
            )
            .usage
        )
        pictures = usage.additional_properties["prompt_tokens_details"]["pictures"]
        assert [seen["frame"] for seen in pictures] == [4, 1]

    def test_tokenize_quotes_the_pictures_that_the_answer_then_counts(
        self, endpoint: Endpoint
    ) -> None:
        low = {"type": "image_url", "image_url": {"url": data_url(700, 300), "detail": "low"}}
        moving = {"type": "image_url", "image_url": f"{animation(4)}#frames=2"}
        content = [text_part("Compare"), low, text_part("and"), moving]
        body = {
            "model": endpoint.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": 2,
        }
        quote = endpoint.post("/v1/tokenize", body).json()
        details = endpoint.post("/v1/chat/completions", body).json()["usage"][
            "prompt_tokens_details"
        ]
        for seen in details["pictures"]:
            del seen["cached_tokens"]
        assert details["pictures"] == quote["pictures"]
        assert len(quote["pictures"]) == 3
        assert quote["image_tokens"] == sum(seen["tokens"] for seen in quote["pictures"])
