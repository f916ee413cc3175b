"""The parts that a message's content is made of: texts, pictures, documents.

What clients cannot write beside a URL, because their own types know no such field and drop it
unsaid, can be said behind it: ``data:application/pdf;base64,…#pages=1-3&dpi=100`` is read as the
fields of that name, as is ``…#frames=8`` of a picture. A fragment is never sent to a host.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from serve_app.preprocess.wish import LEAST_DPI, MOST_DPI, Detail

_FRAGMENT_CHARS = 1_000
_INDICES_LIMIT = 1_000
# One to six digits, from 1: "3", "1-4", "7-" to the end; with commas between.
_RANGE = r"[1-9][0-9]{0,5}(-([1-9][0-9]{0,5})?)?"
_PAGES = rf"{_RANGE}(,{_RANGE}){{0,99}}"


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Frames(Body):
    """Exactly one of the two; frames count from 0 and a TIFF's pages are frames."""

    count: int | None = Field(
        None, ge=1, description="so many, evenly by index, the first and the last among them"
    )
    indices: list[Annotated[int, Field(ge=0)]] | None = Field(
        None, min_length=1, max_length=_INDICES_LIMIT
    )

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Frames:
        if (self.count is None) == (self.indices is None):
            raise PydanticCustomError("unsupported_value", "needs either count or indices")
        return self


def _whole_number(text: str) -> Any:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else text


def _frame_count(text: str) -> tuple[str, Any]:
    return "frames", {"count": _whole_number(text)}


def _frame_indices(text: str) -> tuple[str, Any]:
    return "frames", {"indices": [_whole_number(index) for index in text.split(",")]}


_Said = Mapping[str, Callable[[str], tuple[str, Any]]]
_OF_PICTURES: _Said = {"frames": _frame_count, "indices": _frame_indices}
_OF_DOCUMENTS: _Said = {
    "pages": lambda text: ("pages", text),
    "dpi": lambda text: ("dpi", _whole_number(text)),
    "detail": lambda text: ("detail", text),
}


def _with_fragment(value: Any, url_field: str, said: _Said) -> Any:
    """The fields that the URL's fragment names, laid beside it."""
    if not isinstance(value, dict) or not isinstance(value.get(url_field), str):
        return value
    url, hash_sign, fragment = value[url_field].partition("#")
    if not hash_sign:
        return value
    fields = {**value, url_field: url}
    for name, text in parse_qsl(fragment[:_FRAGMENT_CHARS], keep_blank_values=True):
        if name not in said:
            raise PydanticCustomError(
                "unsupported_value",
                "may say nothing behind its # but {known}",
                {"known": ", ".join(said)},
            )
        field, read = said[name](text)
        if fields.get(field) is not None:
            raise PydanticCustomError("unsupported_value", "says {field} twice", {"field": field})
        fields[field] = read
    return fields


def _as_image_url(value: Any) -> Any:
    whole = {"url": value} if isinstance(value, str) else value
    return _with_fragment(whole, "url", _OF_PICTURES)


def _as_document(value: Any) -> Any:
    return _with_fragment(value, "document_url", _OF_DOCUMENTS)


class TextPart(Body):
    type: Literal["text"]
    text: str
    prompt_cache_breakpoint: Any = Field(None, description="ignored: a hint for caching")


class ImageUrl(Body):
    url: str = Field(
        description="data:image/png;base64,…, or https://… of a host that the operator allows"
    )
    detail: Detail | None = Field(
        None,
        description="low: at most 256 pixels a side, 272 tokens; else as large as the model takes",
    )
    frames: Frames | None = Field(None, description="none: the first of an animation or TIFF")


class ImagePart(Body):
    type: Literal["image_url"]
    image_url: Annotated[
        ImageUrl, BeforeValidator(_as_image_url, json_schema_input_type=str | ImageUrl)
    ]
    prompt_cache_breakpoint: Any = Field(None, description="ignored: a hint for caching")


def page_ranges(pages: str) -> tuple[tuple[int, int | None], ...]:
    """First and last page of each range; None as a last page is the document's.

    >>> page_ranges("1-3,7,9-")
    ((1, 3), (7, 7), (9, None))
    """
    ranges: list[tuple[int, int | None]] = []
    for text in pages.split(","):
        first, dash, last = text.partition("-")
        ranges.append((int(first), int(last or first) if last or not dash else None))
    return tuple(ranges)


def _known_ranges(pages: str | None) -> str | None:
    if pages is None:
        return None
    if not re.fullmatch(_PAGES, pages):
        raise PydanticCustomError("unsupported_value", "must be pages such as '1-3,7' or '5-'")
    if any(last is not None and last < first for first, last in page_ranges(pages)):
        raise PydanticCustomError("unsupported_value", "must be ranges that rise, such as '3-5'")
    return pages


class DocumentPart(Body):
    """Pages of a PDF, each shown as a picture; their text is not extracted."""

    type: Literal["document_url"]
    document_url: str = Field(description="data:application/pdf;base64,…")
    document_name: str | None = Field(None, description="ignored: the model is not told names")
    pages: Annotated[str | None, AfterValidator(_known_ranges)] = Field(
        None,
        description="as 1-3,7 or 5-, in the order shown; none: all",
        json_schema_extra={"pattern": f"^{_PAGES}$"},
    )
    dpi: int | None = Field(
        None, ge=LEAST_DPI, le=MOST_DPI, description="dots per inch; none: the operator's"
    )
    detail: Detail | None = Field(None, description="as a picture's, for each page")
    prompt_cache_breakpoint: Any = Field(None, description="ignored: a hint for caching")


UserPart = Annotated[
    TextPart | ImagePart | Annotated[DocumentPart, BeforeValidator(_as_document)],
    Field(discriminator="type"),
]
