"""Colours by name, each a neighbourhood that nobody would name otherwise."""

from __future__ import annotations

import colorsys

import numpy as np

Rgb = tuple[int, int, int]

# Ranges of hue in degrees, saturation, value.
_RANGES: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "red": ((-8, 8), (0.8, 1.0), (0.75, 1.0)),
    "orange": ((24, 36), (0.85, 1.0), (0.9, 1.0)),
    "yellow": ((52, 60), (0.75, 1.0), (0.9, 1.0)),
    "green": ((105, 145), (0.65, 1.0), (0.45, 0.85)),
    "blue": ((212, 238), (0.7, 1.0), (0.6, 1.0)),
    "purple": ((268, 284), (0.6, 0.95), (0.5, 0.8)),
    "pink": ((318, 338), (0.3, 0.55), (0.95, 1.0)),
    "brown": ((20, 30), (0.6, 0.85), (0.3, 0.5)),
    "black": ((0, 360), (0.0, 0.1), (0.0, 0.12)),
    "grey": ((0, 360), (0.0, 0.05), (0.42, 0.62)),
    "white": ((0, 360), (0.0, 0.03), (0.95, 1.0)),
}
COLOURS = tuple(_RANGES)


def colour(rng: np.random.Generator, name: str) -> Rgb:
    """One of the many colours called ``name``."""
    hue, saturation, value = (rng.uniform(*span) for span in _RANGES[name])
    red, green, blue = colorsys.hsv_to_rgb(hue % 360 / 360, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def background(rng: np.random.Generator) -> Rgb:
    """Light, dark or tinted paper."""
    kind = rng.random()
    if kind < 0.35:
        level = int(rng.integers(225, 256))
        return level, level, level
    saturation, value = (0.25, (0.8, 1.0)) if kind < 0.8 else (0.5, (0.1, 0.4))
    red, green, blue = colorsys.hsv_to_rgb(
        rng.random(), rng.uniform(0, saturation), rng.uniform(*value)
    )
    return round(red * 255), round(green * 255), round(blue * 255)


def distance(one: Rgb, other: Rgb) -> float:
    """How far apart two colours look, 0 to about 765 (the weighted Euclidean "redmean")."""
    mean = (one[0] + other[0]) / 2
    red, green, blue = (a - b for a, b in zip(one, other, strict=True))
    weighted = (2 + mean / 256) * red**2 + 4 * green**2 + (2 + (255 - mean) / 256) * blue**2
    return float(weighted**0.5)


def ink(rng: np.random.Generator, paper: Rgb) -> Rgb:
    """Any colour that can be read on ``paper``."""
    while True:
        red, green, blue = (int(level) for level in rng.integers(0, 256, 3))
        if rng.random() < 0.5:
            red = green = blue = int(rng.choice([0, 20, 45, 245]))
        if abs(luminance((red, green, blue)) - luminance(paper)) > 90:
            return red, green, blue


def luminance(rgb: Rgb) -> float:
    """0 to 255."""
    return 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]
