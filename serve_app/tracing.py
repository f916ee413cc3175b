"""OpenTelemetry traces of requests, by OTLP/HTTP; off unless ``telemetry.otlp_endpoint`` is set.

    request ─┬─ preprocess   the tier's own
             ├─ hold         until the money is reserved, durably
             ├─ vision       the tier's own; none without pictures
             ├─ queue        at the engine, until its first step
             ├─ prefill      until the first token
             ├─ decode       until the last
             └─ settle       until the end is booked, durably

Spans are written down when they are over, by who knows their times: the engine imports none of
this. They name the request, its team and numbers, never what was said, and errors by their type.
The context travels in our own messages, as W3C's ``traceparent``. Off, there is no ``Tracing``.
"""

from __future__ import annotations

import random
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from serve_app.config import ConfigError
from serve_app.observing import Telemetry
from shards.request import Timing

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

Value = str | int | float | bool
# A settlement may come after its answer, so entries outlive their requests.
REMEMBERED = 8192
EXPORT_INTERVAL_S = 1.0
EXPORT_TIMEOUT_S = 5.0
_SAMPLED = 1


class Tracing:
    """One process's spans."""

    def __init__(self, provider: TracerProvider, settings: Telemetry) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("pixtral-serve")
        self._settings = settings
        self._propagator = TraceContextTextMapPropagator()
        self._parents: OrderedDict[str, str] = OrderedDict()

    @classmethod
    def start(cls, settings: Telemetry, *, tier: str, instance: str) -> Tracing | None:
        """None where no endpoint is set.

        Raises:
            ConfigError: the exporter is not installed.
        """
        if settings.otlp_endpoint is None:
            return None
        require_exporter()
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        provider = TracerProvider(
            resource=Resource.create(
                {
                    "service.name": "pixtral-serve",
                    "service.instance.id": instance,
                    "pixtral.tier": tier,
                }
            )
        )
        exporter = OTLPSpanExporter(
            f"{settings.otlp_endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_TIMEOUT_S
        )
        provider.add_span_processor(
            BatchSpanProcessor(exporter, schedule_delay_millis=1000 * EXPORT_INTERVAL_S)
        )
        return cls(provider, settings)

    def begin(self, request_id: str, traceparent: str | None) -> Span | None:
        """The span of a whole request, to be ended by the caller; None if it is not sampled.

        Args:
            traceparent: the client's header, heeded if ``telemetry.accept_parent`` says so.
        """
        parent = self._accepted(traceparent)
        if parent is None:
            if random.random() >= self._settings.sample_ratio:
                return None
        elif not _is_sampled(parent):
            return None
        span = self._tracer.start_span(
            "request", context=parent, attributes={"request_id": request_id}
        )
        self._remember(request_id, span)
        return span

    def parent_of(self, request_id: str) -> str | None:
        """What is to travel with a request that began here; None if it is not sampled."""
        return self._parents.get(request_id)

    def record(
        self,
        name: str,
        parent: str | None,
        attributes: Mapping[str, Value],
        *,
        started_ns: int,
        ended_ns: int | None = None,
        error: str | None = None,
    ) -> None:
        """A span that is over. Nothing without a ``parent``.

        Args:
            started_ns, ended_ns: since the epoch; ended now if not said.
            error: its type, never its text.
        """
        if parent is None:
            return
        from opentelemetry.trace import Status, StatusCode

        span = self._tracer.start_span(
            name,
            context=self._propagator.extract({"traceparent": parent}),
            start_time=started_ns,
            attributes=dict(attributes),
        )
        if error is not None:
            span.set_attribute("error.type", error)
            span.set_status(Status(StatusCode.ERROR))
        span.end(time.time_ns() if ended_ns is None else ended_ns)

    def record_timing(
        self, parent: str | None, attributes: Mapping[str, Value], timing: Timing
    ) -> None:
        """``queue``, ``prefill`` and ``decode``, as far as a request came in an engine of this
        host, whose clock is ours."""
        marks = (timing.arrived, timing.started, timing.first_token, timing.last_token)
        for name, start, end in zip(("queue", "prefill", "decode"), marks, marks[1:], strict=False):
            if start is None or end is None:
                return
            self.record(
                name, parent, attributes, started_ns=_epoch_ns(start), ended_ns=_epoch_ns(end)
            )

    def close(self) -> None:
        """Send what waits."""
        self._provider.shutdown()

    def _accepted(self, traceparent: str | None) -> Context | None:
        """The client's context, where it is to be heeded and is one."""
        if traceparent is None or not self._settings.accept_parent:
            return None
        context = self._propagator.extract({"traceparent": traceparent})
        return context or None

    def _remember(self, request_id: str, span: Span) -> None:
        from opentelemetry.trace import set_span_in_context

        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, set_span_in_context(span))
        self._parents[request_id] = carrier["traceparent"]
        while len(self._parents) > REMEMBERED:
            self._parents.popitem(last=False)


def require_exporter() -> None:
    """Raises ConfigError where what sends traces is not installed."""
    try:
        import opentelemetry.exporter.otlp.proto.http  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "telemetry.otlp_endpoint: what sends traces is not installed; "
            "pip install 'pixtral-serve[traces]'"
        ) from error


def _is_sampled(context: Context) -> bool:
    from opentelemetry.trace import get_current_span

    return bool(get_current_span(context).get_span_context().trace_flags & _SAMPLED)


def _epoch_ns(monotonic_s: float) -> int:
    return time.time_ns() - time.monotonic_ns() + round(monotonic_s * 1e9)
