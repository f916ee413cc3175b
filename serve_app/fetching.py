"""Which picture addresses are fetched, and how much that may cost: the config's part of it."""

from __future__ import annotations

import ipaddress

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from serve_app.preprocess.picture_urls import is_host_pattern


class Fetching(BaseModel):
    """Nothing is fetched unless ``allow_hosts`` or ``allow_public`` says so.

    Whatever is listed, no private, loopback, link-local or other special address is ever connected
    to (preprocess/addresses.py), and each redirect is checked anew. Limits are of each replica.

    Attributes:
        allow_hosts: hosts that pictures may come from, as ``images.example.com`` or
            ``*.example.com`` (any name below it), with ``:port`` for other ports than the scheme's.
        allow_public: any public host, on its scheme's own port.
        allow_http: pictures without TLS, too; never after a redirect from https.
        refused_networks: never connected to, besides the special ones: of a company that uses
            public addresses inside, as ``203.0.113.0/24``.
        max_request_bytes: of all pictures that one request has fetched.
        max_held_bytes: of all fetched pictures that wait or are decoded; beyond it requests are
            refused with 503.
        max_requests: that fetch at once; more are refused with 503, and those without addresses
            find room.
        max_per_request: pictures of one request that are fetched side by side.
        max_per_host: connections to one host.
        timeout_s: for all pictures of a request, redirects and waits included.
        connect_timeout_s: for one connection, its TLS handshake included.
        max_redirects: of one picture.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    allow_hosts: tuple[str, ...] = ()
    allow_public: bool = False
    allow_http: bool = False
    refused_networks: tuple[str, ...] = ()
    max_request_bytes: int = Field(64 * 2**20, ge=64)
    max_held_bytes: int = Field(256 * 2**20, ge=64)
    max_requests: int = Field(16, ge=1)
    max_per_request: int = Field(8, ge=1)
    max_per_host: int = Field(16, ge=1)
    timeout_s: float = Field(15.0, gt=0, le=300)
    connect_timeout_s: float = Field(5.0, gt=0)
    max_redirects: int = Field(3, ge=0, le=10)

    @property
    def enabled(self) -> bool:
        return self.allow_public or bool(self.allow_hosts)

    @field_validator("allow_hosts")
    @classmethod
    def _full_names(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not is_host_pattern(host):
                raise ValueError(
                    f"{host!r} is no full host name in lower case such as images.example.com, "
                    "*.example.com or images.example.com:8443"
                )
        return hosts

    @field_validator("refused_networks")
    @classmethod
    def _networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in networks:
            ipaddress.ip_network(network)
        return networks

    @model_validator(mode="after")
    def _one_request_fits(self) -> Fetching:
        if self.max_request_bytes > self.max_held_bytes:
            raise ValueError(
                f"max_request_bytes {self.max_request_bytes} is above max_held_bytes "
                f"{self.max_held_bytes}"
            )
        return self
