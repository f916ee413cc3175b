"""Tasks that outlive the request that started them.

Ray Serve cancels whatever carries a request's context when its client hangs up, and tasks copy the
context that they are made in: these get an empty one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any


def detached(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Whoever asks for it keeps it, as the event loop does not."""
    return asyncio.get_running_loop().create_task(work, context=Context())
