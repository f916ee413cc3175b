"""Which pictures' features the ranks hold. Standard library only.

Features stay here as long as their request, which may have to begin again. The ranks' memory is for
what they are about to read: pictures of choices that are seated and not yet past them. A picture
whose rows are all in the prefix cache never gets there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from shards.choice import Choice
from shards.generation import Generation
from shards.step import Runner

if TYPE_CHECKING:
    import numpy as np


class PictureShelf:
    """Args: ``runner``: puts pictures into the ranks' memory and drops them."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._features: dict[Generation, Sequence[np.ndarray]] = {}
        # Those of which the ranks hold any.
        self._shown: dict[Generation, None] = {}

    def keep(self, generation: Generation, features: Sequence[np.ndarray]) -> None:
        """A request's features, one array per picture."""
        if features:
            self._features[generation] = features

    def show(self, choice: Choice) -> None:
        """Give the ranks what a choice is going to read and they do not hold."""
        generation = choice.generation
        for index in generation.pictures_missing(choice):
            features = self._features[generation][index]
            self._runner.add_picture(generation.spans[index].key, features)
            generation.held.add(index)
            self._shown[generation] = None

    def tidy(self) -> None:
        """Take from the ranks what no choice is going to read."""
        for generation in list(self._shown):
            for key in generation.let_go_pictures():
                self._runner.drop_picture(key)
            if not generation.held:
                del self._shown[generation]

    def forget(self, generation: Generation) -> None:
        """A request whose choices have all ended."""
        self._features.pop(generation, None)
