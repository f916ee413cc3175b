"""The few ids that ever occur, which train; all others share one row."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

OTHER = 0
"""The row of all ids that training does not tell apart."""


class Vocabulary:
    """Between ids of the tokenizer and rows of the cut tables.

    Attributes:
        ids: of rows 1, 2, …
    """

    def __init__(self, ids: Iterable[int], size: int) -> None:
        self.ids = tuple(sorted(set(ids)))
        self.size = size
        self._rows = np.full(size, OTHER)
        self._rows[list(self.ids)] = np.arange(1, len(self.ids) + 1)

    def __len__(self) -> int:
        return 1 + len(self.ids)

    def cut(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of ``ids``."""
        rows: NDArray[np.int64] = self._rows[ids]
        return rows

    def whole(self, table: Tensor) -> Tensor:
        """[rows, width] -> [size, width], the shared row in every place that has none."""
        return table[torch.from_numpy(self._rows)]

    @property
    def crowd(self) -> float:
        """What the shared row's logit is raised by: as many rows as it stands for."""
        return math.log(self.size - len(self.ids))
