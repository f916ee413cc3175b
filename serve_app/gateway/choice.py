"""One choice of an answer: its tokens in, what the caller is shown out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from shards.call_reader import CallPart, CallReader, joined_parts
from shards.detokenizer import TextStream, Vocabulary
from shards.request import Delta, FinishReason, TokenLogprob


class Finish(StrEnum):
    """Why a choice ended, in Mistral's words; OpenAI has no MODEL_LENGTH."""

    STOP = "stop"
    LENGTH = "length"
    MODEL_LENGTH = "model_length"
    TOOL_CALLS = "tool_calls"


@dataclass(frozen=True, slots=True)
class Piece:
    """What one delta adds to a choice."""

    choice: int
    text: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    tool_calls: tuple[CallPart, ...] = ()
    finish: Finish | None = None

    @property
    def silent(self) -> bool:
        """Nothing to show: the tokens are part of a character, a stop string or a tool call."""
        return not (self.text or self.logprobs or self.tool_calls or self.finish)


@dataclass(frozen=True, slots=True)
class ReadingRules:
    """What the choices of one answer have in common.

    Attributes:
        prefix: text that the answer continues; it is shown first, as Mistral's API does.
        offers_tools: whether [TOOL_CALLS] begins calls; without tools it is a token like another.
        at_limit: what running out of tokens is called.
        whole_calls: a call is shown once it is complete, not while it is being written.
    """

    request_id: str
    vocabulary: Vocabulary
    stop: tuple[str, ...] = ()
    prefix: str = ""
    offers_tools: bool = False
    at_limit: Finish = Finish.LENGTH
    whole_calls: bool = False


class ChoiceReader:
    """Keeps one choice's text and call state. What follows [TOOL_CALLS] is held until it is a call,
    or known to be none and so text."""

    def __init__(self, choice: int, rules: ReadingRules) -> None:
        self._choice = choice
        self._rules = rules
        self._text = TextStream(rules.vocabulary, rules.stop, continues=bool(rules.prefix))
        self._unshown_prefix = rules.prefix
        self._calls: CallReader | None = None
        self._incomplete: list[CallPart] = []
        self._call_logprobs: tuple[TokenLogprob, ...] = ()

    def read(self, delta: Delta) -> Piece:
        text, self._unshown_prefix = self._unshown_prefix, ""
        token_ids, shown = delta.token_ids, _content_logprobs(delta)
        if self._calls is None:
            cut = self._call_start(token_ids)
            text += self._text.push(token_ids[:cut])
            if cut < len(token_ids):
                text += self._text.finish()
                self._text = TextStream(self._rules.vocabulary, self._rules.stop, continues=True)
                self._calls = CallReader(f"{self._rules.request_id}:{self._choice}")
            shown, held = shown[:cut], shown[cut + 1 :]
            token_ids = token_ids[cut + 1 :]
        else:
            shown, held = (), shown
        ended = delta.finish_reason is not None
        finish = None if delta.finish_reason is None else self._finish(delta.finish_reason)
        if self._calls is None:
            return Piece(
                self._choice, text + (self._text.finish() if ended else ""), shown, finish=finish
            )
        words = self._text.push(token_ids) + (self._text.finish() if ended else "")
        more, parts = self._calls.push(words)
        if ended:
            more += self._calls.finish()
            if self._calls.whole:
                finish = Finish.TOOL_CALLS
        return Piece(
            self._choice,
            text + more,
            shown + self._logprobs_of_text(self._calls, held, ended=ended),
            self._showable(parts, ended=ended),
            finish,
        )

    def _call_start(self, token_ids: tuple[int, ...]) -> int:
        """Where [TOOL_CALLS] stands; the length where it does not."""
        calls_id = self._rules.vocabulary.tool_calls_id
        if self._rules.offers_tools and calls_id in token_ids:
            return token_ids.index(calls_id)
        return len(token_ids)

    def _finish(self, reason: FinishReason) -> Finish:
        return Finish.STOP if reason is FinishReason.STOP else self._rules.at_limit

    def _logprobs_of_text(
        self, calls: CallReader, more: tuple[TokenLogprob, ...], *, ended: bool
    ) -> tuple[TokenLogprob, ...]:
        """Those of tokens that turned out to be no call."""
        held = self._call_logprobs + more
        text = calls.broken or (ended and not calls.begun)
        self._call_logprobs = () if text or calls.begun else held
        return held if text else ()

    def _showable(self, parts: Sequence[CallPart], *, ended: bool) -> tuple[CallPart, ...]:
        if not self._rules.whole_calls:
            return tuple(parts)
        calls = joined_parts([*self._incomplete, *parts])
        self._incomplete = [] if ended else [call for call in calls if not call.last]
        return tuple(call for call in calls if call.last or ended)


def merged(pieces: Iterable[Piece]) -> list[Piece]:
    """One piece per choice, by choice."""
    by_choice: dict[int, list[Piece]] = {}
    for piece in pieces:
        by_choice.setdefault(piece.choice, []).append(piece)
    return [_joined(by_choice[choice]) for choice in sorted(by_choice)]


def _joined(pieces: Sequence[Piece]) -> Piece:
    return Piece(
        pieces[0].choice,
        text="".join(piece.text for piece in pieces),
        logprobs=tuple(entry for piece in pieces for entry in piece.logprobs),
        tool_calls=joined_parts(part for piece in pieces for part in piece.tool_calls),
        finish=pieces[-1].finish,
    )


def _content_logprobs(delta: Delta) -> tuple[TokenLogprob, ...]:
    """Without the end-of-sequence or stop token, which is no content."""
    if delta.finish_reason is FinishReason.STOP and not isinstance(delta.stop, str):
        return delta.logprobs[:-1]
    return delta.logprobs
