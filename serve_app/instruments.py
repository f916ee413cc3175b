"""Counters, gauges and histograms, as ``ray.serve.metrics`` has them, made cheap and visible.

Telling Ray of a value takes tens of microseconds, so a counter gathers what an event loop counts
and tells it once a second. Counters and levels begin at 0: an alert on what never happened must see
that it has not.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextvars import Context
from typing import Any

from ray.serve import metrics

FLUSH_S = 1.0


class Count:
    """A counter that begins at 0 and is told to Ray at most once in ``FLUSH_S``.

    Called from an event loop it gathers; from any other thread it tells Ray at once.
    """

    def __init__(self, metric: Any, names: Sequence[str] = (), *, flush_s: float = FLUSH_S) -> None:
        self._metric = metric
        self._names = tuple(names)
        self._flush_s = flush_s
        self._gathered: dict[tuple[str, ...], float] = defaultdict(float)
        self._scheduled = False

    def begin(self, **labels: str) -> None:
        """Show a series at 0."""
        # Its ``inc`` refuses 0, which would otherwise be the only way to a first sample.
        self._metric._record(0, self._tags(tuple(labels[name] for name in self._names)))

    def inc(self, value: float = 1.0, **labels: str) -> None:
        """Nothing for a value of 0."""
        if value <= 0:
            return
        key = tuple(labels[name] for name in self._names)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._metric.inc(value, self._tags(key))
            return
        self._gathered[key] += value
        if not self._scheduled:
            self._scheduled = True
            loop.call_later(self._flush_s, self._flush, context=Context())

    def _flush(self) -> None:
        self._scheduled = False
        gathered, self._gathered = self._gathered, defaultdict(float)
        for key, value in gathered.items():
            self._metric.inc(value, self._tags(key))

    def _tags(self, values: Sequence[str]) -> dict[str, str]:
        return dict(zip(self._names, values, strict=True))


def counter(
    name: str,
    text: str,
    tags: Mapping[str, str] | None = None,
    labels: Mapping[str, Sequence[str]] | None = None,
) -> Count:
    """``labels`` that each count is given: with one of them, its values are shown from the start,
    as is a counter without any."""
    names = tuple(labels or ())
    metric = metrics.Counter(name, text, tag_keys=(*_keys(tags), *names))
    count = Count(_tagged(metric, tags), names)
    if labels is None:
        count.begin()
    elif len(names) == 1:
        for value in labels[names[0]]:
            count.begin(**{names[0]: value})
    return count


def gauge(name: str, text: str, tags: Mapping[str, str] | None = None) -> Any:
    return _tagged(metrics.Gauge(name, text, tag_keys=_keys(tags)), tags)


def level(name: str, text: str, tags: Mapping[str, str] | None = None) -> Any:
    """A gauge that begins at 0."""
    metric = gauge(name, text, tags)
    metric.set(0)
    return metric


def histogram(
    name: str, text: str, boundaries: Sequence[float], tags: Mapping[str, str] | None = None
) -> Any:
    metric = metrics.Histogram(name, text, boundaries=list(boundaries), tag_keys=_keys(tags))
    return _tagged(metric, tags)


def _keys(tags: Mapping[str, str] | None) -> tuple[str, ...]:
    return tuple(tags or ())


def _tagged(metric: Any, tags: Mapping[str, str] | None) -> Any:
    if tags:
        # Copied: Serve adds its own tags to the dict it is given.
        metric.set_default_tags(dict(tags))
    return metric
