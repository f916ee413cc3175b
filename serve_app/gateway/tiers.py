"""What the gateway needs of the tiers behind it; ``serve_handles.py`` keeps the promise over Ray.

The gateway's own tests run it over an in-process engine.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from serve_app.messages import JournalPage, PrepareRequest, Prompt, Pulse
from shards.request import Delta, GenerationRequest


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether every group that takes traffic has generated a token of late, and if not, why."""

    ready: bool
    reasons: tuple[str, ...] = ()


class Tiers(Protocol):
    async def prepare(self, request: PrepareRequest) -> Prompt:
        """Decode pictures and tokenise.

        Raises:
            ApiError: the conversation or a picture is invalid (field named), or no tier is ready.
        """

    def generate(
        self, request: GenerationRequest, prompt: Prompt
    ) -> AsyncGenerator[tuple[Delta, ...], None]:
        """Encode the prompt's pictures and generate.

        Each item holds the deltas that were ready, in order, never none; the last delta of each of
        the ``n`` choices has a finish reason, then the generator ends. Closing it early aborts the
        request in the engine. A tier lost before the first item is retried elsewhere.

        Raises:
            ApiError: refused or failed (``GenerationFailed`` once tokens were delivered).
        """

    async def abort(self, request_ids: Sequence[str]) -> None:
        """End requests in every group, whoever asked for them; unknown ids are fine.

        Their open streams end with ABORT deltas, whose counts are final. When this returns, every
        living group has journaled its last word on them.

        Raises:
            Overloaded: a group did not answer; what it computed for them is not final yet.
        """

    async def journal(self, bookmarks: Mapping[str, int]) -> tuple[JournalPage, ...]:
        """What the groups' journals hold beyond ``bookmarks`` (group → offset, else from its
        start), those of dead groups too. Pages are bounded: ask again while one has ``more``.

        What lies before a bookmark may be removed, so pass only what is safely stored.

        Raises:
            Overloaded: a group did not answer.
        """

    async def computed(self) -> Mapping[str, int]:
        """Tokens that each running group has computed since it started, as it counts them itself;
        not those that it found in its prefix cache.

        Raises:
            Overloaded: a group did not answer.
        """

    async def groups(self) -> Sequence[Pulse | None]:
        """What each running group says of itself now; None for one that does not answer."""

    async def readiness(self) -> Readiness: ...
