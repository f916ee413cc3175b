"""Tests talk to loopback only: anything else fails before a packet is sent.

A Python audit hook sees every connect, datagram and name look-up that CPython makes, whichever
library asked and however it got hold of the call; it cannot be patched away, and it raises before
the kernel is asked. Child processes and sockets opened inside C libraries are not seen.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
from dataclasses import dataclass, field
from typing import Any


class OutsideLoopbackError(OSError):
    """A test tried to reach another machine."""


@dataclass
class NetworkGuard:
    """``attempts`` collects what was refused, so that a library's ``except OSError`` hides none."""

    attempts: list[str] = field(default_factory=list)

    def install(self) -> None:
        """For the rest of this process: audit hooks cannot be taken out again."""
        sys.addaudithook(self._hook)

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if not event.startswith("socket."):
            return
        if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
            self._check_address(event, *args)
        elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
            self._check_name(event, args[0])

    def _check_address(self, event: str, sock: socket.socket, address: Any) -> None:
        if sock.family == socket.AF_UNIX or address is None or is_local(address[0]):
            return
        # A datagram "connect" sends nothing: it is how Ray and others ask for this machine's own
        # address. Refused like the rest, yet no reason to fail a test.
        if event != "socket.connect" or sock.type != socket.SOCK_DGRAM:
            self.attempts.append(f"{event} {address}")
        raise OutsideLoopbackError(f"tests talk to loopback only, not to {address}")

    def _check_name(self, event: str, host: str | bytes | None) -> None:
        # An address written in digits needs no look-up; connecting to it is checked above.
        if is_local(host) or is_address(host):
            return
        self.attempts.append(f"{event} {host!r}")
        raise OutsideLoopbackError(f"tests look up no names, not even {host!r}")


def is_local(host: str | bytes | None) -> bool:
    """Whether ``host`` (an address or a name) is this machine, without any look-up."""
    if not host or _text(host) in ("localhost", socket.gethostname()):
        return True
    if not is_address(host):
        return False
    address = ipaddress.ip_address(_text(host).partition("%")[0])
    return address.is_loopback or address.is_unspecified


def is_address(host: str | bytes | None) -> bool:
    """Whether ``host`` is an address in digits rather than a name."""
    try:
        ipaddress.ip_address(_text(host or "").partition("%")[0])
    except ValueError:
        return False
    return True


def _text(host: str | bytes) -> str:
    return host.decode() if isinstance(host, bytes) else host
