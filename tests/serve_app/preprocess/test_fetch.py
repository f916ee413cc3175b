"""Pictures fetched as they should be: right bytes, few questions, nothing said of us."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from serve_app.errors import InvalidRequest, Overloaded
from serve_app.messages import PictureSource
from serve_app.preprocess import fetch
from tests.serve_app.preprocess.fetching import URL, asking, fetched, missed, outcomes, until
from tests.serve_app.preprocess.internet import (
    HOST,
    OTHER_PUBLIC,
    PUBLIC,
    PUBLIC_V6,
    endless,
    raw,
    redirect,
    whole,
)

PNG = b"\x89PNG, as far as can be told from here"


@pytest.mark.parametrize("scheme", ["https", "http"])
async def test_a_picture_comes_as_it_is(fetcher, internet, server, scheme):
    server.answers["/a.png"] = whole(PNG)
    assert await fetched(fetcher(), f"{scheme}://{HOST}/a.png") == [PNG]
    assert internet.opened == [PUBLIC]


async def test_the_host_hears_nothing_of_us_but_the_address(fetcher, server, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    server.answers["/first"] = whole(b"", "Location: /a.png", "Set-Cookie: a=b", status="302 Found")
    server.answers["/a.png"] = whole(PNG)
    asked = fetcher()
    await fetched(asked, f"https://{HOST}/first?token=%2Fx+y%3D#part")
    await fetched(asked, URL)
    assert server.heads[0].split("\r\n")[0] == "GET /first?token=%2Fx+y%3D HTTP/1.1"
    for head in server.heads:
        names = {line.partition(":")[0].lower() for line in head.split("\r\n")[1:] if line}
        assert names == {"host", "user-agent", "accept", "accept-encoding", "connection"}
        assert f"Host: {HOST}\r\n" in head
        assert "User-Agent: pixtral-serve\r\n" in head
        assert "Accept-Encoding: identity\r\n" in head
        assert "Connection: close\r\n" in head


async def test_an_address_that_stands_there_twice_is_fetched_once(fetcher, server):
    server.answers["/a.png"] = whole(PNG)
    server.answers["/b.png"] = whole(b"other")
    other = f"https://{HOST}/b.png"
    assert await fetched(fetcher(), URL, other, URL) == [PNG, b"other", PNG]
    assert sorted(server.paths) == ["/a.png", "/b.png"]
    # If it cannot be had, its first place is named.
    await missed(fetcher(), f"https://{HOST}/none", f"https://{HOST}/none")


async def test_pictures_that_were_sent_along_stay_and_cost_no_question(fetcher, internet):
    request = asking()
    async with fetcher(allow_public=False).filled(request) as whole_one:
        assert whole_one is request
    server = internet.server
    server.answers["/a.png"] = whole(PNG)
    sent = PictureSource(b"sent", "p1")
    mixed = asking(URL)
    mixed = type(mixed)("r", mixed.conversation, (*mixed.pictures, sent))
    async with fetcher().filled(mixed) as filled:
        assert [each.data for each in filled.pictures] == [PNG, b"sent"]
        assert filled.pictures[1] is sent
        assert [each.param for each in filled.pictures] == ["p0", "p1"]


async def test_redirects_are_followed_within_what_is_allowed(fetcher, internet, server):
    internet.names["cdn.example.com"] = [[OTHER_PUBLIC]]
    server.answers |= {
        "/one": redirect("https://cdn.example.com/two", "301 Moved Permanently"),
        "/two": redirect("/dir/three?x", "307 Temporary Redirect"),
        "/dir/three": redirect("a.png", "308 Permanent Redirect"),
        "/dir/a.png": whole(PNG),
    }
    assert await fetched(fetcher(), f"http://{HOST}/one") == [PNG]
    assert internet.looked_up == [HOST, *["cdn.example.com"] * 3]
    assert server.paths == ["/one", "/two", "/dir/three?x", "/dir/a.png"]


async def test_a_name_may_have_several_addresses_of_both_kinds(fetcher, internet, server):
    server.answers["/a.png"] = whole(PNG)
    internet.names[HOST] = [[PUBLIC_V6, PUBLIC, OTHER_PUBLIC]]
    assert await fetched(fetcher(), URL) == [PNG]
    assert internet.opened == [PUBLIC_V6]


async def test_the_sizes_of_the_limits_are_taken_and_no_byte_more(fetcher, server):
    server.answers["/a.png"] = whole(b"x" * 1000)
    server.answers["/chunked"] = raw(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n"
        + b"x" * 1000
        + b"\r\n0\r\n\r\n"
    )
    chunked = f"https://{HOST}/chunked"
    assert await fetched(fetcher(1000), URL, chunked) == [b"x" * 1000] * 2
    for url in (URL, chunked):
        assert (await missed(fetcher(999), url)).code == "picture_too_large"


async def test_the_pictures_of_one_request_are_bounded_together(fetcher, server):
    server.answers["/a.png"] = whole(b"x" * 1000)
    urls = [f"{URL}?{place}" for place in range(3)]
    assert len(await fetched(fetcher(max_request_bytes=3000), *urls)) == 3
    with pytest.raises(InvalidRequest, match="together") as caught:
        await fetched(fetcher(max_request_bytes=2999), *urls)
    assert caught.value.code == "picture_too_large"


async def test_bytes_count_as_held_until_the_request_has_done_with_them(fetcher, server):
    server.answers["/a.png"] = whole(b"x" * 1000)
    asked = fetcher(max_request_bytes=1000, max_held_bytes=1999)
    async with asked.filled(asking(URL)):
        with pytest.raises(Overloaded):
            await fetched(asked, URL)
    assert await fetched(asked, URL) == [b"x" * 1000]
    assert outcomes(asked) == {"fetched": 2, "busy": 1}
    assert asked._budget._taken == 0


async def test_only_so_many_requests_fetch_at_once_and_others_are_not_kept_waiting(fetcher, server):
    server.answers["/a.png"] = raw(hang=True)
    asked = fetcher(max_requests=2)
    slow = [asyncio.create_task(fetched(asked, URL)) for _ in range(2)]
    await until(lambda: len(server.heads) == 2)
    with pytest.raises(Overloaded) as caught:
        await fetched(asked, URL)
    assert caught.value.retry_after_s
    for task in slow:
        task.cancel()
    await asyncio.wait(slow)
    server.answers["/a.png"] = whole(PNG)
    assert await fetched(asked, URL) == [PNG]


async def test_pictures_of_one_request_are_fetched_side_by_side_but_not_all(fetcher, server):
    server.answers["/a.png"] = raw(hang=True)
    urls = [f"{URL}?{place}" for place in range(5)]
    task = asyncio.create_task(fetched(fetcher(max_per_request=3), *urls))
    await until(lambda: server.open == 3)
    await asyncio.sleep(0.05)
    assert server.connections == 3
    task.cancel()
    await asyncio.wait([task])


async def test_a_host_is_asked_on_so_many_connections_by_all_requests(fetcher, server):
    server.answers["/a.png"] = raw(hang=True)
    asked = fetcher(max_per_host=2)
    tasks = [asyncio.create_task(fetched(asked, f"{URL}?{place}")) for place in range(4)]
    await until(lambda: server.open == 2)
    await asyncio.sleep(0.05)
    assert server.connections == 2
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_when_the_caller_goes_the_hosts_are_left_at_once(fetcher, server):
    server.answers["/a.png"] = endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x", pause_s=0.01)
    asked = fetcher()
    task = asyncio.create_task(fetched(asked, URL, f"{URL}?2"))
    await until(lambda: server.open == 2)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    await until(lambda: server.open == 0)
    assert outcomes(asked) == {"cancelled": 2}
    assert (asked._requests, asked._budget._taken) == (0, 0)


async def test_the_first_failure_ends_the_others(fetcher, server):
    server.answers["/slow"] = raw(hang=True)
    with pytest.raises(InvalidRequest) as caught:
        await fetched(fetcher(), f"https://{HOST}/slow", URL)
    assert caught.value.param == "p1"
    await until(lambda: server.open == 0)


async def test_connections_are_not_used_again(fetcher, server):
    # The host would keep it open, and send nothing more on it.
    server.answers["/a.png"] = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", hang=True)
    asked = fetcher()
    for _ in range(3):
        assert await fetched(asked, URL) == [b"abc"]
    assert server.connections == 3


async def test_the_trust_of_this_machine_counts_unless_told_otherwise(fetcher, internet, server):
    server.answers["/a.png"] = whole(PNG)
    asked = fetcher()
    asked._trust = None
    assert (await missed(asked, URL)).message.startswith("the picture's host has no certificate")
    assert server.heads == []


def test_without_the_c_parser_nothing_starts_that_would_fetch(monkeypatch, authority):
    from serve_app.config import parse_config
    from serve_app.telemetry import FetchMetrics

    monkeypatch.setattr(fetch, "has_c_parser", lambda: False)
    for allowed in (False, True):
        values = {"model": {"path": "/m"}, "preprocess": {"fetch": {"allow_public": allowed}}}
        config = parse_config(values).preprocess
        if allowed:
            with pytest.raises(RuntimeError, match="C parser"):
                fetch.Fetcher(config, FetchMetrics())
        else:
            fetch.Fetcher(config, FetchMetrics())
