"""Counters, gauges and histograms, as ``ray.serve.metrics`` has them, made cheap and visible.

Telling Ray of a value takes tens of microseconds, so one thread of each process tells it of what
was counted, once a second. Counters and levels begin at 0, as an alert on what never happened must
see that it has not. Gauges are told again, as Ray 2.60 forgets one that was not set within two of
its report intervals (10 s each).
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any
from weakref import WeakSet

from ray.serve import metrics

FLUSH_S = 1.0
REMIND_S = 5.0


class Count:
    """A counter. ``names`` are the labels that each count is given."""

    def __init__(self, metric: Any, names: Sequence[str] = ()) -> None:
        self._metric = metric
        self._names = tuple(names)
        self._gathered: dict[tuple[str, ...], float] = defaultdict(float)
        self._lock = threading.Lock()

    def begin(self, **labels: str) -> None:
        """Show a series at 0."""
        # ``inc`` refuses 0, so there is no public way to a first sample.
        self._metric._record(0, self._tags(tuple(labels[name] for name in self._names)))

    def inc(self, value: float = 1.0, **labels: str) -> None:
        """Nothing for a value of 0."""
        if value > 0:
            key = tuple(labels[name] for name in self._names)
            with self._lock:
                self._gathered[key] += value

    def flush(self) -> None:
        with self._lock:
            gathered, self._gathered = self._gathered, defaultdict(float)
        for key, value in gathered.items():
            self._metric.inc(value, self._tags(key))

    def _tags(self, values: Sequence[str]) -> dict[str, str]:
        return dict(zip(self._names, values, strict=True))


class Level:
    """A gauge; Ray hears the last value that it was set to. Not shown before it is set."""

    def __init__(self, metric: Any) -> None:
        self._metric = metric
        self._value: float | None = None
        self._told: float | None = None
        self._told_at = 0.0

    def set(self, value: float) -> None:
        self._value = value

    def flush(self) -> None:
        value, now = self._value, time.monotonic()
        if value is None or (value == self._told and now - self._told_at < REMIND_S):
            return
        self._metric.set(value)
        self._told, self._told_at = value, now


class Flusher:
    """Flushes every instrument that is still in use, from a thread of its own."""

    def __init__(self, interval_s: float = FLUSH_S) -> None:
        self._interval_s = interval_s
        self._instruments: WeakSet[Count | Level] = WeakSet()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)

    def keep(self, instrument: Count | Level) -> None:
        with self._lock:
            self._instruments.add(instrument)
            if not self._thread.is_alive():
                self._thread.start()

    def flush(self) -> None:
        with self._lock:
            instruments = list(self._instruments)
        for instrument in instruments:
            instrument.flush()

    def _run(self) -> None:
        while True:
            time.sleep(self._interval_s)
            self.flush()


@cache
def flusher() -> Flusher:
    """The process's own."""
    return Flusher()


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
    flusher().keep(count)
    return count


def gauge(name: str, text: str, tags: Mapping[str, str] | None = None) -> Level:
    level = Level(_tagged(metrics.Gauge(name, text, tag_keys=_keys(tags)), tags))
    flusher().keep(level)
    return level


def level(name: str, text: str, tags: Mapping[str, str] | None = None) -> Level:
    """A gauge that begins at 0."""
    made = gauge(name, text, tags)
    made.set(0)
    return made


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
