"""Pictures, frames and pages through the whole API: counted, capped, refused in time."""

from __future__ import annotations

import base64
import io
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mistralai.client.models import DocumentURLChunk, TextChunk, UserMessage
from PIL import Image

from shards.tokenizer import Tokenizer
from tests.serve_app.gateway.client_cases import Endpoint, data_url, image_part, text_part
from tests.serve_app.gateway.conftest import Gateway, make_config
from tests.serve_app.gateway.engine_tiers import MAX_CONTEXT_TOKENS
from tests.serve_app.gateway.picture_cases import PictureCases, animation
from tests.serve_app.gateway.store import Store
from tests.serve_app.preprocess.pdfs import BLUE, GREEN, Page, pdf

Serve = Callable[..., Gateway]


class TestClients(PictureCases):
    pass


@pytest.fixture(scope="module")
def documents(
    tokenizer: Tokenizer, founded: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Endpoint]:
    """Where they are enabled, pages are capped and pictures are."""
    folder = Path(shutil.copytree(founded, tmp_path_factory.mktemp("documents") / "accounts"))
    config = make_config(
        folder,
        gateway={"max_pictures": 12},
        preprocess={
            "documents": {"enabled": True, "max_pages": 6, "dpi": 36},
            "max_picture_tokens": 300,
            "max_request_picture_tokens": 1200,
        },
    )
    gateway = Gateway(tokenizer, Store.on_sqlite(folder), config)
    yield gateway.endpoint
    gateway.stop()


def pdf_url(*pages: Page, **options: Any) -> str:
    return "data:application/pdf;base64," + base64.b64encode(pdf(*pages, **options)).decode()


def document(*pages: Page, **fields: Any) -> Any:
    return {"type": "document_url", "document_url": pdf_url(*pages), **fields}


def ask(endpoint: Endpoint, *content: Any, path: str = "/v1", **fields: Any) -> Any:
    return endpoint.chat(path, messages=[{"role": "user", "content": list(content)}], **fields)


def details(endpoint: Endpoint, *content: Any, **fields: Any) -> Any:
    answer = ask(endpoint, *content, max_tokens=1, **fields)
    assert answer.status_code == 200, answer.text
    return answer.json()["usage"]["prompt_tokens_details"]


def error(endpoint: Endpoint, *content: Any, **fields: Any) -> Any:
    answer = ask(endpoint, *content, **fields)
    assert answer.status_code == 400, answer.text
    return answer.json()["error"]


LETTER = Page(612, 792)
POSTCARD = Page(432, 288, GREEN)


def test_each_page_is_a_picture_on_the_bill(documents: Endpoint) -> None:
    part = document(POSTCARD, POSTCARD, Page(144, 144, BLUE), pages="2-")
    pictures = details(documents, part, text_part("What does it say?"))["pictures"]
    assert pictures == [
        {
            "param": "messages[0].content[0].document_url",
            "width": 216,
            "height": 144,
            "seen_width": 224,
            "seen_height": 144,
            "scaled_by": None,
            "tokens": 9 * 15,
            "page": 2,
            "cached_tokens": 0,
        },
        {
            "param": "messages[0].content[0].document_url",
            "width": 72,
            "height": 72,
            "seen_width": 80,
            "seen_height": 80,
            "scaled_by": None,
            "tokens": 5 * 6,
            "page": 3,
            "cached_tokens": 0,
        },
    ]


def test_both_clients_send_documents(documents: Endpoint) -> None:
    answer = documents.openai().chat.completions.create(
        model=documents.model,
        messages=[{"role": "user", "content": [document(POSTCARD, LETTER, pages="1", dpi=72)]}],
        max_tokens=1,
    )
    [page] = answer.usage.prompt_tokens_details.pictures
    assert (page["page"], page["width"]) == (1, 432)
    url = f"{pdf_url(POSTCARD, LETTER)}#pages=1&dpi=72"
    chunk = DocumentURLChunk(document_url=url, document_name="card.pdf")
    usage = (
        documents.mistral()
        .chat.complete(
            model=documents.model,
            messages=[UserMessage(content=[chunk, TextChunk(text="?")])],
            max_tokens=1,
        )
        .usage
    )
    [seen] = usage.additional_properties["prompt_tokens_details"]["pictures"]
    assert {**seen, "cached_tokens": 0} == {**page, "cached_tokens": 0}


def test_a_cap_on_a_picture_s_tokens_makes_it_smaller_and_says_so(documents: Endpoint) -> None:
    [seen] = details(documents, image_part(900, 900))["pictures"]
    assert (seen["width"], seen["height"]) == (900, 900)
    assert seen["scaled_by"] == "picture_limit"
    # 17 rows of 16 and an end; 18 x 17 would be beyond 300.
    assert (seen["seen_width"], seen["seen_height"], seen["tokens"]) == (256, 256, 272)


def test_a_cap_on_a_request_s_tokens_is_shared(documents: Endpoint) -> None:
    pictures = details(documents, *[image_part(256, 256)] * 6, image_part(32, 32))["pictures"]
    assert {seen["scaled_by"] for seen in pictures[:-1]} == {"request_limit"}
    assert pictures[-1]["scaled_by"] is None
    assert sum(seen["tokens"] for seen in pictures) <= 1200
    assert {seen["tokens"] for seen in pictures[:-1]} == {13 * 14}


def test_frames_and_pages_count_as_pictures(documents: Endpoint) -> None:
    moving = {"type": "image_url", "image_url": {"url": animation(9), "frames": {"count": 9}}}
    assert len(details(documents, moving, document(*[POSTCARD] * 3))["pictures"]) == 12
    refused = error(documents, moving, document(*[POSTCARD] * 4))
    assert refused["code"] == "too_many_pictures"
    assert "13 pictures came" in refused["message"]
    assert refused["message"].endswith("at most 12 may")


@pytest.mark.parametrize(
    ("part", "code"),
    [
        (document(*[POSTCARD] * 7), "too_many_pages"),
        (document(POSTCARD, pages="2"), "no_such_page"),
        (
            {"type": "document_url", "document_url": pdf_url(POSTCARD, password="secret")},
            "encrypted_document",
        ),
        (
            {"type": "document_url", "document_url": "data:application/pdf;base64,AAAA"},
            "invalid_document",
        ),
        (
            {"type": "image_url", "image_url": f"{animation(3)}#indices=3"},
            "no_such_frame",
        ),
    ],
)
@pytest.mark.parametrize("path", ["/v1", "/mistral/v1"])
def test_what_cannot_be_shown_is_refused_by_its_place(
    documents: Endpoint, part: Any, code: str, path: str
) -> None:
    refused = error(documents, text_part("See"), part, path=path)
    assert refused["code"] == code
    assert refused["param"] == f"messages[0].content[1].{part['type']}"


def test_pictures_beyond_the_context_are_refused_undecoded_with_the_numbers(
    serve: Serve,
) -> None:
    """A file that breaks off behind its header would be told to be damaged, were it decoded."""
    stream = io.BytesIO()
    Image.effect_noise((1000, 700), 90).convert("RGB").save(stream, "JPEG")
    broken = base64.b64encode(stream.getvalue()[:2000]).decode()
    part = {"type": "image_url", "image_url": f"data:image/jpeg;base64,{broken}"}
    endpoint = serve().endpoint
    assert error(endpoint, part | {"image_url": {"url": part["image_url"], "detail": "low"}})[
        "code"
    ] == ("invalid_picture")
    for path in ("/v1/chat/completions", "/v1/tokenize"):
        body = {
            "model": endpoint.model,
            "messages": [{"role": "user", "content": [image_part(64, 64), part]}],
            "max_tokens": 48,
        }
        answer = endpoint.post(path, body)
        assert answer.status_code == 400
        refused = answer.json()["error"]
        assert refused["code"] == "context_length_exceeded"
        assert refused["message"] == (
            "the pictures take 2836 tokens (messages[0].content[0].image_url: 20,"
            " messages[0].content[1].image_url: 2816) and the text 3, and there is room for"
            f" {MAX_CONTEXT_TOKENS - 48}; send fewer or smaller pictures, or ask for detail: low"
        )


def test_what_fits_to_the_token_is_answered(serve: Serve) -> None:
    gateway = serve()
    content = [image_part(640, 640), text_part("What?")]
    body = {"model": gateway.endpoint.model, "messages": [{"role": "user", "content": content}]}
    count = gateway.endpoint.post("/v1/tokenize", body).json()["prompt_tokens"]
    room = MAX_CONTEXT_TOKENS - count
    assert ask(gateway.endpoint, *content, max_tokens=room).status_code == 200
    refused = error(gateway.endpoint, *content, max_tokens=room + 1)
    assert refused["code"] == "context_length_exceeded"


def test_cached_tokens_are_told_picture_by_picture(serve: Serve) -> None:
    gateway = serve()
    gateway.tiers.cached_image = 25
    pictures = details(gateway.endpoint, *[image_part(64, 64)] * 3)["pictures"]
    assert [(seen["tokens"], seen["cached_tokens"]) for seen in pictures] == [
        (20, 20),
        (20, 5),
        (20, 0),
    ]


def made_up(rng: random.Random) -> list[Any]:
    """Content of all kinds."""

    def size() -> tuple[int, int]:
        return rng.randint(1, 700), rng.randint(1, 700)

    def one() -> Any:
        detail = rng.choice(["auto", "low", "high", None])
        match rng.randrange(5):
            case 0:
                return text_part(rng.choice(["What?", "und dann …", "a" * 50]))
            case 1 | 2:
                url = data_url(*size())
                return {"type": "image_url", "image_url": {"url": url, "detail": detail}}
            case 3:
                frames = rng.choice([{"count": rng.randint(1, 4)}, {"indices": [2, 0]}, None])
                image_url = {"url": animation(3, *size()), "frames": frames, "detail": detail}
                return {"type": "image_url", "image_url": image_url}
            case _:
                pages = [Page(*size()) for _ in range(rng.randint(1, 3))]
                asked = {"pages": rng.choice(["1", "1-", None]), "dpi": rng.choice([20, 90, None])}
                return document(*pages, detail=detail, **asked)

    return [one() for _ in range(rng.randint(1, 4))]


@pytest.mark.parametrize("seed", range(25))
def test_tokenize_quotes_just_what_the_answer_counts(documents: Endpoint, seed: int) -> None:
    rng = random.Random(seed)
    content = made_up(rng)
    path = rng.choice(["", "/mistral"])
    body = {
        "model": documents.model,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 2,
        "ignore_eos": True,
    }
    quote = documents.post(f"{path}/v1/tokenize", body).json()
    usage = documents.post(f"{path}/v1/chat/completions", body).json()["usage"]
    counted = usage["prompt_tokens_details"]
    assert quote["prompt_tokens"] == usage["prompt_tokens"]
    assert quote["text_tokens"] == counted["text_tokens"]
    assert quote["image_tokens"] == counted["image_tokens"]
    pictures = counted.get("pictures", [])
    assert sum(seen.pop("cached_tokens") for seen in pictures) <= counted["cached_tokens"]
    assert quote["pictures"] == pictures
    assert quote["image_tokens"] == sum(seen["tokens"] for seen in pictures) <= 1200
    assert all(seen["tokens"] <= 300 for seen in pictures)
    assert quote["quote"]["max_total"] == usage["cost"]["total"]
