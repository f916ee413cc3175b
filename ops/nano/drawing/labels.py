"""What lies in each patch of a drawn picture: what the vision encoder learns first.

Labels are for training only; nothing of them is served.
"""

from __future__ import annotations

import string

from ops.nano.drawing.palette import COLOURS

SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "diamond", "ring")
# What a printed string is there for.
ROLES = ("word", "number", "label", "value", "item", "price", "total")
THINGS = ("nothing", *SHAPES, "bar", *ROLES)
CHARACTERS = string.ascii_letters + string.digits + ".:-$/%"
MOST = 8
"""Counts, places in a string and lines are told apart up to here."""

SLOTS: dict[str, int] = {
    "thing": len(THINGS),
    "colour": 1 + len(COLOURS),
    "centres": 3,  # of things that lie in this patch
    "first": 1 + len(CHARACTERS),  # characters centred here, from the left
    "second": 1 + len(CHARACTERS),
    "third": 1 + len(CHARACTERS),
    "ordinal": 1 + MOST,  # of the first character in its string
    "line": 1 + MOST,  # of a string from the top, of a bar from the left
    "rank": 1 + MOST,  # of a bar by height, 1 the tallest
    "total": 1 + MOST,  # things in the picture
    "alike": 1 + MOST,  # things of this shape
    "same_colour": 1 + MOST,
    "row": 4,  # third of the picture in which the thing's centre lies
    "column": 4,
}
"""Questions asked of every patch, and how many answers each has; 0 is always "none"."""
