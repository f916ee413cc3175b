"""Where the running system listens: ours and the HTTP edge on loopback only."""

from ipaddress import ip_address

# What Ray itself binds beyond loopback, by process; the README lists it with what must fence it.
RAYS_OWN = {"raylet", "gcs_server"}


def test_everything_of_ours_listens_on_loopback(system):
    listening = system.home.listening()
    config = system.home.config
    assert ("127.0.0.1", config.gateway.port) in listening
    assert ("127.0.0.1", config.ray.dashboard_port) in listening
    beyond = {
        (address, port): process
        for (address, port), process in listening.items()
        if not ip_address(address).is_loopback
    }
    assert {process for process in beyond.values() if not _is_rays(process)} == set(), beyond


def _is_rays(process: str) -> bool:
    return any(name in process for name in RAYS_OWN)
