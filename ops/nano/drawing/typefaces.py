"""Typefaces from packages of the ``nano`` extra; some are kept back from training.

All are free to draw with: Apache-2.0 (Roboto, Caladea), SIL Open Font License (the others), and
the Bitstream Vera licence (DejaVu).
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from io import BytesIO

from PIL import ImageFont

from ops.nano.drawing.split import Split

_FILES: dict[Split, dict[str, tuple[str, ...]]] = {
    "train": {
        "matplotlib/mpl-data/fonts/ttf": (
            "DejaVuSans.ttf",
            "DejaVuSans-Bold.ttf",
            "DejaVuSans-Oblique.ttf",
            "DejaVuSansMono.ttf",
            "DejaVuSansMono-Bold.ttf",
            "DejaVuSerif-Bold.ttf",
        ),
        "font_roboto/files": (
            "Roboto-Regular.ttf",
            "Roboto-Medium.ttf",
            "Roboto-Bold.ttf",
            "Roboto-Black.ttf",
            "Roboto-Italic.ttf",
        ),
        "font_source_sans_pro/files": (
            "SourceSansPro-Regular.ttf",
            "SourceSansPro-Semibold.ttf",
            "SourceSansPro-Bold.ttf",
            "SourceSansPro-It.ttf",
        ),
        "font_source_serif_pro/files": (
            "SourceSerifPro-Regular.ttf",
            "SourceSerifPro-Bold.ttf",
            "SourceSerifPro-It.ttf",
        ),
        "font_caladea/files": ("Caladea-Regular.ttf", "Caladea-Bold.ttf", "Caladea-Italic.ttf"),
        "font_fredoka_one/files": ("FredokaOne-Regular.ttf",),
        "font_hanken_grotesk/files": (
            "HankenGrotesk-Regular.otf",
            "HankenGrotesk-Bold.otf",
            "HankenGrotesk-Italic.otf",
        ),
    },
    "validation": {
        "matplotlib/mpl-data/fonts/ttf": ("DejaVuSerif.ttf",),
        "font_manrope/files": ("Manrope-Regular.ttf", "Manrope-Bold.ttf"),
        "font_roboto/files": ("Roboto-BoldItalic.ttf",),
    },
    "test": {
        "font_lato/files": ("Lato-Regular.ttf", "Lato-Bold.ttf", "Lato-Italic.ttf"),
        "font_source_serif_pro/files": ("SourceSerifPro-Semibold.ttf",),
        "matplotlib/mpl-data/fonts/ttf": ("DejaVuSans-BoldOblique.ttf",),
    },
}


def typefaces(split: Split) -> tuple[str, ...]:
    """Names for ``typeface``."""
    return tuple(f"{folder}/{name}" for folder, names in _FILES[split].items() for name in names)


@cache
def typeface(name: str, size: int) -> ImageFont.FreeTypeFont:
    """``name`` at ``size`` pixels.

    Raises:
        ModuleNotFoundError: the ``nano`` extra is not installed.
    """
    package, _, path = name.partition("/")
    stream = BytesIO(files(package).joinpath(path).read_bytes())
    return ImageFont.truetype(stream, size, layout_engine=ImageFont.Layout.BASIC)


@cache
def advance(name: str, size: int, letter: str) -> float:
    """Pixels from one letter to the next; kerning is left out."""
    return typeface(name, size).getlength(letter)
