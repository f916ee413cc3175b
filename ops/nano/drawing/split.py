"""The three sets of pictures, apart by seed, by typeface and by word."""

from __future__ import annotations

import hashlib
from typing import Literal

import numpy as np

Split = Literal["train", "validation", "test"]


def generator(split: Split, *key: int | str) -> np.random.Generator:
    """Random numbers of one picture or batch: the same for the same split and key, ever."""
    digest = hashlib.sha256(":".join(map(str, (split, *key))).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16])))
