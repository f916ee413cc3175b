"""The way to a host: checked at the look-up, at the socket, at the peer, and each alone holds."""

from __future__ import annotations

import asyncio
import socket
import ssl

import aiohttp
import pytest

from serve_app.preprocess import addresses
from serve_app.preprocess.network import BlockedError, Network, PinnedConnector
from tests.network_guard import OutsideLoopbackError
from tests.serve_app.preprocess.fetching import UNREACHABLE, URL, fetched, missed, outcomes
from tests.serve_app.preprocess.internet import HOST, OTHER_PUBLIC, PUBLIC, redirect, whole
from tests.serve_app.preprocess.test_addresses import DISGUISED, NO_ADDRESS, REFUSED

FORBIDDEN = [*(each for some in REFUSED.values() for each in some), *DISGUISED]


@pytest.fixture(autouse=True)
def _a_picture(server):
    server.other = whole(b"canary")


@pytest.mark.parametrize("address", [*FORBIDDEN, *NO_ADDRESS])
async def test_a_name_that_leads_to_a_special_address_is_refused_before_a_socket_is_made(
    fetcher, internet, server, address
):
    internet.names[HOST] = [[address]]
    asked = fetcher()
    assert (await missed(asked, URL)).message == UNREACHABLE
    assert (internet.opened, server.connections) == ([], 0)
    assert outcomes(asked) == {"blocked": 1}


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_one_bad_address_among_many_refuses_the_name(fetcher, internet, server, place):
    answers = [PUBLIC, OTHER_PUBLIC]
    answers.insert(place, "10.0.0.1")
    internet.names[HOST] = [answers]
    await missed(fetcher(), URL)
    assert (internet.opened, server.connections) == ([], 0)


async def test_a_refused_address_sounds_as_a_name_that_is_not_there(fetcher, internet):
    internet.names |= {"inner.example.com": [["10.0.0.1"]]}
    asked = fetcher()
    told = {
        (error.status, error.code, error.message)
        for host in ("inner.example.com", "nobody.example.com")
        for error in [await missed(asked, f"https://{host}/")]
    }
    assert told == {(400, "image_url_unavailable", UNREACHABLE)}
    assert outcomes(asked) == {"blocked": 1, "unreachable": 1}


async def test_a_name_is_looked_up_once_and_what_was_checked_is_what_is_reached(
    fetcher, internet, server
):
    internet.names[HOST] = [[PUBLIC], ["127.0.0.1"]]
    asked = fetcher()
    assert await fetched(asked, URL) == [b"canary"]
    assert (internet.opened, len(internet.looked_up)) == ([PUBLIC], 1)
    # The next one is told otherwise, and nothing was kept from before.
    await missed(asked, URL)
    assert (internet.opened, server.connections) == ([PUBLIC], 1)


async def test_a_name_that_changes_between_two_hops_is_checked_at_both(fetcher, internet, server):
    internet.names[HOST] = [[PUBLIC], ["169.254.169.254"]]
    server.answers["/a.png"] = redirect("/b.png")
    await missed(fetcher(), URL)
    assert (internet.opened, server.paths) == ([PUBLIC], ["/a.png"])


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::ffff:10.0.0.1", "fd00::1"])
async def test_a_redirect_to_a_name_of_a_special_address_is_refused(
    fetcher, internet, server, address
):
    internet.names["inner.example.com"] = [[address]]
    server.answers["/a.png"] = redirect("https://inner.example.com/")
    assert (await missed(fetcher(), URL)).message == UNREACHABLE
    assert (internet.opened, server.paths) == ([PUBLIC], ["/a.png"])


async def test_a_listed_host_has_no_leave_to_be_inside(fetcher, internet, server):
    internet.names[HOST] = [["10.0.0.1"]]
    await missed(fetcher(allow_public=False, allow_hosts=[HOST]), URL)
    assert server.connections == 0


async def test_an_operators_own_networks_are_inside_too(fetcher, internet, server):
    assert await fetched(fetcher(), URL) == [b"canary"]
    await missed(fetcher(refused_networks=[f"{PUBLIC}/32"]), URL)
    assert server.connections == 1


@pytest.mark.parametrize("address", FORBIDDEN)
async def test_the_socket_is_refused_even_if_the_look_up_let_it_through(
    fetcher, internet, server, monkeypatch, address
):
    monkeypatch.setattr(PinnedConnector, "lookup", lambda self, host: self._network.lookup(host))
    internet.names[HOST] = [[address]]
    await missed(fetcher(), URL)
    assert (internet.opened, server.connections) == ([], 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "169.254.169.254", "[::ffff:127.0.0.1]"])
async def test_addresses_in_digits_which_are_never_looked_up_are_refused_at_the_socket(
    internet, server, trust, host
):
    connector = PinnedConnector(internet, trust=trust, max_per_host=1)
    async with aiohttp.ClientSession(connector=connector) as session:
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            await session.get(f"http://{host}/")
    assert isinstance(caught.value.__cause__, BlockedError)
    assert (internet.opened, internet.looked_up, server.connections) == ([], [], 0)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_connection_that_has_led_elsewhere_is_closed_before_anything_is_asked(
    fetcher, internet, server, scheme
):
    internet.shows = "10.0.0.1"
    asked = fetcher()
    assert (await missed(asked, f"{scheme}://{HOST}/a.png")).message == UNREACHABLE
    assert (internet.opened, server.heads) == ([PUBLIC], [])
    assert outcomes(asked) == {"blocked": 1}


async def test_this_machines_own_network_shows_whom_it_has_reached():
    """What the other tests put something else in place of."""
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as here:
        port = here.sockets[0].getsockname()[1]
        own = Network(lookups=1)
        info = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))
        with own.open_socket(info) as opened:
            opened.setblocking(False)
            await asyncio.get_running_loop().sock_connect(opened, info[4])
            transport, _ = await asyncio.get_running_loop().create_connection(
                asyncio.Protocol, sock=opened
            )
            assert own.peer(transport) == "127.0.0.1"
            transport.close()


def test_a_connection_that_is_lost_at_once_has_no_peer_and_is_no_fault_of_ours():
    with pytest.raises(ConnectionResetError):
        Network(lookups=1).peer(asyncio.Transport())


async def test_names_are_looked_up_whole_and_by_nobody_but_the_resolver(monkeypatch):
    asked = []

    def getaddrinfo(host, port, **kwargs):
        asked.append(host)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (PUBLIC, 0)),
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1%eth0", 0, 0, 2)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (PUBLIC, 0)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert await Network(lookups=1).lookup("a.example.com") == (PUBLIC, "fe80::1%eth0")
    # With its dot: no search list makes another name of it.
    assert asked == ["a.example.com."]


async def test_these_tests_cannot_reach_a_real_host_even_if_nothing_was_checked(
    monkeypatch, network_guard
):
    monkeypatch.setattr(addresses, "may_connect", lambda *_: True)
    connector = PinnedConnector(
        Network(lookups=1), trust=ssl.create_default_context(), max_per_host=1
    )
    async with aiohttp.ClientSession(connector=connector) as session:
        for host in (PUBLIC, "a.example.com"):
            with pytest.raises(aiohttp.ClientConnectorError) as caught:
                await session.get(f"http://{host}/")
            assert isinstance(caught.value.os_error, OutsideLoopbackError)
    assert len(network_guard.attempts) == 2
    network_guard.attempts.clear()
