import pytest

from serve_app.accounting.webhook import check_allowed, is_allowed, redacted, webhook_url
from serve_app.config import ConfigError, parse_config
from serve_app.errors import InvalidRequest


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hooks.example.com",
        "ftp://hooks.example.com/",
        "file:///etc/passwd",
        "https://",
        "https:///path",
        "https://user:secret@hooks.example.com/",
        "https://user@hooks.example.com/",
        "https://hooks.example.com\\@169.254.169.254/",
        "https://hooks.example.com/#part",
        "https://hooks.example.com/ x",
        "https://hooks.example.com/\n",
        "https://höoks.example.com/",
        "https://hooks.example.com:99999/",
        "https://hooks.example.com:0/",
        "https://hooks.example.com/" + "a" * 2_000,
    ],
)
def test_a_bad_address_is_refused_without_being_repeated(text):
    with pytest.raises(InvalidRequest) as caught:
        webhook_url(text)
    assert caught.value.param == "alert_url"
    assert not text or text not in str(caught.value)
    assert "secret" not in str(caught.value)


HOSTS = ("hooks.example.com", "relay.internal:8443", "[::1]:9000")


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("https://hooks.example.com/x?y=z", True),
        ("https://HOOKS.example.com:443/x", True),
        ("http://hooks.example.com/x", True),
        ("https://hooks.example.com:8443/x", False),
        ("https://relay.internal:8443/", True),
        ("https://relay.internal/", False),
        ("http://[::1]:9000/", True),
        ("http://[::1]/", False),
        ("https://evil-hooks.example.com/", False),
        ("https://hooks.example.com.evil.test/", False),
        ("http://169.254.169.254/latest/meta-data", False),
        ("http://127.0.0.1:8265/api/jobs", False),
        ("http://metadata.google.internal/", False),
    ],
)
def test_only_listed_hosts_and_ports_are_reached(text, allowed):
    assert is_allowed(webhook_url(text), HOSTS) is allowed
    if not allowed:
        with pytest.raises(InvalidRequest, match=r"accounting\.alert_hosts"):
            check_allowed(text, HOSTS)


def test_nothing_is_reached_unless_listed():
    assert not is_allowed(webhook_url("https://hooks.example.com/"), ())


def test_a_shown_address_ends_at_its_port():
    assert (
        redacted("https://relay.internal:8443/T0/secret?token=s") == "https://relay.internal:8443"
    )


@pytest.mark.parametrize(
    "host", ["https://a.example", "a.example/x", "A.example", "", "a b", "::1"]
)
def test_a_host_in_the_config_is_bare(host):
    def config(hosts):
        values = {"model": {"path": "/m"}, "accounting": {"alert_hosts": hosts}}
        return parse_config(values).accounting.alert_hosts

    assert config(list(HOSTS)) == HOSTS
    with pytest.raises(ConfigError, match="alert_hosts"):
        config([host])
