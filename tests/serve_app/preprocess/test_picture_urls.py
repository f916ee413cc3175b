"""Addresses of pictures: what is accepted leads every reader to the host that was checked."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, NoReturn
from urllib.parse import urlsplit

import ada_url
import aiohttp
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from serve_app.config import ConfigError, parse_config
from serve_app.errors import InvalidRequest
from serve_app.preprocess.picture_urls import UrlPolicy, redirect_target

PARAM = "messages[0].content[1].image_url"
ANY = UrlPolicy(allow_public=True, allow_http=True)
LISTED = UrlPolicy(("images.example.com", "*.cdn.example.net", "relay.example.org:8443"))

MALFORMED = (
    # What is no address at all, or another kind of one.
    *(
        "",
        "https://",
        "https:///path",
        "//a.com/x.png",
        "a.com/x.png",
        "https:a.com",
        "https:/a.com",
    ),
    *("ftp://a.com/", "file:///etc/passwd", "gopher://a.com:70/_x", "data:,x", "javascript:1"),
    *("http+unix://a.com/", "httpss://a.com", "view-source:https://a.com", "jar:https://a.com!/"),
    # Readers disagree about where the host ends.
    *("https://a.com\\@b.com/", "https://a.com\\.b.com/", "https:\\\\a.com/", "https://a.com\\b"),
    *("https://b.com@a.com/", "https://b.com:x@a.com/", "https://@a.com/", "https://:@a.com/"),
    *("https://a.com:443@b.com/", "https://a.com%2f@b.com/", "https://a.com%00.b.com/"),
    *("https://a.com%2eb.com/", "https://%61.com/", "https://a.com;b.com/", "https://a.com&b.com/"),
    *("https://a.com,b.com/", "https://a .com/", "https://a.com b.com/", "https://a.com\t/"),
    *("https://a.com\r\nHost: b.com/", "https://a.com\n/", "\nhttps://a.com/", " https://a.com/"),
    *("https://a.com/ ", "https://a.com/\x00", "https://a.com/\x7f", "ht\ttps://a.com/"),
    # And about what a host is.
    *(
        "https://a..com/",
        "https://.a.com/",
        "https://a.com./",
        "https://a.com../",
        "https://-a.com/",
    ),
    *(
        "https://a-.com/",
        "https://a_b.com/",
        "https://*.a.com/",
        "https://a*.com/",
        "https://~a.com",
    ),
    *(
        "https://[a.com]/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[fe80::1%25lo]/",
    ),
    *("https://[::1]:443/", "https://[v1.x]/", "https://::1/", "https://[2606:2800:21f:cb07::1]/"),
    # Addresses in digits, in every base, short and long.
    *("https://127.0.0.1/", "https://2130706433/", "https://0x7f000001/", "https://0x7f.0.0.1/"),
    *("https://0177.0.0.1/", "https://127.1/", "https://127.0.1/", "https://0/", "https://0x/"),
    *("https://017700000001/", "https://127.0.0.1./", "https://169.254.169.254/latest/meta-data"),
    *(
        "https://8.8.8.8/",
        "https://a.0x7f/",
        "https://a.127/",
        "https://1.2.3.4.5/",
        "https://4294967297/",
    ),
    # Names that only somebody's own machine has.
    *("https://localhost/", "https://metadata/", "https://kubernetes/", "https://x/"),
    # Other scripts: dots, digits and letters that some readers turn into ASCII.
    *(
        "https://ａ.com/",
        "https://a。com/",
        "https://a．com/",
        "https://①.com/",
        "https://ⓔxample.com/",
    ),
    *(
        "https://faß.de/",
        "https://раураl.com/",
        "https://example.com\u200d/",
        "https://ⅼocalhost.com/",
    ),
    *("https://１２７.０.０.１/", "https://\u212aa.com/", "https://a\u00ad.com/", "ℎttps://a.com/"),
    # International labels that are none, or not in their one spelling.
    *("https://xn--/", "https://xn--.com/", "https://xn--a.com/", "https://xn--zz.example.com/"),
    *("https://xn--80ak6aa92e-.com/", "https://a.xn--fake-99/", "https://xn--example-.com/"),
    # Ports.
    *("https://a.com:/", "https://a.com:0/", "https://a.com:00443/", "https://a.com:65536/"),
    *("https://a.com:-1/", "https://a.com:4e2/", "https://a.com:443:443/", "https://a.com:٤٤٣/"),
    *("https://a.com:99999999999999999999/", "https://a.com:+443/", "https://a.com: 443/"),
    # Paths and queries that would have to be changed before they are sent.
    *(
        "https://a.com/ä.png",
        "https://a.com/a b",
        "https://a.com/%",
        "https://a.com/%zz",
        'https://a.com/"',
    ),
    *(
        "https://a.com/<x>",
        "https://a.com/{x}",
        "https://a.com/^",
        "https://a.com/`",
        "https://a.com/\\",
    ),
    # Long ones.
    "https://a.com/" + "x" * 4_096,
    "https://" + "a" * 64 + ".com/",
    "https://" + "a." * 130 + "com/",
)
ACCEPTED = {
    "https://a.com": "https://a.com/",
    "HTTPS://A.COM/B": "https://a.com/B",
    "https://a.com:443/x": "https://a.com/x",
    "http://a.com/x": "http://a.com/x",
    "http://a.com:80/x": "http://a.com/x",
    "https://a.com?x=1": "https://a.com/?x=1",
    "https://a.com/?": "https://a.com/",
    "https://a.com/x#y": "https://a.com/x",
    "https://a.com#@b.com/": "https://a.com/",
    "https://a.com/@b.com:80/": "https://a.com/@b.com:80/",
    "https://a.com//b.com/../x/./": "https://a.com//b.com/../x/./",
    # As it was signed, to the letter.
    "https://a.com/%7Ex/a+b%20c?X-Sig=a%2Bb%2F%3D%3d&e=%e4&l[]=1|2": (
        "https://a.com/%7Ex/a+b%20c?X-Sig=a%2Bb%2F%3D%3d&e=%e4&l[]=1|2"
    ),
    "https://xn--mnchen-3ya.de/x": "https://xn--mnchen-3ya.de/x",
    "https://r3---sn-x.a.com/": "https://r3---sn-x.a.com/",
    "https://1.a.com/": "https://1.a.com/",
    "https://a.xn--p1ai/": "https://a.xn--p1ai/",
}


def check(text: str, policy: UrlPolicy = ANY) -> URL:
    return policy.check(text, PARAM)


@pytest.mark.parametrize("text", MALFORMED)
def test_what_readers_might_take_differently_is_refused_and_not_repeated(text):
    with pytest.raises(InvalidRequest) as caught:
        check(text)
    assert (caught.value.param, caught.value.code) == (PARAM, "invalid_image_url")
    assert caught.value.message == _message("https://-/")


@pytest.mark.parametrize(("text", "fetched"), ACCEPTED.items())
def test_plain_addresses_are_fetched_as_they_stand(text, fetched):
    assert str(check(text)) == fetched


def _message(text: str) -> str:
    with pytest.raises(InvalidRequest) as caught:
        check(text)
    return caught.value.message


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("https://images.example.com/a", True),
        ("https://IMAGES.example.com:443/a", True),
        ("https://images.example.com:8443/a", False),
        ("http://images.example.com/a", False),
        ("http://images.example.com:443/a", False),
        ("https://evil-images.example.com/a", False),
        ("https://images.example.com.evil.com/a", False),
        ("https://x.images.example.com/a", False),
        ("https://example.com/a", False),
        ("https://a.cdn.example.net/", True),
        ("https://a.b.cdn.example.net/", True),
        ("https://cdn.example.net/", False),
        ("https://evilcdn.example.net/", False),
        ("https://relay.example.org:8443/", True),
        ("https://relay.example.org/", False),
    ],
)
def test_only_listed_hosts_are_asked(text, allowed):
    with contextlib.nullcontext() if allowed else pytest.raises(InvalidRequest):
        check(text, LISTED)


def test_http_is_asked_only_where_that_is_set():
    plain = UrlPolicy(("images.example.com",), allow_http=True)
    assert check("http://images.example.com/a", plain).port == 80
    with pytest.raises(InvalidRequest, match="https only"):
        check("http://images.example.com/a", LISTED)


def test_nothing_is_fetched_unless_the_operator_says_so_and_the_refusal_tells_how():
    with pytest.raises(InvalidRequest, match=r"preprocess\.fetch\.allow_hosts") as caught:
        check("https://images.example.com/a", UrlPolicy())
    assert caught.value.code == "unsupported_value"


@pytest.mark.parametrize(
    "host",
    [
        *("db.internal", "metadata.google.internal", "printer.local", "gateway.lan", "x.home.arpa"),
        *("kubernetes.default.svc", "redis.prod.svc.cluster.local", "app.localhost", "x.onion"),
        *("1.0.0.127.in-addr.arpa", "wiki.corp", "nas.home", "x.intranet", "a.test", "a.example"),
    ],
)
def test_names_of_inner_networks_are_no_public_hosts(host):
    with pytest.raises(InvalidRequest):
        check(f"https://{host}/")
    assert check(f"https://{host}/", UrlPolicy((host,))).host == host


def test_public_hosts_are_asked_at_the_port_of_the_scheme_only():
    for text in ("https://a.com:80/", "http://a.com:443/", "https://a.com:6379/"):
        with pytest.raises(InvalidRequest):
            check(text)


@pytest.mark.parametrize(
    "host",
    [
        *(
            "https://a.com",
            "a.com/x",
            "A.com",
            "",
            "a",
            "localhost",
            "*",
            "*.com",
            "*a.com",
            "a.*.com",
        ),
        *(
            "127.0.0.1",
            "::1",
            "[::1]",
            "a.com.",
            "a.com:0",
            "a.com:65536",
            "a b.com",
            "ä.com",
            ".a.com",
        ),
    ],
)
def test_a_host_in_the_config_is_a_full_name(host):
    values = {"model": {"path": "/m"}, "preprocess": {"fetch": {"allow_hosts": [host]}}}
    with pytest.raises(ConfigError, match=r"preprocess\.fetch\.allow_hosts"):
        parse_config(values)


def test_hosts_suffixes_and_ports_may_be_listed():
    hosts = ["a.com", "*.a.co.uk", "a.com:8443", "*.b.com:8443", "xn--mnchen-3ya.de"]
    values = {"model": {"path": "/m"}, "preprocess": {"fetch": {"allow_hosts": hosts}}}
    assert parse_config(values).preprocess.fetch.allow_hosts == tuple(hosts)


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://b.com/x", "https://b.com/x"),
        ("http://b.com/x", "http://b.com/x"),
        ("//b.com/x", "https://b.com/x"),
        ("/x?y", "https://a.com:8443/x?y"),
        ("x", "https://a.com:8443/p/x"),
        ("../x", "https://a.com:8443/p/../x"),
        ("?z=1", "https://a.com:8443/p/q?z=1"),
        ("", "https://a.com:8443/p/"),
        ("///b.com/", "https:///b.com/"),
        ("/\\b.com/", "https://a.com:8443/\\b.com/"),
        ("\\\\b.com/", "https://a.com:8443/p/\\\\b.com/"),
        ("file:///etc/passwd", "file:///etc/passwd"),
        ("@b.com", "https://a.com:8443/p/@b.com"),
    ],
)
def test_a_redirect_means_what_it_says(location, target):
    assert redirect_target(URL("https://a.com:8443/p/q?r=s"), location) == target


_SPICE = st.sampled_from(
    [
        *(
            "@",
            "\\",
            "/",
            "//",
            "#",
            "?",
            ":",
            "%",
            "%2f",
            "%40",
            "%5c",
            "[",
            "]",
            ";",
            ".",
            "..",
            "。",
        ),
        *(
            "a.com",
            "b.com",
            "127.0.0.1",
            "localhost",
            "0x7f",
            "2130706433",
            "xn--",
            "xn--a-ecp.ru",
            "-",
        ),
        *(
            "443",
            "80",
            "0",
            "https://",
            "http:",
            "HTTPS://",
            "\t",
            "\n",
            " ",
            "\x00",
            "K",
            "ß",
            "．",
        ),
    ]
)
ADDRESSES = st.one_of(
    st.lists(_SPICE | st.text(max_size=3), max_size=12).map("".join),
    st.lists(_SPICE | st.text(max_size=3), max_size=8).map(
        lambda parts: "https://" + "".join(parts)
    ),
    st.builds(
        "https://{}.com{}".format, st.from_regex(r"[a-z0-9.-]{1,20}", fullmatch=True), st.text()
    ),
    st.from_regex(r"https?://[!-~]{1,30}", fullmatch=True),
)


class _Note(aiohttp.TCPConnector):
    """Notes whom it is to connect to, and connects to nobody."""

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> NoReturn:
        self.asked = (req.url.raw_host, req.port, req.headers["Host"])
        raise aiohttp.ClientConnectionError


def asked_by_aiohttp(url: URL) -> tuple[str | None, int | None, str]:
    async def ask() -> tuple[str | None, int | None, str]:
        connector = _Note()
        async with aiohttp.ClientSession(connector=connector) as session:
            with contextlib.suppress(aiohttp.ClientConnectionError):
                await session.get(url)
        return connector.asked

    return asyncio.run(ask())


@given(ADDRESSES)
@example("https://a.com/@b.com")
@example("https://a.com?@b.com/")
@example("https://a.com#@b.com/")
@example("HTTPS://A.COM:443/..//b.com")
def test_whatever_is_accepted_leads_every_reader_to_the_host_that_was_checked(text):
    try:
        url = check(text)
    except InvalidRequest:
        return
    host, sent = url.raw_host, str(url)
    # Whom aiohttp asks, and what yarl, the standard library and a browser make of it.
    assert asked_by_aiohttp(url) == (host, url.port, url.host_port_subcomponent)
    assert URL(text).raw_host == URL(sent).raw_host == host
    assert urlsplit(text).hostname == urlsplit(sent).hostname == host
    assert ada_url.URL(text).hostname == ada_url.URL(sent).hostname == host
    assert url.raw_user is None
    assert sent.isascii()
    assert not any(mark in sent for mark in '\\"<>^`{} \t\r\n\x00')
