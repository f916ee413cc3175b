"""What a weights folder holds: every file with its size, its SHA-256 and whose tensors are in it.

``manifest.json`` lies beside the files, in the bucket as on a node:

    {"format": 1, "layout": "mistral", "part": "all", "files": [
      {"name": "consolidated-00001-of-00052.safetensors", "bytes": 4900000000, "sha256": "…",
       "parts": ["text"]}, …]}

A node that only encodes pictures fetches the files that hold vision tensors, and the small ones.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ops.problem import Problem
from shards.config import Layout, read_model_config
from shards.names import normal_name, root_prefixes

NAME = "manifest.json"
_SUFFIX = ".safetensors"
_STEMS: dict[Layout, str] = {"mistral": "consolidated", "hf": "model"}
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*", re.ASCII)
_SHA256 = r"^[0-9a-f]{64}$"
_BLOCK_BYTES = 8 * 2**20


def unheard(count: int) -> None:
    """For those whom progress does not interest."""
    del count


class Part(StrEnum):
    """``text`` is what a decoder's ranks read (the projector with it), ``vision`` the encoder."""

    ALL = "all"
    VISION = "vision"
    TEXT = "text"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Entry(_Frozen):
    """``parts`` is empty for what everybody needs: descriptions, tokenizer, licence."""

    name: str
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=_SHA256)
    parts: tuple[Literal["text", "vision"], ...] = ()

    @field_validator("name")
    @classmethod
    def _stays_in_the_folder(cls, name: str) -> str:
        if not _PLAIN_NAME.fullmatch(name) or name == NAME:
            raise ValueError("is no plain file name")
        return name

    def belongs_to(self, part: Part) -> bool:
        return part is Part.ALL or not self.parts or part.value in self.parts


class Manifest(_Frozen):
    format: Literal[1] = 1
    layout: Layout
    part: Part = Part.ALL
    files: tuple[Entry, ...] = Field(min_length=1)

    @field_validator("files")
    @classmethod
    def _named_once(cls, files: tuple[Entry, ...]) -> tuple[Entry, ...]:
        names = [entry.name for entry in files]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"names {', '.join(twice)} twice")
        return files

    @property
    def bytes(self) -> int:
        return sum(entry.bytes for entry in self.files)

    def of(self, part: Part) -> Manifest:
        """What a node that needs ``part`` fetches.

        Raises:
            Problem: it was made of another part, which lacks some of it.
        """
        if self.part is not Part.ALL and self.part is not part:
            raise Problem(f"the source holds the {self.part} part only, not {part}")
        files = tuple(entry for entry in self.files if entry.belongs_to(part))
        return Manifest(layout=self.layout, part=part, files=files)

    def text(self) -> str:
        return self.model_dump_json(indent=1) + "\n"


def parse(text: bytes | str, source: str) -> Manifest:
    """Raises Problem naming ``source`` and the first thing wrong with it."""
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise Problem(f"{source} is no manifest of weights: {where}: {first['msg']}") from error


def read(folder: Path) -> Manifest:
    """Raises Problem where there is none."""
    file = folder / NAME
    try:
        return parse(file.read_bytes(), str(file))
    except OSError as error:
        raise Problem(f"{file} cannot be read: {error.strerror}") from error


def make(folder: Path, on_bytes: Callable[[int], None] = unheard) -> Manifest:
    """Of a checkpoint as it was released; weights of a layout that would not be read are left out.

    Raises:
        Problem: a file's name has characters that no bucket and shell agree on, or is unreadable.
        ModelConfigError: no model is described in the folder.
    """
    layout = read_model_config(folder).layout
    entries = tuple(
        Entry(
            name=file.name,
            bytes=file.stat().st_size,
            sha256=digest(file, on_bytes),
            parts=parts_of(file, layout),
        )
        for file in listed(folder, layout)
    )
    if not any(entry.parts for entry in entries):
        raise Problem(f"{folder} holds no {_STEMS[layout]}*{_SUFFIX} with tensors of the model")
    return Manifest(layout=layout, files=entries)


def listed(folder: Path, layout: Layout) -> list[Path]:
    """The files that belong to the checkpoint, by name."""
    other = next(stem for name, stem in _STEMS.items() if name != layout)
    files = [
        file
        for file in sorted(folder.iterdir())
        if file.is_file()
        and not file.name.startswith(".")
        and file.name != NAME
        and not (file.name.startswith(other) and _SUFFIX in file.name)
    ]
    for file in files:
        if not _PLAIN_NAME.fullmatch(file.name):
            raise Problem(f"{file.name!r} in {folder}: rename it, to letters, digits and ._+-")
    return files


def parts_of(file: Path, layout: Layout) -> tuple[Literal["text", "vision"], ...]:
    """Whose tensors a weights file holds; none for any other file."""
    if file.suffix != _SUFFIX:
        return ()
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as tensors:
            names = [normal_name(name, layout) for name in tensors.keys()]  # noqa: SIM118
    except SafetensorError as error:
        raise Problem(f"{file} is no safetensors file: {error}") from error
    vision = _of_vision(names, layout)
    found: list[Literal["text", "vision"]] = []
    if len(vision) < len(names):
        found.append("text")
    if vision:
        found.append("vision")
    return tuple(found)


def index_of(folder: Path, layout: Layout) -> Path:
    """The file that says which weights file holds which tensor, where there is one."""
    return folder / f"{_STEMS[layout]}{_SUFFIX}.index.json"


def digest(file: Path, on_bytes: Callable[[int], None] = unheard) -> str:
    """SHA-256, in hexadecimal. Raises Problem where the file cannot be read."""
    found = hashlib.sha256()
    try:
        with file.open("rb", buffering=0) as stream:
            block = memoryview(bytearray(_BLOCK_BYTES))
            while count := stream.readinto(block):
                found.update(block[:count])
                on_bytes(count)
    except OSError as error:
        raise Problem(f"{file} cannot be read: {error.strerror}") from error
    return found.hexdigest()


def _of_vision(names: Iterable[str], layout: Layout) -> list[str]:
    prefix = root_prefixes(layout)["vision_encoder"]
    return [name for name in names if name.startswith(prefix)]


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
