"""Pictures that came as addresses, fetched: only whom the operator allows, and never our network.

    address ──► UrlPolicy ──► PinnedConnector ──► Downloader: status, length, body ──► bytes
                   ▲                                 │ 3xx
                   └────────── Location ◄────────────┘ each hop as if the caller had sent it

What a caller is told is fixed, and an address that is refused sounds as one that does not answer,
lest anybody learn what is where in our network.

What goes wrong is a 400, as in OpenAI's API, whoever's fault it is: the caller chose the host, and
a stranger's outage is none of ours. ``code`` tells which: ``image_url_unavailable`` may pass if
tried again, ``invalid_image_url`` will not.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from yarl import URL

from serve_app.errors import ApiError, InvalidRequest, Overloaded
from serve_app.log import logger
from serve_app.messages import PrepareRequest
from serve_app.preparing import Preprocess
from serve_app.preprocess.byte_budget import ByteBudget, Portion
from serve_app.preprocess.download import Downloader, NoPicture, has_c_parser, late, system_trust
from serve_app.preprocess.network import Network, PinnedConnector
from serve_app.preprocess.picture_urls import UrlPolicy, redirect_target
from serve_app.telemetry import FetchMetrics

_logger = logger(__name__)


@dataclass(slots=True)
class _Errand:
    """One picture on its way; ``host`` is the one that is asked now."""

    request_id: str
    param: str
    portion: Portion
    host: str = ""


class Fetcher:
    """Of one replica. Made anywhere, used in one event loop; no thread waits for a host.

    ``network`` and ``trust`` are for tests, which have neither public hosts nor their certificates.
    """

    def __init__(
        self,
        config: Preprocess,
        metrics: FetchMetrics,
        network: Network | None = None,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        """Raises RuntimeError: pictures are to be fetched, and aiohttp has no C parser."""
        if config.fetch.enabled and not has_c_parser():
            raise RuntimeError(
                "preprocess.fetch: this aiohttp was installed without its C parser, and the other"
                " is not to be trusted with strangers' answers; install one of its wheels"
            )
        self._limits = config.fetch
        self._max_bytes = config.max_picture_bytes
        self._policy = UrlPolicy.of(config.fetch)
        self._metrics = metrics
        self._network = network
        self._trust = trust
        self._downloader: Downloader | None = None
        self._requests = 0
        self._budget = ByteBudget(config.fetch.max_held_bytes, metrics.held_bytes)

    @asynccontextmanager
    async def filled(self, request: PrepareRequest) -> AsyncIterator[PrepareRequest]:
        """The request with the bytes of all its pictures, which count as held until the block ends.

        An address that stands in it twice is fetched once.

        Raises:
            InvalidRequest: an address is not allowed, or its picture cannot be had; ``param`` is
                the field that holds it. The others are given up.
            Overloaded: too many requests fetch, or too many bytes are held.
        """
        wanted: dict[str, str] = {}
        for source in request.pictures:
            if source.url is not None:
                wanted.setdefault(source.url, source.param)
        if not wanted:
            yield request
            return
        with self._budget.portion(self._limits.max_request_bytes) as portion:
            found = await self._fetch_all(wanted, portion, request.request_id)
            pictures = tuple(
                source if source.url is None else replace(source, data=found[source.url])
                for source in request.pictures
            )
            yield replace(request, pictures=pictures)

    async def close(self) -> None:
        if self._downloader is not None:
            await self._downloader.close()

    async def _fetch_all(
        self, wanted: Mapping[str, str], portion: Portion, request_id: str
    ) -> dict[str, bytes]:
        if self._requests >= self._limits.max_requests:
            raise Overloaded("too many pictures are being fetched right now; try again shortly")
        self._count(1)
        turn = asyncio.Semaphore(self._limits.max_per_request)
        deadline = asyncio.get_running_loop().time() + self._limits.timeout_s
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {
                    url: group.create_task(
                        self._fetch(url, _Errand(request_id, param, portion), turn, deadline)
                    )
                    for url, param in wanted.items()
                }
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            self._count(-1)
        return {url: task.result() for url, task in tasks.items()}

    async def _fetch(
        self, text: str, errand: _Errand, turn: asyncio.Semaphore, deadline: float
    ) -> bytes:
        started, outcome = time.perf_counter(), "cancelled"
        try:
            async with asyncio.timeout_at(deadline), turn:
                picture = await self._follow(self._policy.check(text, errand.param), errand)
            outcome = "fetched"
            self._metrics.bytes.inc(len(picture))
            return picture
        except (NoPicture, TimeoutError) as error:
            missed = error if isinstance(error, NoPicture) else late()
            outcome = missed.outcome
            _tell(missed, errand)
            raise InvalidRequest(missed.message, param=errand.param, code=missed.code) from None
        except ApiError as error:
            outcome = "busy" if isinstance(error, Overloaded) else "refused"
            raise
        finally:
            self._metrics.fetches.inc(outcome=outcome)
            self._metrics.seconds.observe(time.perf_counter() - started)

    async def _follow(self, url: URL, errand: _Errand) -> bytes:
        for _ in range(self._limits.max_redirects + 1):
            errand.host = str(url.raw_host)
            found = await self._downloading().get(url, errand.portion)
            if isinstance(found, bytes):
                return found
            url = self._next(url, found, errand.param)
        raise NoPicture(
            "redirect",
            f"the picture's address redirects more than {self._limits.max_redirects} times",
        )

    def _next(self, url: URL, location: str, param: str) -> URL:
        """Where a redirect leads, if the caller might have asked for that himself."""
        refused = NoPicture(
            "redirect", "the picture's address redirects to one that is not fetched"
        )
        try:
            following = self._policy.check(redirect_target(url, location), param)
        except InvalidRequest:
            raise refused from None
        if url.scheme == "https" and following.scheme != "https":
            raise refused
        return following

    def _downloading(self) -> Downloader:
        """Made with the first address, in the event loop that needs it."""
        if self._downloader is None:
            limits = self._limits
            connector = PinnedConnector(
                self._network or Network(limits.max_requests * limits.max_per_request),
                trust=self._trust or system_trust(),
                refused=map(ipaddress.ip_network, limits.refused_networks),
                max_per_host=limits.max_per_host,
            )
            self._downloader = Downloader(
                connector,
                max_bytes=self._max_bytes,
                connect_timeout_s=limits.connect_timeout_s,
            )
        return self._downloader

    def _count(self, more: int) -> None:
        self._requests += more
        self._metrics.fetching.set(self._requests)


def _tell(missed: NoPicture, errand: _Errand) -> None:
    _logger.info(
        "picture not fetched",
        request_id=errand.request_id,
        param=errand.param,
        host=errand.host,
        outcome=missed.outcome,
        cause=None if missed.__cause__ is None else type(missed.__cause__).__name__,
    )
