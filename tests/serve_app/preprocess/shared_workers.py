"""One pool of worker processes for all tests of a session that need no other."""

from __future__ import annotations

from functools import cache

import numpy as np

from serve_app.byte_cache import ByteCache
from serve_app.fetching import Fetching
from serve_app.preparing import Preprocess
from serve_app.preprocess.cutter import Cutter
from serve_app.preprocess.prepare import Preparer
from serve_app.preprocess.workers import Workers
from serve_app.telemetry import WorkerMetrics
from shards.tokenizer import Tokenizer


@cache
def shared_workers(config: Preprocess) -> Workers:
    """They end with the thread that started them, and that with this process."""
    return Workers(config, WorkerMetrics())


def preparer(
    tokenizer: Tokenizer, config: Preprocess, cache_bytes: int = 0
) -> Preparer[np.ndarray]:
    """As the tier has it, with arrays where that has references."""
    # Workers are the same whatever is fetched.
    config = config.model_copy(update={"workers": 1, "fetch": Fetching()})
    cutter = Cutter(config, shared_workers(config), np.copy, ByteCache(cache_bytes))
    return Preparer(tokenizer, config, cutter)
