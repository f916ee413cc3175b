"""Hosts that mean harm: each is refused in bounded time and memory, with a fixed sentence."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import random
import tracemalloc
from typing import Any

import aiohttp
import pytest
import trustme

from serve_app.errors import InvalidRequest
from serve_app.preprocess import fetch
from tests.serve_app.preprocess.fetching import URL, fetched, missed, outcomes
from tests.serve_app.preprocess.internet import (
    HOST,
    PUBLIC,
    WebServer,
    endless,
    raw,
    redirect,
    whole,
)

OK = b"HTTP/1.1 200 OK\r\n"
LATE = "the picture's host did not send it in time"
BROKEN = "the picture's host did not answer as a web server does"


@pytest.mark.parametrize(
    ("answer", "message", "outcome"),
    [
        (endless(OK + b"Content-Length: 9999\r\n\r\n", b"x", 0.01), LATE, "timeout"),
        (endless(OK + b"\r\n", b"x", 0.01), LATE, "timeout"),
        (endless(OK, b"X: y\r\n", 0.01), LATE, "timeout"),
        (endless(b"", b"H", 0.01), "", ""),
        (endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.01), LATE, "timeout"),
        (raw(hang=True), LATE, "timeout"),
        (raw(OK, hang=True), LATE, "timeout"),
        (raw(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nxxxxx\r\n", hang=True), LATE, "timeout"),
    ],
    ids=["body", "body without length", "headers", "line", "continue", "silent", "head", "chunks"],
)
async def test_who_drips_or_is_silent_is_left_at_the_deadline(
    fetcher, server, answer, message, outcome
):
    server.answers["/a.png"] = answer
    asked = fetcher(timeout_s=0.5)
    error = await asyncio.wait_for(missed(asked, URL), 20)
    assert error.code == "image_url_unavailable"
    if message:
        assert (error.message, outcomes(asked)) == (message, {outcome: 1})


@pytest.mark.parametrize(
    "answer",
    [
        endless(OK + b"\r\n", b"x" * 65_536),
        endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 65_536 + b"\r\n"),
        raw(OK + b"Content-Length: 9999999999\r\n\r\n", hang=True),
    ],
    ids=["to the end", "in chunks", "as announced"],
)
async def test_endless_bodies_end_at_the_limit(fetcher, server, answer):
    server.answers["/a.png"] = answer
    asked = fetcher(100_000)
    tracemalloc.start()
    error = await missed(asked, URL)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert error.code == "picture_too_large"
    assert outcomes(asked) == {"too_large": 1}
    assert peak < 20 * 2**20


async def test_chunks_that_are_all_overhead_end_long_before_the_limit(fetcher, server):
    chunked = OK + b"Transfer-Encoding: chunked\r\n\r\n"
    server.answers["/a.png"] = endless(chunked, b"1\r\nx\r\n" * 1_000)
    server.answers["/few"] = raw(chunked + b"1\r\nx\r\n" * 1_000 + b"0\r\n\r\n")
    server.answers["/fair"] = raw(chunked + b"40\r\n%b\r\n" % (b"x" * 64) * 2_000 + b"0\r\n\r\n")
    asked = fetcher(10_000_000)
    assert (await missed(asked, URL)).message == BROKEN
    assert await fetched(asked, f"https://{HOST}/few") == [b"x" * 1_000]
    assert await fetched(asked, f"https://{HOST}/fair") == [b"x" * 128_000]


@pytest.mark.parametrize(
    "answer",
    [
        endless(OK, b"X-Header: y\r\n" * 500),
        endless(OK + b"X: ", b"y" * 65_536),
        endless(b"", b"H" * 65_536),
        endless(b"HTTP/1.1 200 ", b"O" * 65_536),
        endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0" * 65_536),
        endless(OK + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x" * 65_536),
        endless(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n" * 1_000),
    ],
    ids=["headers", "header", "line", "reason", "chunk size", "chunk extension", "trailers"],
)
async def test_endless_heads_cost_no_memory(fetcher, server, answer):
    server.answers["/a.png"] = answer
    asked = fetcher(timeout_s=2.0)
    tracemalloc.start()
    error = await missed(asked, URL)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert error.code == "image_url_unavailable"
    assert peak < 20 * 2**20


@pytest.mark.parametrize(
    "answer",
    [
        raw(b""),
        raw(b"SSH-2.0-OpenSSH_9.6\r\n"),
        raw(b"+PONG\r\n"),
        raw(b"<html>no head</html>"),
        raw(b"HTTP/1.1 abc OK\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\nx"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nx"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nxxxxx"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nx"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nxxxxxx"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nshort"),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\nxx\r\n0\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nxx\r\n0\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nxx"),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\nxx"),
        raw(b"HTTP/1.1 200 OK\r\nX\x00Y: z\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\n: empty\r\n\r\n"),
        raw(b"HTTP/9.9 200 OK\r\nContent-Length: 1\r\n\r\nx"),
        raw(b"\x00" * 100),
        raw(b"\xff" * 100_000),
    ],
)
async def test_what_is_no_sound_answer_is_refused(fetcher, server, answer):
    server.answers["/a.png"] = answer
    asked = fetcher()
    error = await missed(asked, URL)
    assert error.code in ("image_url_unavailable", "picture_too_large")
    assert sum(outcomes(asked).values()) == 1


async def test_mutated_answers_are_pictures_or_refusals_and_nothing_else(fetcher, server):
    dice = random.Random(6)
    seeds = (
        OK + b"Content-Type: image/png\r\nContent-Length: 5\r\n\r\nabcde",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nabcde\r\n0\r\nX: y\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /b.png\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Encoding: gzip\r\n\r\n\x1f\x8b",
    )
    asked = fetcher(timeout_s=2.0)
    for _ in range(400):
        server.other = raw(_mutated(dice, dice.choice(seeds)))
        with contextlib.suppress(InvalidRequest):
            (picture,) = await fetched(asked, f"http://{HOST}/a.png")
            assert len(picture) < 2_000
    assert {"fetched", "broken", "status", "redirect"} <= set(outcomes(asked))
    assert asked._budget._taken == 0


async def test_whatever_the_library_raises_over_an_answer_is_the_hosts_fault(
    fetcher, server, monkeypatch
):
    def confused(self: object) -> int:
        raise AssertionError("a state that cannot be, they thought")

    monkeypatch.setattr(aiohttp.ClientResponse, "content_length", property(confused))
    server.answers["/a.png"] = whole(b"x")
    assert (await missed(fetcher(), URL)).message == BROKEN


def _mutated(dice: random.Random, answer: bytes) -> bytes:
    changed = bytearray(answer)
    for _ in range(dice.randint(1, 4)):
        place = dice.randrange(len(changed))
        match dice.randrange(4):
            case 0:
                changed[place] = dice.choice(b"\r\n\x00 :;,-+0129aZ\xff\t")
            case 1:
                changed[place:place] = dice.choice(
                    [b"\r\n", b"\n", b"\r", b" ", b"\x00", b"9" * 20]
                )
            case 2:
                del changed[place : place + dice.randint(1, 8)]
            case _:
                changed += changed[place:]
    return bytes(changed or b"x")


async def test_what_a_host_sends_beyond_its_answer_is_never_read_as_another(fetcher, server):
    smuggled = OK + b"Content-Length: 8\r\n\r\nsmuggled"
    server.answers["/a.png"] = raw(OK + b"Content-Length: 3\r\n\r\nabc" + smuggled * 3)
    server.answers["/both"] = raw(
        OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled
    )
    server.answers["/b.png"] = whole(b"right")
    asked = fetcher()
    assert await fetched(asked, URL) == [b"abc"]
    await asyncio.gather(fetched(asked, f"https://{HOST}/both"), return_exceptions=True)
    assert await fetched(asked, f"https://{HOST}/b.png") == [b"right"]


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "GZIP", "gzip, gzip", "x"])
async def test_compressed_answers_are_refused_unread(fetcher, server, encoding):
    bomb = gzip.compress(gzip.compress(b"\x00" * 10_000_000))
    server.answers["/a.png"] = whole(bomb, f"Content-Encoding: {encoding}")
    asked = fetcher()
    assert (await missed(asked, URL)).code == "invalid_image_url"
    assert outcomes(asked) == {"encoded": 1}


async def test_a_second_content_encoding_does_not_hide_the_first(fetcher, server):
    server.answers["/a.png"] = whole(b"x", "Content-Encoding: identity", "Content-Encoding: gzip")
    assert (await missed(fetcher(), URL)).code == "invalid_image_url"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        *((f"{each} X", "invalid_image_url") for each in (201, 203, 204, 206, 304, 400, 401, 404)),
        *((f"{each} X", "image_url_unavailable") for each in (408, 429, 500, 502, 503)),
    ],
)
async def test_only_200_is_a_picture(fetcher, server, status, code):
    server.answers["/a.png"] = whole(b"", "X-Internal: 10.0.0.1", status=status)
    error = await missed(fetcher(), URL)
    assert error.code == code
    assert error.message == f"the picture's host answered with status {status[:3]}"


async def test_too_many_redirects_and_circles_end(fetcher, server):
    for place in range(5):
        server.answers[f"/{place}"] = redirect(f"/{place + 1}")
    server.answers["/circle"] = redirect("/circle")
    server.answers["/3"] = whole(b"x")
    asked = fetcher(max_redirects=3)
    assert await fetched(asked, f"https://{HOST}/0") == [b"x"]
    server.answers["/3"] = redirect("/4")
    for path, asks in (("/0", 8), ("/circle", 12)):
        error = await missed(asked, f"https://{HOST}{path}")
        assert error.message == "the picture's address redirects more than 3 times"
        assert len(server.heads) == asks


@pytest.mark.parametrize(
    "location",
    [
        *(
            "http://pictures.example.com/b",
            "http://127.0.0.1/",
            "https://127.0.0.1/",
            "//127.0.0.1/",
        ),
        *("https://[::1]/", "https://2130706433/", "https://localhost/", "https://u@a.com/"),
        *(
            "file:///etc/passwd",
            "data:image/png;base64,AAAA",
            "ftp://a.com/",
            "https://a.com\\@b.com/",
        ),
        *(
            "/\\127.0.0.1/",
            "https://a.com:6379/",
            "https://db.internal/",
            "https://\xe4.com/",
            "/a b",
        ),
    ],
)
async def test_a_redirect_leads_nowhere_that_a_caller_could_not_go(
    fetcher, internet, server, location
):
    server.answers["/a.png"] = redirect(location)
    asked = fetcher()
    error = await missed(asked, URL)
    assert error.message == "the picture's address redirects to one that is not fetched"
    assert (internet.opened, internet.looked_up, server.paths) == ([PUBLIC], [HOST], ["/a.png"])


@pytest.mark.parametrize("headers", [(), ("Location: ",), ("Location: https://",)])
async def test_a_redirect_to_nothing_is_refused(fetcher, server, headers):
    server.answers["/a.png"] = whole(b"", *headers, status="302 Found")
    assert (await missed(fetcher(max_redirects=1), URL)).code == "invalid_image_url"


async def test_certificates_are_of_the_host_and_trusted(
    fetcher, internet, server, authority, monkeypatch
):
    server.answers["/a.png"] = whole(b"x")
    internet.names |= {"other.example.org": [[PUBLIC]]}
    strangers = trustme.CA()
    async with WebServer(strangers, HOST).running() as stranger:
        stranger.other = whole(b"x")
        internet.at["151.101.1.140"] = stranger
        internet.names["pictures2.example.com"] = [["151.101.1.140"]]
        for host in ("other.example.org", "pictures2.example.com"):
            error = await missed(fetcher(), f"https://{host}/a.png")
            assert error.message == "the picture's host has no certificate that is trusted here"
        assert (server.heads, stranger.heads) == ([], [])


async def test_a_handshake_that_never_ends_is_left(fetcher, internet, server, monkeypatch):
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    mute = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with mute:
        monkeypatch.setitem(server.ports, True, mute.sockets[0].getsockname()[1])
        asked = fetcher(connect_timeout_s=0.2, timeout_s=300)
        assert (await asyncio.wait_for(missed(asked, URL), 30)).message == LATE
        assert outcomes(asked) == {"timeout": 1}


async def test_a_name_server_that_never_answers_is_left(fetcher, internet):
    internet.lookup_s = 60
    assert (await missed(fetcher(timeout_s=0.2), URL)).message == LATE


async def test_nothing_that_is_logged_tells_the_address(fetcher, server, monkeypatch):
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(fetch._logger, "info", lambda event, **fields: told.append(fields))
    await missed(fetcher(), f"{URL}?secret=canary")
    assert told == [
        {"request_id": "r", "param": "p0", "host": HOST, "outcome": "status", "cause": None}
    ]
