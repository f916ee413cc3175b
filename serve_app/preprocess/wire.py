"""What a worker and its parent say to each other. Standard library only.

    parent ─Start, Look, Cut, GO_ON─► worker     pickled: the parent is trusted
    worker ─Ready, Seen, OneCut, DONE, Refused, Failed─► parent     JSON, each part checked

A worker may have been taken over by a picture, so the parent unpickles nothing of it, takes no
number out of range and no text but a short plain one. Bytes of files and patches lie in two pieces
of shared memory that neither side can resize.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from serve_app.preprocess.rules import DecodeRules
from serve_app.preprocess.sandbox import Confinement
from serve_app.preprocess.wish import Sight, Wish
from shards.grid import Grid

# Of one message; a look at a file of as many frames as may be shown takes a few kilobytes.
MESSAGE_BYTES = 64 * 1024
GO_ON = b"go on"
# One float32 patch of 3 channels and 16 x 16 pixels.
PATCH_BYTES = 3 * 16 * 16 * 4
_LONGEST_SIDE = 2**31
_MOST_PICTURES = 4096
_TEXT = re.compile(r"[\w ,.;:'()%+-]{1,300}", re.ASCII)
_CODE = re.compile(r"[a-z_]{1,40}", re.ASCII)
_T = TypeVar("_T")


class WireError(Exception):
    """A worker said what no worker of ours says."""


@dataclass(frozen=True, slots=True)
class Start:
    """``kernels``: where the C++ library for pixels is; None if there is none."""

    rules: DecodeRules
    confinement: Confinement
    kernels: str | None


@dataclass(frozen=True, slots=True)
class Look:
    """``length``: of the file, in bytes."""

    length: int
    wish: Wish


@dataclass(frozen=True, slots=True)
class Cut:
    length: int
    wish: Wish
    max_sides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Ready:
    """Warm and confined; ``filtered``: its system calls are."""

    filtered: bool


@dataclass(frozen=True, slots=True)
class Seen:
    sight: Sight


@dataclass(frozen=True, slots=True)
class OneCut:
    """Patches of the next picture are in the shared memory, until the parent says ``GO_ON``."""

    grid: Grid


@dataclass(frozen=True, slots=True)
class Done:
    """Every picture of the file is cut."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The file is at fault; text and code are what its sender is told."""

    message: str
    code: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The worker is: ``kind`` is ``memory`` or the name of an exception."""

    kind: str


Reply = Ready | Seen | OneCut | Done | Refused | Failed


def packed(reply: Reply) -> bytes:
    return json.dumps({type(reply).__name__: asdict(reply)}).encode()


def unpacked(message: bytes) -> Reply:
    """Raises WireError."""
    try:
        [(kind, fields)] = json.loads(message).items()
        return _READERS[kind](fields)
    except WireError:
        raise
    except Exception as error:
        raise WireError("a worker's message cannot be read") from error


def _seen(fields: Mapping[str, Any]) -> Seen:
    sight = fields["sight"]
    sizes = tuple(
        (_count(width, _LONGEST_SIDE), _count(height, _LONGEST_SIDE))
        for width, height in sight["sizes"]
    )
    numbers = tuple(_count(number, _LONGEST_SIDE, least=0) for number in sight["numbers"])
    if not 1 <= len(sizes) == len(numbers) <= _MOST_PICTURES:
        raise WireError("a worker sees no pictures, or too many")
    return Seen(Sight(sizes, numbers, _count(sight["total"], _LONGEST_SIDE)))


def _one_cut(fields: Mapping[str, Any]) -> OneCut:
    grid = fields["grid"]
    return OneCut(Grid(_count(grid["rows"], _LONGEST_SIDE), _count(grid["columns"], _LONGEST_SIDE)))


def _refused(fields: Mapping[str, Any]) -> Refused:
    return Refused(_text(fields["message"], _TEXT), _text(fields["code"], _CODE))


_READERS: Mapping[str, Callable[[Mapping[str, Any]], Reply]] = {
    "Ready": lambda fields: Ready(_typed(fields["filtered"], bool)),
    "Seen": _seen,
    "OneCut": _one_cut,
    "Done": lambda _: Done(),
    "Refused": _refused,
    "Failed": lambda fields: Failed(_text(fields["kind"], _TEXT)),
}


def _count(value: object, most: int, least: int = 1) -> int:
    number = _typed(value, int)
    if not least <= number <= most:
        raise WireError(f"a worker counts {number}, not {least} to {most}")
    return number


def _text(value: object, allowed: re.Pattern[str]) -> str:
    text = _typed(value, str)
    if not allowed.fullmatch(text):
        raise WireError("a worker's text is not plain")
    return text


def _typed(value: object, kind: type[_T]) -> _T:
    if type(value) is not kind:
        raise WireError(f"a worker says {type(value).__name__}, not {kind.__name__}")
    return value
