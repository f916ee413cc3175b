"""One case for each range that pictures are never fetched from, and for each disguise of one."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from serve_app.preprocess.addresses import REFUSED_NETWORKS, may_connect

# Range -> addresses in it, its edges and those that somebody answers at.
REFUSED = {
    "0.0.0.0/8": ("0.0.0.0", "0.255.255.255"),
    "10.0.0.0/8": ("10.0.0.0", "10.96.0.1", "10.255.255.255"),
    "100.64.0.0/10": ("100.64.0.0", "100.100.100.200", "100.127.255.255"),
    "127.0.0.0/8": ("127.0.0.1", "127.0.0.53", "127.255.255.255"),
    "168.63.129.16/32": ("168.63.129.16",),
    "169.254.0.0/16": ("169.254.169.254", "169.254.170.2", "169.254.170.23", "169.254.0.1"),
    "172.16.0.0/12": ("172.16.0.0", "172.17.0.1", "172.31.255.255"),
    "192.0.0.0/24": ("192.0.0.1", "192.0.0.170", "192.0.0.192"),
    "192.0.2.0/24": ("192.0.2.1",),
    "192.31.196.0/24": ("192.31.196.1",),
    "192.52.193.0/24": ("192.52.193.1",),
    "192.88.99.0/24": ("192.88.99.1",),
    "192.168.0.0/16": ("192.168.0.1", "192.168.255.255"),
    "192.175.48.0/24": ("192.175.48.1",),
    "198.18.0.0/15": ("198.18.0.1", "198.19.255.255"),
    "198.51.100.0/24": ("198.51.100.1",),
    "203.0.113.0/24": ("203.0.113.1",),
    "224.0.0.0/4": ("224.0.0.1", "239.255.255.250", "233.252.0.1"),
    "240.0.0.0/4": ("240.0.0.1", "255.255.255.255"),
    "::/96": ("::", "::1", "::127.0.0.1", "::8.8.8.8"),
    "::ffff:0:0:0/96": ("::ffff:0:127.0.0.1", "::ffff:0:8.8.8.8"),
    "64:ff9b:1::/48": ("64:ff9b:1::7f00:1", "64:ff9b:1:fffe::a00:1", "64:ff9b:1::808:808"),
    "100::/64": ("100::1",),
    "100:0:0:1::/64": ("100:0:0:1::1",),
    "2001::/23": ("2001::7f00:1", "2001:0:53aa:64c:0:0:80ff:fffe", "2001:2::1", "2001:20::1"),
    "2001:db8::/32": ("2001:db8::1",),
    "2002::/16": ("2002:7f00:1::", "2002:a9fe:a9fe::1", "2002:808:808::1"),
    "2620:4f:8000::/48": ("2620:4f:8000::1",),
    "3fff::/20": ("3fff::1", "3fff:fff::1"),
    "5f00::/16": ("5f00::1",),
    "fc00::/7": ("fc00::1", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254"),
    "fe80::/10": ("fe80::1", "fe80::a9fe:a9fe", "febf::1"),
    "fec0::/10": ("fec0::1", "feff::1"),
    "ff00::/8": ("ff02::1", "ff0e::1"),
}
# An IPv4 address in another's clothes.
DISGUISED = (
    *("::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:169.254.169.254", "::ffff:10.0.0.1"),
    *("64:ff9b::7f00:1", "64:ff9b::169.254.169.254", "64:ff9b::a00:1", "64:ff9b::a83f:8110"),
    # ISATAP, below a prefix that is given out.
    *("2600::5efe:7f00:1", "2600::200:5efe:a00:1", "2600::5efe:a9fe:a9fe"),
    # Zones lead out of an interface of the caller's choice.
    *("fe80::1%eth0", "2600::1%1", "::1%lo"),
)
NO_ADDRESS = (
    *("", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "127.0.0.1.", " 8.8.8.8"),
    *("8.8.8.8 ", "[::1]", "8.8.8.8:80", "8.8.8.8/32", "٨.٨.٨.٨", "1e100.net", "8.8.8.8\n"),
)
PUBLIC = (
    *("8.8.8.8", "93.184.215.14", "151.101.1.140", "1.1.1.1", "223.255.255.254", "9.255.255.255"),
    *("11.0.0.0", "100.63.255.255", "100.128.0.0", "172.15.255.255", "172.32.0.0", "168.63.129.17"),
    *("169.253.255.255", "169.255.0.0", "192.0.1.0", "198.17.255.255", "198.20.0.0", "128.0.0.0"),
    *("2606:2800:21f:cb07::1", "2a00:1450:4001:81b::200e", "2001:4860:4860::8888", "2001:200::1"),
    *("2003::1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2600::5efe:808:808"),
)


def test_every_range_has_its_cases():
    assert {str(network) for network in REFUSED_NETWORKS} == set(REFUSED)
    for network, addresses in REFUSED.items():
        assert all(
            ipaddress.ip_address(each) in ipaddress.ip_network(network) for each in addresses
        )


@pytest.mark.parametrize("address", [each for addresses in REFUSED.values() for each in addresses])
def test_special_addresses_are_refused(address):
    assert not may_connect(address)


@pytest.mark.parametrize("address", DISGUISED)
def test_disguised_addresses_are_refused(address):
    assert not may_connect(address)


@pytest.mark.parametrize("text", NO_ADDRESS)
def test_what_is_no_address_in_plain_digits_is_refused(text):
    assert not may_connect(text)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_let_through(address):
    assert may_connect(address)


def test_an_operators_own_ranges_are_refused_in_disguise_too():
    own = [ipaddress.ip_network("93.184.215.0/24"), ipaddress.ip_network("2606:2800::/32")]
    for address in ("93.184.215.14", "::ffff:93.184.215.14", "64:ff9b::5db8:d70e", "2606:2800::1"):
        assert may_connect(address)
        assert not may_connect(address, own)


@given(st.ip_addresses(v=4))
@example(ipaddress.IPv4Address("192.0.0.192"))
def test_the_library_never_knows_of_a_private_address_that_we_let_through(address):
    assert not may_connect(str(address)) or (address.is_global and not address.is_reserved)


@given(st.ip_addresses(v=6))
def test_only_what_is_given_out_of_ipv6_is_let_through(address):
    wrapped = ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::ffff:0:0/96")
    if may_connect(str(address)):
        assert address in ipaddress.IPv6Network("2000::/3") or any(address in n for n in wrapped)


@given(st.ip_addresses(v=4), st.sampled_from(["::ffff:0:0", "64:ff9b::"]))
def test_a_wrapper_leads_where_its_content_does(address, prefix):
    wrapped = ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) | int(address))
    assert may_connect(str(wrapped)) == may_connect(str(address))
