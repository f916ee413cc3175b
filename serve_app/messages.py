"""What travels between the tiers. Arrays stay in Ray's object store; messages carry references.

gateway ─PrepareRequest─► preprocess ─Prompt(patches refs)─► gateway
gateway ─Generate─► decoder group ─Delta…─► gateway, or if the group lacks pictures' features:
decoder group ─Lacking─► gateway ─EncodeRequest─► vision ─Features(refs)─► gateway ─Generate─► …
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from serve_app.preprocess.sizing import Scaling
from serve_app.preprocess.wish import FIRST_FRAME, Detail, Wish
from shards.conversation import Conversation
from shards.grid import Grid, Size
from shards.request import GenerationRequest, Picture
from shards.stats import EngineStats
from shards.tally import Tally

# A ray.ObjectRef in the cluster; the array itself where tiers run in one process (tests).
ArrayRef = Any


@dataclass(frozen=True, slots=True)
class Trail:
    """What logs and traces say of a request in every tier.

    ``traceparent`` is W3C's, of the span that the tier's own are part of; None if it is not traced.
    """

    team: str = ""
    traceparent: str | None = None


NO_TRAIL = Trail()


@dataclass(frozen=True, slots=True)
class PictureSource:
    """A picture or document as the caller sent it; it may become several pictures.

    Attributes:
        data: its encoded bytes; none while it is yet to be fetched.
        param: the field that holds it, as the caller spells it; errors name it.
        url: where it is to be fetched from, if it came as an address.
        wish: which of its frames or pages are shown.
        detail: at which size they are seen (``preprocess/sizing.py``).
    """

    data: bytes
    param: str
    url: str | None = None
    wish: Wish = FIRST_FRAME
    detail: Detail = "auto"


@dataclass(frozen=True, slots=True)
class PrepareRequest:
    """A conversation and its pictures; an ``Image`` of the conversation is an index into them.

    ``max_pictures`` counts frames and pages, too. A prompt with pictures of more than
    ``max_prompt_tokens`` is refused before they are decoded. What is found in files is kept for
    those with the same ``cache_salt``.
    """

    request_id: str
    conversation: Conversation
    pictures: tuple[PictureSource, ...]
    max_pictures: int | None = None
    max_prompt_tokens: int | None = None
    trail: Trail = NO_TRAIL
    cache_salt: str = ""


@dataclass(frozen=True, slots=True)
class Patches:
    """One picture ready for the encoder: float32 [grid.patches, channels·patch²] behind ``ref``."""

    picture: Picture
    ref: ArrayRef


@dataclass(frozen=True, slots=True)
class Shown:
    """What became of a picture, for the bill.

    Attributes:
        param: the field that holds it or the file that it is of.
        size: width and height in pixels as it came, upright; of a page at its dots per inch.
        grid: as it is seen.
        scaling: what made it smaller; None if nothing did.
        frame, page: which of its file, if frames (from 0) or pages (from 1) were asked for.
    """

    param: str
    size: Size
    grid: Grid
    scaling: Scaling | None = None
    frame: int | None = None
    page: int | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A tokenised conversation. ``len(token_ids) == text_tokens + image_tokens``.

    ``shown`` tells of each of ``patches`` what became of it, in the order of the prompt.

    ``source`` never travels: the gateway keeps it beside the prompt until the stream ends, to
    prepare again what died with a tier.
    """

    token_ids: tuple[int, ...]
    text_tokens: int
    image_tokens: int
    patches: tuple[Patches, ...] = ()
    shown: tuple[Shown, ...] = ()
    source: PrepareRequest | None = None

    @property
    def patch_count(self) -> int:
        return sum(each.picture.grid.patches for each in self.patches)

    @property
    def trail(self) -> Trail:
        return NO_TRAIL if self.source is None else self.source.trail


@dataclass(frozen=True, slots=True)
class EncodeRequest:
    """Features are kept for those with the same ``cache_salt``, as the engine's prefixes are."""

    request_id: str
    patches: tuple[Patches, ...]
    trail: Trail = NO_TRAIL
    cache_salt: str = ""


@dataclass(frozen=True, slots=True)
class Features:
    """One picture's features before the projector: [grid.patches, vision hidden] behind ``ref``.

    numpy has no bfloat16: a uint16 array holds bfloat16 bits.
    """

    picture: Picture
    ref: ArrayRef


@dataclass(frozen=True, slots=True)
class Generate:
    """A request and the features of those of its pictures that the group is not trusted to have."""

    request: GenerationRequest
    features: tuple[Features, ...] = ()
    trail: Trail = NO_TRAIL


@dataclass(frozen=True, slots=True)
class Lacking:
    """A group's whole answer to a request that it did not begin: which of its pictures have
    features that were neither brought nor kept here, by their places among its pictures."""

    pictures: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class JournalPage:
    """A stretch of one group's journal: the latest tally of each choice it speaks of.

    Attributes:
        offset: the bookmark to go on from, in bytes.
        more: whether there was more to read when this was read. A busy group always has more a
            moment later, so who reads on until a page is empty may never end.
        lost: bytes of this stretch that are damaged or gone. Never but for a failing disk, or
            bookmarks older than what is kept; counts may be missing, so it is an alarm.
    """

    group: str
    offset: int
    tallies: tuple[Tally, ...]
    more: bool = False
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Pulse:
    """A decoder group's sign of life.

    Attributes:
        token_age_s: since the engine last generated a token, for a caller or as a canary.
        stats: the engine's counters as last heard.
    """

    group: str
    token_age_s: float
    token_timeout_s: float
    stats: EngineStats
    rank_pids: tuple[int, ...]
