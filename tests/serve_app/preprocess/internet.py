"""A public internet of a test's own: names, addresses that nobody has to own, and web servers.

Everything up to the socket is the real thing, the address check above all. Only what a socket
connects to is not: whatever address was asked for, it is one of the servers here, on loopback. So a
check that fails to refuse is seen as a hit, and never reaches a real host.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import trustme
from aiohttp.connector import AddrInfoType

from serve_app.preprocess.network import Network

PUBLIC, OTHER_PUBLIC, PUBLIC_V6 = "93.184.215.14", "151.101.1.140", "2606:2800:21f:cb07::1"
HOST = "pictures.example.com"
Answer = Callable[[asyncio.StreamWriter, str], Awaitable[None]]


def whole(body: bytes, *headers: str, status: str = "200 OK") -> Answer:
    """An answer with a right Content-Length."""
    lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers)
    return raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


def redirect(location: str, status: str = "302 Found") -> Answer:
    return whole(b"", f"Location: {location}", status=status)


def raw(*pieces: bytes, pause_s: float = 0.0, hang: bool = False) -> Answer:
    """Bytes as they are, then the end; with ``hang`` the connection is kept open."""

    async def answer(writer: asyncio.StreamWriter, _: str) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)
        if hang:
            await asyncio.Event().wait()

    return answer


def endless(head: bytes, piece: bytes, pause_s: float = 0.0) -> Answer:
    async def answer(writer: asyncio.StreamWriter, _: str) -> None:
        writer.write(head)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)

    return answer


class WebServer:
    """``heads`` of the requests that came, ``connections`` that were made; plain and with TLS.

    ``answers`` by path, and ``other`` for all else.
    """

    def __init__(self, authority: trustme.CA, *names: str) -> None:
        self.answers: dict[str, Answer] = {}
        self.other: Answer = whole(b"", status="404 Not Found")
        self.heads: list[str] = []
        self.connections = 0
        self.open = 0
        self.ports: dict[bool, int] = {}
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*names).configure_cert(self._tls)

    @property
    def paths(self) -> list[str]:
        return [head.split(" ")[1] for head in self.heads]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[WebServer]:
        servers = [
            await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
            for context in (None, self._tls)
        ]
        plain, tls = (server.sockets[0].getsockname()[1] for server in servers)
        self.ports = {False: plain, True: tls}
        try:
            yield self
        finally:
            for server in servers:
                server.close()

    @contextmanager
    def in_a_thread(self) -> Iterator[WebServer]:
        """For tests that do not live in an event loop of their own."""
        ready, end = threading.Event(), asyncio.Event()

        async def run() -> None:
            async with self.running():
                ready.set()
                await end.wait()

        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_until_complete, args=(run(),), daemon=True)
        thread.start()
        assert ready.wait(10)
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(end.set)
            thread.join(10)
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                self.heads.append(head)
                path = head.split(" ")[1].partition("?")[0]
                await _while_heard(self.answers.get(path, self.other)(writer, head), reader)
        finally:
            self.open -= 1
            with suppress(Exception):
                writer.close()


async def _while_heard(answer: Awaitable[None], reader: asyncio.StreamReader) -> None:
    """Until it is given, or the client has gone."""
    tasks = [asyncio.ensure_future(answer), asyncio.ensure_future(reader.read())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Internet(Network):
    """``names`` to the answers of their look-ups: each is used once, the last one for ever.

    Attributes:
        opened: every address that a socket was opened for, refused ones never.
        looked_up: names, in order.
        at: which server answers at an address; ``server`` at all others.
        shows: what a connection pretends that it has led to, instead of what was asked for.
    """

    def __init__(self, server: WebServer, **names: Sequence[Sequence[str]]) -> None:
        self.server = server
        self.at: dict[str, WebServer] = {}
        self.names = {name.replace("_", "."): list(answers) for name, answers in names.items()}
        self.opened: list[str] = []
        self.looked_up: list[str] = []
        self.lookup_s = 0.0
        self.shows: str | None = None
        self._asked: dict[int, str] = {}

    async def lookup(self, host: str) -> Sequence[str]:
        self.looked_up.append(host)
        await asyncio.sleep(self.lookup_s)
        answers = self.names.get(host)
        if not answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def open_socket(self, info: AddrInfoType) -> socket.socket:
        address, port = str(info[4][0]), info[4][1]
        self.opened.append(address)
        server = self.at.get(address, self.server)
        diverted = _Diverted(server.ports[port != 80])
        self._asked[diverted.fileno()] = address
        return diverted

    def peer(self, transport: asyncio.BaseTransport) -> str:
        return self.shows or self._asked[transport.get_extra_info("socket").fileno()]


class _Diverted(socket.socket):
    """Connects to a port on loopback, whatever it is told."""

    def __init__(self, port: int) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_STREAM)
        self._port = port
        self._connecting = False

    @property
    def family(self) -> socket.AddressFamily:
        # An event loop resolves addresses of the families that it knows, in vain for IPv6 here; the
        # network guard must see what this is.
        return super().family if self._connecting else socket.AF_UNSPEC

    def connect(self, _: Any) -> None:
        self._connecting = True
        super().connect(("127.0.0.1", self._port))
