"""Where budget alerts may be posted to: only to hosts that the machine's operator has listed.

A webhook's address is set through the admin API, by somebody who need not be the operator, and the
gateway posts to it from inside the network. So nothing is reachable unless
``accounting.alert_hosts`` names it: no metadata service, no loopback, no neighbour. Redirects are
not followed (alerts.py). Who lists a name trusts whoever answers for it in the DNS.

Pictures' addresses are held to other rules (preprocess/picture_urls.py): any caller sends those, so
they lead outside only, while these are of hosts that the operator names, and most of them inside.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from yarl import URL

from serve_app.errors import InvalidRequest

FIELD = "alert_url"
_MAX_CHARS = 2_000
# Printable ASCII but the backslash, which parsers disagree on.
_SHAPE = re.compile(r"https?://[!-\[\]-~]+", re.IGNORECASE)


def webhook_url(text: str) -> URL:
    """The one reading of an address, for checking and for posting.

    Raises:
        InvalidRequest: not http(s), with credentials or a fragment, too long, or malformed. The
            message does not repeat it: its path is often the secret.
    """
    if len(text) > _MAX_CHARS or not _SHAPE.fullmatch(text):
        raise _refusal(f"an http or https address of {_MAX_CHARS} characters at most")
    try:
        url = URL(text)
        port = url.port
    except ValueError as error:
        raise _refusal("a well-formed address") from error
    if not url.host or not port or url.user is not None or url.password is not None or url.fragment:
        raise _refusal("an address with a host, without credentials or fragment")
    return url


def is_allowed(url: URL, hosts: Collection[str]) -> bool:
    """Whether the operator listed it, as ``host`` (the scheme's own port) or ``host:port``."""
    return url.host_port_subcomponent in hosts


def check_allowed(text: str, hosts: Collection[str]) -> None:
    """Raises InvalidRequest unless it is well-formed and may be posted to."""
    url = webhook_url(text)
    if not is_allowed(url, hosts):
        raise InvalidRequest(
            f"{FIELD}: {url.host_port_subcomponent} is not in accounting.alert_hosts; "
            "ask who runs the gateway to list it",
            param=FIELD,
        )


def redacted(text: str) -> str:
    """Scheme and host, as lists, logs and the audit log show it.

    >>> redacted("https://hooks.example.com/services/T0/secret")
    'https://hooks.example.com'
    """
    return str(webhook_url(text).origin())


def _refusal(rule: str) -> InvalidRequest:
    return InvalidRequest(f"{FIELD}: must be {rule}", param=FIELD)
