"""Which picture addresses are fetched, and how much that may cost: the config's part of it."""

from __future__ import annotations

import ipaddress

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from serve_app.preprocess.picture_urls import is_host_pattern


class Fetching(BaseModel):
    """Nothing is fetched unless ``allow_hosts`` or ``allow_public`` says so.

    Whatever is listed, no private, loopback, link-local or other special address is ever connected
    to (preprocess/addresses.py), and each redirect is checked anew. A picture itself may be as
    large as one that is sent along. Limits are of each replica.
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
