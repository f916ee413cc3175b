"""Which IP addresses pictures may be fetched from: the public internet's, and no other.

What the standard library calls global is not enough: in 3.11 that takes in NAT64 and 6to4 forms
of 127.0.0.1, multicast, and addresses at which clouds answer their own machines. So the ranges are
listed here, one line each with its reason; IPv6 addresses must besides be in 2000::/3, the only
part of it that is given out. Standard library only.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_REFUSED = {
    "0.0.0.0/8": "this host; Linux connects 0.0.0.0 to loopback",
    "10.0.0.0/8": "private",
    "100.64.0.0/10": "carrier-grade NAT; Alibaba's metadata server, clusters' pods",
    "127.0.0.0/8": "loopback",
    "168.63.129.16/32": "Azure's own agent, on a public address",
    "169.254.0.0/16": "link-local; the clouds' metadata servers",
    "172.16.0.0/12": "private",
    "192.0.0.0/24": "protocol assignments; Oracle's metadata server, DS-Lite, NAT64 discovery",
    "192.0.2.0/24": "documentation",
    "192.31.196.0/24": "AS112",
    "192.52.193.0/24": "multicast tunnels (AMT)",
    "192.88.99.0/24": "6to4 relays",
    "192.168.0.0/16": "private",
    "192.175.48.0/24": "AS112",
    "198.18.0.0/15": "benchmarks",
    "198.51.100.0/24": "documentation",
    "203.0.113.0/24": "documentation",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved, and broadcast",
    "::/96": "unspecified, loopback, and IPv4-compatible",
    "::ffff:0:0:0/96": "IPv4-translated",
    "64:ff9b:1::/48": "NAT64 of a network of its own: where it leads is not known here",
    "100::/64": "discard",
    "100:0:0:1::/64": "dummy prefix",
    "2001::/23": "protocol assignments: Teredo, benchmarks, ORCHID, AMT, AS112",
    "2001:db8::/32": "documentation",
    "2002::/16": "6to4, which wraps any IPv4 address",
    "2620:4f:8000::/48": "AS112",
    "3fff::/20": "documentation",
    "5f00::/16": "segment routing",
    "fc00::/7": "private; Amazon's metadata server fd00:ec2::254",
    "fe80::/10": "link-local",
    "fec0::/10": "site-local",
    "ff00::/8": "multicast",
}
REFUSED_NETWORKS: tuple[Network, ...] = tuple(map(ipaddress.ip_network, _REFUSED))
_GIVEN_OUT = ipaddress.IPv6Network("2000::/3")
# These carry an IPv4 address in their last 32 bits, and lead where it does.
_WRAPPERS = (ipaddress.IPv6Network("::ffff:0:0/96"), ipaddress.IPv6Network("64:ff9b::/96"))
# The first half of an ISATAP interface identifier, with and without its "universal" bit.
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)


def may_connect(text: str, refused: Iterable[Network] = ()) -> bool:
    """Whether ``text`` is an address of the public internet.

    Args:
        text: in digits, as a resolver gives it; anything else is refused, as is one with a zone.
        refused: more networks that are none of it.

    >>> may_connect("93.184.215.14"), may_connect("::ffff:127.0.0.1"), may_connect("2130706433")
    (True, False, False)
    """
    try:
        address: Address = ipaddress.ip_address(text)
    except ValueError:
        return False
    networks = (*REFUSED_NETWORKS, *refused)
    return all(_is_public(each, networks) for each in _meant(address))


def _meant(address: Address) -> tuple[Address, ...]:
    """The addresses that a packet to this one may end at."""
    if isinstance(address, ipaddress.IPv4Address):
        return (address,)
    inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    if any(address in wrapper for wrapper in _WRAPPERS):
        return (inner,)
    if (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP:
        return (address, inner)
    return (address,)


def _is_public(address: Address, refused: tuple[Network, ...]) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and (
        address.scope_id is not None or address not in _GIVEN_OUT
    ):
        return False
    return (
        address.is_global
        and not address.is_multicast
        and not any(address in network for network in refused)
    )
