"""A surface to draw on that remembers what lies where."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from ops.nano.drawing.labels import CHARACTERS, MOST, SLOTS
from ops.nano.drawing.palette import Rgb, background
from ops.nano.drawing.typefaces import advance, typeface

PATCH = 16
_SLOT = {name: place for place, name in enumerate(SLOTS)}
# A patch shows a thing that covers this part of it.
_COVER = 0.1


@dataclass(frozen=True, slots=True)
class Box:
    """In pixels; right and bottom are outside."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def centre(self) -> tuple[float, float]:
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def touches(self, other: Box, gap: float) -> bool:
        return (
            self.left < other.right + gap
            and other.left < self.right + gap
            and self.top < other.bottom + gap
            and other.top < self.bottom + gap
        )


@dataclass(slots=True)
class Canvas:
    """A picture being drawn, at most 255 things on it.

    Attributes:
        marks: of each thing, by its number less 1, the labels of the patches that it covers.
        centres: of each thing.
        letters: character, centre and labels of each printed one.
    """

    image: Image.Image
    paper: Rgb
    things: Image.Image
    marks: list[dict[str, int]] = field(default_factory=list)
    centres: list[tuple[float, float]] = field(default_factory=list)
    letters: list[tuple[str, float, float, dict[str, int]]] = field(default_factory=list)

    @classmethod
    def blank(cls, rng: np.random.Generator, width: int, height: int, paper: Rgb | None) -> Canvas:
        """Paper of one colour, or of two that run into each other."""
        paper = paper or background(rng)
        image = Image.new("RGB", (width, height), paper)
        if rng.random() < 0.3:
            other = tuple(int(np.clip(level + rng.integers(-24, 25), 0, 255)) for level in paper)
            slope = Image.linear_gradient("L").rotate(90 * int(rng.integers(2)))
            image.paste(other, mask=slope.resize((width, height)))
        return cls(image, paper, Image.new("L", (width, height)))

    def paste(self, mask: Image.Image, box: Box, colour: Rgb, labels: dict[str, int]) -> None:
        """Colour a new thing through ``mask``, which lies at the upper left of ``box``."""
        at = round(box.left), round(box.top)
        self.image.paste(colour, at, mask)
        self._note(box, labels)
        self.things.paste(len(self.marks), at, mask.point(_HALF))

    def bar(self, box: Box, colour: Rgb, labels: dict[str, int]) -> None:
        """An upright rectangle."""
        corners = (round(box.left), round(box.top), round(box.right) - 1, round(box.bottom) - 1)
        ImageDraw.Draw(self.image).rectangle(corners, fill=colour)
        self._note(box, labels)
        ImageDraw.Draw(self.things).rectangle(corners, fill=len(self.marks))

    def line(self, start: tuple[float, float], stop: tuple[float, float], colour: Rgb) -> None:
        """A line that means nothing: an axis, a rule."""
        ImageDraw.Draw(self.image).line((*start, *stop), fill=colour)

    def text(
        self,
        words: str,
        at: tuple[float, float],
        face: str,
        size: int,
        colour: Rgb,
        labels: dict[str, int],
    ) -> None:
        """Print from ``at``, the left end of the base line."""
        font = typeface(face, size)
        left, base = round(at[0]), round(at[1])
        ImageDraw.Draw(self.image).text((left, base), words, colour, font, anchor="ls")
        ends = [0.0, *itertools.accumulate(advance(face, size, letter) for letter in words)]
        middle = base - (0.25 if words.islower() else 0.36) * size
        for place, letter in enumerate(words):
            centre = left + (ends[place] + ends[place + 1]) / 2
            ordinal = min(place + 1, MOST)
            self.letters.append((letter, centre, middle, labels | {"ordinal": ordinal}))

    def finish(self, rng: np.random.Generator) -> Image.Image:
        """The picture as a camera or a compressor may leave it."""
        image = self.image
        if rng.random() < 0.1:
            image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.7)))
        if rng.random() < 0.5:
            grain = _grain()
            height, width = image.height, image.width
            top, left = (int(edge) for edge in rng.integers(0, 512, 2))
            noise = grain[top : top + height, left : left + width] * rng.uniform(1, 9)
            pixels = np.asarray(image, np.float32) + noise
            image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        return image

    def labels(self) -> NDArray[np.int8]:
        """[patches, slots], row by row."""
        width, height = self.image.size
        columns, rows = math.ceil(width / PATCH), math.ceil(height / PATCH)
        labels = np.zeros((rows * columns, len(SLOTS)), np.int8)
        self._label_things(labels, columns, rows)
        self._label_letters(labels, columns / width, rows / height, columns)
        return labels

    def _label_things(self, labels: NDArray[np.int8], columns: int, rows: int) -> None:
        grid = (columns * PATCH, rows * PATCH)
        things = self.things if self.things.size == grid else self.things.resize(grid, 0)
        tiles = np.asarray(things).reshape(rows, PATCH, columns, PATCH).swapaxes(1, 2)
        tiles = tiles.reshape(rows * columns, -1)
        covered = np.stack([(tiles == n + 1).mean(1) for n in range(len(self.marks))] or [[0.0]])
        shown = covered.argmax(0)
        for patch in np.flatnonzero(covered.max(0) > _COVER):
            for name, value in self.marks[shown[patch]].items():
                labels[patch, _SLOT[name]] = value
        for x, y in self.centres:
            column = min(int(x / self.image.width * columns), columns - 1)
            row = min(int(y / self.image.height * rows), rows - 1)
            place = labels[row * columns + column]
            place[_SLOT["centres"]] = min(place[_SLOT["centres"]] + 1, 2)

    def _label_letters(
        self, labels: NDArray[np.int8], per_x: float, per_y: float, columns: int
    ) -> None:
        found: dict[int, list[tuple[float, str, dict[str, int]]]] = {}
        for letter, x, y, marks in self.letters:
            column, row = int(x * per_x), int(y * per_y)
            patch = row * columns + column
            if 0 <= column < columns and 0 <= patch < len(labels):
                found.setdefault(patch, []).append((x, letter, marks))
        for patch, letters in found.items():
            letters.sort(key=lambda entry: entry[0])
            for name, value in letters[0][2].items():
                labels[patch, _SLOT[name]] = value
            for slot, (_, letter, _) in zip(("first", "second", "third"), letters, strict=False):
                labels[patch, _SLOT[slot]] = 1 + CHARACTERS.index(letter)

    def _note(self, box: Box, labels: dict[str, int]) -> None:
        self.marks.append(labels)
        self.centres.append(box.centre)


_HALF = [0] * 128 + [255] * 128


@cache
def _grain() -> NDArray[np.float32]:
    """A sheet of film grain to cut from; pictures are up to 512 pixels."""
    rng = np.random.Generator(np.random.PCG64(1))
    return rng.standard_normal((1024, 1024, 3), np.float32)
