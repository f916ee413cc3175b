"""Where the running system listens, and what each port asks of who comes: the README's table."""

import urllib.error
import urllib.request
from ipaddress import IPv6Address, ip_address

import grpc
import pytest


def is_loopback(text: str) -> bool:
    address = ip_address(text)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


@pytest.fixture(scope="module")
def beyond_loopback(system):
    """Port -> process of every socket that another machine could reach."""
    listening = system.home.listening()
    assert ("127.0.0.1", system.home.config.gateway.port) in listening
    return {
        port: process for (address, port), process in listening.items() if not is_loopback(address)
    }


def test_only_serves_replica_ports_are_beyond_loopback(beyond_loopback):
    """Serve binds one gRPC port a replica on every interface and has no setting for it."""
    assert {process.split(":")[2] for process in beyond_loopback.values()} == {"ServeReplica"}
    assert len(beyond_loopback) == 4


def test_a_replica_port_lets_nobody_in_without_rays_token(beyond_loopback):
    for port in beyond_loopback:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
                "/ray.serve.ASGIService/HandleRequest"
            )
            with pytest.raises(grpc.RpcError) as refusal:
                call(b"", timeout=10)
        assert refusal.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_the_dashboard_asks_for_the_token_that_up_points_to(system):
    url = f"{system.up['dashboard']}/api/cluster_status"
    token = (system.home.state / "ray-token").read_text()
    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(url, timeout=10)
    assert refusal.value.code == 401
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=10) as response:
        assert response.status == 200


def test_metrics_show_the_tiers(system):
    with urllib.request.urlopen(system.up["metrics"], timeout=10) as response:
        text = response.read().decode()
    assert "ray_pixtral_decoder_kv_blocks" in text
