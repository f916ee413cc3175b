"""Connections that lead to public addresses only, whatever a name resolves to.

    name ──► lookup, once ──► every address checked ──► socket, checked again ──► peer, checked
             one bad answer refuses the name            as it is opened           before a byte is
                                                                                  sent over HTTP

A name that resolves to something else a moment later is of no use to anybody: the addresses that
were checked are those that are connected to, and nobody asks again.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import AddrInfoType, Connection

from serve_app.preprocess import addresses


class BlockedError(OSError):
    """The way to a host leads to an address that is never connected to."""


class Network:
    """This machine's own resolver and sockets. Tests put another in its place; no setting does."""

    def __init__(self, lookups: int) -> None:
        """``lookups`` at once: a name server that never answers keeps nothing else waiting."""
        self._pool = ThreadPoolExecutor(lookups, thread_name_prefix="lookup")

    async def lookup(self, host: str) -> Sequence[str]:
        """The addresses of ``host``, in digits. Raises OSError: it has none."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, _addresses_of, host)

    def open_socket(self, info: AddrInfoType) -> socket.socket:
        """Not connected yet; that is the next thing that happens to it, to the address in it."""
        family, kind, proto, _, _ = info
        return socket.socket(family, kind, proto)

    def peer(self, transport: asyncio.BaseTransport) -> str:
        """The address that a connection has led to. Raises OSError: it is lost already."""
        peer = transport.get_extra_info("peername")
        if peer is None:
            raise ConnectionResetError("lost as soon as it was made")
        return str(peer[0])


class PinnedConnector(aiohttp.TCPConnector):
    """Connects to nothing that addresses.py refuses. Connections are not used twice, so that an
    answer is never read as that to another request."""

    def __init__(
        self,
        network: Network,
        *,
        trust: ssl.SSLContext,
        refused: Iterable[addresses.Network] = (),
        max_per_host: int,
    ) -> None:
        self._network = network
        self._refused = tuple(refused)
        super().__init__(
            resolver=_PinnedResolver(self),
            use_dns_cache=False,
            socket_factory=self._open_socket,
            ssl=trust,
            force_close=True,
            limit=0,
            limit_per_host=max_per_host,
        )

    async def lookup(self, host: str) -> Sequence[str]:
        """All of the host's addresses. Raises BlockedError: one of them is no public one."""
        found = await self._network.lookup(host)
        for address in found:
            self._check(address)
        return found

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        connection = await super().connect(req, traces, timeout)
        try:
            transport = connection.transport
            self._check("" if transport is None else self._network.peer(transport))
        except BaseException:
            connection.close()
            raise
        return connection

    def _open_socket(self, info: AddrInfoType) -> socket.socket:
        # An address in digits is never looked up: this sees every connection.
        self._check(str(info[4][0]))
        return self._network.open_socket(info)

    def _check(self, address: str) -> None:
        if not addresses.may_connect(address, self._refused):
            raise BlockedError("no public address")


class _PinnedResolver(AbstractResolver):
    def __init__(self, connector: PinnedConnector) -> None:
        self._connector = connector

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002  (aiohttp asks for any)
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=_family(address),
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in await self._connector.lookup(host)
        ]

    async def close(self) -> None:
        pass


def _addresses_of(host: str) -> tuple[str, ...]:
    # The dot keeps the search list of this machine's network out of it.
    infos = socket.getaddrinfo(
        f"{host}.", None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
    )
    return tuple(dict.fromkeys(str(address[0]) for *_, address in infos))


def _family(address: str) -> socket.AddressFamily:
    version = ipaddress.ip_address(address).version
    return socket.AF_INET6 if version == 6 else socket.AF_INET
