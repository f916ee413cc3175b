"""One answer of a stranger's web server: its body, or where it sends us; nothing else of it."""

from __future__ import annotations

import ssl

import aiohttp
from aiohttp import http_parser
from yarl import URL

from serve_app.errors import ApiError
from serve_app.preprocess.byte_budget import Portion, Spent
from serve_app.preprocess.network import BlockedError, PinnedConnector
from serve_app.preprocess.picture_urls import CODE

UNAVAILABLE = "image_url_unavailable"
_HEADERS = {
    "User-Agent": "pixtral-serve",
    "Accept": "image/jpeg, image/png, image/webp, image/gif, */*;q=0.1",
    "Accept-Encoding": "identity",
}
_REDIRECTS = (301, 302, 303, 307, 308)
# These may be gone when the caller tries again, as may 5xx.
_PASSING = (408, 425, 429)
_MAX_LINE_BYTES = 8_190
_MAX_HEADERS = 128
# A chunk costs microseconds of the event loop however small it is; no server that means well sends
# more than a few such as these.
_FREE_CHUNKS, _LEAST_CHUNK_BYTES = 1_000, 64


class NoPicture(Exception):  # noqa: N818  (reads as what it is)
    """What was asked for was not had.

    Attributes:
        outcome: as in ``FETCH_OUTCOMES``, for us.
        message, code: for the caller.
    """

    def __init__(self, outcome: str, message: str, code: str = CODE) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.message = message
        self.code = code


class Downloader:
    """Asks no proxy, sends no cookie, credential or Referer, decompresses nothing and follows no
    redirect. Used in one event loop."""

    def __init__(
        self, connector: PinnedConnector, *, max_bytes: int, connect_timeout_s: float
    ) -> None:
        self._max_bytes = max_bytes
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers=_HEADERS,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            max_line_size=_MAX_LINE_BYTES,
            max_field_size=_MAX_LINE_BYTES,
            max_headers=_MAX_HEADERS,
        )

    async def close(self) -> None:
        await self._session.close()

    async def get(self, url: URL, portion: Portion) -> bytes | str:
        """The body of a 200, or the ``Location`` of a redirect, as it stands there.

        Raises:
            NoPicture: any other answer, or none.
            Overloaded: no room for it.
        """
        try:
            async with self._session.get(url, allow_redirects=False) as answer:
                if answer.status in _REDIRECTS:
                    return answer.headers.get("Location", "")
                return await self._body(answer, portion)
        except (NoPicture, ApiError):
            raise
        except aiohttp.ClientSSLError as error:
            raise NoPicture(
                "untrusted", "the picture's host has no certificate that is trusted here"
            ) from error
        except TimeoutError as error:
            raise late() from error
        except (aiohttp.ClientConnectorError, OSError) as error:
            blocked = _is_blocked(error)
            raise NoPicture(
                "blocked" if blocked else "unreachable",
                "the picture's host cannot be reached",
                UNAVAILABLE,
            ) from error
        except Exception as error:  # hostile bytes make parsers raise anything
            raise _broken() from error

    async def _body(self, answer: aiohttp.ClientResponse, portion: Portion) -> bytes:
        self._check(answer)
        chunks, size, ends = [], 0, 0
        async for chunk, ended in answer.content.iter_chunks():
            size += len(chunk)
            ends += ended
            if size > self._max_bytes:
                raise self._too_large()
            if ends > _FREE_CHUNKS and size < ends * _LEAST_CHUNK_BYTES:
                raise _broken()
            _take(portion, len(chunk))
            chunks.append(chunk)
        return b"".join(chunks)

    def _check(self, answer: aiohttp.ClientResponse) -> None:
        status = answer.status
        if status != 200:
            passing = status >= 500 or status in _PASSING
            raise NoPicture(
                "status",
                f"the picture's host answered with status {status}",
                UNAVAILABLE if passing else CODE,
            )
        encodings = answer.headers.getall("Content-Encoding", ())
        if any(each.strip().lower() != "identity" for each in encodings):
            raise NoPicture("encoded", "the picture's host sent it compressed, unasked")
        if answer.content_length is not None and answer.content_length > self._max_bytes:
            raise self._too_large()

    def _too_large(self) -> NoPicture:
        return NoPicture(
            "too_large", f"the picture is larger than {self._max_bytes} bytes", "picture_too_large"
        )


def late() -> NoPicture:
    return NoPicture("timeout", "the picture's host did not send it in time", UNAVAILABLE)


def has_c_parser() -> bool:
    """Whether aiohttp reads answers with its C parser; its other one has been fooled before."""
    return http_parser.HttpResponseParser is not http_parser.HttpResponseParserPy


def system_trust() -> ssl.SSLContext:
    """The certificates that this machine trusts, or those that SSL_CERT_FILE names."""
    return ssl.create_default_context()


def _broken() -> NoPicture:
    return NoPicture(
        "broken", "the picture's host did not answer as a web server does", UNAVAILABLE
    )


def _take(portion: Portion, count: int) -> None:
    try:
        portion.take(count)
    except Spent:
        raise NoPicture(
            "too_large",
            "the pictures of the request are too large together to be fetched",
            "picture_too_large",
        ) from None


def _is_blocked(error: BaseException | None) -> bool:
    """Whether one of ours is behind it, however it was wrapped."""
    while error is not None and not isinstance(error, BlockedError):
        error = error.__cause__ or getattr(error, "os_error", None)
    return error is not None
