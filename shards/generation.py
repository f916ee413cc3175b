"""A request being answered: what its choices share. Standard library only.

Choice 0 prefills the prompt. The others are seated when it has, find its full blocks by their
names and compute only the rest of the prompt again (at least its last token, whose logits they
draw from), so no block is ever written by two choices:

    prompt of 10, block size 4      0 1 2 3 | 4 5 6 7 | 8 9
    shared by all choices           `---- blocks ----'
    computed by every choice                            8 9
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from shards.choice import Choice
from shards.drafts import Proposer
from shards.fairness import Account
from shards.prefix_cache import Chain, PlacedPicture, shared_root
from shards.request import GenerationRequest, Timing
from shards.step import PictureKey, PictureSpan

if TYPE_CHECKING:
    from shards.constraint import Grammar
    from shards.detokenizer import TextStream


class Generation:
    """A request's state from its arrival to the end of its last choice.

    Args:
        image_positions: where the prompt holds [IMG], ascending; one per row of the pictures'
            features, in order. May be left out of a request that is only measured.
        banned: ids that may never be drawn.
        banned_early: ids that may not be drawn before ``min_tokens``.
        texts: for each choice, the finder of its stop strings, or None.
        grammar: what every choice must conform to, or None.
        root: before the first block in the prefix cache; None: the tenant's salt.
        drafts: whether tokens are guessed ahead.
        metered: whether somebody is to answer for what it costs.
        arrived_at: seconds on the engine's clock.

    Attributes:
        serial, account: set by the scheduler, when it arrives.
        started_at, first_token_at, last_token_at: on the same clock, set by the engine.
        cached_tokens: prompt tokens found in the prefix cache that were never computed for it.
        forked: whether the prompt is computed, so that the other choices may follow.
        held: pictures whose features the ranks hold (picture_shelf.py).
    """

    def __init__(
        self,
        request: GenerationRequest,
        *,
        block_size: int,
        image_positions: Sequence[int] = (),
        banned: tuple[int, ...] = (),
        banned_early: tuple[int, ...] = (),
        texts: Sequence[TextStream | None] | None = None,
        grammar: Grammar | None = None,
        root: bytes | None = None,
        drafts: bool = False,
        metered: bool = True,
        arrived_at: float = 0.0,
    ) -> None:
        self.serial = 0
        self.account = Account(request.tenant.weight)
        self.arrived_at = arrived_at
        self.started_at: float | None = None
        self.first_token_at: float | None = None
        self.last_token_at: float | None = None
        self.request = request
        self.metered = metered
        self.banned = banned
        self.banned_early = banned_early
        sampling, prompt = request.sampling, request.prompt
        self.penalised_prompt_ids = (
            tuple(sorted(set(prompt))) if sampling.repetition_penalty != 1 else ()
        )
        # The last token drawn is never computed, so it needs no room.
        self.blocks_per_choice = -(-(len(prompt) + sampling.max_tokens - 1) // block_size)
        self.shared_blocks = max(len(prompt) - 1, 0) // block_size
        self._shared_tokens = self.shared_blocks * block_size
        self._image_positions = image_positions
        self.pictures = self._placed()
        self.spans = tuple(
            PictureSpan(PictureKey(request.request_id, index), picture.grid.patches)
            for index, picture in enumerate(request.pictures)
        )
        root = shared_root(request.tenant.cache_salt) if root is None else root
        chain = Chain(root, block_size, self.pictures)
        self.choices = [
            Choice(self, index, texts[index] if texts else None, chain)
            for index in range(sampling.n)
        ]
        for choice in self.choices:
            choice.matcher = grammar.matcher() if grammar is not None else None
            choice.proposer = Proposer() if drafts else None
        self.cached_tokens = 0
        self.cached_image_tokens = 0
        self.forked = False
        self.held: set[int] = set()

    @property
    def unfinished(self) -> list[Choice]:
        return [choice for choice in self.choices if choice.finish_reason is None]

    @property
    def begun(self) -> bool:
        """Whether it had a seat before."""
        return self.choices[0].row is not None or self.choices[0].reached > 0

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt computed or found so far; choice 0 computes them for all."""
        return min(self.choices[0].reached, len(self.request.prompt))

    @property
    def prefilled(self) -> int:
        """Of ``prompt_tokens``, those that were computed."""
        return self.prompt_tokens - self.cached_tokens

    @property
    def image_tokens(self) -> int:
        """Of ``prompt_tokens``, those of pictures: patches, row breaks and ends."""
        return self._image_tokens(self.prompt_tokens)

    @property
    def timing(self) -> Timing:
        return Timing(self.arrived_at, self.started_at, self.first_token_at, self.last_token_at)

    @property
    def blocks_owed(self) -> int:
        """Most blocks that all choices together take, each at the end of its longest answer."""
        each = self.blocks_per_choice
        return each + (len(self.choices) - 1) * (each - self.shared_blocks)

    def note_cached(self, start: int, tokens: int) -> None:
        """So many tokens of the prompt, from ``start`` on, were found and never computed."""
        self.cached_tokens += tokens
        image_tokens = self._image_tokens(start + tokens) - self._image_tokens(start)
        self.cached_image_tokens += image_tokens

    def fork(self) -> list[Choice]:
        """The choices that may follow now that the prompt is computed."""
        self.forked = True
        for choice in self.choices[1:]:
            choice.chain = self.choices[0].chain.fork(self.shared_blocks)
        return self.choices[1:]

    def pictures_missing(self, choice: Choice) -> list[int]:
        """Pictures that a choice is going to read and the ranks do not hold."""
        return [
            index
            for index, end in enumerate(self._last_patches())
            if end >= choice.computed and index not in self.held
        ]

    def let_go_pictures(self) -> tuple[PictureKey, ...]:
        """Pictures that the ranks hold and no choice is going to read; told once.

        A choice that was put back does not count: it brings them again if it must.
        """
        starts = [
            choice.computed if choice.row is not None else self._shared_tokens
            for choice in self.unfinished
            if choice.row is not None or choice.reached == 0
        ]
        needed_from = min(starts, default=None)
        ends = self._last_patches()
        done = sorted(
            index for index in self.held if needed_from is None or ends[index] < needed_from
        )
        self.held.difference_update(done)
        return tuple(self.spans[index].key for index in done)

    def _image_tokens(self, tokens: int) -> int:
        """How many of the first ``tokens`` are pictures'."""
        if not self.pictures:
            return 0
        return sum(
            min(max(tokens - picture.start, 0), picture.stop - picture.start)
            for picture in self.pictures
        )

    def _placed(self) -> tuple[PlacedPicture, ...]:
        placed, offset = [], 0
        if not self._image_positions:
            return ()
        for picture in self.request.pictures:
            start = self._image_positions[offset]
            content = picture.content.encode()
            placed.append(PlacedPicture(start, start + picture.grid.tokens, content))
            offset += picture.grid.patches
        return tuple(placed)

    def _last_patches(self) -> list[int]:
        """Position of each picture's last [IMG]: its end is the token after."""
        return [picture.stop - 2 for picture in self.pictures]
