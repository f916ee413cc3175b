"""From the sizes of a request's pictures to its prompt, refusing what does not fit.

Nothing is decoded for it: what is refused here, is refused for what headers say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from serve_app.errors import InvalidRequest
from serve_app.messages import PictureSource, PrepareRequest, Shown
from serve_app.preprocess.sizing import PictureLimits, Sized, sized
from serve_app.preprocess.wish import FIRST_FRAME, Pages, Sight
from shards.grid import Grid
from shards.tokenizer import EncodedPrompt, Tokenizer

_TOLD = 8


@dataclass(frozen=True, slots=True)
class Place:
    """A picture of the prompt: the ``index``-th of what the ``source``-th file becomes."""

    source: int
    index: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The prompt, and its pictures in the order in which it shows them.

    Attributes:
        max_sides: of each file, what each of its pictures' patches are cut under, in pixels.
    """

    prompt: EncodedPrompt
    places: tuple[Place, ...]
    shown: tuple[Shown, ...]
    max_sides: tuple[tuple[int, ...], ...]


def lay_out(
    request: PrepareRequest, sights: Sequence[Sight], tokenizer: Tokenizer, limits: PictureLimits
) -> Layout:
    """The prompt of a request whose files become the pictures that ``sights`` tells.

    Raises:
        InvalidRequest: too many pictures, or more tokens than they or the prompt may have.
        RequestError: the conversation is not one that the model can be told.
    """
    counts = [len(sight.sizes) for sight in sights]
    check_count(sum(counts), request.max_pictures)
    places = [Place(source, index) for source, count in enumerate(counts) for index in range(count)]
    pictures = [
        (sights[place.source].sizes[place.index], request.pictures[place.source].detail)
        for place in places
    ]
    sizes = sized(pictures, limits)
    prompt = tokenizer.encode(
        request.conversation.expanded(counts), [size.scaled for size in sizes]
    )
    order = prompt.picture_order
    shown = tuple(
        _shown(request.pictures[place.source], sights[place.source], place.index, size, grid)
        for place, size, grid in zip(
            (places[index] for index in order),
            (sizes[index] for index in order),
            prompt.grids,
            strict=True,
        )
    )
    _check_room(prompt, shown, request.max_prompt_tokens)
    firsts = [0, *accumulate(counts)]
    return Layout(
        prompt,
        tuple(places[index] for index in order),
        shown,
        tuple(tuple(size.max_side for size in sizes[a:b]) for a, b in pairwise(firsts)),
    )


def check_count(count: int, most: int | None) -> None:
    """Raises InvalidRequest."""
    if most is not None and count > most:
        raise InvalidRequest(
            f"{count} pictures came with the request, frames and pages among them; at most {most}"
            " may",
            param="messages",
            code="too_many_pictures",
        )


def _shown(source: PictureSource, sight: Sight, index: int, size: Sized, grid: Grid) -> Shown:
    number = sight.numbers[index]
    of_pages = isinstance(source.wish, Pages)
    return Shown(
        source.param,
        size.size,
        grid,
        size.scaling,
        frame=None if of_pages or source.wish == FIRST_FRAME else number,
        page=number if of_pages else None,
    )


def _check_room(prompt: EncodedPrompt, shown: Sequence[Shown], room: int | None) -> None:
    """A prompt of text alone is the gateway's to refuse: there is nothing to spare here."""
    if room is None or not shown or len(prompt.token_ids) <= room:
        return
    told = [f"{_name(each)} {each.grid.tokens}" for each in shown[:_TOLD]]
    if len(shown) > _TOLD:
        told.append(f"and {len(shown) - _TOLD} more")
    raise InvalidRequest(
        f"the pictures take {prompt.image_tokens} tokens ({', '.join(told)}) and the text"
        f" {prompt.text_tokens}, and there is room for {max(room, 0)}; send fewer or smaller"
        " pictures, or ask for detail: low",
        param="messages",
        code="context_length_exceeded",
    )


def _name(shown: Shown) -> str:
    if shown.page is not None:
        return f"{shown.param} page {shown.page}:"
    return f"{shown.param}:" if shown.frame is None else f"{shown.param} frame {shown.frame}:"
