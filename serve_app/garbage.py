"""Keep Python's garbage collector from stopping a tier.

A full collection walks every object of the process. After imports and loading these are some
hundred thousand that will never be garbage, and the walk takes a tenth of a second, in which
nobody is answered.
"""

from __future__ import annotations

import gc

# Requests leave little to collect: their objects go as their last reference does.
_YOUNG_OBJECTS = 20_000


def spare_what_is_loaded() -> None:
    """Call once, when everything is loaded: what exists now is never looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)
