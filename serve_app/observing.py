"""What is seen of a running system, and what is sent: the config's part of it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class Observe(BaseModel):
    """A Prometheus beside the system, on loopback (``pixtral up --observe``).

    What it keeps is bounded by ``retention_days`` and ``retention_mb``, whichever ends first. Ray
    reports every 10 s: scraping more often shows nothing more.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = False
    port: int = Field(9090, ge=1, le=65535)
    scrape_interval_s: int = Field(15, ge=1)
    retention_days: int = Field(7, ge=1)
    retention_mb: int = Field(512, ge=64)


class Telemetry(BaseModel):
    """Traces and logs. Metrics are always on, and nothing is sent anywhere unless set here.

    Attributes:
        otlp_endpoint: where traces are sent by OTLP/HTTP, as ``http://collector:4318``; the
            exporter reads OTEL_EXPORTER_OTLP_HEADERS for a collector that asks for a key.
        sample_ratio: of the requests that are traced.
        accept_parent: whether a client's ``traceparent`` header names the trace, and decides
            whether the request is traced; only where clients are ours.
        log_format: of Serve's log file of each replica.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    otlp_endpoint: str | None = None
    sample_ratio: float = Field(1.0, ge=0, le=1)
    accept_parent: bool = False
    log_format: Literal["text", "json"] = "text"

    @field_validator("otlp_endpoint")
    @classmethod
    def _is_address(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("http://", "https://")):
            raise ValueError("must be http://host:port or https://…")
        return url
