"""What a lesson is to the trainer."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn
from torch.utils.data import Dataset


class Lesson(Protocol):
    """Something to learn.

    Attributes:
        name: also that of its checkpoint.
        model: all that is trained.
        batches: number i is always the same.
    """

    @property
    def name(self) -> str: ...
    @property
    def model(self) -> nn.Module: ...
    @property
    def batches(self) -> Dataset[Any]: ...

    def loss(self, batch: Any) -> Tensor:
        """Mean loss of a batch, differentiable."""
        ...

    def pictures(self, batch: Any) -> int:
        """How many pictures it shows."""
        ...

    def grade(self) -> dict[str, float]:
        """Accuracies on the validation set, 0 to 1, of the weights as they are."""
        ...
