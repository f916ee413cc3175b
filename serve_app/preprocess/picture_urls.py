"""The one reading of a picture's address, for those who check it and for those who fetch it.

Parsers disagree about backslashes, user names, odd digits for addresses, other scripts' dots and
much else, and what one of them checks another then fetches. So what is accepted here is a small
grammar that all of them read alike: ASCII, a host of plain labels with a letter at the front of the
last, and nothing before it but the scheme. The address that is fetched is built anew from the parts
that were checked.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import idna
from yarl import URL

from serve_app.errors import InvalidRequest

if TYPE_CHECKING:
    from serve_app.fetching import Fetching

CODE = "invalid_image_url"
MAX_CHARS = 4_096
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# No number is a top-level domain, nor is a name of one label anything but somebody's own machine.
_HOST = rf"(?:{_LABEL}\.)+[a-z](?:[a-z0-9-]{{0,61}}[a-z0-9])"
_PORT = r"[1-9][0-9]{0,4}"
_PATTERN = re.compile(rf"(?:\*\.)?{_HOST}(?::{_PORT})?")
# Of RFC 3986, and brackets and bars, which servers put into queries. Percent signs begin escapes.
_REST = r"(?:[!$&'()*+,\-./0-9:;=?@A-Z\[\]_a-z|~]|%[0-9A-Fa-f]{2})*"
_ADDRESS = re.compile(
    rf"(?P<scheme>https?)://(?P<host>{_HOST})(?::(?P<port>{_PORT}))?(?P<rest>(?:[/?]{_REST})?)",
    re.IGNORECASE | re.ASCII,
)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE | re.ASCII)
_OWN_PORT = {"https": 443, "http": 80}
_MAX_HOST_CHARS = 253
# Names of networks' own, none of which a public host has.
_INNER = (
    *("alt", "arpa", "cluster", "corp", "example", "home", "internal", "intranet", "invalid"),
    *("lan", "local", "localdomain", "localhost", "onion", "private", "svc", "test"),
)


@dataclass(frozen=True, slots=True)
class UrlPolicy:
    """What may be fetched, as far as an address tells by itself. See ``Fetching`` of the config."""

    allow_hosts: Collection[str] = ()
    allow_public: bool = False
    allow_http: bool = False

    @classmethod
    def of(cls, fetching: Fetching) -> UrlPolicy:
        return cls(frozenset(fetching.allow_hosts), fetching.allow_public, fetching.allow_http)

    def check(self, text: str, param: str) -> URL:
        """The address to fetch: scheme, host, port, path and query of ``text``, unchanged but for
        the case of scheme and host; a fragment, which servers are never sent, is dropped.

        Raises:
            InvalidRequest: malformed, or not allowed here. No text repeats it: paths are secrets.
        """
        if not (self.allow_public or self.allow_hosts):
            raise InvalidRequest(
                "picture addresses are not fetched here; send the picture itself as a data: URL, or"
                " ask who runs the service to set preprocess.fetch.allow_hosts",
                param=param,
                code="unsupported_value",
            )
        url = _read(text, param)
        if url.scheme == "http" and not self.allow_http:
            raise _refusal("pictures are fetched by https only", param)
        if self._lists(url):
            return url
        if not self.allow_public or str(url.raw_host).rpartition(".")[2] in _INNER:
            raise _refusal(
                "pictures are not fetched from this host; ask who runs the service to list it in"
                " preprocess.fetch.allow_hosts",
                param,
            )
        if url.port != _OWN_PORT[url.scheme]:
            raise _refusal("pictures are not fetched from this port of the host", param)
        return url

    def _lists(self, url: URL) -> bool:
        host = str(url.raw_host)
        names = {host, *(f"*.{parent}" for parent in _parents(host))}
        if url.port != _OWN_PORT[url.scheme]:
            names = {f"{name}:{url.port}" for name in names}
        return not names.isdisjoint(self.allow_hosts)


def redirect_target(base: URL, location: str) -> str:
    """What a ``Location`` header means at ``base``: an address that is yet to be checked."""
    origin = f"{base.scheme}://{base.host_port_subcomponent}"
    if _SCHEME.match(location):
        return location
    if location.startswith("//"):
        return f"{base.scheme}:{location}"
    if location.startswith("/"):
        return origin + location
    if location.startswith("?"):
        return origin + base.raw_path + location
    return f"{origin}{base.raw_path.rpartition('/')[0]}/{location}"


def is_host_pattern(text: str) -> bool:
    """Whether ``text`` is a host as ``allow_hosts`` has it.

    >>> [is_host_pattern(each) for each in ("a.example.com:8443", "*.example.com", "*.com", "a")]
    [True, True, False, False]
    """
    host, _, port = text.partition(":")
    return (
        _PATTERN.fullmatch(text) is not None
        and host.count(".") >= (2 if host.startswith("*.") else 1)
        and _is_name(host.removeprefix("*."))
        and int(port or 1) <= 65_535
    )


def _read(text: str, param: str) -> URL:
    found = _ADDRESS.fullmatch(text.partition("#")[0]) if len(text) <= MAX_CHARS else None
    if found is None:
        raise _malformed(param)
    scheme, host = found["scheme"].lower(), found["host"].lower()
    port = int(found["port"] or _OWN_PORT[scheme])
    if not _is_name(host) or port > 65_535:
        raise _malformed(param)
    path, _, query = found["rest"].partition("?")
    target = f"{path or '/'}?{query}" if query else path or "/"
    url = URL(f"{scheme}://{host}:{port}{target}", encoded=True)
    # What is fetched is what was checked, whatever becomes of the library.
    read = (url.scheme, url.raw_host, url.port, url.raw_path_qs, url.raw_user, url.raw_fragment)
    if read != (scheme, host, port, target, None, ""):
        raise _malformed(param)
    return url


def _is_name(host: str) -> bool:
    return len(host) <= _MAX_HOST_CHARS and all(map(_is_label, host.split(".")))


def _is_label(label: str) -> bool:
    """Whether it is plain, or the one right spelling of an international label."""
    if not label.startswith("xn--"):
        return True
    try:
        return idna.alabel(idna.ulabel(label)).decode() == label
    except (idna.IDNAError, UnicodeError):
        return False


def _parents(host: str) -> list[str]:
    labels = host.split(".")
    return [".".join(labels[start:]) for start in range(1, len(labels))]


def _malformed(param: str) -> InvalidRequest:
    return _refusal(
        f"a picture's address must be https://host/path with a full host name, {MAX_CHARS}"
        " characters at most, in ASCII: the rest percent-encoded, international names in their"
        " xn-- form; no user name, no address in digits",
        param,
    )


def _refusal(message: str, param: str) -> InvalidRequest:
    return InvalidRequest(message, param=param, code=CODE)
