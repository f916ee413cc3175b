"""Pictures by address, through the REST API: those that are allowed are seen, no other is touched.

What the hosts are is in tests/serve_app/preprocess/internet.py: every address that a socket would
be opened for leads to one canary on loopback, which must not hear of it.
"""

from __future__ import annotations

import base64
import io
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
import trustme
from PIL import Image

from tests.serve_app.gateway.client_cases import data_url
from tests.serve_app.gateway.conftest import Gateway, make_config
from tests.serve_app.gateway.engine_tiers import EngineTiers
from tests.serve_app.gateway.store import eventually
from tests.serve_app.preprocess.internet import (
    HOST,
    PUBLIC,
    Internet,
    WebServer,
    raw,
    redirect,
    whole,
)
from tests.serve_app.preprocess.test_addresses import DISGUISED, REFUSED
from tests.serve_app.preprocess.test_picture_urls import MALFORMED

PARAM = "messages[0].content[0].image_url"
URL = f"https://{HOST}/a.png"
PNG = base64.b64decode(data_url(40, 24).partition(",")[2])
ROUTES = ("/v1/chat/completions", "/v1/tokenize", "/mistral/v1/chat/completions")


@pytest.fixture
def server(authority: trustme.CA) -> Iterator[WebServer]:
    with WebServer(authority, "*.example.com").in_a_thread() as server:
        server.answers["/a.png"] = whole(PNG, "Content-Type: image/png")
        yield server


@pytest.fixture
def internet(server: WebServer) -> Internet:
    return Internet(server, **{HOST: [[PUBLIC]]})


@pytest.fixture
def fetching(
    serve: Callable[..., Gateway], tokenizer: Any, store: Any, internet: Internet, trust: Any
) -> Callable[..., Gateway]:
    """A gateway whose preprocessing lives in ``internet``: ``fetching(allow_public=True)``."""

    def start(**settings: Any) -> Gateway:
        sections: dict[str, Any] = {"preprocess": {"fetch": settings}}
        preprocess = make_config(store.folder, **sections).preprocess
        tiers = EngineTiers(tokenizer, preprocess, internet, trust)
        return serve(tiers, preprocess={"fetch": settings})

    return start


def ask(gateway: Gateway, *urls: str, path: str = ROUTES[0], **fields: Any) -> httpx2.Response:
    content: list[Any] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    content.append({"type": "text", "text": "What is this?"})
    body = {
        "model": gateway.endpoint.model,
        "messages": [{"role": "user", "content": content}],
        **({} if path.endswith("tokenize") else {"max_tokens": 8}),
        ("random_seed" if path.startswith("/mistral") else "seed"): 7,
    }
    return gateway.endpoint.post(path, body, **fields)


def refused(answer: httpx2.Response, path: str = ROUTES[0]) -> dict[str, Any]:
    assert answer.status_code == 400, answer.text
    body = answer.json()
    error: dict[str, Any] = body.get("error") or body
    assert error["param"] == PARAM
    return error


@pytest.mark.parametrize("path", ROUTES)
def test_an_address_is_answered_as_the_picture_itself_is(fetching, server, path):
    gateway = fetching(allow_hosts=[HOST])
    by_address, as_data = (
        ask(gateway, url, path=path) for url in (URL, f"data:image/png;base64,{_encoded()}")
    )
    assert by_address.status_code == 200, by_address.text
    alike = [{**answer.json(), "id": "", "created": 0} for answer in (by_address, as_data)]
    assert alike[0] == alike[1]
    assert server.paths == ["/a.png"]
    first, second = gateway.tiers.prepared
    assert (first.pictures[0].data, first.pictures[0].url) == (b"", URL)
    assert second.pictures[0].data == PNG
    # The same pixels, by their hash.
    assert len({request.pictures for request in gateway.tiers.requests}) <= 1


def _encoded() -> str:
    return base64.b64encode(PNG).decode()


def test_both_clients_send_addresses_in_their_own_way(fetching, server):
    gateway = fetching(allow_hosts=[HOST])
    end, model = gateway.endpoint, gateway.endpoint.model
    part: Any = {"type": "image_url", "image_url": URL}
    messages: Any = [{"role": "user", "content": [part, {"type": "text", "text": "?"}]}]
    mistral = end.mistral().chat.complete(model=model, messages=messages, max_tokens=4)
    part = {"type": "image_url", "image_url": {"url": URL}}
    messages = [{"role": "user", "content": [part, {"type": "text", "text": "?"}]}]
    openai = end.openai().chat.completions.create(model=model, messages=messages, max_tokens=4)
    assert openai.usage.prompt_tokens == mistral.usage.prompt_tokens > 6
    assert server.paths == ["/a.png"] * 2


def test_a_repeat_is_answered_without_asking_the_host_again(fetching, server):
    gateway = fetching(allow_hosts=[HOST])
    headers = {"Idempotency-Key": "k"}
    first, second = (ask(gateway, URL, headers=headers) for _ in range(2))
    assert first.content == second.content
    assert server.paths == ["/a.png"]
    other = ask(gateway, f"{URL}?2", headers=headers)
    assert other.status_code == 422


@pytest.mark.parametrize("path", ROUTES)
def test_nothing_is_fetched_by_default(fetching, internet, path):
    gateway = fetching()
    error = refused(ask(gateway, URL, path=path), path)
    assert "preprocess.fetch.allow_hosts" in error["message"]
    assert internet.looked_up == []


def test_no_address_that_can_be_read_in_two_ways_reaches_any_tier(fetching, internet, server):
    gateway = fetching(allow_public=True, allow_http=True, allow_hosts=["*.example.com"])
    for url in MALFORMED:
        for path in ROUTES:
            answer = ask(gateway, url, path=path)
            error = refused(answer, path)
            assert len(url) < 12 or url not in error["message"]
    assert (internet.looked_up, internet.opened, server.connections) == ([], [], 0)
    assert gateway.tiers.prepared == []
    assert gateway.store.holds() == []


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_no_name_that_leads_inside_is_touched(fetching, internet, server, scheme):
    gateway = fetching(allow_public=True, allow_http=True)
    addresses = [*(each for some in REFUSED.values() for each in some), *DISGUISED]
    told = set()
    for address in addresses:
        for answers in ([[address]], [[PUBLIC, address]], [[address], [PUBLIC]]):
            internet.names[HOST] = answers
            error = refused(ask(gateway, f"{scheme}://{HOST}/a.png", path="/v1/tokenize"))
            told.add((error["code"], error["message"]))
    internet.names[HOST] = []
    error = refused(ask(gateway, f"{scheme}://{HOST}/a.png", path="/v1/tokenize"))
    # As a name that is not there.
    assert told == {(error["code"], error["message"])}
    assert (internet.opened, server.connections) == ([], 0)


def test_no_redirect_leads_inside(fetching, internet, server, authority):
    gateway = fetching(allow_public=True, allow_http=True)
    with WebServer(authority, "*.example.com").in_a_thread() as canary:
        internet.names["inner.example.com"] = [["10.0.0.1"]]
        internet.at["10.0.0.1"] = canary
        server.answers["/1"] = redirect("/2")
        for location in (*MALFORMED, "https://inner.example.com/", "http://a.example.com/"):
            # Others lead back to the host itself, or are no header.
            if "//" in location and location.isprintable():
                server.answers["/2"] = redirect(location)
                refused(ask(gateway, f"https://{HOST}/1", path="/v1/tokenize"))
        assert (canary.connections, set(internet.opened)) == (0, {PUBLIC})
        assert set(server.paths) <= {"/1", "/2"}


def test_a_name_that_changes_after_it_was_checked_gains_nothing(fetching, internet, server):
    gateway = fetching(allow_public=True)
    internet.names[HOST] = [[PUBLIC], ["127.0.0.1"], ["169.254.169.254"]]
    assert ask(gateway, URL).status_code == 200
    assert refused(ask(gateway, URL))["code"] == "image_url_unavailable"
    assert refused(ask(gateway, URL))["code"] == "image_url_unavailable"
    assert internet.opened == [PUBLIC]


def test_what_is_fetched_is_judged_as_any_picture(fetching, server):
    gateway = fetching(allow_hosts=[HOST])
    server.answers["/a.png"] = whole(b"<html>", "Content-Type: image/png")
    assert refused(ask(gateway, URL))["code"] == "unsupported_picture"
    big = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(big, "PNG")
    server.answers["/a.png"] = whole(big.getvalue())
    assert refused(ask(gateway, URL))["code"] == "picture_too_large"


def test_a_host_that_fails_is_the_callers_affair_and_costs_nothing(fetching, server):
    gateway = fetching(allow_hosts=[HOST], timeout_s=0.3)
    server.answers["/a.png"] = whole(b"", status="503 Busy")
    assert refused(ask(gateway, URL))["code"] == "image_url_unavailable"
    server.answers["/a.png"] = raw(hang=True)
    assert refused(ask(gateway, URL))["code"] == "image_url_unavailable"
    assert gateway.store.holds() == []


def test_when_the_caller_hangs_up_the_host_is_left(fetching, server):
    gateway = fetching(allow_hosts=[HOST], timeout_s=300)
    server.answers["/a.png"] = raw(hang=True)
    for path in ROUTES:
        with pytest.raises(httpx2.TimeoutException):
            ask(gateway, URL, path=path, timeout=0.5)
        eventually(lambda: server.open == 0)
    assert len(server.heads) == 3


def test_text_is_answered_while_others_wait_for_their_hosts(fetching, server):
    gateway = fetching(allow_hosts=[HOST], timeout_s=300, max_requests=2)
    server.answers["/a.png"] = raw(hang=True)
    slow = [threading.Thread(target=_patiently, args=(gateway,), daemon=True) for _ in range(2)]
    for thread in slow:
        thread.start()
    eventually(lambda: server.open == 2)
    assert ask(gateway).status_code == 200
    busy = ask(gateway, URL)
    assert (busy.status_code, "retry-after" in busy.headers) == (503, True)
    for thread in slow:
        thread.join(20)


def _patiently(gateway: Gateway) -> None:
    with pytest.raises(httpx2.TimeoutException):
        ask(gateway, URL, timeout=3)


def test_trust_is_checked(trust: ssl.SSLContext):
    assert trust.verify_mode is ssl.CERT_REQUIRED
    assert trust.check_hostname
